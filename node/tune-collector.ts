import { availableParallelism } from "node:os";
import { PerformanceObserver } from "node:perf_hooks";
import { getHeapSpaceStatistics, setFlagsFromString } from "node:v8";

/** What the old objects may grow by before they are marked again, where it is less than {@link growthPercent}. */
const growthBytes = 450 * 2 ** 20;
const growthPercent = 300;

/**
 * Lets the collector mark the heap on half of the processors, of which one is the node's own. By default it takes as many
 * threads as V8 has, four, on however few: then they stand in each other's way and in PostgreSQL's, mark for 1.7 s of
 * processor time where one takes 0.5 s, and acknowledgements wait.
 *
 * And lets the old objects grow to four times what was left of them before it marks again, but by {@link growthBytes} at most.
 * By default they grow so far at full speed only: the less a node allocates, the less V8 lets the heap grow, down to a tenth.
 * Then some of the nodes with little to do marked a heap of 60 MB every second, for half of their processor time. And a large
 * heap would have four times its size.
 */
export function tuneCollector(processors = availableParallelism()): void {
  setFlagsFromString(`--concurrent-marking-max-worker-num=${Math.max(1, Math.floor(processors / 2))}`);
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
