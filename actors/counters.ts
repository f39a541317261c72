import { createHistogram, type Histogram, secondsBounds } from "./histogram.ts";

/** Counters by name; a name is `what` or `what/label`. Reference 12 names those of hooks. */
export interface Counters {
  add(name: string, by?: number): void;
  /** The counter of a name, for those who count often. */
  counter(name: string): Counter;
  /** A copy of all counters that are not zero. */
  read(): Record<string, number>;
  /** The histogram of a name; `bounds` are those of its first caller, default {@link secondsBounds}. */
  histogram(name: string, bounds?: readonly number[]): Histogram;
}

/** One number that only grows. */
export interface Counter {
  value: number;
}

/** All at zero. Without `measures` its histograms have one bucket: nobody will look at more than their sums. */
export function createCounters({ measures = true }: { readonly measures?: boolean } = {}): Counters {
  const counters = new Map<string, Counter>();
  const histograms = new Map<string, Histogram>();
  const counter = (name: string): Counter => {
    const known = counters.get(name);
    if (known !== undefined) return known;
    const made = { value: 0 };
    counters.set(name, made);
    return made;
  };
  return {
    add: (name, by = 1) => {
      counter(name).value += by;
    },
    counter,
    read: () => {
      const counts = [...counters].map(([name, { value }]): [string, number] => [name, value]);
      return Object.fromEntries(counts.filter(([, value]) => value !== 0));
    },
    histogram: (name, bounds = secondsBounds) => {
      const known = histograms.get(name);
      if (known !== undefined) return known;
      const made = createHistogram(measures ? bounds : []);
      histograms.set(name, made);
      return made;
    },
  };
}
