import type { Hook } from "../../modules/hook.ts";
import { type Seq, toSeq } from "../../proto/ids.ts";
import type { Entity } from "./entity.ts";
import type { Obligation } from "./obligation.ts";
import type { Delivery } from "./outbox-state.ts";
import type { PartTask } from "./part.ts";

/**
 * A task in the log that the watermark has not passed, or that its entity still owes, and how far its processing is.
 *
 * `phase` walks start → allow → creation → apply → attributes → ended; of a message message → recording → ended; of
 * what another entity's link means apply → ended. `hook` and `datapoint` are the cursor within it.
 */
export interface Entry {
  seq: Seq;
  lastSeq: Seq;
  at: number;
  /** Null once the entry has settled, and for a task that no longer fits the model: its dead letter stands for it. */
  task: PartTask | null;
  /** Hooks of seqs above wait for a window (R17); null: none do. */
  heldAbove: Seq | null;
  /** Read back from the log after an acquire: answers may stand already, state may be applied. */
  replayed: boolean;
  entity: Entity | null;
  phase: Phase;
  hook: number;
  datapoint: number;
  /** The run whose answer is awaited; an answer of any other run is late and ignored (R15). */
  running: Run | null;
  /** Answers that are on their way into the log. */
  unrecorded: number;
  /** The seq whose state must be flushed before the watermark may pass; 0: none. */
  needsFlush: Seq;
  /** Set when the watermark has passed the entry though something of it is open (R16); and what it counts for then. */
  obligation: Obligation | null;
  owedBytes: number;
  /** The part of another shard's outbox that it came with, or from; null: of an outside sender, or read back (R13). */
  delivery: Delivery | null;
}

export type Phase =
  | "waiting"
  | "start"
  | "allow"
  | "creation"
  | "apply"
  | "attributes"
  | "message"
  | "recording"
  | "ended";

/** A hook that did not end at once. */
export interface Run {
  readonly id: number;
  readonly hook: Hook;
  /** When it began: monotonic ms, and the shard's newest seq. */
  readonly since: number;
  readonly sinceSeq: Seq;
}

/** A place in an entry's processing: what stands before it has ended. */
export interface Cursor {
  readonly phase: Phase;
  readonly datapoint: number;
  readonly hook: number;
}

/** An entry at the beginning of its life. */
export function createEntry(task: PartTask | null, seq: Seq, lastSeq: Seq, at: number, replayed = false): Entry {
  return {
    seq,
    lastSeq,
    at,
    task,
    replayed,
    heldAbove: null,
    entity: null,
    phase: "waiting",
    hook: 0,
    datapoint: 0,
    running: null,
    unrecorded: 0,
    needsFlush: toSeq(0),
    obligation: null,
    owedBytes: 0,
    delivery: null,
  };
}

/** Makes a settled entry, which nobody knows of any more, the entry of another task. */
export function reuseEntry(entry: Entry, task: PartTask, seq: Seq, lastSeq: Seq, at: number): Entry {
  entry.seq = seq;
  entry.lastSeq = lastSeq;
  entry.at = at;
  entry.task = task;
  entry.heldAbove = null;
  entry.entity = null;
  entry.phase = "waiting";
  entry.hook = 0;
  entry.datapoint = 0;
  entry.needsFlush = toSeq(0);
  return entry;
}

/** Where an entry is. */
export function cursorOf({ phase, datapoint, hook }: Entry): Cursor {
  return { phase, datapoint, hook };
}

/** The seq that stands for what the entry's next hook is called for: the datapoint's own, or the task's first. */
export function causeOf({ phase, task, seq, lastSeq, datapoint }: Entry): Seq {
  if (phase !== "attributes" || task === null) return seq;
  return toSeq(lastSeq - task.datapoints.length + 1 + datapoint);
}

/** Whether nothing of the entry is open but, perhaps, its flush. */
export function isSettled(entry: Entry): boolean {
  return entry.phase === "ended" && entry.unrecorded === 0;
}

/** Whether the entry's state is in PostgreSQL once the flush in hand is. */
export function isFlushed(entry: Entry): boolean {
  return entry.needsFlush === 0 || (entry.entity?.flushing ?? 0) >= entry.needsFlush;
}
