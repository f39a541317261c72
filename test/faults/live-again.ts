import type { Ack } from "../support/cluster/cluster-load.ts";

/** How soon after the last fault everything is served again. */
export const liveWithinMs = 15_000;

interface AfterFaults {
  /** When the last fault was over (ms of `performance.now()`). */
  readonly mendedMs: number;
  /** What nobody owned still when it was looked at last, so much later. */
  readonly unowned: readonly string[];
  readonly ownedMs: number;
  readonly acks: readonly Ack[];
}

/**
 * How long after the last fault it took until every shard was owned, and all that was sent, before it or since, was
 * acknowledged within that time, while the load went on. Some of the load asks for `processed`: its backlog is empty then.
 */
export function liveAgain({ mendedMs, unowned, ownedMs, acks }: AfterFaults): {
  readonly liveMs: number;
  readonly problems: readonly string[];
} {
  const waits = acks.map(({ sentMs, ackedMs }) => ackedMs - Math.max(sentMs, mendedMs));
  const waitMs = Math.round(waits.reduce((longest, ms) => Math.max(longest, ms), 0));
  const problems = unowned.slice(0, 5).map((one) => `${liveWithinMs} ms after the last fault: ${one}`);
  if (waitMs > liveWithinMs) problems.push(`after the last fault a batch has waited for ${waitMs} ms`);
  return { liveMs: Math.max(Math.round(ownedMs), waitMs), problems };
}
