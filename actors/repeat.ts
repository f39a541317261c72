import type { Clock } from "../proto/clock.ts";
import type { NextDeadline } from "./schedules/schedule-cron.ts";

export interface RepeatOptions {
  /** Null: never. */
  readonly next: NextDeadline | null;
  readonly run: () => Promise<unknown>;
  /** A run failed: the next one is at its time. */
  readonly onFailure: (error: unknown) => void;
  readonly clock: Clock;
  /** Unix ms. */
  readonly wall: () => number;
}

/** How late a wall clock that was set is noticed. */
const lookEveryMs = 60_000;

/** Runs something at every deadline; one that comes while a run is going on is left out. */
export function repeat({ next, run, onFailure, clock, wall }: RepeatOptions): { close(): Promise<void> } {
  let running: Promise<unknown> = Promise.resolve();
  let closed = false;
  let cancel = (): void => {};
  const wait = (due: number | null): void => {
    if (due === null || closed) return;
    cancel = clock.after(Math.max(0, Math.min(due - wall(), lookEveryMs)), () => {
      if (wall() < due) return wait(due);
      running = run()
        .catch((error: unknown) => {
          if (!closed) onFailure(error);
        })
        .then(() => wait(next?.(wall()) ?? null));
    });
  };
  wait(next?.(wall()) ?? null);
  return {
    close: async () => {
      closed = true;
      cancel();
      await running;
    },
  };
}
