import { StarlingError } from "../../proto/starling-error.ts";
import { countBacklog } from "./backlog.ts";
import { owns } from "./commit.ts";
import type { Entry } from "./entry.ts";
import { flushLeaving } from "./flush.ts";
import { endHandOff, forgetShard, leaveKeptBack, refuseClosings, refuseReads, tellPartLost } from "./forget-shard.ts";
import type { Lane, LaneMessage } from "./lane.ts";
import type { Part } from "./part.ts";
import { type HandOff, isPart, isSealed, type Shard } from "./shard.ts";

/** How long a hook that still runs when its shard leaves may go on. */
export const hookGraceMs = 50;

/**
 * A shard is given up in order (DESIGN 5), so that its senders notice nothing but a pause, and the pause is short:
 *
 *   draining  it is served on, and what was dirty at the beginning is written, before all else of the lane;
 *   sealed    it takes nothing new, no hook begins, and parts that wait for the next append go back to their senders. Hooks
 *             that run have `hookGraceMs` to answer, and their answers one more append; then they are aborted;
 *   flushing  when no append holds anything of it, what is left is written, and then the lane forgets it.
 *
 *  G1  After its last flush nothing of a shard is written: nothing of it is in an append, nor will be, when that one begins.
 *  G2  What is durable and not processed is left to the next owner, by the log and the obligations, as after a death. So a
 *      hook may run twice, and its answer is recorded once: an answer that was not appended never was.
 *  G3  Everybody who waits hears that the shard moved, and no part that is given back stands in log or checkpoint.
 *  G4  The giving up of a shard that is lost meanwhile ends without a fence; one that the store does not answer waits.
 *  G5  Between a seal and its last flush the lane begins no other flush, and no other shard is sealed: a pause lasts at most
 *      the grace, two appends and one flush of what changed while a flush ran.
 */
export function beginHandOff(lane: Lane, message: Extract<LaneMessage, { kind: "give-up" }>): void {
  const { shards, hookGraceMs, reply } = message;
  for (const id of shards) {
    const shard = lane.shards.get(id);
    if (shard === undefined) lane.effects.push({ kind: "given-up", shard: id, fence: null, reply });
    else if (shard.handOff !== null) shard.handOff.replies.push(reply);
    else {
      // What is packed waits for nobody: at least one flush more takes what changes meanwhile (G5).
      const toDrain = shard.dirty.length + (lane.packed === null ? 0 : 1);
      const begin = { status: "draining", toDrain, running: [], hookGraceMs, since: lane.now, sealedAt: 0 } as const;
      shard.handOff = { ...begin, replies: [reply] };
      if (shard.keptBack === null) lane.leaving.add(shard);
      else leaveKeptBack(lane, shard);
    }
  }
}

/** Goes on with the shards that are being given up, at the end of a step; a flush at hand is waited for. */
export function tendHandOffs(lane: Lane): void {
  while (lane.leaving.size > 0 && lane.flush === null) {
    for (const shard of leavingAt(lane, "flushing")) finish(lane, shard);
    if (leavingAt(lane, "sealed").length === 0) {
      for (const shard of leavingAt(lane, "draining")) if (isDrained(lane, shard)) seal(lane, shard);
    }
    const sealed = leavingAt(lane, "sealed");
    if (sealed.some((shard) => !isQuiet(lane, shard))) return;
    const next = sealed.length > 0 ? sealed : leavingAt(lane, "draining");
    for (const { handOff } of sealed) if (handOff !== null) handOff.status = "flushing";
    if (next.length > 0) flushLeaving(lane, next);
  }
}

function leavingAt(lane: Lane, status: HandOff["status"]): Shard[] {
  return [...lane.leaving].filter(({ handOff }) => handOff?.status === status);
}

function isDrained({ dirty }: Lane, shard: Shard): boolean {
  return shard.handOff?.toDrain === 0 || !dirty.has(shard);
}

