import { type Seq, type ShardId, toSeq } from "../proto/ids.ts";
import { StarlingError } from "../proto/starling-error.ts";
import { answerRepeat, isOutboxChannel, tell, tellDurable } from "./admission.ts";
import { bytesOfTasks, countBacklog } from "./backlog.ts";
import type { RecentPart, WaitingPart } from "./channel.ts";
import type { Entry } from "./entry.ts";
import { type BuiltSegment, type Lane, storeDelayMs } from "./lane.ts";
import { linesOf } from "./line.ts";
import { addToDelivery, createDelivery, forgetOutbox, sendOutbox } from "./outbox.ts";
import type { Delivery } from "./outbox-state.ts";
import { type Part, type PartTask, wholePart } from "./part.ts";
import { settle, takeUp } from "./processing.ts";
import { type AnswerBlock, linesOfBlock, tasksOf, writeSegment } from "./segment.ts";
import { answerKey, type PendingAnswer, type PendingBlock, type PendingPart, type Shard } from "./shard.ts";
import type { AppendRequest, WriteResult } from "./store/store.ts";

/** Appends all that waits, as one group, when no append is in flight (R1). */
export function startCommit(lane: Lane): void {
  if (lane.commit !== null || lane.waiting.size === 0) return;
  const built: BuiltSegment[] = [];
  const at = lane.world.now();
  lane.quietSince = lane.now;
  let room = lane.world.limits.appendMaxDatapoints;
  for (const shard of lane.waiting) {
    if (room <= 0) break;
    const segment = buildSegment(shard, at, room);
    room -= segment.segment.lastSeq - segment.segment.seq + 1;
    built.push(segment);
    lane.waiting.delete(shard);
    if (shard.blocks.length > 0) lane.waiting.add(shard);
  }
  lane.commit = { request: requestOf(built), built, attempts: 0 };
  lane.effects.push({ kind: "append", request: lane.commit.request, delayMs: 0 });
}

/** The longest segment that one row of the log takes, in lines; a block is never split. */
const segmentMaxLines = 500;

function buildSegment(shard: Shard, now: number, room: number): BuiltSegment {
  const max = Math.min(room, segmentMaxLines);
  let lines = 0;
  let count = 0;
  for (const pending of shard.blocks) {
    if (count > 0 && lines + pending.lines > max) break;
    lines += pending.lines;
    count++;
  }
  const blocks = count === shard.blocks.length ? shard.blocks : shard.blocks.slice(0, count);
  shard.blocks = count === shard.blocks.length ? [] : shard.blocks.slice(count);
  shard.lastAt = Math.max(shard.lastAt, now);
  const at = { shard: shard.id, seq: toSeq(shard.lastSeq + 1), at: shard.lastAt };
  const written = writeSegment(
    at,
    blocks.map((pending) => pending.block),
  );
  shard.lastSeq = written.lastSeq;
  return { shard, segment: written, blocks };
}

function requestOf(built: readonly BuiltSegment[]): AppendRequest {
  const closings = built.flatMap(({ shard, blocks }) =>
    blocks.flatMap((pending) =>
      "entry" in pending && pending.closing !== undefined
        ? [{ shard: shard.id, id: pending.closing.id, status: "replayed" as const }]
        : [],
    ),
  );
  return {
    fences: built.map(({ shard }) => ({ shard: shard.id, epoch: shard.epoch })),
    segments: built.map(({ segment }) => segment),
    ...(closings.length > 0 && { closings }),
  };
}

/** The store has answered: everything is durable, or shards are lost and nothing is. */
export function onCommitted(lane: Lane, result: WriteResult): void {
  const { commit } = lane;
  if (commit === null) throw new Error("an append ended that was not begun");
  if (commit.attempts > 0) lane.effects.push({ kind: "health", problem: null });
  if (result.lost.length > 0) {
    loseShards(lane, result.lost);
    const built = commit.built.filter(({ shard }) => lane.shards.has(shard.id));
    lane.commit = null;
    if (built.length === 0) return startCommit(lane);
    lane.commit = { request: requestOf(built), built, attempts: 0 };
    lane.effects.push({ kind: "append", request: lane.commit.request, delayMs: 0 });
    return;
  }
  lane.commit = null;
  startCommit(lane);
  for (const { shard, segment, blocks } of commit.built) {
    if (lane.shards.get(shard.id) !== shard) continue;
    shard.durableSeq = segment.lastSeq;
    lane.touched.add(shard);
    let seq: number = segment.seq;
    let tasks = 0;
    let bytes = 0;
    for (const pending of blocks) {
      if ("recent" in pending) onPartDurable(lane, shard, pending, toSeq(seq), segment.at);
      else onAnswerDurable(lane, shard, pending, toSeq(seq), segment.at);
      const { block } = pending;
      seq += pending.lines;
      tasks += tasksOf(block).length;
      bytes += block.kind === "part" ? block.bytes : bytesOfTasks(block.own);
    }
    shard.backlog.segments.push({ lastSeq: segment.lastSeq, tasks, bytes });
  }
}

