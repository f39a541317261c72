import type { Clock } from "../../proto/clock.ts";

/** What a lane does later, while it runs. */
export interface LaneTimers {
  /** At once if there is nothing to wait for. Of a lane that has ended nothing is done later: it would come back for ever. */
  after(ms: number, run: () => void): void;
  /** Forgets all that was to be done. */
  end(): void;
}

export function createLaneTimers(clock: Clock): LaneTimers {
  const timers = new Set<() => void>();
  let isOver = false;
  return {
    after: (ms, run) => {
      if (ms <= 0) return run();
      if (isOver) return;
      const cancel = clock.after(ms, () => {
        timers.delete(cancel);
        run();
      });
      timers.add(cancel);
    },
    end: () => {
      isOver = true;
      for (const cancel of timers) cancel();
      timers.clear();
    },
  };
}
