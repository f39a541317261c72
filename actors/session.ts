import { type Epoch, type Seq, type ShardId, toEpoch, toSeq } from "../proto/ids.ts";
import type { StarlingError } from "../proto/starling-error.ts";
import { unreachable } from "../proto/unreachable.ts";
import type { SplitBatch } from "./batch.ts";
import { createDurableParts, type DurableParts, placesOf, repeatPart } from "./durable-parts.ts";
import { type Part, type PartEvent, type PartRejection, type PartTask, wholePart } from "./part.ts";

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
  /** Whether durable batches are still waited for until they are processed. */
  readonly awaitsProcessed: boolean;
}

/** What one batch has come to. */
export interface OpenBatch {
  readonly number: number;
  /** By position; of a durable batch only those that are offered again. */
  parts: (OpenPart | undefined)[];
  /** Set while the batch is durable and waits to be processed. */
  durable: DurableParts | null;
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
export function tokensOf({ parts, durable }: OpenBatch): BatchToken[] {
  if (durable !== null) return placesOf(durable);
  return parts.flatMap((open) => {
    if (open === undefined || open.seq === 0) return [];
    return [{ shard: open.part.shard, epoch: open.epoch, seq: open.seq }];
  });
}

/** One part on its way. */
export interface OpenPart {
  readonly batch: OpenBatch;
  readonly part: Part;
  status: "held" | "offered" | "durable" | "done";
  /** Whether its batch already counts it as durable. */
  counted: boolean;
  /** Events of older offers are ignored. */
  offer: number;
  /** Of its last entry in the log; 0 until durable. */
  epoch: Epoch;
  seq: Seq;
}

interface Track {
  status: "flowing" | "draining" | "resting" | "probing";
  lastNumber: number | null;
  /** Parts not yet durable, in order. */
  readonly waiting: OpenPart[];
  /** Of them, those that are offered and unanswered. */
  unanswered: number;
  /** Rests since a part was last taken. */
  rests: number;
  /** The head was refused as a gap: say "unknown". */
  gap: boolean;
}

export type SessionMessage =
  | { readonly kind: "batch"; readonly batch: SplitBatch }
  /** What the owners say of parts of a batch that were offered with this number. */
  | {
      readonly kind: "news";
      readonly batch: OpenBatch;
      readonly offer: number;
      readonly news: readonly PartEvent[];
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

const noTasks: readonly PartTask[] = [];
const noItems = new Int32Array(0);
export const restMinMs = 20;
export const restMaxMs = 500;

/** A session without batches. */
export function createSessionState(awaitsProcessed: boolean): SessionState {
  return { tracks: [], awaitsProcessed };
}

/** The session's next state, in place, and what is to be done. */
export function stepSession(state: SessionState, message: SessionMessage): SessionEffect[] {
  const effects: SessionEffect[] = [];
  switch (message.kind) {
    case "batch":
      openBatch(state, message.batch, effects);
      break;
    case "news":
      for (const event of message.news) {
        const open = message.batch.parts[event.position];
        if (open === undefined) onDurablePartEvent(state, message.batch, event, message.offer, effects);
        else if (open.offer === message.offer) onPartEvent(state, open, event, effects);
      }
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
  const batch: OpenBatch = {
    number,
    parts: [],
    durable: null,
    bytes,
    items,
    whole,
    partOf,
    rejections: [],
    undurable: parts.length,
    unprocessed: parts.length,
    obligations: 0,
  };
  effects.push({ kind: "opened", batch });
  const flowing: Part[] = [];
  for (const part of parts) {
    const track = trackOf(state, part.shard);
    part.predecessor = track.lastNumber;
    track.lastNumber = Math.max(number, track.lastNumber ?? 0);
    const open: OpenPart = { batch, part, status: "held", counted: false, offer: 0, epoch: toEpoch(0), seq: toSeq(0) };
    batch.parts.push(open);
    track.waiting.push(open);
    if (track.status !== "flowing") continue;
    markOffered(track, open);
    flowing.push(part);
  }
  if (flowing.length > 0) effects.push({ kind: "offer", batch, parts: flowing, offer: 1 });
}

function onPartEvent(state: SessionState, open: OpenPart, event: PartEvent, effects: SessionEffect[]): void {
  const track = trackOf(state, open.part.shard);
  switch (event.kind) {
    case "durable":
      if (open.status !== "offered") return;
      take(track, open, "durable");
      if (!open.counted) {
        for (const rejection of event.rejections) reject(open, rejection);
        open.epoch = event.epoch;
        open.seq = event.seq;
        open.part.tasks = noTasks;
        countDurable(state, open, effects);
      }
      if (!state.awaitsProcessed) open.status = "done";
      break;
    case "processed":
      if (open.status !== "durable") return;
      open.status = "done";
      countProcessed(open.batch, event.obligations, effects);
      return;
    case "refused":
      if (open.status === "done" || open.status === "held") return;
      if (event.error.retryable) holdBack(track, open, event.error);
      else refuse(track, open, event.error, effects);
      break;
    default:
      unreachable(event);
  }
  settle(track, open.part.shard, effects);
}

/** What is said of a part of a durable batch: most often that it is processed, else it becomes a part on its way again (S5). */
function onDurablePartEvent(
  state: SessionState,
  batch: OpenBatch,
  event: PartEvent,
  offer: number,
  effects: SessionEffect[],
): void {
  const { durable } = batch;
  const { position } = event;
  if (durable === null || offer === 0 || durable.offers[position] !== offer) return;
  durable.offers[position] = 0;
  if (event.kind === "processed") return countProcessed(batch, event.obligations, effects);
  const place = { epoch: durable.epochs[position] ?? toEpoch(0), seq: durable.seqs[position] ?? toSeq(0) };
  const part = repeatPart(durable, batch.number, position);
  const open: OpenPart = { batch, part, status: "durable", counted: true, offer, ...place };
  batch.parts[position] = open;
  onPartEvent(state, open, event, effects);
}

function holdBack(track: Track, open: OpenPart, error: StarlingError): void {
  if (track.status !== "resting") track.status = "draining";
  if (open.status === "offered") {
    track.unanswered -= 1;
    if (error.code === "GAP" && track.waiting[0] === open) track.gap = true;
  } else {
    track.waiting.unshift(open);
  }
  open.status = "held";
}

function refuse(track: Track, open: OpenPart, error: StarlingError, effects: SessionEffect[]): void {
  if (open.status === "offered") take(track, open, "done");
  open.status = "done";
  effects.push({ kind: "failed", batch: open.batch, error });
}

/** Notes a rejection; one of the whole part stands for each of its datapoints. */
function reject(open: OpenPart, rejection: PartRejection): void {
  const { rejections, partOf } = open.batch;
  if (rejection.index !== wholePart) {
    rejections.push(rejection);
    return;
  }
  partOf.forEach((position, index) => {
    if (position === open.part.position) rejections.push({ ...rejection, index });
  });
}

function take(track: Track, open: OpenPart, status: "durable" | "done"): void {
  const at = track.waiting.indexOf(open);
  if (at === 0) track.waiting.shift();
  else if (at > 0) track.waiting.splice(at, 1);
  track.unanswered -= 1;
  track.rests = 0;
  open.status = status;
}

function countDurable(state: SessionState, open: OpenPart, effects: SessionEffect[]): void {
  const { batch } = open;
  open.counted = true;
  batch.undurable -= 1;
  if (batch.undurable > 0) return;
  batch.rejections.sort((a, b) => a.index - b.index);
  effects.push({ kind: "durable", batch });
  if (!state.awaitsProcessed) return;
  const parts = batch.parts.filter((part) => part !== undefined);
  batch.durable = createDurableParts(parts);
  batch.parts = parts.some(isOnItsWay) ? parts.map((part) => (isOnItsWay(part) ? part : undefined)) : [];
  batch.partOf = noItems;
}

/** Whether a part is offered again though it was durable before. */
function isOnItsWay({ status }: OpenPart): boolean {
  return status === "held" || status === "offered";
}

function countProcessed(batch: OpenBatch, obligations: number, effects: SessionEffect[]): void {
  batch.obligations += obligations;
  batch.unprocessed -= 1;
  if (batch.unprocessed === 0) effects.push({ kind: "processed", batch });
}

/** A track that has drained rests; one whose probe was taken flows. */
function settle(track: Track, shard: ShardId, effects: SessionEffect[]): void {
  if (track.unanswered > 0 || track.status === "flowing" || track.status === "resting") return;
  if (track.status === "probing" || track.waiting.length === 0) {
    track.status = "flowing";
    for (const open of track.waiting) offer(track, open, effects);
    return;
  }
  track.status = "resting";
  effects.push({ kind: "rest", shard, ms: Math.min(restMinMs * 2 ** Math.min(track.rests, 10), restMaxMs) });
  track.rests += 1;
}

function probe(track: Track, effects: SessionEffect[]): void {
  const [head] = track.waiting;
  if (track.status !== "resting" || head === undefined) return;
  track.status = "probing";
  if (track.gap) head.part.predecessor = null;
  track.gap = false;
  offer(track, head, effects);
}

function offer(track: Track, open: OpenPart, effects: SessionEffect[]): void {
  markOffered(track, open);
  effects.push({ kind: "offer", batch: open.batch, parts: [open.part], offer: open.offer });
}

function markOffered(track: Track, open: OpenPart): void {
  open.status = "offered";
  open.offer += 1;
  track.unanswered += 1;
}

function trackOf(state: SessionState, shard: ShardId): Track {
  const known = state.tracks[shard];
  if (known !== undefined) return known;
  const track: Track = { status: "flowing", lastNumber: null, waiting: [], unanswered: 0, rests: 0, gap: false };
  state.tracks[shard] = track;
  return track;
}