function onPartDurable(lane: Lane, shard: Shard, { block, recent, lines }: PendingPart, seq: Seq, at: number): void {
  recent.firstSeq = seq;
  recent.lastSeq = toSeq(seq + lines - 1);
  const { firstSeq, lastSeq, rejections } = recent;
  tellDurable(lane, shard, recent, { repeat: false, rejections });
  for (const asked of recent.repeats ?? []) answerRepeat(lane, shard, { ...asked, firstSeq, lastSeq }, rejections);
  recent.repeats = null;
  const delivery = isOutboxChannel(block.channel) ? createDelivery(shard, recent, block.tasks.length) : null;
  takeUpTasks(lane, shard, block.tasks, { seq, at, delivery });
}

function onAnswerDurable(lane: Lane, shard: Shard, pending: PendingAnswer, seq: Seq, at: number): void {
  const { block, entry, cursor, closing } = pending;
  if (closing !== undefined) lane.effects.push({ kind: "closed", reply: closing.reply, error: null });
  countBacklog(lane, shard, block.own.length, bytesOfTasks(block.own));
  const delivery = entry?.delivery ?? null;
  if (delivery !== null) addToDelivery(delivery, block.own.length, toSeq(seq + pending.lines - 1));
  let next: number = takeUpTasks(lane, shard, block.own, { seq, at, delivery });
  for (const other of block.others) sendOutbox(lane, shard, other, toSeq(next++), delivery);
  shard.recorded.answers.delete(answerKey(block.cause, block.hook));
  if (entry === null) return;
  entry.unrecorded--;
  const held = entry.obligation?.held;
  if (held && cursor !== undefined) held.cursor = cursor;
  settle(lane, shard, entry);
}

interface TakenFrom {
  readonly seq: Seq;
  readonly at: number;
  readonly delivery: Delivery | null;
}

function takeUpTasks(lane: Lane, shard: Shard, tasks: readonly PartTask[], from: TakenFrom): Seq {
  const { at, delivery } = from;
  let next: number = from.seq;
  for (const task of tasks) {
    const lines = linesOf(task);
    takeUp(lane, shard, task, { seq: toSeq(next), lastSeq: toSeq(next + lines - 1), at, delivery });
    next += lines;
  }
  return toSeq(next);
}

/** The append failed: the same rows again under the same seqs (R3), or, if the data are at fault, fewer of them (R4). */
export function onCommitFailed(lane: Lane, error: StarlingError): void {
  const { commit } = lane;
  if (commit === null) throw new Error("an append failed that was not begun");
  if (error.code !== "STORE_REFUSED") {
    commit.attempts++;
    lane.effects.push({ kind: "health", problem: error });
    lane.effects.push({ kind: "append", request: commit.request, delayMs: storeDelayMs(commit.attempts) });
    return;
  }
  takeBack(lane, commit.built);
  const blocks = commit.built.reduce((sum, { blocks }) => sum + blocks.length, 0);
  if (blocks > 1) {
    commitHalf(lane, commit.built, Math.ceil(blocks / 2));
    return;
  }
  const only = commit.built[0];
  const pending = only?.blocks[0];
  lane.commit = null;
  if (only !== undefined && pending !== undefined) refuseBlock(lane, only.shard, pending, error);
  startCommit(lane);
}

/** Puts the blocks of a refused group back: none of their seqs exist (nothing of a group is written if one row is not). */
function takeBack(lane: Lane, built: readonly BuiltSegment[]): void {
  for (const { shard, segment, blocks } of built) {
    shard.lastSeq = toSeq(segment.seq - 1);
    shard.blocks = [...blocks, ...shard.blocks];
    lane.waiting.add(shard);
  }
}

