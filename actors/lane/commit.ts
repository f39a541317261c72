import { type Seq, type ShardId, toSeq } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { linesOf } from "../log/line.ts";
import { type Block, linesOfBlock, writeSegment } from "../log/segment.ts";
import { onMarkDurable, onMarkRefused } from "../snapshots/tick-mark.ts";
import type { AppendRequest, Fence, WriteResult } from "../store/store.ts";
import { isOutboxChannel } from "./admission.ts";
import { answerRepeat } from "./answer-repeat.ts";
import { appendBegins, appendEnds } from "./append-pace.ts";
import { bytesOfTasks, countBacklog, takeIntoBacklog } from "./backlog.ts";
import type { Channel, WaitingPart } from "./channel.ts";
import type { Entry } from "./entry.ts";
import { forgetShard } from "./forget-shard.ts";
import { type BuiltSegment, type Lane, storeDelayMs } from "./lane.ts";
import { letterOfHook } from "./letter.ts";
import { failureOf } from "./message-result.ts";
import { addToDelivery, createDelivery, sendOutbox } from "./outbox.ts";
import type { Delivery } from "./outbox-state.ts";
import { type Part, type PartTask, wholePart } from "./part.ts";
import { advance, endMessage, settle, takeUp } from "./processing.ts";
import { type Beside, besideOf, recentAt, setDurable } from "./recent-parts.ts";
import { answerKey, isAnswer, isMark, isPart, type PendingAnswer, type PendingBlock, type Shard } from "./shard.ts";
import { tellAppended, tellDurable } from "./tell.ts";

/** Appends all that waits, as one group, when no append is in flight (R1). */
export function startCommit(lane: Lane): void {
  if (lane.commit !== null || lane.waiting.size === 0) return;
  const built: BuiltSegment[] = [];
  const at = lane.world.now();
  appendBegins(lane.pace, lane.now, lane.world.limits.flushIntervalMs);
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
    const more = linesOfPending(pending);
    if (count > 0 && lines + more > max) break;
    lines += more;
    count++;
  }
  const blocks = count === shard.blocks.length ? shard.blocks : shard.blocks.slice(0, count);
  shard.blocks = count === shard.blocks.length ? [] : shard.blocks.slice(count);
  shard.lastAt = Math.max(shard.lastAt, now);
  const at = { shard: shard.id, seq: toSeq(shard.lastSeq + 1), at: shard.lastAt };
  const written = writeSegment(at, blocks.every(isPart) ? blocks : blocks.map(blockOf));
  shard.lastSeq = written.lastSeq;
  return { shard, segment: written, blocks };
}

function blockOf(pending: PendingBlock): Block {
  return isAnswer(pending) ? pending.block : pending;
}

function linesOfPending(pending: PendingBlock): number {
  return isAnswer(pending) ? pending.lines : linesOfBlock(pending);
}

function requestOf(built: readonly BuiltSegment[]): AppendRequest {
  const closings: ClosingLetter[] = [];
  for (const { shard, blocks } of built) {
    for (const pending of blocks) {
      if (!isAnswer(pending) || pending.closing === undefined) continue;
      closings.push({ shard: shard.id, id: pending.closing.id, status: "replayed" });
    }
  }
  return {
    fences: built.map(({ shard }) => shard.fence),
    segments: built.map(({ segment }) => segment),
    ...(closings.length > 0 && { closings }),
  };
}

type ClosingLetter = NonNullable<AppendRequest["closings"]>[number];

/** The store has answered: everything is durable, or shards are lost and nothing is. */
export function onCommitted(lane: Lane, result: WriteResult): void {
  const { commit } = lane;
  if (commit === null) throw new Error("an append ended that was not begun");
  appendEnds(lane.pace, lane.now);
  if (commit.attempts > 0) lane.effects.push({ kind: "health", work: "append", problem: null });
  if (result.lost.length > 0) {
    loseShards(lane, commit.request.fences, result.lost);
    const lost = new Set(result.lost);
    const built = commit.built.filter(({ shard }) => owns(lane, shard) && !lost.has(shard.id));
    lane.commit = null;
    if (built.length === 0) return startCommit(lane);
    lane.commit = { request: requestOf(built), built, attempts: 0 };
    lane.effects.push({ kind: "append", request: lane.commit.request, delayMs: 0 });
    return;
  }
  lane.commit = null;
  startCommit(lane);
  for (const { shard, segment, blocks } of commit.built) {
    if (!owns(lane, shard)) continue;
    shard.durableSeq = segment.lastSeq;
    lane.touched.add(shard);
    const from: TakenFrom = { seq: segment.seq, at: segment.at, delivery: null, name: "", channel: null };
    let tasks = 0;
    let bytes = 0;
    const openBefore = shard.open.length;
    for (const pending of blocks) {
      if (isPart(pending)) {
        onPartDurable(lane, shard, pending, from);
        tasks += pending.tasks.length;
        bytes += pending.bytes;
      } else if (isMark(pending)) {
        onMarkDurable(shard, pending, from);
      } else {
        onAnswerDurable(lane, shard, pending, from);
        tasks += pending.block.own.length;
        bytes += bytesOfTasks(pending.block.own);
      }
    }
    const open = shard.open.length - openBefore;
    takeIntoBacklog(lane, shard, { lastSeq: segment.lastSeq, tasks, bytes }, open);
  }
}

