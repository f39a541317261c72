import { type Epoch, type Seq, type ShardId, toSeq } from "../../proto/ids.ts";
import type { StarlingError } from "../../proto/starling-error.ts";
import { unreachable } from "../../proto/unreachable.ts";
import { type News, type Part, type PartEvent, type PartRejection, wholePart } from "../lane/part.ts";
import {
  createPartColumns,
  epochOf,
  forgetParts,
  forgetTasks,
  isOnItsWay,
  type PartColumns,
  partAt,
  seqOf,
  setPlace,
  shardOfPart,
} from "../lane/part-columns.ts";
import { PartNews } from "../lane/part-news.ts";
import type { SplitBatch } from "./batch.ts";
import { restMs } from "./rest.ts";

/**
 * A session on the node that serves it: brings the parts of its numbered batches to the shards, in order per shard.
 *
 * A track is the session's way to one shard. It flows while its parts are taken. When one is refused for now, the track
 * drains (offers nothing until every offered part has its answer), rests, probes with the oldest unfinished part, and
 * flows again when that one is taken. To offer all of them at once would end in as many gaps while the shard is busy.
 *
 * S1  Per shard, parts are offered in the order of their batches, again and again until each is durable or refused for good.
 * S2  A part names the number of the previous part offered to the same shard in this connection; the first one, and the
 *     first one after GAP, names null ("unknown"): everything before it is durable or was acknowledged earlier (R9).
 * S3  A batch is durable when all its parts are, and processed when all its parts are; each is said once.
 * S4  A part that the store refused is durable as a refusal of its datapoints; a final refusal fails the batch.
 * S5  A part that is durable but whose owner went away before it was processed is offered again, as a repeat.
 *
 * The step changes the state in place; it does nothing else, and is deterministic.
 */
export interface SessionState {
  /** By shard. */
  readonly tracks: (Track | undefined)[];
  /** Not durable yet, in the order of their arrival. */
  readonly batches: Set<OpenBatch>;
  /** Whether durable batches are still waited for until they are processed. */
  readonly awaitsProcessed: boolean;
}

/** What one batch has come to. */
export interface OpenBatch {
  readonly number: number;
  readonly columns: PartColumns;
  readonly bytes: number;
  readonly items: number;
  readonly whole: boolean;
  /** Of all parts so far, unsorted. */
  readonly rejections: PartRejection[];
  /** See `SplitBatch.partOf`; empty once durable. */
  partOf: Int32Array;
  /** Parts that are not durable yet, and parts that are not processed yet. */
  undurable: number;
  unprocessed: number;
  /** Hooks that go on although the batch counts as processed. */
  obligations: number;
}

export interface BatchToken {
  readonly shard: ShardId;
  readonly epoch: Epoch;
  readonly seq: Seq;
}

/** Where the datapoints of a batch stand in the log, as far as they are durable. */
export function tokensOf({ columns }: OpenBatch): BatchToken[] {
  const tokens: BatchToken[] = [];
  for (const [position, shard] of columns.shards.entries()) {
    const seq = seqOf(columns, position);
    if (seq !== 0) tokens.push({ shard, epoch: epochOf(columns, position), seq });
  }
  return tokens;
}

/** One part that a track holds back, or has offered since it did. */
interface OpenPart {
  readonly batch: OpenBatch;
  readonly position: number;
}

interface Track {
  status: "flowing" | "draining" | "resting" | "probing";
  lastNumber: number | null;
  /** Parts not yet durable, in order; null: all are offered, and found in their batches when one is refused. */
  waiting: OpenPart[] | null;
  /** Parts that are offered and unanswered. */
  unanswered: number;
  /** Rests since a part was last taken. */
  rests: number;
  /** The head was refused as a gap: say "unknown". */
  gap: boolean;
  /** The last refusal was of an owner that has too much to do. */
  busy: boolean;
}

export type SessionMessage =
  | { readonly kind: "batch"; readonly batch: SplitBatch }
  /** What the owners say of parts of a batch that were offered with this number. */
  | {
      readonly kind: "news";
      readonly batch: OpenBatch;
      readonly offer: number;
      readonly news: News;
    }
  | { readonly kind: "rested"; readonly shard: ShardId };

export type SessionEffect =
  | { readonly kind: "opened"; readonly batch: OpenBatch }
  /** Offer parts of one batch; what is said of them comes back with this `offer`: how often each was offered. */
  | { readonly kind: "offer"; readonly batch: OpenBatch; readonly parts: readonly Part[]; readonly offer: number }
  | { readonly kind: "rest"; readonly shard: ShardId; readonly ms: number }
  | { readonly kind: "durable"; readonly batch: OpenBatch }
  | { readonly kind: "processed"; readonly batch: OpenBatch }
  | { readonly kind: "failed"; readonly batch: OpenBatch; readonly error: StarlingError };

