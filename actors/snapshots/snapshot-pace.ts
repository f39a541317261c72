import type { Clock } from "../../proto/clock.ts";

/** When the next page of a snapshot run may be made: where datapoints arrive as well, runs give way to them. */
export interface SnapshotPace {
  /** Makes a page; beside datapoints one after another, with rests between them that nobody's result waits for. */
  page<T>(make: () => Promise<T>): Promise<T>;
}

export interface SnapshotPaceOptions {
  readonly clock: Clock;
  /** How long appends and flushes have taken in all, in seconds: those of several lanes add up. */
  readonly writeSeconds: () => number;
  /** Of the time, while one of them is on its way all of it: above 0, at most 1. */
  readonly share: number;
}

/** Appends and flushes take so much of the time at least before anything is held back. */
const quietBelow = 0.05;
const sampleMs = 500;
const restMaxMs = 1_000;

/** The pace of one node. */
export function createSnapshotPace({ clock, writeSeconds, share }: SnapshotPaceOptions): SnapshotPace {
  let sampled = { atMs: clock.now(), seconds: writeSeconds() };
  let busy = 0;
  let turn: Promise<void> = Promise.resolve();

  /** The part of the last half second, or of a longer time without pages, in which one was on its way. */
  const look = (): number => {
    const next = { atMs: clock.now(), seconds: writeSeconds() };
    const passedMs = next.atMs - sampled.atMs;
    if (passedMs < sampleMs) return busy;
    busy = Math.min(1, ((next.seconds - sampled.seconds) * 1000) / passedMs);
    sampled = next;
    return busy;
  };

  return {
    page: async (make) => {
      if (look() < quietBelow) return make();
      const before = turn;
      let end = (): void => {};
      turn = new Promise((resolve) => {
        end = resolve;
      });
      await before;
      const begunMs = clock.now();
      try {
        return await make();
      } finally {
        const restMs = (clock.now() - begunMs) * look() * (1 / share - 1);
        clock.after(Math.min(restMs, restMaxMs), end);
      }
    },
  };
}

/** Nobody gives way. */
export const unpaced: SnapshotPace = { page: (make) => make() };
