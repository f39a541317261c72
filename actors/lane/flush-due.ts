import { flushShare } from "./append-pace.ts";
import type { Lane } from "./lane.ts";
import { needsMark } from "./poison.ts";

/** A lane that has had nothing to append for so long, and for longer than usual, is quiet: its flushes need not wait. */
const quietMs = 100;
const quietPaces = 3;
/** What fewer entities changed is written the sooner the fewer they are, but not at once. */
const fewEntities = 200;
const soonMs = 50;
/** So many intervals a flush rests at most: one that took long, as PostgreSQL was away, says nothing of the next one. */
const restIntervals = 4;

/**
 * When the next flush is due. What few entities changed is written soon, unless more of them come fast. Under load what changed
 * waits for the interval, so that changes of one entity coalesce, and is written by then if there is time for it: flushes take
 * a part of the time that appends leave (`append-pace.ts`). So a lane that can keep up writes everything within the interval, and one
 * that cannot gives most of PostgreSQL to appends, and coalesces more; the more waits for the watermark, the less flushes wait.
 */
export function flushDueAt(lane: Lane, newsSince: number): number {
  const { limits } = lane.world;
  const { begunAt, everyMs } = lane.pace;
  const quietAt = begunAt + Math.min(Math.max(quietMs, quietPaces * everyMs), limits.flushIntervalMs);
  const idle = lane.commit === null && lane.waiting.size === 0 && quietAt <= lane.now;
  if (idle || needsMark(lane) || lane.status === "closing") return lane.now;
  const ease = Math.max(0, 1 - (2 * lane.backlogBytes) / limits.backlogMaxBytes);
  if (lane.dirtyEntities < fewEntities) {
    return newsSince + Math.max(soonMs, (ease * limits.flushIntervalMs * lane.dirtyEntities) / fewEntities);
  }
  const { tookMs, endedAt } = endOfFlush(lane);
  const share = flushShare(lane.pace);
  const restMs = Math.min((tookMs * (1 - share)) / share, restIntervals * limits.flushIntervalMs);
  const [oldest] = lane.dirty;
  const ripeAt = (oldest?.dirtySince ?? newsSince) + ease * Math.max(0, limits.flushIntervalMs - tookMs);
  return Math.max(newsSince + soonMs, endedAt + ease * restMs, ripeAt);
}

/** Of the last flush; of one in hand, as if it ended now. */
function endOfFlush({ flush, lastFlush, now }: Lane): Lane["lastFlush"] {
  return flush === null ? lastFlush : { endedAt: now, tookMs: now - flush.startedAt };
}
