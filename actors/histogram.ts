/** Counts how often a quantity fell below each of its bounds. Observing allocates nothing. */
export interface Histogram {
  /** Ascending upper bounds, inclusive; above the last one everything falls into one more bucket. */
  readonly bounds: readonly number[];
  /** `weight`: how many observations this one stands for; default one. */
  observe(value: number, weight?: number): void;
  /** Per bucket, not cumulated: one more than there are bounds. */
  counts(): Float64Array;
  /** Of all observed values. */
  sum(): number;
}

/** Seconds from what a statement takes at best to what nobody waits for. */
export const secondsBounds: readonly number[] = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30,
];

/** Seconds of what ends at once most often, such as a synchronous hook. */
export const shortSecondsBounds: readonly number[] = [
  0.000_001, 0.000_01, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30,
];

/** A histogram without observations. */
export function createHistogram(bounds: readonly number[]): Histogram {
  const buckets = new Float64Array(bounds.length + 1);
  const total = new Float64Array(1);
  return {
    bounds,
    observe: (value, weight = 1) => {
      let bucket = 0;
      while (bucket < bounds.length && value > (bounds[bucket] ?? 0)) bucket++;
      buckets[bucket] = (buckets[bucket] ?? 0) + weight;
      total[0] = (total[0] ?? 0) + value * weight;
    },
    counts: () => buckets.slice(),
    sum: () => total[0] ?? 0,
  };
}
