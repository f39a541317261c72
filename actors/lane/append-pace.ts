/** How often a lane appends lately, and how much of its time that takes: means over some appends. Monotonic ms. */
export interface AppendPace {
  /** When the last one was begun. */
  begunAt: number;
  /** How far apart they are. */
  everyMs: number;
  /** The part of the time in which one is in flight, 0 to 1. */
  share: number;
  /** How long the last one took. */
  tookMs: number;
}

/** How many appends the means are of, about. */
const weight = 4;

/** Of a lane that has never appended. */
export function createAppendPace(): AppendPace {
  return { begunAt: 0, everyMs: 0, share: 0, tookMs: 0 };
}

/** An append begins. `maxMs`: a longer pause says no more than one of that length. */
export function appendBegins(pace: AppendPace, now: number, maxMs: number): void {
  const sinceMs = now - pace.begunAt;
  pace.everyMs += (Math.min(sinceMs, maxMs) - pace.everyMs) / weight;
  pace.share += (Math.min(1, pace.tookMs / Math.max(sinceMs, 1)) - pace.share) / weight;
  pace.begunAt = now;
}

/** The append that was begun last has ended. */
export function appendEnds(pace: AppendPace, now: number): void {
  pace.tookMs = now - pace.begunAt;
}

/** At least so much of its time is left to a lane's flushes. */
const flushShareMin = 1 / 28;

/** The part of a lane's time that its flushes may take: half of what its appends leave. */
export function flushShare({ share }: AppendPace): number {
  return Math.max(flushShareMin, (1 - share) / 2);
}
