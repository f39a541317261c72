import type { Clock } from "../../proto/clock.ts";
import { withDeadline } from "../../proto/deadline.ts";
import { StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import { type ReadOutbox, type ReadSegment, readSegment } from "../log/segment.ts";
import { restoreMarks, resumeTick } from "../snapshots/tick-mark.ts";
import type { Segment, Store } from "../store/store.ts";
import { countBacklog } from "./backlog.ts";
import { createEntry } from "./entry.ts";
import { forgetShard } from "./forget-shard.ts";
import { type Lane, type ReplayLog, storeDelayMs } from "./lane.ts";
import { letterOfMisfit } from "./letter.ts";
import { addOwed } from "./obligation.ts";
import { sendOutbox } from "./outbox.ts";
import { taskFrom } from "./part.ts";
import { gateShards } from "./poison.ts";
import { deliver } from "./processing.ts";
import { addRecent, besideOf, setDurable } from "./recent-parts.ts";
import { type Debts, restoreObligations } from "./restore-obligations.ts";
import { answerKey, createChannel, replayAfter, type Shard, useChannel } from "./shard.ts";

/**
 * Takes shards over: what stands in the log above the watermark is processed again. State is replayed by applied seq,
 * hooks by watermark and recorded answers (R14); channels go on from the checkpoint and the entries above it (R9); outbox
 * lines above `delivered` are sent again, in order, the first of each target as "unknown" (R12). What entities owe below
 * the watermark comes from its rows, and what waits behind that from the log (R16). Hooks may have to wait for a gate (R17).
 */
export function ownShards(lane: Lane, shards: readonly Shard[], logs: readonly ReplayLog[]): void {
  for (const shard of shards) {
    const former = lane.shards.get(shard.id);
    if (former !== undefined)
      forgetShard(lane, former, new StarlingError("FENCED", `shard ${shard.id} has epoch ${shard.epoch} now`));
    lane.shards.set(shard.id, shard);
  }
  const segmentsOf = new Map(logs.map(({ shard, segments }) => [shard, segments]));
  for (const shard of shards) {
    const segments = segmentsOf.get(shard) ?? [];
    const read = segments.map((segment) => readSegment(segment, lane.world.model));
    restoreRecorded(shard, read);
    restoreMarks(shard, read);
    const owed = restoreObligations(lane, shard);
    for (const segment of read) {
      restoreChannels(shard, segment);
      for (const line of segment.outbox)
        if (line.seq > shard.savedDelivered) resend(lane, shard, line, segment.segment.at);
      restoreEntries(lane, shard, segment, owed);
      restoreBacklog(lane, shard, segment);
    }
    // There may be nothing to replay, and yet seqs that nobody has (R25): the watermark passes them.
    if (shard.lastSeq > shard.watermark) lane.touched.add(shard);
  }
  gateShards(lane, shards);
  for (const shard of shards) resumeTick(lane, shard);
}

/** What no longer fits the model travels no further: a dead letter stands for it (P7). */
function resend(lane: Lane, shard: Shard, line: ReadOutbox, at: number): void {
  for (const { logged, error, cause } of line.misfits) {
    letterOfMisfit(shard, line.seq, at, logged, error, `${cause.hook}#${cause.ordinal}`);
  }
  sendOutbox(lane, shard, line, line.seq);
}

/** All that are found: of what the watermark has passed too, since entities may owe it. */
function restoreRecorded(shard: Shard, read: readonly ReadSegment[]): void {
  for (const { answers, results } of read) {
    for (const { cause, result } of results) {
      if (cause > shard.watermark || shard.owed.length > 0) shard.recorded.results.set(cause, result);
    }
    for (const { cause, hook } of answers) {
      if (cause > shard.watermark || shard.owed.length > 0) shard.recorded.answers.add(answerKey(cause, hook));
    }
  }
}

function restoreChannels(shard: Shard, read: ReadSegment): void {
  for (const part of read.parts) {
    const channel = shard.channels.get(part.channel) ?? createChannel(0);
    if (part.number <= channel.last) continue;
    const { number, hash, firstSeq, lastSeq, rejections } = part;
    if (channel.recent === null) useChannel(shard, part.channel, channel);
    const recent = addRecent(channel, { number, hash, size: 1, listener: null }, 0);
    setDurable(channel, number, firstSeq, lastSeq);
    if (rejections.length > 0) besideOf(recent, number).rejections = rejections;
  }
}

function restoreBacklog(lane: Lane, shard: Shard, { segment, tasks }: ReadSegment): void {
  if (segment.lastSeq <= shard.watermark) return;
  const bytes = segment.body.length;
  shard.backlog.segments.push({ lastSeq: segment.lastSeq, tasks: tasks.length, bytes });
  countBacklog(lane, shard, tasks.length, bytes);
}

function restoreEntries(lane: Lane, shard: Shard, read: ReadSegment, debts: Debts): void {
  for (const { seq, logged, cause } of read.tasks) {
    const debt = seq > shard.watermark ? null : debts.get(`${logged.type}\t${logged.eid}`);
    if (debt === undefined || (debt !== null && seq < debt.from)) continue;
    const { task } = logged;
    const last = (seq + logged.lines - 1) as typeof seq;
    lane.world.counters.add("replayed_tasks");
    if (task instanceof StarlingError) {
      // A message of a behaviour that is gone may have had its effect.
      if (shard.recorded.results.has(seq)) continue;
      letterOfMisfit(shard, seq, read.segment.at, logged, task);
      continue;
    }
    const entry = createEntry(taskFrom(task, cause), seq, last, read.segment.at, true);
    if (debt === null) shard.open.push(entry);
    else addOwed(lane, shard, debt.obligation, entry);
    deliver(lane, shard, entry);
  }
}

const replayPage = 1000;
const logsAtOnce = 8;
const readWithinMs = 10_000;

interface LogReader {
  readonly store: Store;
  readonly clock: Clock;
}

/** The logs of shards above what is processed, some at once; of one that is no longer wanted nothing. */
export async function readLogs(
  reader: LogReader,
  shards: readonly Shard[],
  isWanted: (shard: Shard) => boolean,
): Promise<ReplayLog[]> {
  const logs: ReplayLog[] = [];
  const left = shards.filter((shard) => shard.lastSeq > replayAfter(shard));
  const read = async (): Promise<void> => {
    for (let shard = left.pop(); shard !== undefined; shard = left.pop()) {
      logs.push({ shard, segments: await readLog(reader, shard, isWanted) });
    }
  };
  await Promise.all(Array.from({ length: logsAtOnce }, read));
  return logs;
}

async function readLog(
  reader: LogReader,
  shard: Shard,
  isWanted: (shard: Shard) => boolean,
): Promise<readonly Segment[]> {
  const segments: Segment[] = [];
  let after = replayAfter(shard);
  while (isWanted(shard)) {
    const page = await readPage(reader, shard, after, isWanted);
    segments.push(...page);
    const last = page.at(-1);
    if (last === undefined || page.length < replayPage) break;
    after = last.lastSeq;
  }
  return segments;
}

/** Tries again for as long as that can help. Raises what cannot be mended. */
async function readPage(
  { store, clock }: LogReader,
  shard: Shard,
  after: Segment["lastSeq"],
  isWanted: (shard: Shard) => boolean,
): Promise<readonly Segment[]> {
  for (let attempts = 1; isWanted(shard); attempts++) {
    try {
      const text = `the log of shard ${shard.id} was not read`;
      return await withDeadline(store.readLog(shard.id, after, replayPage), { clock, deadlineMs: readWithinMs, text });
    } catch (error) {
      const problem = toStarlingError(error, "STORE");
      if (!problem.retryable) throw problem;
      await pause(clock, storeDelayMs(attempts));
    }
  }
  return [];
}

/** Settles after a while. */
export function pause(clock: Clock, ms: number): Promise<void> {
  return new Promise((resolve) => void clock.after(ms, resolve));
}