function commitHalf(lane: Lane, built: readonly BuiltSegment[], count: number): void {
  const half: BuiltSegment[] = [];
  let left = count;
  for (const { shard, segment, blocks } of built) {
    if (left <= 0) break;
    const taken = blocks.slice(0, left);
    left -= taken.length;
    const rest = shard.blocks.slice(taken.length);
    shard.blocks = taken;
    half.push(buildSegment(shard, segment.at, Number.MAX_SAFE_INTEGER));
    shard.blocks = [...shard.blocks, ...rest];
    if (shard.blocks.length === 0) lane.waiting.delete(shard);
  }
  lane.commit = { request: requestOf(half), built: half, attempts: 0 };
  lane.effects.push({ kind: "append", request: lane.commit.request, delayMs: 0 });
}

/** The block that PostgreSQL refuses stands alone: its number advances by an entry without tasks (R9). */
function refuseBlock(lane: Lane, shard: Shard, pending: PendingBlock, error: StarlingError): void {
  shard.blocks = shard.blocks.slice(1);
  if (shard.blocks.length === 0) lane.waiting.delete(shard);
  lane.world.counters.add("refused/STORE_REFUSED");
  if ("recent" in pending) return refusePart(lane, shard, pending, error);
  const { block, entry, closing } = pending;
  if (closing !== undefined) lane.effects.push({ kind: "closed", reply: closing.reply, error });
  if (entry !== null) refuseAnswer(lane, shard, block, entry, error);
}

function refusePart(lane: Lane, shard: Shard, { block, recent }: PendingPart, { code, message }: StarlingError): void {
  recent.rejections = [...block.rejections, { index: wholePart, code, message }];
  countBacklog(lane, shard, -block.tasks.length, -block.bytes);
  const empty: Part = { ...block, tasks: [], bytes: 0, rejections: recent.rejections };
  shard.blocks.unshift({ lines: linesOfBlock(empty), block: empty, recent });
  lane.waiting.add(shard);
}

function refuseAnswer(lane: Lane, shard: Shard, block: AnswerBlock, entry: Entry, error: StarlingError): void {
  entry.unrecorded--;
  shard.deadLetters.push({
    shard: shard.id,
    seq: block.cause,
    kind: "hook",
    hook: block.hook,
    type: entry.task?.entity.id ?? "",
    eid: entry.task?.eid ?? "",
    code: error.code,
    error: error.message,
    at: entry.at,
    task: "{}",
  });
  settle(lane, shard, entry);
}

/** Forgets shards that another owner has taken, and tells everybody who waits (P4). */
export function loseShards(lane: Lane, lost: readonly ShardId[]): void {
  for (const id of lost) {
    const shard = lane.shards.get(id);
    if (shard === undefined) continue;
    lane.shards.delete(id);
    lane.waiting.delete(shard);
    lane.touched.delete(shard);
    lane.dirty.delete(shard);
    lane.dirtyEntities -= shard.dirty.length;
    lane.backlogBytes -= shard.backlog.bytes;
    const error = new StarlingError("FENCED", `shard ${id} was taken over; epoch ${shard.epoch} may no longer write`);
    for (const [name, channel] of shard.channels) {
      // Of what is durable of an outbox `taken` knows who waits, also below the watermark.
      const known = isOutboxChannel(name);
      for (const recent of channel.recent) if (!known || recent.lastSeq === 0) tellLost(lane, recent, error);
    }
    for (const delivery of forgetOutbox(lane, shard)) tellLost(lane, { ...delivery, repeats: null }, error);
    for (const repeat of shard.repeats) tellLost(lane, { ...repeat, repeats: null }, error);
  }
  lane.world.counters.add("fenced_commits");
  lane.effects.push({ kind: "lost", shards: lost });
}

type Lost = Pick<WaitingPart, "position" | "listener"> & Pick<RecentPart, "repeats">;

function tellLost(lane: Lane, recent: Lost, error: StarlingError): void {
  for (const { position, listener } of [recent, ...(recent.repeats ?? [])]) {
    if (listener !== null) tell(lane, listener, { kind: "refused", position, error });
  }
}
