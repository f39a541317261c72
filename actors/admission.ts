import { toSeq } from "../proto/ids.ts";
import { StarlingError } from "../proto/starling-error.ts";
import { countBacklog } from "./backlog.ts";
import { type Channel, planAdmission, type RecentPart, type WaitingPart } from "./channel.ts";
import type { Lane, LaneMessage } from "./lane.ts";
import { countOwed } from "./obligation.ts";
import type { Part, PartEvent, PartListener, PartRejection } from "./part.ts";
import { findPart, linesOfBlock } from "./segment.ts";
import { createChannel, type Shard } from "./shard.ts";

/** Whether a channel belongs to a shard's outbox; bounds refuse only outside senders (R13). */
export function isOutboxChannel(channel: string): boolean {
  return channel.startsWith("s:");
}

/** Takes an offered part, recognises it as a repeat, or refuses it with a code. */
export function admit(lane: Lane, part: Part, listener: PartListener): void {
  const shard = lane.shards.get(part.shard);
  const asked = { position: part.position, listener };
  if (shard === undefined) return refuse(lane, asked, "MOVED", `this node does not own shard ${part.shard}`);
  let channel = shard.channels.get(part.channel);
  if (channel === undefined) {
    channel = createChannel(0);
    shard.channels.set(part.channel, channel);
  }
  const admission = planAdmission(channel, part);
  switch (admission.kind) {
    case "gap": {
      const text = `batch ${part.number} names ${part.predecessor}, the last one is ${channel.last}`;
      return refuse(lane, asked, "GAP", text);
    }
    case "changed":
      return refuse(lane, asked, "BATCH_CHANGED", `batch ${part.number} came back with other content`);
    case "repeat":
      lane.world.counters.add("repeats");
      return tellRepeat(lane, shard, admission.recent, asked);
    case "look-up":
      lane.world.counters.add("repeats");
      lane.effects.push({ kind: "look-up", part, listener });
      return;
    case "append":
      break;
  }
  const full = isOutboxChannel(part.channel) ? null : findFullBound(lane, shard);
  if (full !== null) return refuse(lane, asked, "BUSY", full);
  take(lane, shard, channel, part, listener);
}

function take(lane: Lane, shard: Shard, channel: Channel, part: Part, listener: PartListener): void {
  const { number, hash, rejections, position } = part;
  const recent = { number, hash, rejections, position, listener, firstSeq: none, lastSeq: none, repeats: null };
  channel.last = number;
  channel.dirty = true;
  channel.recent.push(recent);
  shard.blocks.push({ lines: linesOfBlock(part), block: part, recent });
  countBacklog(lane, shard, part.tasks.length, part.bytes);
  lane.waiting.add(shard);
}

const none = toSeq(0);

function findFullBound(lane: Lane, shard: Shard): string | null {
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

interface Asked {
  readonly position: number;
  readonly listener: PartListener;
}

function tellRepeat(lane: Lane, shard: Shard, recent: RecentPart, asked: Asked): void {
  if (recent.lastSeq === 0) {
    recent.repeats ??= [];
    recent.repeats.push(asked);
    return;
  }
  const { firstSeq, lastSeq, rejections } = recent;
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

/** Says that the watermark has passed a part. */
export function tellProcessed(lane: Lane, shard: Shard, { position, listener, firstSeq, lastSeq }: WaitingPart): void {
  const obligations = countOwed(shard, firstSeq, lastSeq);
  if (listener !== null) tell(lane, listener, { kind: "processed", position, obligations });
}

/** Answers a repeat from the log: the same content, other content, or a number that has no entry (R10). */
export function answerLookUp(lane: Lane, message: Extract<LaneMessage, { kind: "looked-up" }>): void {
  const { part, listener, segment } = message;
  const asked = { position: part.position, listener };
  const shard = lane.shards.get(part.shard);
  if (shard === undefined) return refuse(lane, asked, "MOVED", `this node does not own shard ${part.shard}`);
  const found = segment === null ? null : findPart(segment, part.channel, part.number);
  if (found === null || found.hash !== part.hash) {
    return refuse(lane, asked, "BATCH_CHANGED", `batch ${part.number} was taken with other content, or not at all`);
  }
  const { firstSeq, lastSeq, rejections } = found;
  answerRepeat(lane, shard, { ...asked, firstSeq, lastSeq }, rejections);
}

/** Tells a listener, together with all else that the step has for it. */
export function tell(lane: Lane, listener: PartListener, event: PartEvent): void {
  let told = lane.told.last;
  if (told?.listener !== listener) {
    told = lane.told.all.get(listener) ?? null;
    if (told === null) {
      told = { kind: "tell", listener, news: [] };
      lane.told.all.set(listener, told);
      lane.effects.push(told);
    }
    lane.told.last = told;
  }
  told.news.push(event);
}

function refuse(
  lane: Lane,
  { position, listener }: Asked,
  code: "MOVED" | "GAP" | "BATCH_CHANGED" | "BUSY",
  message: string,
): void {
  lane.world.counters.add(`refused/${code}`);
  tell(lane, listener, { kind: "refused", position, error: new StarlingError(code, message) });
}
