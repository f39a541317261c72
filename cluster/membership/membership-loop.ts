import type { Clock } from "../../proto/clock.ts";

/** Passes, one after another, for as long as there is something to do. */
export interface PassLoop {
  /** Ends a rest, or makes the pass in hand be followed by another one at once. Many wake-ups make one pass. */
  wake(): void;
  /** Begins no further pass. */
  close(): void;
}

/** Runs `pass` until it is closed. A pass returns after how many milliseconds the next one is due, and never rejects. */
export function startPassLoop(clock: Clock, pass: () => Promise<number>): PassLoop {
  let status: "open" | "closed" = "open";
  let woken = false;
  let endRest = (): void => {};
  const rest = (ms: number): Promise<void> =>
    new Promise((resolve) => {
      const stop = clock.after(ms, resolve);
      endRest = () => {
        stop();
        resolve();
      };
    });
  const run = async (): Promise<void> => {
    while (status === "open") {
      const restMs = await pass();
      if (!woken && restMs > 0 && status === "open") await rest(restMs);
      woken = false;
    }
  };
  const wake = (): void => {
    woken = true;
    endRest();
  };
  clock.soon(() => void run());
  return {
    wake,
    close: () => {
      status = "closed";
      wake();
    },
  };
}