/** Where a segment is taken up: the seq of the next line, and what the next tasks are a part of (R13). */
interface TakenFrom {
  seq: Seq;
  readonly at: number;
  delivery: Delivery | null;
  /** Of the last part: most often a segment has parts of one channel only. */
  name: string;
  channel: Channel | null;
}

function onPartDurable(lane: Lane, shard: Shard, part: Part, from: TakenFrom): void {
  const channel = from.name === part.channel ? from.channel : (shard.channels.get(part.channel) ?? null);
  const recent = channel?.recent ?? null;
  if (channel === null || recent === null) throw new Error(`nobody took batch ${part.number}`);
  from.name = part.channel;
  from.channel = channel;
  const end = toSeq(from.seq + linesOfBlock(part));
  const lastSeq = toSeq(end - 1);
  const index = setDurable(channel, part.number, from.seq, lastSeq);
  const batch = recent.batches[index];
  const beside = recent.beside?.get(part.number);
  if (beside !== undefined) tellBeside(lane, shard, recentAt(recent, index), beside);
  else if (batch !== undefined) tellAppended(lane, shard, batch, part.position, lastSeq);
  const outbox = isOutboxChannel(part.channel);
  from.delivery = outbox ? createDelivery(shard, recentAt(recent, index), part.tasks.length) : null;
  takeUpTasks(lane, shard, part.tasks, from);
  from.seq = end;
}

/** A part with rejections, or one that was offered again before it was durable. */
function tellBeside(lane: Lane, shard: Shard, part: WaitingPart, beside: Beside): void {
  const { firstSeq, lastSeq } = part;
  const { rejections, repeats } = beside;
  tellDurable(lane, shard, part, { repeat: false, rejections });
  for (const asked of repeats) answerRepeat(lane, shard, { ...asked, firstSeq, lastSeq }, rejections);
  beside.repeats = [];
}

function onAnswerDurable(lane: Lane, shard: Shard, pending: PendingAnswer, from: TakenFrom): void {
  const { block, entry, cursor, closing } = pending;
  if (block.result !== undefined && entry !== null) endMessage(lane, shard, entry, block.result);
  if (closing !== undefined) lane.effects.push({ kind: "closed", reply: closing.reply, error: null });
  countBacklog(lane, shard, block.own.length, bytesOfTasks(block.own));
  const delivery = entry?.delivery ?? null;
  const end = toSeq(from.seq + pending.lines);
  if (delivery !== null) addToDelivery(delivery, block.own.length, toSeq(end - 1));
  from.delivery = delivery;
  takeUpTasks(lane, shard, block.own, from);
  let next: number = from.seq;
  for (const other of block.others) sendOutbox(lane, shard, other, toSeq(next++), delivery);
  from.seq = end;
  // A replayed letter's cause may still be to be replayed itself: its hook must not run once more.
  if (entry === null) return;
  shard.recorded.answers.delete(answerKey(block.cause, block.hook));
  entry.unrecorded--;
  const held = entry.obligation?.held;
  if (held && cursor !== undefined) held.cursor = cursor;
  if (block.result !== undefined && entry.entity !== null) advance(lane, shard, entry.entity);
  else settle(lane, shard, entry);
}

/** Takes tasks up line by line. */
function takeUpTasks(lane: Lane, shard: Shard, tasks: readonly PartTask[], from: TakenFrom): void {
  const { at, delivery } = from;
  for (const task of tasks) {
    const { seq } = from;
    from.seq = toSeq(seq + linesOf(task));
    takeUp(lane, shard, task, { seq, lastSeq: toSeq(from.seq - 1), at, delivery });
  }
}

