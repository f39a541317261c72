import type { Clock } from "../../proto/clock.ts";

/** What a lane does later, while it runs. */
export interface LaneTimers {
  /** At once if there is nothing to wait for. Of a lane that has ended nothing is done later: it would come back for ever. */
  after(ms: number, run: () => void): void;
  /** A way of its own to do one thing later: what it was to do before is forgotten. */
  slot(): (ms: number, run: () => void) => void;
  /** Forgets all that was to be done. */
  end(): void;
}

export function createLaneTimers(clock: Clock): LaneTimers {
  const timers = new Set<() => void>();
  let isOver = false;
  const set = (ms: number, run: () => void): (() => void) => {
    if (isOver) return () => {};
    const cancel = clock.after(ms, () => {
      timers.delete(cancel);
      run();
    });
    timers.add(cancel);
    return () => {
      if (timers.delete(cancel)) cancel();
    };
  };
  return {
    after: (ms, run) => {
      if (ms <= 0) run();
      else set(ms, run);
    },
    slot: () => {
      let forget = (): void => {};
      return (ms, run) => {
        forget();
        forget = set(ms, run);
      };
    },
    end: () => {
      isOver = true;
      for (const cancel of timers) cancel();
      timers.clear();
    },
  };
}
