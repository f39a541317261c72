/** Counters by name; a name is `what` or `what/label`. Reference 12 names those of hooks. */
export interface Counters {
  add(name: string, by?: number): void;
  /** A copy of all counters. */
  read(): Record<string, number>;
}

export function createCounters(): Counters {
  const counts = new Map<string, number>();
  return {
    add: (name, by = 1) => {
      counts.set(name, (counts.get(name) ?? 0) + by);
    },
    read: () => Object.fromEntries(counts),
  };
}
