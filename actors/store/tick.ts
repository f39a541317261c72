import type { Seq, ShardId } from "../../proto/ids.ts";
import type { EntityKey, HistoryPage, HistorySegment, PageWindow, StoredEntity } from "./store.ts";

/* What the store keeps of a tick's cut: see `actors/snapshots/tick-mark.ts`. */

/** A place in a shard, in the order in which a tick computes its entities: by eid, then by type, as UTF-8. */
export type TickPlace = Pick<EntityKey, "eid" | "type">;

/** A mark that its shard's watermark has passed, and how far the entities are computed. */
export interface StoredMark {
  readonly tick: number;
  readonly seq: Seq;
  /** Null: none of them is. */
  readonly passed: TickPlace | null;
  /** Whether all of them are: nobody reads them as of the mark any more. */
  readonly visited: boolean;
}

/** What an entity was at a mark, written with its first change after it; of the images of one tick the first one stands. */
export interface StoredImage extends EntityKey, Pick<StoredEntity, "created" | "createdAt" | "applied"> {
  readonly tick: number;
  /** With the large values in their places; null: there was no such entity. */
  readonly state: string | null;
}

export interface TickPageRequest {
  readonly shard: ShardId;
  readonly tick: number;
  /** Null: from the beginning. */
  readonly after: TickPlace | null;
  /** Entities, present or not; and roughly the bytes of their states and of what no fold has taken of their histories. */
  readonly limit: number;
  readonly maxBytes: number;
  /** Null, or left out: all entities. */
  readonly changed?: TickChanges | null;
  /** Only these, which are beyond `after`, in order and no more than the limit. Null, or left out: they are looked for. */
  readonly listed?: readonly TickPlace[] | null;
}

/** What has changed since another tick. */
export interface TickChanges {
  /** The mark of that tick. */
  readonly since: Seq;
  /** Those are among them whose stored snapshot or values are due by now, Unix ms. */
  readonly at: number;
  /** And all entities of these types. */
  readonly always: readonly string[];
}

/** An entity as it was at a mark. */
export interface TickRecord extends EntityKey, Pick<StoredEntity, "created" | "createdAt" | "applied"> {
  /** With the large values in their places. */
  readonly state: string;
  /** Its history: what no fold has taken, oldest first, and the pages that were asked for, or more. */
  readonly rows: readonly HistorySegment[];
  readonly pages: readonly HistoryPage[];
}

export interface TickPage {
  /** In the order of their places. */
  readonly records: readonly TickRecord[];
  /** Those of which there was none at the mark, among what was looked at. */
  readonly absent: readonly TickPlace[];
  /** Where the next page begins; null: this is the last one. */
  readonly last: TickPlace | null;
}

/** The pages of histories that are wanted, given records without any. */
export type TickWindows = (records: readonly TickRecord[]) => readonly PageWindow[];

export interface TickReads {
  /**
   * A page of a shard's entities as they were at its mark of the tick; for places that the visit has not passed, and once the
   * watermark has passed the mark. Read again it gives the same. Actors, which are no part of ticks, come as they are now.
   */
  readTickPage(request: TickPageRequest, windowsOf: TickWindows): Promise<TickPage>;
}