const noItems = new Int32Array(0);
const noRejections: readonly PartRejection[] = [];

/** A session without batches. */
export function createSessionState(awaitsProcessed: boolean): SessionState {
  return { tracks: [], batches: new Set(), awaitsProcessed };
}

/** The session's next state, in place, and what is to be done. */
export function stepSession(state: SessionState, message: SessionMessage): SessionEffect[] {
  const effects: SessionEffect[] = [];
  switch (message.kind) {
    case "batch":
      openBatch(state, message.batch, effects);
      break;
    case "news":
      onNews(state, message, effects);
      break;
    case "rested":
      probe(trackOf(state, message.shard), effects);
      break;
    default:
      unreachable(message);
  }
  return effects;
}

/** Accepted datapoints of a batch whose parts are all durable. */
export function acceptedOf(batch: OpenBatch): number {
  return batch.whole ? 0 : batch.items - batch.rejections.length;
}

function openBatch(state: SessionState, split: SplitBatch, effects: SessionEffect[]): void {
  const { number, bytes, items, whole, partOf, parts } = split;
  const columns = createPartColumns(parts);
  const batch: OpenBatch = {
    number,
    columns,
    bytes,
    items,
    whole,
    partOf,
    rejections: [],
    undurable: parts.length,
    unprocessed: parts.length,
    obligations: 0,
  };
  state.batches.add(batch);
  effects.push({ kind: "opened", batch });
  let held = 0;
  for (const part of parts) {
    const { position } = part;
    const track = trackOf(state, part.shard);
    part.predecessor = track.lastNumber;
    track.lastNumber = Math.max(number, track.lastNumber ?? 0);
    track.waiting?.push({ batch, position });
    if (track.status === "flowing") markOffered(track, columns, position);
    else held++;
  }
  const flowing = held === 0 ? parts : parts.filter((_, position) => columns.statuses[position] === "offered");
  if (flowing.length > 0) effects.push({ kind: "offer", batch, parts: flowing, offer: 1 });
}

function onNews(
  state: SessionState,
  { batch, offer, news }: Extract<SessionMessage, { kind: "news" }>,
  effects: SessionEffect[],
): void {
  const { columns } = batch;
  if (!(news instanceof PartNews)) {
    for (const event of news) {
      if (columns.offers[event.position] === offer) onPartEvent(state, batch, event, effects);
    }
    return;
  }
  for (let index = 0; index < news.length; index++) {
    const position = news.positionAt(index);
    if (columns.offers[position] !== offer) continue;
    const seq = news.seqAt(index);
    const owner = news.ownerAt(index);
    if (seq === 0) onProcessed(batch, position, 0, effects);
    else if (owner === null) onPartEvent(state, batch, news.at(index), effects);
    else if (columns.statuses[position] === "offered") {
      const known = !setPlace(columns, position, owner.epoch, toSeq(seq));
      onDurable(state, batch, position, known ? null : noRejections, effects);
    }
  }
}

function onPartEvent(state: SessionState, batch: OpenBatch, event: PartEvent, effects: SessionEffect[]): void {
  const { position } = event;
  switch (event.kind) {
    case "durable": {
      const { columns } = batch;
      if (columns.statuses[position] !== "offered") return;
      const known = !setPlace(columns, position, event.epoch, event.seq);
      return onDurable(state, batch, position, known ? null : event.rejections, effects);
    }
    case "processed":
      return onProcessed(batch, position, event.obligations, effects);
    case "refused":
      return onRefused(state, batch, position, event.error, effects);
    default:
      unreachable(event);
  }
}

/** An offered part is durable; `rejections` is null if its batch knew that already: it was offered again (S5). */
function onDurable(
  state: SessionState,
  batch: OpenBatch,
  position: number,
  rejections: readonly PartRejection[] | null,
  effects: SessionEffect[],
): void {
  const { columns } = batch;
  const shard = shardOfPart(columns, position);
  const track = trackOf(state, shard);
  take(track, batch, position);
  columns.statuses[position] = state.awaitsProcessed ? "durable" : "done";
  if (rejections !== null) {
    for (const rejection of rejections) reject(batch, position, rejection);
    forgetTasks(columns, position);
    countDurable(state, batch, effects);
  }
  settle(track, shard, effects);
}

function onProcessed(batch: OpenBatch, position: number, obligations: number, effects: SessionEffect[]): void {
  const { statuses } = batch.columns;
  if (statuses[position] !== "durable") return;
  statuses[position] = "done";
  batch.obligations += obligations;
  batch.unprocessed -= 1;
  if (batch.unprocessed === 0) effects.push({ kind: "processed", batch });
}

