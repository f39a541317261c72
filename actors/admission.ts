import type { Seq } from "../proto/ids.ts";
import { StarlingError } from "../proto/starling-error.ts";
import { planAdmission, type RecentPart } from "./channel.ts";
import type { Lane, Offer } from "./lane.ts";
import { countOwed } from "./obligation.ts";
import type { PartEvent, PartListener } from "./part.ts";
import { findPart } from "./segment.ts";
import { createChannel, type Shard } from "./shard.ts";
import type { Segment } from "./store/store.ts";

/** Whether a channel belongs to a shard's outbox; bounds refuse only outside senders (R13). */
export function isOutboxChannel(channel: string): boolean {
  return channel.startsWith("s:");
}

/** Takes an offered part, recognises it as a repeat, or refuses it with a code. */
export function admit(lane: Lane, offer: Offer): void {
  const { part, listener } = offer;
  const shard = lane.shards.get(part.shard);
  if (shard === undefined) return refuse(lane, listener, "MOVED", `this node does not own shard ${part.shard}`);
  let channel = shard.channels.get(part.channel);
  if (channel === undefined) {
    channel = createChannel(0);
    shard.channels.set(part.channel, channel);
  }
  const admission = planAdmission(channel, part);
  switch (admission.kind) {
    case "gap":
      return refuse(
        lane,
        listener,
        "GAP",
        `batch ${part.number} names ${part.predecessor}, the last one is ${channel.last}`,
      );
    case "changed":
      return refuse(lane, listener, "BATCH_CHANGED", `batch ${part.number} came back with other content`);
    case "repeat":
      lane.world.counters.add("repeats");
      return tellRepeat(lane, shard, admission.recent, listener);
    case "look-up":
      lane.world.counters.add("repeats");
      lane.effects.push({ kind: "look-up", offer });
      return;
    case "append":
      break;
  }
  const full = isOutboxChannel(part.channel) ? null : findFullBound(lane, shard);
  if (full !== null) return refuse(lane, listener, "BUSY", full);
  channel.last = part.number;
  channel.dirty = true;
  const recent = {
    number: part.number,
    hash: part.hash,
    firstSeq: null,
    lastSeq: null,
    rejections: part.rejections,
    listeners: [listener],
  };
  channel.recent.set(part.number, recent);
  shard.blocks.push({ block: { kind: "part", part }, entry: null });
  shard.backlogTasks += part.tasks.length;
  shard.backlogBytes += part.bytes;
  lane.backlogBytes += part.bytes;
  lane.waiting.add(shard);
}

function findFullBound(lane: Lane, shard: Shard): string | null {
  const { limits } = lane.world;
  if (lane.status === "closing") return "the node is closing";
  if (shard.backlogTasks >= limits.lagMaxEntries)
    return `shard ${shard.id} has ${shard.backlogTasks} unprocessed tasks`;
  if (shard.backlogBytes >= limits.lagMaxBytes) return `shard ${shard.id} has ${shard.backlogBytes} unprocessed bytes`;
  if (lane.backlogBytes >= limits.backlogMaxBytes)
    return `the node has ${lane.backlogBytes} unprocessed bytes in a lane`;
  return null;
}

function tellRepeat(lane: Lane, shard: Shard, recent: RecentPart, listener: PartListener): void {
  const { epoch } = shard;
  const { firstSeq, lastSeq: seq, rejections } = recent;
  if (firstSeq === null || seq === null) {
    recent.listeners.push(listener);
    return;
  }
  tell(lane, listener, { kind: "durable", epoch, seq, repeat: true, rejections });
  tellWhenProcessed(lane, shard, { firstSeq, lastSeq: seq }, listener);
}

/** Says `processed` as soon as the watermark has passed a part: at the level that really holds (R10). */
export function tellWhenProcessed(
  lane: Lane,
  shard: Shard,
  { firstSeq, lastSeq: seq }: { readonly firstSeq: Seq; readonly lastSeq: Seq },
  listener: PartListener,
): void {
  if (shard.watermark < seq) shard.unprocessed.push({ firstSeq, seq, listener });
  else tell(lane, listener, { kind: "processed", obligations: countOwed(shard, firstSeq, seq) });
}

/** Answers a repeat from the log: the same content, other content, or a number that has no entry (R10). */
export function answerLookUp(lane: Lane, offer: Offer, segment: Segment | null): void {
  const { part, listener } = offer;
  const shard = lane.shards.get(part.shard);
  if (shard === undefined) return refuse(lane, listener, "MOVED", `this node does not own shard ${part.shard}`);
  const found = segment === null ? null : findPart(segment, part.channel, part.number);
  if (found === null || found.hash !== part.hash) {
    return refuse(lane, listener, "BATCH_CHANGED", `batch ${part.number} was taken with other content, or not at all`);
  }
  tell(lane, listener, {
    kind: "durable",
    epoch: shard.epoch,
    seq: found.lastSeq,
    repeat: true,
    rejections: found.rejections,
  });
  tellWhenProcessed(lane, shard, found, listener);
}

export function tell(lane: Lane, listener: PartListener, event: PartEvent): void {
  lane.effects.push({ kind: "tell", listener, event });
}

function refuse(
  lane: Lane,
  listener: PartListener,
  code: "MOVED" | "GAP" | "BATCH_CHANGED" | "BUSY",
  message: string,
): void {
  lane.world.counters.add(`refused/${code}`);
  tell(lane, listener, { kind: "refused", error: new StarlingError(code, message) });
}
