/** Monotonic time and timers, given to whatever waits, so that a test can run it under a clock of its own. */
export interface Clock {
  /** Milliseconds since some fixed instant; never backwards. */
  now(): number;
  /** Calls `run` once after `ms` milliseconds. Returns the cancelling. */
  after(ms: number, run: () => void): () => void;
  /** Calls `run` once when the current turn of the event loop has ended. */
  soon(run: () => void): void;
}

/** What is done about every so often is done at multiples of this. */
const beatMs = 200;

/**
 * When what is to be done in about `ms` is done, by a clock that says `nowMs`: at the nearest beat, with all else of its kind. So
 * a node in which nothing happens wakes up a few times in a second, not once for each of them. What is shorter than a beat is
 * waited for as it is.
 */
export function beatAfter(nowMs: number, ms: number): number {
  return ms < beatMs ? nowMs + ms : Math.round((nowMs + ms) / beatMs) * beatMs;
}

/** Calls `run` once in about `ms` milliseconds, together with others. Returns the cancelling. */
export function atBeat(clock: Clock, ms: number, run: () => void): () => void {
  const nowMs = clock.now();
  return clock.after(beatAfter(nowMs, ms) - nowMs, run);
}

/** The clock of this process. */
export const systemClock: Clock = {
  now: () => performance.now(),
  after: (ms, run) => {
    const timer = setTimeout(run, ms);
    return () => clearTimeout(timer);
  },
  soon: (run) => {
    setImmediate(run);
  },
};