function seal(lane: Lane, shard: Shard): void {
  const { handOff } = shard;
  if (handOff === null) return;
  handOff.status = "sealed";
  handOff.sealedAt = lane.now;
  handOff.running = runningOf(shard);
  shard.openTo = -1;
  const error = movedError(shard);
  giveBackParts(lane, shard, error);
  refuseReads(lane, shard, error);
  if (isQuiet(lane, shard)) return;
  lane.effects.push({ kind: "hook-grace", shard, afterMs: handOff.hookGraceMs });
}

function movedError({ id }: Shard): StarlingError {
  return new StarlingError("MOVED", `shard ${id} moves to another node`);
}

function runningOf(shard: Shard): Entry[] {
  const owed = [...shard.obligations].flatMap(({ entries }) => entries);
  return [...owed, ...shard.open.slice(shard.firstOpen)].filter(({ running }) => running !== null);
}

/** Whether no hook of a sealed shard runs, and no append holds or awaits anything of it. */
function isQuiet(lane: Lane, shard: Shard): boolean {
  if (shard.blocks.length > 0 || lane.commit?.built.some((built) => built.shard === shard)) return false;
  return shard.handOff?.running.every(({ running }) => running === null) ?? true;
}

/** Tells the senders of parts that are in no append yet; answers stay. */
function giveBackParts(lane: Lane, shard: Shard, error: StarlingError): void {
  const parts = shard.blocks.filter(isPart);
  shard.blocks = shard.blocks.filter((pending) => !isPart(pending));
  if (shard.blocks.length === 0) lane.waiting.delete(shard);
  // Of a channel the last ones wait: from the end, each is the last of what its channel knows.
  for (const part of parts.reverse()) giveBack(lane, shard, part, error);
}

function giveBack(lane: Lane, shard: Shard, part: Part, error: StarlingError): void {
  const recent = shard.channels.get(part.channel)?.recent ?? null;
  const index = (recent?.batches.length ?? 0) - 1;
  if (recent?.batches[index]?.number !== part.number) throw new Error(`nobody took batch ${part.number}`);
  tellPartLost(lane, recent, index, error);
  recent.beside?.delete(part.number);
  recent.batches.length = index;
  recent.places.length = 3 * index;
  countBacklog(lane, shard, -part.tasks.length, -part.bytes);
}

/** Hooks that still run are aborted, and what they would answer is not taken; answers that no append has are forgotten. */
export function onGraceOver(lane: Lane, shard: Shard): void {
  const { handOff } = shard;
  if (!owns(lane, shard) || handOff?.status !== "sealed") return;
  const late = handOff.running.filter(({ running }) => running !== null);
  for (const entry of late) entry.running = null;
  if (late.length > 0) {
    lane.world.counters.add("hooks_given_up", late.length);
    lane.effects.push({ kind: "abandon", shard: shard.id });
  }
  const error = movedError(shard);
  giveBackParts(lane, shard, error);
  refuseClosings(lane, shard.blocks, error);
  shard.blocks = [];
  lane.waiting.delete(shard);
}

/** The last flush is durable. */
function finish(lane: Lane, shard: Shard): void {
  const { counters } = lane.world;
  const pausedMs = lane.now - (shard.handOff?.sealedAt ?? lane.now);
  counters.add("shards_given_up");
  counters.histogram("hand_off_pause_seconds").observe(pausedMs / 1000);
  counters.add("hand_off_pause_ms", Math.round(pausedMs));
  const longest = counters.counter("hand_off_pause_max_ms");
  longest.value = Math.max(longest.value, Math.round(pausedMs));
  endHandOff(lane, shard, shard.fence);
  forgetShard(lane, shard, movedError(shard));
}

/** Whether a dead letter's replay came to a sealed shard, and was refused. */
export function refuseLetter(lane: Lane, message: Extract<LaneMessage, { kind: "replay-letter" }>): boolean {
  const shard = lane.shards.get(message.letter.shard);
  if (shard === undefined || !isSealed(shard)) return false;
  lane.effects.push({ kind: "closed", reply: message.reply, error: movedError(shard) });
  return true;
}
