const minMs = 1000;
/** Outside a node serves nobody, and there may be nobody else: not for long. */
const maxMs = 8_000;

/** How long a node stays outside that was given up, so many times before. ms; `random` is from 0 to below 1. */
export function backOffAfter(expulsions: number, random: () => number): number {
  return Math.min(maxMs, minMs * 2 ** expulsions) * (1 + random() / 10);
}
