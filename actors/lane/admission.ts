import { markShard } from "../snapshots/tick-mark.ts";
import { askedPart, tellRepeat } from "./answer-repeat.ts";
import { countBacklog } from "./backlog.ts";
import { type Channel, planAdmission } from "./channel.ts";
import type { Lane, LookUp, Offer } from "./lane.ts";
import type { Part, PartListener } from "./part.ts";
import { addRecent, besideOf, type RecentBatch } from "./recent-parts.ts";
import { createChannel, isSealed, type Shard, useChannel } from "./shard.ts";
import { refuse } from "./tell.ts";

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