function onRefused(
  state: SessionState,
  batch: OpenBatch,
  position: number,
  error: StarlingError,
  effects: SessionEffect[],
): void {
  const { columns } = batch;
  const status = columns.statuses[position];
  if (status === "done" || status === "held") return;
  const shard = shardOfPart(columns, position);
  const track = trackOf(state, shard);
  if (error.retryable) {
    holdBack(state, track, { batch, position }, error);
  } else {
    if (status === "offered") take(track, batch, position);
    columns.statuses[position] = "done";
    effects.push({ kind: "failed", batch, error });
  }
  settle(track, shard, effects);
}

function holdBack(state: SessionState, track: Track, open: OpenPart, error: StarlingError): void {
  const { columns } = open.batch;
  const { position } = open;
  track.waiting ??= findWaiting(state, shardOfPart(columns, position));
  if (track.status !== "resting") track.status = "draining";
  track.busy = error.code !== "MOVED" && error.code !== "UNAVAILABLE";
  const wasOffered = columns.statuses[position] === "offered";
  if (wasOffered) {
    track.unanswered -= 1;
    if (error.code === "GAP" && isSame(track.waiting[0], open)) track.gap = true;
  }
  // One that was durable before (S5) is not among them; it goes behind those that went before it (S1).
  const waits = wasOffered && (state.batches.has(open.batch) || track.waiting.some((other) => isSame(other, open)));
  if (!waits) {
    const before = track.waiting.findLastIndex(({ batch }) => batch.number <= open.batch.number);
    track.waiting.splice(before + 1, 0, open);
  }
  columns.statuses[position] = "held";
}

/** What a track has offered while it flowed and not yet heard of, in the order of the batches (S1). */
function findWaiting({ batches }: SessionState, shard: ShardId): OpenPart[] {
  const waiting: OpenPart[] = [];
  for (const batch of batches) {
    const { columns } = batch;
    const position = columns.shards.indexOf(shard);
    if (position >= 0 && isOnItsWay(columns, position)) waiting.push({ batch, position });
  }
  return waiting;
}

function isSame(one: OpenPart | undefined, other: OpenPart): boolean {
  return one?.batch === other.batch && one.position === other.position;
}

/** Notes a rejection; one of the whole part stands for each of its datapoints. */
function reject({ rejections, partOf }: OpenBatch, position: number, rejection: PartRejection): void {
  if (rejection.index !== wholePart) {
    rejections.push(rejection);
    return;
  }
  partOf.forEach((part, index) => {
    if (part === position) rejections.push({ ...rejection, index });
  });
}

function take(track: Track, batch: OpenBatch, position: number): void {
  const { waiting } = track;
  if (waiting !== null) {
    const at = waiting.findIndex((open) => isSame(open, { batch, position }));
    if (at >= 0) waiting.splice(at, 1);
  }
  track.unanswered -= 1;
  track.rests = 0;
}

function countDurable(state: SessionState, batch: OpenBatch, effects: SessionEffect[]): void {
  batch.undurable -= 1;
  if (batch.undurable > 0) return;
  state.batches.delete(batch);
  batch.rejections.sort((a, b) => a.index - b.index);
  effects.push({ kind: "durable", batch });
  if (!state.awaitsProcessed) return;
  forgetParts(batch.columns);
  batch.partOf = noItems;
}

/** A track that has drained rests; one whose probe was taken flows. */
function settle(track: Track, shard: ShardId, effects: SessionEffect[]): void {
  if (track.unanswered > 0 || track.status === "flowing" || track.status === "resting") return;
  const waiting = track.waiting ?? [];
  if (track.status === "probing" || waiting.length === 0) {
    track.status = "flowing";
    for (const open of waiting) offer(track, open, effects);
    track.waiting = null;
    return;
  }
  track.status = "resting";
  effects.push({ kind: "rest", shard, ms: restMs(track.rests, track.busy ? "busy" : "away") });
  track.rests += 1;
}

function probe(track: Track, effects: SessionEffect[]): void {
  const head = track.waiting?.[0];
  if (track.status !== "resting" || head === undefined) return;
  track.status = "probing";
  if (track.gap) partAt(head.batch.columns, head.position).predecessor = null;
  track.gap = false;
  offer(track, head, effects);
}

function offer(track: Track, { batch, position }: OpenPart, effects: SessionEffect[]): void {
  const { columns } = batch;
  markOffered(track, columns, position);
  const part = partAt(columns, position);
  effects.push({ kind: "offer", batch, parts: [part], offer: columns.offers[position] ?? 0 });
}

function markOffered(track: Track, { statuses, offers }: PartColumns, position: number): void {
  statuses[position] = "offered";
  offers[position] = (offers[position] ?? 0) + 1;
  track.unanswered += 1;
}

function trackOf(state: SessionState, shard: ShardId): Track {
  const known = state.tracks[shard];
  if (known !== undefined) return known;
  const track: Track = {
    status: "flowing",
    lastNumber: null,
    waiting: null,
    unanswered: 0,
    rests: 0,
    gap: false,
    busy: false,
  };
  state.tracks[shard] = track;
  return track;
}
