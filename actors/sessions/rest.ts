/** How long a sender waits before it offers a part again, after so many rests in a row, in ms. */
export function restMs(rests: number, refusal: "busy" | "away"): number {
  if (refusal === "busy") return Math.min(restMinMs * 2 ** Math.min(rests, 10), restMaxMs);
  return Math.min(Math.round(awayRestMinMs * 1.25 ** Math.min(rests, 20)), awayRestMaxMs);
}

/** An owner that has too much to do. */
export const restMinMs = 20;
export const restMaxMs = 500;
/** No owner now: a shard that moves is back within a tenth of a second, and to ask costs its owner nothing. */
export const awayRestMinMs = 10;
export const awayRestMaxMs = 150;
