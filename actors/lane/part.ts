import type { CheckedTask } from "../../modules/datapoint.ts";
import type { Epoch, Seq, ShardId } from "../../proto/ids.ts";
import type { StarlingError } from "../../proto/starling-error.ts";
import type { LinkChange } from "../links/link-change.ts";

/** The tasks of one batch of one channel for one shard: the unit that is appended or recognised as a repeat. */
export interface Part {
  readonly kind: "part";
  /** Which of its batch's parts it is: what is said of it comes back with this. */
  readonly position: number;
  readonly shard: ShardId;
  /** `c:<session>` for clients, `s:<shard>` for the outbox of another shard. */
  readonly channel: string;
  readonly number: number;
  /** Number of the channel's previous part for the same shard; 0 for the first; null after a resume: "unknown" (R9). */
  predecessor: number | null;
  /** Hash of the batch's content (16 hex digits): tells a repeat from another batch under its number (R10). */
  readonly hash: string;
  /** Its sender takes them back once the part is durable: a repeat is known by its hash. */
  tasks: readonly PartTask[];
  /** Refusals of the batch that this part keeps for repeats; empty but on the part for the session's home shard. */
  readonly rejections: readonly PartRejection[];
  /** Size in memory, for bounds. */
  readonly bytes: number;
  /** The tick that its cause may be behind the mark of: it is appended behind that of its own shard; none: 0. */
  readonly tick?: number;
}

export interface PartTask extends CheckedTask {
  /** Set on derived tasks. */
  readonly cause: Cause | null;
  /** What another entity's link means to this one: then the task holds nothing else. */
  readonly link?: LinkChange | null;
}

/**
 * A checked task as a part carries it. Field by field, here and wherever an object is made for each datapoint: the engine gives
 * what is spread and then added to a new shape every time, and whoever reads it pays for that.
 */
export function taskFrom(task: CheckedTask & { readonly link?: LinkChange | null }, cause: Cause | null): PartTask {
  const { entity, eid, eidValue, datapoints, ttlTokens, link = null } = task;
  return { entity, eid, eidValue, datapoints, ttlTokens, delete: task.delete, cause, link };
}

/** Where a derived task comes from: its identity is (shard, seq, hook, ordinal) (P3). */
export interface Cause {
  readonly shard: ShardId;
  readonly seq: Seq;
  readonly hook: string;
  readonly ordinal: number;
  /** 1 for the first generation. */
  readonly depth: number;
}

/** Index of a rejection that stands for every datapoint of its part. */
export const wholePart = -1;

export interface PartRejection {
  /** Of the datapoint within its batch, or {@link wholePart}. */
  readonly index: number;
  readonly code: string;
  readonly message: string;
}

/**
 * What becomes of an offered part, in this order: one `durable` or one `refused`, then after `durable` one `processed`.
 * `position` is the part's.
 */
export type PartEvent =
  | {
      readonly kind: "durable";
      readonly position: number;
      readonly shard: ShardId;
      readonly epoch: Epoch;
      readonly seq: Seq;
      readonly repeat: boolean;
      /** As stored with the part: of a repeat, what was said the first time. */
      readonly rejections: readonly PartRejection[];
    }
  /** `obligations`: tasks of the part whose hooks go on all the same, or wait behind such a one (R16). */
  | { readonly kind: "processed"; readonly position: number; readonly obligations: number }
  /** GAP, BATCH_CHANGED, BUSY, MOVED, FENCED, STORE_REFUSED … */
  | { readonly kind: "refused"; readonly position: number; readonly error: StarlingError };

/** Of one batch: in the order in which it came to be. */
export interface News extends Iterable<PartEvent> {
  readonly length: number;
}

/** Hears of all parts that were offered with it, of several at once. */
export type PartListener = (news: News) => void;
