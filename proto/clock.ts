/** Monotonic time and timers, given to whatever waits, so that a test can run it under a clock of its own. */
export interface Clock {
  /** Milliseconds since some fixed instant; never backwards. */
  now(): number;
  /** Calls `run` once after `ms` milliseconds. Returns the cancelling. */
  after(ms: number, run: () => void): () => void;
  /** Calls `run` once when the current turn of the event loop has ended. */
  soon(run: () => void): void;
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
