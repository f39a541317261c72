import { getHeapStatistics } from "node:v8";

/** What one part of a stage has cost so far. */
interface Sums {
  /** Slices, in which no garbage was collected: µs, bytes, datapoints. */
  us: number;
  heap: number;
  clean: number;
  /** All slices. */
  allUs: number;
  datapoints: number;
}

/**
 * Measures slices of work by part of a stage: processor time of the process, and what the JavaScript heap grows by.
 * A slice after which the heap is smaller was interrupted by the collector. It counts as the others of its part do
 * on average, and what it took beyond that is the collector's.
 */
export interface StageMeter {
  measure<T>(part: string, datapoints: number, run: () => T): T;
  measureAsync<T>(part: string, datapoints: number, run: () => Promise<T>): Promise<T>;
  /** µs and bytes in all, by part. */
  parts(): ReadonlyMap<string, { readonly us: number; readonly heap: number }>;
  /** µs of the collector. */
  gcUs(): number;
  reset(): void;
}

/** A meter that has measured nothing. */
export function createStageMeter(): StageMeter {
  const sums = new Map<string, Sums>();
  const begin = () => ({ heap: getHeapStatistics().used_heap_size, cpu: process.cpuUsage() });
  const end = (part: string, datapoints: number, { heap, cpu }: ReturnType<typeof begin>): void => {
    const { user, system } = process.cpuUsage(cpu);
    const grown = getHeapStatistics().used_heap_size - heap;
    const known = sums.get(part) ?? { us: 0, heap: 0, clean: 0, allUs: 0, datapoints: 0 };
    sums.set(part, known);
    known.allUs += user + system;
    known.datapoints += datapoints;
    if (grown < 0) return;
    known.us += user + system;
    known.heap += grown;
    known.clean += datapoints;
  };
  return {
    measure: (part, datapoints, run) => {
      const before = begin();
      const result = run();
      end(part, datapoints, before);
      return result;
    },
    measureAsync: async (part, datapoints, run) => {
      const before = begin();
      const result = await run();
      end(part, datapoints, before);
      return result;
    },
    parts: () =>
      new Map(
        [...sums].map(([part, { us, heap, ...rest }]) => [part, { us: us * scale(rest), heap: heap * scale(rest) }]),
      ),
    gcUs: () => [...sums.values()].reduce((sum, one) => sum + one.allUs - one.us * scale(one), 0),
    reset: () => sums.clear(),
  };
}

function scale({ clean, datapoints }: Pick<Sums, "clean" | "datapoints">): number {
  return clean === 0 ? 0 : datapoints / clean;
}
