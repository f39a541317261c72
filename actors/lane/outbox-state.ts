import type { Seq, ShardId } from "../../proto/ids.ts";
import type { PartListener } from "./part.ts";

/** The outbox of a shard, and the parts of other shards' outboxes that it has taken: see `outbox.ts`. */
export interface Outbox {
  /** Number of the last part sent to a target since the acquire; the first one sent says "unknown". */
  readonly last: Map<ShardId, Seq>;
  /** Numbers on their way, in order; those before `first` are delivered. */
  sent: { readonly seq: Seq; status: "sent" | "delivered" }[];
  first: number;
  /** Lines that are not done, by number; and their sums. */
  readonly undone: Map<number, UndoneLine>;
  tasks: number;
  bytes: number;
  /** Parts taken of which something is not done; and those of them that wait only for the watermark. */
  readonly taken: Set<Delivery>;
  ended: Delivery[];
}

/** A line that counts against the outside door of its shard. */
export interface UndoneLine {
  readonly target: ShardId;
  /** When it was sent (monotonic ms). */
  readonly since: number;
  readonly tasks: number;
  readonly bytes: number;
  /** What it came of, if that was sent by another shard. */
  readonly delivery: Delivery | null;
}

/** A part of another shard's outbox, and all that has come of it here. */
export interface Delivery {
  readonly position: number;
  readonly listener: PartListener;
  /** Tasks in this shard that have not ended, and lines of its outbox that are not done. */
  open: number;
  /** The last seq of it in this shard. */
  lastSeq: Seq;
}

/** Nothing on its way. */
export function createOutbox(): Outbox {
  return {
    last: new Map(),
    sent: [],
    first: 0,
    undone: new Map(),
    tasks: 0,
    bytes: 0,
    taken: new Set(),
    ended: [],
  };
}
