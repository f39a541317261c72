import { toSeq } from "../../proto/ids.ts";
import { unreachable } from "../../proto/unreachable.ts";
import type { AttemptMark, FlushRequest } from "../store/store.ts";
import { causeOf, type Entry } from "./entry.ts";
import { createGate, type Gate } from "./gate.ts";
import type { Lane } from "./lane.ts";
import { advance } from "./processing.ts";
import { isSealed, type Shard } from "./shard.ts";
import { isKnown, isOver, lastMark, planWindow, type Suspect, suspectOf } from "./suspect.ts";

/**
 * Poison (R17). When an owner did not give its shards up, it may have died of a hook, and its successor may too. So hooks of
 * the replayed range run window by window, each under a mark that is durable before the first of them and replaced when all
 * have ended. A successor that finds a mark knows where the death was, and takes half of it; at the third death over one
 * datapoint its hooks become dead letters unrun.
 *
 *  1. At most one window is open in a process, over any number of a lane's shards: a death has one place (`turn.ts`).
 *  2. While the gate is there, no hook above the window runs, of new entries neither. State that needs no hook goes on.
 *  3. Within an entity windows grow in log order; of all that is replayed no hook runs outside of one.
 *  4. A hook that runs on for `obligationAfterMs` no longer holds its window, as it no longer holds the watermark: one that
 *     ends its process later is not found. What comes behind it, of its task or its entity, gets another window when it is its
 *     turn.
 *  5. The dead letters of a poisoned datapoint are written in the flush that removes its mark, or before.
 *  6. What is known of a shard stays with it until it has passed (`suspect.ts`): a shard that is given up in order leaves it to
 *     its next owner, as no death.
 *
 * The mark is a row per shard; its size is what a clean restart does not pay: it has none.
 */

/** Gates the shards that were not given up by their owner, or that still have a mark. */
export function gateShards(lane: Lane, shards: readonly Shard[]): void {
  for (const shard of shards) {
    if (shard.openTo !== 0) continue;
    const suspect = suspectOf(shard.attempt, replayedOf(shard));
    if (suspect.entries.length === 0) shard.openTo = Number.POSITIVE_INFINITY;
    if (suspect.entries.length === 0 && !suspect.isMarked) continue;
    shard.suspect = suspect;
    lane.gate ??= createGate();
  }
}

function replayedOf(shard: Shard): Entry[] {
  const owed = [...shard.obligations].flatMap(({ entries }) => entries);
  return [...owed, ...shard.open].filter(({ task }) => task !== null).sort((a, b) => a.seq - b.seq);
}

/** Goes on with the gate, at the end of a step. */
export function tendGate(lane: Lane): void {
  const { gate } = lane;
  if (gate === null) return;
  switch (gate.status) {
    case "queued":
      if (lane.world.turn.take(lane, () => lane.world.post({ kind: "sweep" }))) beginWindow(lane, gate);
      return;
    case "marking":
    case "closing":
      // Its shards went, or are about to.
      if (lane.flush === null && ![...gate.marks.keys()].some((shard) => owns(lane, shard))) beginWindow(lane, gate);
      return;
    case "open":
      if (hasPassed(lane, gate)) endWindow(lane, gate);
      return;
    default:
      return unreachable(gate.status);
  }
}

function endWindow(lane: Lane, gate: Gate): void {
  // What became a dead letter is written with the mark of the next window.
  for (const shard of gate.windows.keys()) if (owns(lane, shard)) lane.touched.add(shard);
  beginWindow(lane, gate);
}

/** Of a sealed shard no hook runs any more, and of one that is kept back no mark is written. */
function owns(lane: Lane, shard: Shard): boolean {
  return lane.shards.get(shard.id) === shard && !isSealed(shard) && shard.keptBack === null;
}

