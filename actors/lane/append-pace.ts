/** How often a lane appends lately, and how much of its time that takes: means over some appends. Monotonic ms. */
export interface AppendPace {
  /** When the last one was begun, and how long the one before took. */
  begunAt: number;
  tookMs: number;
  /** How far apart they are. */
  everyMs: number;
  /** The part of the time in which one is in flight, 0 to 1: of two means, so that pauses count for as long as they are. */
  share: number;
  sinceMeanMs: number;
  tookMeanMs: number;
}

/** How many appends the pace is a mean of, about, and how many the share: more, since they may come in bursts. */
const weight = 4;
const shareWeight = 16;

/** Of a lane that has never appended. */
export function createAppendPace(): AppendPace {
  return { begunAt: 0, tookMs: 0, everyMs: 0, share: 0, sinceMeanMs: 0, tookMeanMs: 0 };
}

/** An append begins. `maxMs`: a longer pause says no more than one of that length. */
export function appendBegins(pace: AppendPace, now: number, maxMs: number): void {
  const sinceMs = Math.min(now - pace.begunAt, maxMs);
  pace.everyMs += (sinceMs - pace.everyMs) / weight;
  pace.sinceMeanMs += (sinceMs - pace.sinceMeanMs) / shareWeight;
  pace.tookMeanMs += (Math.min(pace.tookMs, sinceMs) - pace.tookMeanMs) / shareWeight;
  pace.share = pace.sinceMeanMs > 0 ? pace.tookMeanMs / pace.sinceMeanMs : 0;
  pace.begunAt = now;
  pace.tookMs = 0;
}

/** The append that was begun last has ended. */
export function appendEnds(pace: AppendPace, now: number): void {
  pace.tookMs = now - pace.begunAt;
}

/** So much of its time is left to a lane's flushes at least, and at most. */
const flushShareMin = 1 / 28;
const flushShareMax = 1 / 2;

/** The part of a lane's time that its flushes may take: what its appends leave, squared. The busier those are, the less of the rest. */
export function flushShare({ share }: AppendPace): number {
  return Math.min(flushShareMax, Math.max(flushShareMin, (1 - share) ** 2));
}
