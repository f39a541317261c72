import type { SnapshotKey } from "../snapshots/snapshot-key.ts";

/** What snapshots are asked for, whatever language it was asked in; see parse-filter.ts. Absent values fulfil no test. */
export type SnapshotFilter =
  | { readonly kind: "and" | "or"; readonly of: readonly SnapshotFilter[] }
  | { readonly kind: "not"; readonly of: SnapshotFilter }
  | { readonly kind: "test"; readonly path: FilterPath; readonly test: FilterTest };

/** A place in a snapshot. */
export interface FilterPath {
  /** Null: the entity's id. */
  readonly attr: string | null;
  /** The way on within the attribute's value, or within each element of a list. */
  readonly steps: readonly string[];
  readonly key: SnapshotKey;
}

export type FilterTest =
  /** `json`: canonical JSON text of the value; null with `=`: there is no value, or null. */
  | { readonly kind: "compare"; readonly op: CompareOp; readonly json: string }
  | { readonly kind: "absent" }
  | { readonly kind: "exists" }
  | { readonly kind: "prefix"; readonly text: string }
  | { readonly kind: "match"; readonly pattern: string; readonly flags: RegexFlags }
  | { readonly kind: "size"; readonly size: number }
  /** One element of the list fulfils all. */
  | { readonly kind: "element"; readonly of: readonly FilterTest[] };

export type CompareOp = "=" | "<" | "<=" | ">" | ">=";

/** As in DP³: letters' case, `^` and `$` at lines, `.` for line ends, white space in the pattern. */
export interface RegexFlags {
  readonly i: boolean;
  readonly m: boolean;
  readonly s: boolean;
  readonly x: boolean;
}

/** One key of an order. */
export interface SnapshotSort {
  /** Null: the entity's id. */
  readonly attr: string | null;
  readonly key: SnapshotKey;
  readonly descending: boolean;
}

/** Everything: no filter. */
export const everything: SnapshotFilter = { kind: "and", of: [] };
