import { toSeq } from "../../proto/ids.ts";
import { unreachable } from "../../proto/unreachable.ts";
import type { AttemptMark, FlushRequest } from "../store/store.ts";
import { causeOf, type Entry, isSettled } from "./entry.ts";
import { deathsMax, type Gate } from "./gate.ts";
import type { Lane } from "./lane.ts";
import { advance } from "./processing.ts";
import { isSealed, type Shard } from "./shard.ts";

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
 *
 * The mark is a row per shard; its size is what a clean restart does not pay: it has none.
 */
const windowMaxSeqs = 8192;

/** Gates the shards that were not given up by their owner, or that still have a mark. */
export function gateShards(lane: Lane, shards: readonly Shard[]): void {
  const gated = shards.filter((shard) => shard.openTo === 0).sort((a, b) => rank(a) - rank(b) || a.id - b.id);
  const entries = gated.flatMap((shard) => replayedOf(shard).map((entry) => ({ shard, entry })));
  const marked = gated.filter(({ attempt }) => attempt !== null);
  const waiting = new Set(entries.map(({ shard }) => shard));
  for (const shard of gated) if (!waiting.has(shard)) shard.openTo = Number.POSITIVE_INFINITY;
  if (entries.length === 0 && marked.length === 0) return;
  if (lane.gate !== null) {
    // Of marks that come while a gate is there only the rows are taken over: their places are found anew.
    lane.gate.entries.push(...entries);
    for (const shard of marked) lane.gate.marked.add(shard);
    return;
  }
  lane.gate = {
    entries,
    first: 0,
    status: "queued",
    windows: new Map(),
    marked: new Set(marked),
    size: windowMaxSeqs,
    narrowWindows: 0,
    poisoned: false,
    parked: new Map(),
  };
}

/** Shards with a mark come first: their windows are where the death was. */
function rank(shard: Shard): number {
  return shard.attempt === null ? 1 : 0;
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
      if (lane.world.turn.take(lane, () => lane.world.post({ kind: "sweep" }))) inherit(lane, gate);
      return;
    case "marking":
    case "closing":
      if (lane.flush === null && ![...gate.windows.keys(), ...gate.marked].some((shard) => owns(lane, shard))) {
        beginWindow(lane, gate, 0);
      }
      return;
    case "open":
      if (hasPassed(lane, gate)) beginWindow(lane, gate, 0);
      return;
    default:
      return unreachable(gate.status);
  }
}

/** Of a sealed shard no hook runs any more, and of one that is kept back no mark is written. */
function owns(lane: Lane, shard: Shard): boolean {
  return lane.shards.get(shard.id) === shard && !isSealed(shard) && shard.keptBack === null;
}

/** The first window: half of the one in which the owner before died. */
function inherit(lane: Lane, gate: Gate): void {
  let seqs = 0;
  let deaths = 0;
  let died = false;
  for (const { shard, entry } of gate.entries) {
    const mark = shard.attempt;
    const inside = mark === null ? 0 : Math.min(entry.lastSeq, mark.to) - Math.max(entry.seq, mark.from) + 1;
    if (mark === null || inside <= 0) continue;
    seqs += inside;
    deaths = Math.max(deaths, mark.deaths);
    died ||= !shard.clean;
  }
  if (seqs === 0) return beginWindow(lane, gate, 0);
  if (seqs === 1 && died) deaths++;
  gate.size = died ? Math.ceil(seqs / 2) : seqs;
  gate.narrowWindows = died && seqs > 1 ? 2 : 1;
  beginWindow(lane, gate, seqs === 1 ? deaths : 0);
  gate.poisoned = deaths >= deathsMax;
  // Nothing runs that a mark would have to tell of.
  if (gate.poisoned) openWindow(lane, gate);
}

function beginWindow(lane: Lane, gate: Gate, deaths: number): void {
  const last = gate.windows;
  gate.poisoned = false;
  gate.windows = planWindow(lane, gate, gate.narrowWindows-- > 0 ? gate.size : windowMaxSeqs, deaths);
  // What became a dead letter in the last window is written with the mark of the next one.
  for (const shard of [...last.keys(), ...gate.windows.keys(), ...gate.marked]) {
    if (owns(lane, shard)) lane.touched.add(shard);
  }
  gate.status = gate.windows.size > 0 ? "marking" : "closing";
  if (gate.status === "closing" && ![...gate.marked].some((shard) => owns(lane, shard))) endGate(lane, gate);
}

/** The next `size` seqs, by shard. */
function planWindow(lane: Lane, gate: Gate, size: number, deaths: number): Map<Shard, AttemptMark> {
  const windows = new Map<Shard, AttemptMark>();
  let left = size;
  for (let index = gate.first; left > 0 && index < gate.entries.length; index++) {
    const gated = gate.entries[index];
    if (gated === undefined || !owns(lane, gated.shard) || gated.entry.phase === "ended") continue;
    const { shard, entry } = gated;
    const from = Math.max(entry.seq, shard.openTo + 1, shard.attempt?.from ?? 0);
    const to = Math.min(entry.lastSeq, from + left - 1);
    left -= Math.max(0, to - from + 1);
    windows.set(shard, { from: windows.get(shard)?.from ?? toSeq(from), to: toSeq(to), deaths });
  }
  return windows;
}

/** Whether every hook of the window has ended, or runs on for too long. */
function hasPassed(lane: Lane, gate: Gate): boolean {
  for (let index = gate.first; index < gate.entries.length; index++) {
    const gated = gate.entries[index];
    if (gated === undefined) break;
    const { shard, entry } = gated;
    if (owns(lane, shard) && entry.phase !== "ended") {
      if (entry.seq > shard.openTo) break;
      if (!isThrough(lane, gate, shard, entry)) return false;
      // The window may end within this entry.
      if (entry.lastSeq > shard.openTo) break;
    }
    if (index === gate.first) gate.first++;
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
  const shards = new Set([...gate.marked, ...gate.windows.keys()]);
  return [...shards]
    .filter((shard) => owns(lane, shard))
    .map((shard) => ({ shard: shard.id, mark: gate.windows.get(shard) ?? null }));
}

/**
 * The mark that a shard leaves to its next owner, though it was given up: what is left of a gated range has still not shown
 * that a process lives through it. Undefined: the row stays as it is.
 */
export function planLastAttempt(
  { gate }: Lane,
  shard: Shard,
): NonNullable<FlushRequest["attempts"]>[number] | undefined {
  if (gate === null) return undefined;
  const left = gate.entries.filter((gated) => gated.shard === shard && !isSettled(gated.entry));
  const first = left[0]?.entry.seq;
  const last = left.at(-1)?.entry.lastSeq;
  const marked = gate.marked.has(shard);
  if (first === undefined || last === undefined) return marked ? { shard: shard.id, mark: null } : undefined;
  if (marked) return undefined;
  return { shard: shard.id, mark: { from: first, to: toSeq(Math.min(last, first + windowMaxSeqs - 1)), deaths: 0 } };
}

/** The marks are durable: the window's hooks run. */
export function onMarked(lane: Lane): void {
  const { gate } = lane;
  if (gate === null) return;
  gate.marked = new Set(gate.windows.keys());
  if (gate.status === "marking") openWindow(lane, gate);
  else if (gate.first === gate.entries.length) endGate(lane, gate);
  // Shards came while the gate was closing.
  else gate.status = "open";
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
