import { unreachable } from "../../proto/unreachable.ts";
import type { FlushRequest } from "../store/store.ts";
import { causeOf, type Entry } from "./entry.ts";
import { deathsMax, type Gate } from "./gate.ts";
import type { Lane } from "./lane.ts";
import { advance } from "./processing.ts";
import { isSealed, type Shard } from "./shard.ts";
import { lastMark, planWindow, type Suspect, suspectOf } from "./suspect.ts";

/**
 * Poison (R17). When an owner did not give its shards up, it may have died of a hook, and its successor may too. So hooks of
 * the replayed range run window by window, each under a mark that is durable before the first of them and replaced when all
 * have ended. A successor that finds a mark knows where the death was, and takes half of it; at the third death over one
 * datapoint its hooks become dead letters unrun.
 *
 *  1. At most one window is open in a process, over any number of a lane's shards: a death has one place (`turn.ts`).
 *  2. While the gate is there, no hook above the window runs, of new entries neither. State that needs no hook goes on.
 *  3. Within a shard windows grow in log order. What stands before an inherited mark passed in the life before.
 *  4. A hook that runs on for `obligationAfterMs` no longer holds its window, as it no longer holds the watermark.
 *  5. The dead letters of a poisoned datapoint are written in the flush that replaces its mark.
 *  6. A mark that an owner finds is that of a death, also if the shard was given up in between: who gives it up before its
 *     range has passed leaves the mark as it was, so that no move makes the range wider (`suspect.ts`).
 *
 * The mark is a row per shard; its size is what a clean restart does not pay: it has none.
 */

/** Gates the shards that were not given up by their owner, or that still have a mark. */
export function gateShards(lane: Lane, shards: readonly Shard[]): void {
  const suspects = shards.filter(({ openTo }) => openTo === 0).map((shard) => suspectOf(shard, replayedOf(shard)));
  const gated = suspects.filter(({ entries, isMarked }) => entries.length > 0 || isMarked);
  for (const { shard, entries } of suspects) if (entries.length === 0) shard.openTo = Number.POSITIVE_INFINITY;
  if (gated.length === 0) return;
  lane.gate ??= {
    shards: new Map(),
    status: "queued",
    windows: new Map(),
    marks: new Map(),
    poisoned: false,
    parked: new Map(),
  };
  for (const suspect of gated) lane.gate.shards.set(suspect.shard, suspect);
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
      if (hasPassed(lane, gate)) beginWindow(lane, gate);
      return;
    default:
      return unreachable(gate.status);
  }
}

/** Of a sealed shard no hook runs any more, and of one that is kept back no mark is written. */
function owns(lane: Lane, shard: Shard): boolean {
  return lane.shards.get(shard.id) === shard && !isSealed(shard) && shard.keptBack === null;
}

function beginWindow(lane: Lane, gate: Gate): void {
  const last = gate.windows;
  for (const shard of gate.shards.keys()) if (lane.shards.get(shard.id) !== shard) gate.shards.delete(shard);
  const suspects = [...gate.shards.values()].filter(({ shard }) => owns(lane, shard));
  const { marks, deaths } = planWindow(suspects);
  gate.windows = marks;
  gate.poisoned = deaths >= deathsMax;
  // Nothing runs that a mark would have to tell of.
  if (gate.poisoned) return openWindow(lane, gate);
  const former = suspects.filter(({ shard, isMarked }) => isMarked && !marks.has(shard));
  gate.marks = new Map([...former.map(({ shard }): [Shard, null] => [shard, null]), ...marks]);
  // What became a dead letter in the last window is written with the mark of the next one.
  for (const shard of [...last.keys(), ...gate.marks.keys()]) if (owns(lane, shard)) lane.touched.add(shard);
  gate.status = marks.size > 0 ? "marking" : "closing";
  if (gate.marks.size === 0) endGate(lane, gate);
}

/** Whether every hook of the window has ended, or runs on for too long. */
function hasPassed(lane: Lane, gate: Gate): boolean {
  for (const shard of gate.windows.keys()) {
    const suspect = gate.shards.get(shard);
    if (suspect !== undefined && owns(lane, shard) && !isWindowThrough(lane, gate, suspect)) return false;
  }
  return true;
}

function isWindowThrough(lane: Lane, gate: Gate, suspect: Suspect): boolean {
  const { shard, entries } = suspect;
  for (; suspect.first < entries.length; suspect.first++) {
    const entry = entries[suspect.first];
    if (entry === undefined || entry.seq > shard.openTo) return true;
    if (entry.phase === "ended") continue;
    if (!isThrough(lane, gate, shard, entry)) return false;
    // The window may end within this entry.
    if (entry.lastSeq > shard.openTo) return true;
  }
  return true;
}

function isThrough(lane: Lane, gate: Gate, shard: Shard, entry: Entry): boolean {
  const { entity } = entry;
  if (entity === null) return true;
  if (gate.parked.has(entity) && entity.mailbox?.[0] === entry && causeOf(entry) > shard.openTo) return true;
  const running = entity.mailbox?.[0]?.running ?? null;
  if (running === null || gate.poisoned) return false;
  return lane.world.monotonic() - running.since >= lane.world.limits.obligationAfterMs;
}

/** Whether a flush has to take a mark along, at once. */
export function needsMark({ gate }: Lane): boolean {
  return gate !== null && (gate.status === "marking" || gate.status === "closing");
}

/** The marks that the flush at hand writes and removes; undefined: none. */
export function planAttempts(lane: Lane): FlushRequest["attempts"] {
  const { gate } = lane;
  if (gate === null || !needsMark(lane)) return undefined;
  return [...gate.marks].filter(([shard]) => owns(lane, shard)).map(([shard, mark]) => ({ shard: shard.id, mark }));
}

/** The mark that a shard leaves to its next owner, though it was given up. Undefined: it has none, and never had. */
export function planLastAttempt(
  { gate }: Lane,
  shard: Shard,
): NonNullable<FlushRequest["attempts"]>[number] | undefined {
  const suspect = gate?.shards.get(shard);
  return suspect && { shard: shard.id, mark: lastMark(suspect) };
}

/** The marks are durable: the window's hooks run. */
export function onMarked(lane: Lane): void {
  const { gate } = lane;
  if (gate === null) return;
  for (const [shard, mark] of gate.marks) {
    const suspect = gate.shards.get(shard);
    if (suspect !== undefined) suspect.isMarked = mark !== null;
  }
  if (gate.status === "marking") openWindow(lane, gate);
  // Shards may have come while the gate was closing.
  else beginWindow(lane, gate);
}

function openWindow(lane: Lane, gate: Gate): void {
  gate.status = "open";
  for (const [shard, mark] of gate.windows) if (owns(lane, shard)) shard.openTo = mark.to;
  release(lane, gate);
}

function endGate(lane: Lane, gate: Gate): void {
  lane.gate = null;
  lane.world.turn.pass(lane);
  for (const shard of lane.shards.values()) if (owns(lane, shard)) shard.openTo = Number.POSITIVE_INFINITY;
  release(lane, gate);
}

function release(lane: Lane, gate: Gate): void {
  const parked = [...gate.parked];
  gate.parked.clear();
  for (const [entity, shard] of parked) if (owns(lane, shard)) advance(lane, shard, entity);
}
