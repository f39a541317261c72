import { type Seq, toSeq } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { type ReadPart, readParts } from "../log/segment.ts";
import { markShard } from "../snapshots/tick-mark.ts";
import type { AskedPart, SegmentHead } from "../store/store.ts";
import { countBacklog } from "./backlog.ts";
import { type Channel, planAdmission, type WaitingPart } from "./channel.ts";
import type { Lane, LaneMessage, LookUp, Offer } from "./lane.ts";
import { countOwed } from "./obligation.ts";
import type { Part, PartEvent, PartListener, PartRejection } from "./part.ts";
import { PartNews } from "./part-news.ts";
import {
  type Asked,
  addRecent,
  besideOf,
  positionOf,
  type RecentBatch,
  type RecentParts,
  recentAt,
} from "./recent-parts.ts";
import { createChannel, isSealed, type Shard, useChannel } from "./shard.ts";

/** Whether a channel belongs to a shard's outbox; bounds refuse only outside senders (R13). */
export function isOutboxChannel(channel: string): boolean {
  return channel.startsWith("s:");
}

/** Takes each offered part, recognises it as a repeat, or refuses it with a code. */
export function admit(lane: Lane, offers: readonly Offer[]): void {
  const lookUps: LookUp[] = [];
  for (const offer of offers) admitOffer(lane, offer, lookUps);
  for (let from = 0; from < lookUps.length; from += lookUpsMax) {
    lane.effects.push({ kind: "look-up", asked: lookUps.slice(from, from + lookUpsMax) });
  }
}

/** Parts that are looked up by one statement. */
const lookUpsMax = 2_000;

function admitOffer(lane: Lane, { parts, listener }: Offer, lookUps: LookUp[]): void {
  let batch: RecentBatch | null = null;
  for (const part of parts) {
    const { number, hash } = part;
    if (batch === null || batch.number !== number || batch.hash !== hash)
      batch = { number, hash, size: parts.length, listener };
    admitPart(lane, part, { batch, listener, lookUps });
  }
}

interface Admitting {
  readonly batch: RecentBatch;
  readonly listener: PartListener;
  /** Takes what only the log knows. */
  readonly lookUps: LookUp[];
}

function admitPart(lane: Lane, part: Part, { batch, listener, lookUps }: Admitting): void {
  const { position } = part;
  const shard = lane.shards.get(part.shard);
  if (shard === undefined || isSealed(shard)) {
    return refuse(lane, { position, listener }, "MOVED", `this node does not own shard ${part.shard}`);
  }
  const channel = shard.channels.get(part.channel) ?? createChannel(0);
  const admission = planAdmission(channel, part);
  switch (admission.kind) {
    case "gap": {
      const text = `batch ${part.number} names ${part.predecessor}, the last one is ${channel.last}`;
      return refuse(lane, { position, listener }, "GAP", text);
    }
    case "changed": {
      const text = `batch ${part.number} came back with other content`;
      return refuse(lane, { position, listener }, "BATCH_CHANGED", text);
    }
    case "repeat":
      lane.world.counters.add("repeats");
      return tellRepeat(lane, shard, admission, { position, listener });
    case "look-up":
      lane.world.counters.add("repeats");
      lookUps.push({ place: askedPart(channel, part), hash: part.hash, position, listener });
      return;
    case "append":
      break;
  }
  const full = isOutboxChannel(part.channel) ? null : findFullBound(lane, shard);
  if (full !== null) return refuse(lane, { position, listener }, "BUSY", full);
  take(lane, shard, channel, part, batch);
}

/** Where to look for a part: a sender repeats upward, from the last one that was found. */
function askedPart({ found }: Channel, { shard, channel, number }: Part): AskedPart {
  return { shard, channel, number, from: found !== null && found.number <= number ? found.seq : toSeq(0) };
}

function take(lane: Lane, shard: Shard, channel: Channel, part: Part, batch: RecentBatch): void {
  markShard(lane, shard, part.tick ?? 0);
  if (channel.recent === null) useChannel(shard, part.channel, channel);
  const recent = addRecent(channel, batch, part.position);
  if (part.rejections.length > 0) besideOf(recent, part.number).rejections = part.rejections;
  shard.blocks.push(part);
  countBacklog(lane, shard, part.tasks.length, part.bytes);
  if (shard.blocks.length === 1) lane.waiting.add(shard);
}

/** The bound that keeps outside senders waiting, in words; null: there is room (R7, R13). */
export function findFullBound(lane: Lane, shard: Shard): string | null {
  const { limits } = lane.world;
  if (lane.status === "closing") return "the node is closing";
  const { backlog, outbox } = shard;
  const tasks = backlog.tasks + outbox.tasks;
  if (tasks >= limits.lagMaxEntries)
    return `shard ${shard.id} has ${tasks} unprocessed tasks, ${outbox.tasks} of them derived for other shards`;
  const bytes = backlog.bytes + outbox.bytes;
  if (bytes >= limits.lagMaxBytes)
    return `shard ${shard.id} has ${bytes} unprocessed bytes, ${outbox.bytes} of them derived for other shards`;
  const all = lane.backlogBytes + lane.outboxBytes;
  return all >= limits.backlogMaxBytes ? `the node has ${all} unprocessed bytes in a lane` : null;
}

