import type { Hook, HookTable } from "../../modules/hook.ts";
import { createLineText, writeTask } from "../log/line.ts";
import type { HeldEntry, StoredObligation } from "../store/store.ts";
import { countBacklog } from "./backlog.ts";
import type { Entity } from "./entity.ts";
import { type Cursor, cursorOf, type Entry, isFlushed, isSettled } from "./entry.ts";
import type { Lane } from "./lane.ts";
import type { Cause } from "./part.ts";
import type { Shard } from "./shard.ts";

/**
 * Obligations (R16). The watermark does not wait for a hook that takes long: the hook's entry is held, whole, by a row, and
 * what waits behind it in its entity counts as passed too; the row names the first of those. So a row is an entity's own
 * watermark, and it moves as the shard's does, in a flush:
 *
 *  O1  A row is written in the transaction whose watermark first passes the entries that it stands for.
 *  O2  The watermark never passes an answer to a held entry unless the row's cursor passes it in the same transaction, or the
 *      row ends there. Answers above the watermark are found in the log. So an answer is known by the one or the other.
 *  O3  Answers to entries behind are found in the log from `firstWaiting` on: they stand behind their causes.
 *  O4  A row ends, or moves to the entity's next entry, when state, hooks and answers of the entry stand (R14).
 *
 * O2 and O4 replace "the row is deleted in the transaction that records the answer": appends know nothing of obligations, and
 * an empty answer needs no entry in the log.
 */
export interface Obligation {
  readonly entity: Entity;
  /** What the watermark has passed and is still open, in log order. */
  readonly entries: Entry[];
  held: Held | null;
  /** What the row says, in short. */
  saved: string;
}

/** An entry that its row holds. */
export interface Held {
  readonly entry: Entry;
  /** Its lines, as in the log. */
  readonly task: string;
  readonly cause: Cause | null;
  /** Where it goes on after a take-over: all answers before stand. */
  cursor: Cursor;
  /** Id of the hook there. */
  hook: string;
}

/** Whether the watermark may pass an open entry: its hook takes too long, or it waits behind such a one. */
export function owe(lane: Lane, shard: Shard, entry: Entry): boolean {
  const { entity } = entry;
  if (entity === null) return false;
  if (entity.obligation === null) {
    if (!isOverdue(lane, shard, entry) || entry.unrecorded > 0 || !isFlushed(entry)) return false;
    const obligation = createObligation(shard, entity);
    obligation.held = hold(entry);
    lane.world.counters.add("obligations");
  }
  addOwed(lane, shard, entity.obligation, entry);
  return true;
}

/** Whether an entry's hook has taken longer than an entry may hold the watermark. */
export function isOverdue(lane: Lane, shard: Shard, entry: Entry): boolean {
  const { running } = entry;
  if (running === null) return false;
  const { obligationAfterMs, obligationAfterSeqs } = lane.world.limits;
  const late = lane.world.monotonic() - running.since >= obligationAfterMs;
  return late || shard.durableSeq - running.sinceSeq >= obligationAfterSeqs;
}

/** An entity's obligation, without entries. */
export function createObligation(shard: Shard, entity: Entity): Obligation {
  const obligation: Obligation = { entity, entries: [], held: null, saved: "" };
  entity.obligation = obligation;
  shard.obligations.add(obligation);
  return obligation;
}

/** Counts an entry among what its entity owes, and so, until it is done, among what the shard has yet to process (R7). */
export function addOwed(lane: Lane, shard: Shard, obligation: Obligation | null, entry: Entry): void {
  if (obligation === null) throw new Error(`entry ${entry.seq} is owed by nobody`);
  entry.obligation = obligation;
  obligation.entries.push(entry);
  entry.owedBytes = entry.task?.datapoints.reduce((sum, { json }) => sum + 200 + json.length, 200) ?? 0;
  countBacklog(lane, shard, 1, entry.owedBytes);
}

function hold(entry: Entry): Held | null {
  if (entry.task === null) return null;
  const text = createLineText();
  writeTask(entry.task, text, "\n");
  return { entry, task: text.pieces.join("").slice(0, -1), cause: entry.task.cause, cursor: cursorOf(entry), hook: "" };
}