/** The append failed: the same rows again under the same seqs (R3), or, if the data are at fault, fewer of them (R4). */
export function onCommitFailed(lane: Lane, error: StarlingError): void {
  const { commit } = lane;
  if (commit === null) throw new Error("an append failed that was not begun");
  appendEnds(lane.pace, lane.now);
  if (error.code !== "STORE_REFUSED") {
    commit.attempts++;
    lane.effects.push({ kind: "health", work: "append", problem: error });
    lane.effects.push({ kind: "append", request: commit.request, delayMs: storeDelayMs(commit.attempts) });
    return;
  }
  if (commit.attempts > 0) lane.effects.push({ kind: "health", work: "append", problem: null });
  const built = commit.built.filter(({ shard }) => owns(lane, shard));
  takeBack(lane, built);
  const blocks = built.reduce((sum, { blocks }) => sum + blocks.length, 0);
  lane.commit = null;
  // Without the blocks of shards that are gone the rest may do no harm.
  if (built.length < commit.built.length) return startCommit(lane);
  if (blocks > 1) {
    commitHalf(lane, built, Math.ceil(blocks / 2));
    return;
  }
  const only = built[0];
  const pending = only?.blocks[0];
  if (only !== undefined && pending !== undefined) refuseBlock(lane, only.shard, pending, error);
  startCommit(lane);
}

/** Puts the blocks of a refused group back: none of their seqs exist (nothing of a group is written if one row is not). */
function takeBack(lane: Lane, built: readonly BuiltSegment[]): void {
  // The last rows first: a shard may have several.
  for (const { shard, segment, blocks } of built.toReversed()) {
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
  if (isPart(pending)) return refusePart(lane, shard, pending, error);
  if (isMark(pending)) return onMarkRefused(lane, shard, pending);
  const { block, entry, closing } = pending;
  if (closing !== undefined) lane.effects.push({ kind: "closed", reply: closing.reply, error });
  if (block.result !== undefined && entry !== null) return refuseMessage(lane, shard, pending, error);
  if (entry !== null) refuseAnswer(lane, shard, pending, entry, error);
}

function refusePart(lane: Lane, shard: Shard, part: Part, { code, message }: StarlingError): void {
  const recent = shard.channels.get(part.channel)?.recent ?? null;
  if (recent === null) throw new Error(`nobody took batch ${part.number}`);
  const rejections = [...part.rejections, { index: wholePart, code, message }];
  besideOf(recent, part.number).rejections = rejections;
  countBacklog(lane, shard, -part.tasks.length, -part.bytes);
  shard.blocks.unshift({ ...part, tasks: [], bytes: 0, rejections });
  lane.waiting.add(shard);
}

/** What a message came to cannot be written: it failed instead. If not even that can be written, nothing is. */
function refuseMessage(lane: Lane, shard: Shard, { block, entry }: PendingAnswer, error: StarlingError): void {
  if (entry === null || entry.entity === null) return;
  if (block.result?.kind === "change") {
    shard.blocks.unshift({
      lines: 1,
      block: { ...block, own: [], others: [], result: failureOf(error) },
      entry,
      place: null,
    });
    lane.waiting.add(shard);
    return;
  }
  entry.unrecorded--;
  endMessage(lane, shard, entry, failureOf(error));
  advance(lane, shard, entry.entity);
}

function refuseAnswer(
  lane: Lane,
  shard: Shard,
  { block, place }: PendingAnswer,
  entry: Entry,
  error: StarlingError,
): void {
  entry.unrecorded--;
  letterOfHook(shard, entry, { seq: block.cause, hook: block.hook, place }, error);
  settle(lane, shard, entry);
}

/** Whether a shard is the lane's: it may have left, and come back as another object under a new epoch. */
export function owns(lane: Lane, shard: Shard): boolean {
  return lane.shards.get(shard.id) === shard;
}

/** Forgets shards that another owner has taken, by what the store says of the epochs that it was asked with (P4). */
export function loseShards(lane: Lane, fences: readonly Fence[], lost: readonly ShardId[]): void {
  lane.world.counters.add("fenced_commits");
  const epochs = new Map(fences.map(({ shard, epoch }) => [shard, epoch]));
  const gone: ShardId[] = [];
  for (const id of lost) {
    const shard = lane.shards.get(id);
    if (shard === undefined || shard.epoch !== epochs.get(id)) continue;
    const text = `shard ${id} was taken over; epoch ${shard.epoch} may no longer write`;
    forgetShard(lane, shard, new StarlingError("FENCED", text));
    gone.push(id);
  }
  if (gone.length > 0) lane.effects.push({ kind: "lost", shards: gone });
}
