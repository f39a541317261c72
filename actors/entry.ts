import type { Hook } from "../modules/hook.ts";
import type { Seq } from "../proto/ids.ts";
import type { Entity } from "./entity.ts";
import type { PartTask } from "./part.ts";

/**
 * A task in the log that the watermark has not passed, and how far its processing is.
 *
 * `phase` walks start → allow → creation → apply → attributes → ended; `hook` and `datapoint` are the cursor within it.
 */
export interface Entry {
  readonly seq: Seq;
  readonly lastSeq: Seq;
  readonly at: number;
  /** Null once the entry has settled, and for a task that no longer fits the model: its dead letter stands for it. */
  task: PartTask | null;
  readonly bytes: number;
  /** Read back from the log after an acquire: answers may stand already, state may be applied. */
  readonly replayed: boolean;
  entity: Entity | null;
  phase: Phase;
  hook: number;
  datapoint: number;
  /** The run whose answer is awaited; an answer of any other run is late and ignored (R15). */
  run: number;
  running: Hook | null;
  /** Answers that are on their way into the log. */
  unrecorded: number;
  /** The seq whose state must be flushed before the watermark may pass; 0: none. */
  needsFlush: Seq;
}

export type Phase = "waiting" | "start" | "allow" | "creation" | "apply" | "attributes" | "ended";

/** Whether nothing of the entry is open but, perhaps, its flush. */
export function isSettled(entry: Entry): boolean {
  return entry.phase === "ended" && entry.unrecorded === 0;
}
