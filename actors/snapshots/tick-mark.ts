import { type Epoch, type Seq, type ShardId, toSeq } from "../../proto/ids.ts";
import type { Lane } from "../lane/lane.ts";
import { isSealed, type Shard } from "../lane/shard.ts";
import type { ReadSegment } from "../log/segment.ts";
import type { TickPlace } from "../store/tick.ts";

/**
 * The cut of a tick (DESIGN 7): each shard's log has one entry for it, the mark M. What the tick computes of an entity is what
 * it is after the entries up to M, while the log goes on.
 *
 *  C1  A page (`Store.readTickPage`) gives an entity as it is after exactly its entries up to M, whatever is applied meanwhile:
 *      the first entry behind M that changes it keeps its image (`tick-image.ts`). What an obligation holds (R16) counts as
 *      behind M, with all that waits behind it in its entity, unless it was applied before.
 *  C2  If an entry at or below its shard's mark was derived from another one, that one is below its own shard's mark. For an
 *      answer stands behind its cause; a part of an outbox carries the tick that its shard had when it was sent, which is none
 *      before that of its line; and it is appended behind the mark that it causes.
 *  C3  A shard has one mark per tick, and ticks grow.
 *  C4  C1 to C3 hold whoever dies. Of the marks the log tells, and of those that the watermark has passed the row that it is
 *      passed with; all are known before the first line is sent again or the first entry is applied.
 *
 * C2 speaks of what was derived. What a hook saw of other entities (`ctx.get`), or a client before it sent something, may be
 * of after the mark.
 */
export interface Cut {
  readonly tick: number;
  /** M. */
  readonly seq: Seq;
  /** Once the watermark has passed M, entities may be read. "over": nobody will, but the watermark is still to pass M. */
  status: "waiting" | "open" | "over";
  /** The visit has durably passed the places up to here: nobody reads them as of M any more; null: none. */
  passed: TickPlace | null;
}

/** A shard's cut that is open: from `passed` on entities can be read as they were at the mark. */
export interface OpenCut {
  readonly shard: ShardId;
  readonly epoch: Epoch;
  readonly tick: number;
  readonly seq: Seq;
  readonly passed: TickPlace | null;
}

/** A mark on its way into the log. */
export interface MarkBlock {
  readonly kind: "mark";
  readonly tick: number;
}

/** A tick runs: shards that have no mark of it, or of a later one, get one; those that come later, too. */
export function learnTick(lane: Lane, tick: number): void {
  if (tick <= lane.tick) return;
  lane.tick = tick;
  for (const shard of lane.shards.values()) markShard(lane, shard, tick);
}

/** Appends a mark, unless there is one (C3). What is put behind it from now on stands behind it in the log. */
export function markShard(lane: Lane, shard: Shard, tick: number): void {
  if (tick <= shard.tick || isSealed(shard)) return;
  shard.tick = tick;
  shard.blocks.push({ kind: "mark", tick });
  lane.waiting.add(shard);
}

/** A mark stands in the log, at a place behind all that was applied. */
export function onMarkDurable(shard: Shard, { tick }: MarkBlock, from: { seq: Seq }): void {
  shard.cut = { tick, seq: from.seq, status: "waiting", passed: null };
  from.seq = toSeq(from.seq + 1);
}

/** A mark that the store refuses is asked for again: nothing in it can be at fault. */
export function onMarkRefused(lane: Lane, shard: Shard, { tick }: MarkBlock): void {
  if (shard.tick === tick) shard.tick = tick - 1;
  if (lane.tick >= tick) lane.tick = tick - 1;
}

/** Marks that a new owner finds in the log. */
export function restoreMarks(shard: Shard, read: readonly Pick<ReadSegment, "marks">[]): void {
  for (const { seq, tick } of read.flatMap(({ marks }) => marks)) {
    if (tick <= shard.tick) continue;
    shard.tick = tick;
    shard.cut = { tick, seq, status: "waiting", passed: null };
  }
}

/** A shard came: its cut is open since long, or it has yet to hear of the tick that runs. */
export function resumeTick(lane: Lane, shard: Shard): void {
  tellCut(lane, shard);
  markShard(lane, shard, lane.tick);
}

/** The mark that a watermark would pass. */
export function passedMark(shard: Shard, watermark: Seq): { shard: ShardId; tick: number; seq: Seq } | null {
  const { cut } = shard;
  if (cut === null || cut.status === "open" || cut.seq > watermark) return null;
  return { shard: shard.id, tick: cut.tick, seq: cut.seq };
}

/** The watermark has moved: entities up to the mark are all written. */
export function openCut(lane: Lane, shard: Shard): void {
  const { cut } = shard;
  if (cut === null || cut.status === "open" || cut.seq > shard.watermark) return;
  if (cut.status === "over") {
    shard.cut = null;
    return;
  }
  cut.status = "open";
  tellCut(lane, shard);
}

/** Null: there is none. */
export function openCutOf({ id, epoch, cut }: Shard): OpenCut | null {
  if (cut?.status !== "open") return null;
  const { tick, seq, passed } = cut;
  return { shard: id, epoch, tick, seq, passed };
}

function tellCut(lane: Lane, shard: Shard): void {
  const cut = openCutOf(shard);
  if (cut !== null) lane.effects.push({ kind: "cut-open", cut });
}

/** Whether runs of ticks up to this one, having ended, have yet to end here. */
export function isEnding({ cut }: Shard, tick: number): boolean {
  return cut !== null && cut.tick <= tick && cut.status !== "over";
}

/** Runs of ticks up to this one have ended: nobody reads entities as of their marks any more. */
export function endTicks(lane: Lane, tick: number): void {
  for (const shard of lane.shards.values()) if (isEnding(shard, tick)) endCut(shard);
}

/** A mark that the watermark has not passed stays, so that it is passed with its row (C4). */
function endCut(shard: Shard): void {
  if (shard.cut?.status === "open") shard.cut = null;
  else if (shard.cut !== null) shard.cut.status = "over";
}

/** How far a visit has come, durably. */
export interface TickPass {
  readonly shard: ShardId;
  readonly tick: number;
  /** Null: all entities are passed, or the tick is over. */
  readonly to: TickPlace | null;
}

/** What changes at these places keeps no image any more. */
export function passTick(lane: Lane, { shard: id, tick, to }: TickPass): void {
  const shard = lane.shards.get(id);
  if (shard === undefined || shard.cut?.tick !== tick) return;
  if (to === null) endCut(shard);
  else shard.cut.passed = to;
}