function beginWindow(lane: Lane, gate: Gate): void {
  const shardOf = new Map<Suspect, Shard>();
  for (const shard of lane.shards.values()) {
    if (shard.suspect !== null && owns(lane, shard)) shardOf.set(shard.suspect, shard);
  }
  const { pieces, marks, isGivenUp } = planWindow([...shardOf.keys()]);
  const windows = new Map<Shard, AttemptMark>();
  for (const [suspect, shard] of shardOf) {
    const mark = marks.get(suspect);
    if (mark !== undefined) windows.set(shard, mark);
  }
  gate.windows = windows;
  gate.waiting = pieces.flatMap(({ suspect, entry, to }) => {
    const shard = shardOf.get(suspect);
    return shard === undefined ? [] : [{ shard, entry, to: toSeq(to) }];
  });
  gate.waiting.reverse();
  gate.poisoned = isGivenUp;
  // Nothing runs that a mark would have to tell of.
  if (isGivenUp) return openWindow(lane, gate);
  const former = [...shardOf].filter(
    ([suspect, shard]) => suspect.isMarked && !windows.has(shard) && !isKnown(suspect),
  );
  gate.marks = new Map([...former.map(([, shard]): [Shard, null] => [shard, null]), ...windows]);
  gate.status = windows.size > 0 ? "marking" : "closing";
  if (gate.marks.size === 0) endGate(lane, gate);
}

/** Whether every hook of the window has ended, or runs on for too long. */
function hasPassed(lane: Lane, gate: Gate): boolean {
  const { waiting } = gate;
  for (let next = waiting.at(-1); next !== undefined; next = waiting.at(-1)) {
    const { shard, entry } = next;
    if (owns(lane, shard) && entry.phase !== "ended" && !isThrough(lane, gate, entry)) return false;
    waiting.pop();
  }
  return true;
}

function isThrough(lane: Lane, gate: Gate, entry: Entry): boolean {
  const { entity } = entry;
  if (entity === null) return true;
  const front = entity.mailbox?.[0];
  if (front === undefined) return false;
  const isParked = gate.parked.has(entity) && front.heldAbove !== null && causeOf(front) > front.heldAbove;
  // The window ends within this entry.
  if (isParked && front === entry) return true;
  const isOverdue = front.running !== null && lane.now - front.running.since >= lane.world.limits.obligationAfterMs;
  if (!isParked && !isOverdue) return false;
  // What has not begun gets another window when it is its turn.
  entry.heldAbove = toSeq(Math.min(entry.heldAbove ?? entry.lastSeq, causeOf(entry) - 1));
  return true;
}

/** Whether a flush has to take a mark along, at once. */
export function needsMark({ gate }: Lane): boolean {
  return gate !== null && (gate.status === "marking" || gate.status === "closing");
}

/** The marks that the flush at hand writes and removes, and the shards that it has to hold for that; undefined: none. */
export function planAttempts(lane: Lane): FlushRequest["attempts"] {
  const { gate } = lane;
  if (gate === null || !needsMark(lane)) return undefined;
  const marks = [...gate.marks].filter(([shard]) => owns(lane, shard));
  for (const [shard] of marks) lane.touched.add(shard);
  return marks.map(([shard, mark]) => ({ shard: shard.id, mark }));
}

/** What a shard that is given up leaves to its next owner; undefined: nothing. */
export function planLastAttempt({ id, suspect }: Shard): NonNullable<FlushRequest["attempts"]>[number] | undefined {
  return suspect === null ? undefined : { shard: id, mark: lastMark(suspect) };
}

/** The marks are durable: the window's hooks run. */
export function onMarked(lane: Lane): void {
  const { gate } = lane;
  if (gate === null) return;
  for (const [{ suspect }, mark] of gate.marks) if (suspect !== null) suspect.isMarked = mark !== null;
  if (gate.status === "marking") openWindow(lane, gate);
  // Shards may have come while the gate was closing.
  else beginWindow(lane, gate);
}

function openWindow(lane: Lane, gate: Gate): void {
  gate.status = "open";
  for (const { shard, entry, to } of gate.waiting) if (owns(lane, shard)) entry.heldAbove = to;
  release(lane, gate);
}

function endGate(lane: Lane, gate: Gate): void {
  lane.gate = null;
  lane.world.turn.pass(lane);
  for (const shard of lane.shards.values()) {
    if (!owns(lane, shard)) continue;
    shard.openTo = Number.POSITIVE_INFINITY;
    if (shard.suspect !== null && isOver(shard.suspect)) shard.suspect = null;
  }
  release(lane, gate);
}

function release(lane: Lane, gate: Gate): void {
  const parked = [...gate.parked];
  gate.parked.clear();
  for (const [entity, shard] of parked) if (owns(lane, shard)) advance(lane, shard, entity);
}