/** The rows that change with the flush at hand; what is done by then is no longer owed, nor counted as waiting (R7). */
export function planObligations(lane: Lane, shard: Shard): StoredObligation[] {
  const rows: StoredObligation[] = shard.misfits.splice(0);
  for (const obligation of shard.obligations) {
    dropDone(lane, shard, obligation);
    const row = rowOf(lane.world.hooks, shard, obligation);
    const text = `${row.held?.seq} ${row.held?.place} ${row.firstWaiting}`;
    if (text !== obligation.saved) rows.push(row);
    obligation.saved = text;
    if (obligation.entries.length > 0) continue;
    shard.obligations.delete(obligation);
    obligation.entity.obligation = null;
  }
  return rows;
}

function dropDone(lane: Lane, shard: Shard, { entries }: Obligation): void {
  let done = 0;
  for (const entry of entries) {
    if (!isSettled(entry) || !isFlushed(entry)) break;
    done++;
    countBacklog(lane, shard, -1, -entry.owedBytes);
  }
  entries.splice(0, done);
}

function rowOf(hooks: HookTable, shard: Shard, obligation: Obligation): StoredObligation {
  const { entity, entries } = obligation;
  const [first, second] = entries;
  const held = first !== undefined && first === obligation.held?.entry ? obligation.held : null;
  if (held !== null && held.entry.phase !== "waiting") moveCursor(hooks, held);
  obligation.held = held;
  const waiting = held === null ? first : second;
  const key = { shard: shard.id, type: entity.spec.id, eid: entity.eid };
  return { ...key, held: held && writeHeld(held), firstWaiting: waiting?.seq ?? null };
}

/** With an answer on its way the cursor stands where that of the last durable one left it. */
function moveCursor(hooks: HookTable, held: Held): void {
  const { entry } = held;
  if (entry.unrecorded === 0) held.cursor = cursorOf(entry);
  held.hook = hooksAt(hooks, held)[held.cursor.hook]?.id ?? "";
}

function hooksAt(hooks: HookTable, { entry, cursor }: Held): readonly Hook[] {
  const type = entry.entity?.spec.id ?? "";
  switch (cursor.phase) {
    case "start":
      return hooks.onTaskStart;
    case "allow":
      return hooks.allowEntityCreation.get(type) ?? [];
    case "creation":
      return hooks.onEntityCreation.get(type) ?? [];
    case "message":
      return hooks.onMessage?.get(type) ?? [];
    case "attributes": {
      const attr = entry.task?.datapoints[cursor.datapoint]?.attr ?? "";
      return hooks.onNewAttr.get(type)?.get(attr) ?? [];
    }
    default:
      return [];
  }
}

/** How a held entry goes on is JSON: phase, datapoint, hook's place in its list, cause. */
type Place = readonly [phase: Cursor["phase"], datapoint: number, hook: number, cause: Cause | null];

function writeHeld({ entry, task, cause, cursor, hook }: Held): HeldEntry {
  const place: Place = [cursor.phase, cursor.datapoint, cursor.hook, cause];
  const { seq, lastSeq, at } = entry;
  return { seq, lastSeq, at, hook, place: JSON.stringify(place), task };
}

/** Reads what a row says of how its entry goes on. */
export function readPlace(held: HeldEntry): { readonly cursor: Cursor; readonly cause: Cause | null } {
  const [phase, datapoint, hook, cause] = JSON.parse(held.place) as Place;
  return { cursor: { phase, datapoint, hook }, cause };
}

/** Puts a held entry where its row says; a hook is known by its id, since its place may be another's by now. */
export function resume(hooks: HookTable, held: Held): void {
  const { entry, cursor } = held;
  const index = hooksAt(hooks, held).findIndex(({ id }) => id === held.hook);
  entry.phase = cursor.phase;
  entry.datapoint = cursor.datapoint;
  entry.hook = index < 0 ? cursor.hook : index;
}

/** How many tasks of a part are still open though the watermark has passed them. */
export function countOwed(shard: Shard, first: number, last: number): number {
  let count = 0;
  for (const { entries } of shard.obligations) {
    for (let index = entries.length - 1; index >= 0; index--) {
      const entry = entries[index];
      if (entry === undefined || entry.seq < first) break;
      if (entry.seq <= last && !isSettled(entry)) count++;
    }
  }
  return count;
}