function tellRepeat(
  lane: Lane,
  shard: Shard,
  { recent, index }: { readonly recent: RecentParts; readonly index: number },
  asked: Asked,
): void {
  const { number, firstSeq, lastSeq } = recentAt(recent, index);
  if (index >= recent.durable) {
    besideOf(recent, number).repeats.push(asked);
    return;
  }
  const rejections = recent.beside?.get(number)?.rejections ?? [];
  answerRepeat(lane, shard, { ...asked, firstSeq, lastSeq }, rejections);
}

/** Says that a part is durable already, and that it is processed as soon as the watermark has passed it: what really holds. */
export function answerRepeat(lane: Lane, shard: Shard, part: WaitingPart, rejections: readonly PartRejection[]): void {
  tellDurable(lane, shard, part, { repeat: true, rejections });
  if (shard.watermark < part.lastSeq) shard.repeats.push(part);
  else tellProcessed(lane, shard, part);
}

/** Says that a part is durable. */
export function tellDurable(
  lane: Lane,
  shard: Shard,
  { position, listener, lastSeq: seq }: WaitingPart,
  { repeat, rejections }: { readonly repeat: boolean; readonly rejections: readonly PartRejection[] },
): void {
  if (listener === null) return;
  tell(lane, listener, { kind: "durable", position, shard: shard.id, epoch: shard.epoch, seq, repeat, rejections });
}

/** Says that a part is durable, for the first time and without rejections: what nearly always happens. */
export function tellAppended(lane: Lane, shard: Shard, batch: RecentBatch, position: number, seq: Seq): void {
  if (batch.listener !== null) newsFor(lane, batch.listener, batch.size).addAppended(position, shard, seq);
}

/** Says that the watermark has passed a part. */
export function tellProcessed(lane: Lane, shard: Shard, { position, listener, firstSeq, lastSeq }: WaitingPart): void {
  if (listener === null) return;
  const obligations = countOwed(shard, firstSeq, lastSeq);
  tell(lane, listener, { kind: "processed", position, obligations });
}

/** So many parts of a batch are passed by one flush, roughly: it takes the entities that changed longest ago, of any shard. */
const passedAtOnce = 8;

/** Says that the watermark has passed the first parts of a channel. */
export function tellPassed(lane: Lane, shard: Shard, recent: RecentParts, passed: number): void {
  const owes = shard.obligations.size > 0;
  for (let index = 0; index < passed; index++) {
    const batch = recent.batches[index];
    if (owes) tellProcessed(lane, shard, recentAt(recent, index));
    else if (batch !== undefined && batch.listener !== null) {
      newsFor(lane, batch.listener, passedAtOnce).addPassed(positionOf(recent, index));
    }
  }
}

/** Answers repeats from the log: the same content, other content, or a number that has no entry (R10). */
export function answerLookUps(lane: Lane, { asked, found }: Extract<LaneMessage, { kind: "looked-up" }>): void {
  const partsOf = createPartsReader();
  for (const [index, lookUp] of asked.entries()) {
    const head = found[index] ?? null;
    const part = head === null ? null : partsOf(head).get(keyOf(lookUp.place));
    answerLookUp(lane, lookUp, part ?? null);
  }
}

function answerLookUp(lane: Lane, { place, hash, position, listener }: LookUp, found: ReadPart | null): void {
  const asked = { position, listener };
  const shard = lane.shards.get(place.shard);
  if (shard === undefined || isSealed(shard))
    return refuse(lane, asked, "MOVED", `this node does not own shard ${place.shard}`);
  if (found === null || found.hash !== hash) {
    return refuse(lane, asked, "BATCH_CHANGED", `batch ${place.number} was taken with other content, or not at all`);
  }
  const { firstSeq, lastSeq, rejections } = found;
  const channel = shard.channels.get(place.channel);
  if (channel !== undefined) channel.found = { number: place.number, seq: firstSeq };
  answerRepeat(lane, shard, { ...asked, firstSeq, lastSeq }, rejections);
}

/** Reads the parts of heads; one that holds several is read once. */
function createPartsReader(): (head: SegmentHead) => ReadonlyMap<string, ReadPart> {
  const read = new Map<SegmentHead, ReadonlyMap<string, ReadPart>>();
  return (head) => {
    const known = read.get(head) ?? new Map(readParts(head).map((part) => [keyOf(part), part]));
    read.set(head, known);
    return known;
  };
}

function keyOf({ channel, number }: Pick<AskedPart, "channel" | "number">): string {
  return `${number} ${channel}`;
}

/** Tells a listener, together with all else that the step has for it. */
export function tell(lane: Lane, listener: PartListener, event: PartEvent): void {
  newsFor(lane, listener, 1).add(event);
}

function newsFor(lane: Lane, listener: PartListener, size: number): PartNews {
  const { last } = lane.told;
  if (last?.listener === listener) return last.news;
  let told = lane.told.all.get(listener);
  if (told === undefined) {
    told = { kind: "tell", listener, news: new PartNews(size) };
    lane.told.all.set(listener, told);
    lane.effects.push(told);
  }
  lane.told.last = told;
  return told.news;
}

function refuse(
  lane: Lane,
  { position, listener }: { readonly position: number; readonly listener: PartListener },
  code: "MOVED" | "GAP" | "BATCH_CHANGED" | "BUSY",
  message: string,
): void {
  lane.world.counters.add(`refused/${code}`);
  tell(lane, listener, { kind: "refused", position, error: new StarlingError(code, message) });
}
