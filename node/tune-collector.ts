import { PerformanceObserver } from "node:perf_hooks";
import { getHeapSpaceStatistics, setFlagsFromString } from "node:v8";

/** What the old objects may grow by before they are marked again, where it is less than {@link growthPercent}. */
const growthBytes = 450 * 2 ** 20;
const growthPercent = 300;

/**
 * Lets the old objects grow to four times what was left of them before the collector marks again, but by {@link growthBytes} at most.
 * By default they grow so far at full speed only: the less a node allocates, the less V8 lets the heap grow, down to a tenth.
 * Then some of the nodes with little to do marked a heap of 60 MB every second, for half of their processor time. And a large
 * heap would have four times its size.
 */
export function tuneCollector(): void {
  allowGrowth(growthPercent);
  let allowed = growthPercent;
  const observer = new PerformanceObserver(() => {
    const percent = heapGrowth(oldBytes());
    if (percent !== allowed) allowGrowth(percent);
    allowed = percent;
  });
  observer.observe({ entryTypes: ["gc"] });
}

/**
 * How far a heap may grow, in percent of what the next marking leaves, of which is known only that it is at most `bytes`, the
 * old objects before it.
 */
export function heapGrowth(bytes: number): number {
  return Math.min(growthPercent, Math.max(1, Math.floor((100 * growthBytes) / bytes)));
}

/** V8 reads it whenever it has marked. */
function allowGrowth(percent: number): void {
  setFlagsFromString(`--heap-growing-percent=${percent}`);
}

function oldBytes(): number {
  return getHeapSpaceStatistics()
    .filter(({ space_name: name }) => name !== "new_space" && name !== "new_large_object_space")
    .reduce((sum, { space_used_size: used }) => sum + used, 0);
}
