import { createHistogram, type Histogram, secondsBounds } from "../actors/histogram.ts";
import { atBeat, type Clock } from "../proto/clock.ts";

const everyMs = 500;

/** Looks about twice a second how late the event loop is; not where nobody will read it. */
export function watchLoopDelay(clock: Clock, isRead: boolean): { readonly seconds: Histogram; close(): void } {
  const seconds = createHistogram(secondsBounds);
  let cancel = () => {};
  const look = (): void => {
    cancel = atBeat(clock, everyMs, (lateMs) => {
      seconds.observe(lateMs / 1000);
      look();
    });
  };
  if (isRead) look();
  return { seconds, close: () => cancel() };
}
