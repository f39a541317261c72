/** Monotonic time and timers, given to whatever waits, so that a test can run it under a clock of its own. */
export interface Clock {
  /** Milliseconds since some fixed instant; never backwards. */
  now(): number;
  /** Calls `run` once when `ms` milliseconds have passed by `now`, and not before. Returns the cancelling. */
  after(ms: number, run: () => void): () => void;
  /** Calls `run` once when the current turn of the event loop has ended. */
  soon(run: () => void): void;
}

/** What is done about every so often is done at multiples of this. */
const beatMs = 200;

/**
 * How long to wait with what is to be done in about `ms`: until the nearest beat, with all else of its kind. So a node in which
 * nothing happens wakes up a few times in a second, not once for each of them. What is shorter than a beat is waited for as it is.
 */
export function untilBeat(clock: Clock, ms: number): number {
  const nowMs = clock.now();
  return ms < beatMs ? ms : Math.round((nowMs + ms) / beatMs) * beatMs - nowMs;
}

/** Calls `run` once in about `ms` milliseconds, together with others; it is told how late it comes. Returns the cancelling. */
export function atBeat(clock: Clock, ms: number, run: (lateMs: number) => void): () => void {
  const waitMs = untilBeat(clock, ms);
  const dueMs = clock.now() + waitMs;
  return clock.after(waitMs, () => run(Math.max(0, clock.now() - dueMs)));
}

/** The clock of this process. */
export const systemClock: Clock = {
  now: () => performance.now(),
  after: (ms, run) => {
    const dueMs = performance.now() + ms;
    // Node.js counts in whole milliseconds: half of its timers are early by a part of one.
    const look = (): void => {
      const leftMs = dueMs - performance.now();
      if (leftMs <= 0) run();
      else timer = setTimeout(look, leftMs);
    };
    let timer = setTimeout(look, ms);
    return () => clearTimeout(timer);
  },
  soon: (run) => {
    setImmediate(run);
  },
};
