import { StarlingError } from "../proto/starling-error.ts";
import { createEntry } from "./commit.ts";
import type { Lane, ReplayLog } from "./lane.ts";
import { sendOutbox } from "./outbox.ts";
import { enqueue } from "./processing.ts";
import { type ReadSegment, readSegment } from "./segment.ts";
import { answerKey, createChannel, type Shard } from "./shard.ts";

/**
 * Takes shards over: what stands in the log above the watermark is processed again. State is replayed by applied seq,
 * hooks by watermark and recorded answers (R14); channels go on from the checkpoint and the entries above it (R9); outbox
 * lines above `delivered` are sent again, in order, the first of each target as "unknown" (R12).
 */
export function ownShards(lane: Lane, shards: readonly Shard[], logs: readonly ReplayLog[]): void {
  for (const shard of shards) lane.shards.set(shard.id, shard);
  for (const { shard, segments } of logs) {
    const read = segments.map((segment) => readSegment(segment, lane.world.model));
    restoreRecorded(shard, read);
    for (const segment of read) {
      restoreChannels(shard, segment);
      for (const line of segment.outbox) if (line.seq > shard.savedDelivered) sendOutbox(lane, shard, line, line.seq);
      restoreEntries(lane, shard, segment);
    }
    lane.touched.add(shard);
  }
}

function restoreRecorded(shard: Shard, read: readonly ReadSegment[]): void {
  for (const { answers } of read) {
    for (const answer of answers) {
      if (answer.cause > shard.watermark) shard.recorded.answers.add(answerKey(answer.cause, answer.hook));
    }
  }
}

function restoreChannels(shard: Shard, read: ReadSegment): void {
  for (const part of read.parts) {
    const channel = shard.channels.get(part.channel) ?? createChannel(0);
    shard.channels.set(part.channel, channel);
    if (part.number <= channel.last) continue;
    channel.last = part.number;
    channel.dirty = true;
    const { number, hash, lastSeq, rejections } = part;
    channel.recent.set(number, { number, hash, lastSeq, rejections, listeners: [] });
  }
}

function restoreEntries(lane: Lane, shard: Shard, read: ReadSegment): void {
  for (const { seq, logged, cause } of read.tasks) {
    if (seq <= shard.watermark) continue;
    const last = (seq + logged.lines - 1) as typeof seq;
    if (logged.task instanceof StarlingError) {
      letterOfMisfit(shard, seq, read.segment.at, logged.type, logged.eid, logged.task);
      enqueue(lane, shard, createEntry(null, seq, last, read.segment.at, true));
    } else {
      enqueue(lane, shard, createEntry({ ...logged.task, cause }, seq, last, read.segment.at, true));
    }
    lane.world.counters.add("replayed_tasks");
  }
}

/** A logged task that the model of now does not take: a dead letter, never a crash. */
function letterOfMisfit(
  shard: Shard,
  seq: Shard["lastSeq"],
  at: number,
  type: string,
  eid: string,
  error: StarlingError,
): void {
  const { code, message } = error;
  shard.deadLetters.push({
    shard: shard.id,
    seq,
    kind: "unapplied",
    hook: "",
    type,
    eid,
    code,
    error: message,
    at,
    task: JSON.stringify({ type, eid }),
  });
}
