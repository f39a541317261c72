import { createHistogram, type Histogram, secondsBounds } from "../actors/histogram.ts";
import type { Clock } from "../proto/clock.ts";

const everyMs = 100;

/** Looks ten times a second how late the event loop is. */
export function watchLoopDelay(clock: Clock): { readonly seconds: Histogram; close(): void } {
  const seconds = createHistogram(secondsBounds);
  let cancel = () => {};
  const look = (): void => {
    const dueMs = clock.now() + everyMs;
    cancel = clock.after(everyMs, () => {
      seconds.observe(Math.max(0, clock.now() - dueMs) / 1000);
      look();
    });
  };
  look();
  return { seconds, close: () => cancel() };
}
