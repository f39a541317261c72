import { setImmediate } from "node:timers/promises";
import type { Clock } from "../../proto/clock.ts";

/** A clock that goes on only when it is told to. */
export interface ManualClock extends Clock {
  /** Lets time pass, running what falls due in order, and all that follows from it. */
  advance(ms: number): Promise<void>;
  /** Timers that are set. */
  readonly timers: number;
}

/** A clock at zero. */
export function createManualClock(): ManualClock {
  let now = 0;
  const due = new Set<{ readonly at: number; readonly run: () => void }>();
  return {
    now: () => now,
    after: (ms, run) => {
      const timer = { at: now + ms, run };
      due.add(timer);
      return () => due.delete(timer);
    },
    soon: (run) => queueMicrotask(run),
    advance: async (ms) => {
      const until = now + ms;
      for (;;) {
        await setImmediate();
        const [next] = [...due].filter(({ at }) => at <= until).sort((a, b) => a.at - b.at);
        if (next === undefined) break;
        due.delete(next);
        now = next.at;
        next.run();
      }
      now = until;
    },
    get timers() {
      return due.size;
    },
  };
}
