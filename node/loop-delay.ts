import { createHistogram, type Histogram, secondsBounds } from "../actors/histogram.ts";
import { beatAfter, type Clock } from "../proto/clock.ts";

const everyMs = 500;

/** Looks about twice a second how late the event loop is; not where nobody will read it. */
export function watchLoopDelay(clock: Clock, isRead: boolean): { readonly seconds: Histogram; close(): void } {
  const seconds = createHistogram(secondsBounds);
  let cancel = () => {};
  const look = (): void => {
    const nowMs = clock.now();
    const dueMs = beatAfter(nowMs, everyMs);
    cancel = clock.after(dueMs - nowMs, () => {
      seconds.observe(Math.max(0, clock.now() - dueMs) / 1000);
      look();
    });
  };
  if (isRead) look();
  return { seconds, close: () => cancel() };
}
