import type { ShardId } from "../../proto/ids.ts";
import type { SnapshotFilter, SnapshotSort } from "../filters/snapshot-filter.ts";
import type { EntityKey } from "./store.ts";

/**
 * Questions about snapshots that PostgreSQL answers directly. What a person's filter costs is bounded by two seconds, on
 * connections of its own; raises TOO_SLOW, and INVALID_FILTER for what PostgreSQL cannot understand.
 */
export interface SnapshotQueries {
  /** The newest finished run at or before a tick, or an instant (Unix ms), or of all; null: there is none. */
  finishedRun(at: SnapshotInstant): Promise<FinishedRun | null>;
  /** Where a tick's snapshots of a type are, in order. */
  listSnapshots(request: ListSnapshots): Promise<SortedPlace[]>;
  /** Bodies by their places, as JSON text: null beyond what an answer holds, undefined where nothing stands any more. */
  snapshotBodies(places: readonly SnapshotPlace[]): Promise<(string | null | undefined)[]>;
  countSnapshots(request: SnapshotSelection): Promise<number>;
  /** Values of an attribute with how many snapshots have them, the most frequent first; lists count by their elements. */
  distinctValues(request: DistinctSnapshots): Promise<DistinctValue[]>;
  /** Where one entity's snapshots begin and end, newest first: those that begin before a tick (null: all). */
  snapshotSpans(key: EntityKey, request: TicksBefore): Promise<SnapshotSpan[]>;
  /** The finished runs in spans, newest first, those before a tick. */
  spanMoments(spans: readonly SnapshotSpan[], request: TicksBefore): Promise<SpanMoment[]>;
  /** A tick's snapshots in a shard, of one type or all, by eid and type, those after a key: where they are. */
  snapshotPage(request: SnapshotPage): Promise<SnapshotPlace[]>;
}

/** Null: the newest. */
export type SnapshotInstant = { readonly tick: number } | { readonly at: number } | null;

export interface FinishedRun {
  readonly tick: number;
  /** The instant that it shows, Unix ms. */
  readonly at: number;
}

/** Snapshots of one type at one tick that fulfil a filter. */
export interface SnapshotSelection {
  readonly type: string;
  readonly tick: number;
  readonly filter: SnapshotFilter;
}

export interface ListSnapshots extends SnapshotSelection {
  /** None: by eid. Ties are by eid, too. */
  readonly sort: readonly SnapshotSort[];
  readonly skip: number;
  readonly limit: number;
}

/** One row of the table. */
export interface SnapshotPlace extends EntityKey {
  /** The tick that it begins at. */
  readonly from: number;
}

export interface SortedPlace extends SnapshotPlace {
  /** What it was sorted by, as text. */
  readonly keys: readonly (string | null)[];
}

export interface DistinctSnapshots extends SnapshotSelection {
  readonly path: SnapshotSort;
  readonly limit: number;
}

export interface DistinctValue {
  /** JSON text. */
  readonly value: string;
  readonly count: number;
}

export interface TicksBefore {
  readonly before: number | null;
  readonly limit: number;
}

/** The ticks for which one row holds: from the first one to before the last; null: for all to come. */
export interface SnapshotSpan {
  readonly from: number;
  readonly to: number | null;
}

export interface SpanMoment extends FinishedRun {
  /** The beginning of the span that the tick is in. */
  readonly from: number;
}

export interface SnapshotPage {
  readonly shard: ShardId;
  /** Null: all. */
  readonly type: string | null;
  readonly tick: number;
  readonly after: { readonly eid: string; readonly type: string };
  readonly limit: number;
}
