import type { DataType } from "./data-type.ts";

/** The model: every entity type and attribute, as the configuration directory describes them. */
export interface Model {
  readonly entities: ReadonlyMap<string, EntitySpec>;
  /** A stable hash of everything that decides what a datapoint means (hex). */
  readonly hash: string;
}

export type EidType = "string" | "int" | "ipv4" | "ipv6" | "mac";

export type Lifetime =
  | { readonly type: "immortal" }
  | { readonly type: "ttl"; readonly onCreateMs: number; readonly mirrorData: boolean }
  | { readonly type: "weak" };

/** One entity type. */
export interface EntitySpec {
  readonly id: string;
  /** Position in the model, from 0. */
  readonly index: number;
  readonly idDataType: EidType;
  readonly name: string;
  readonly snapshot: boolean;
  readonly description: string;
  readonly lifetime: Lifetime;
  readonly attributes: ReadonlyMap<string, AttributeSpec>;
  /** The same attributes by `index`. */
  readonly attributeList: readonly AttributeSpec[];
  /** Set on what is no type of the configuration but a module's behaviour: see `behaviour-model.ts`. */
  readonly actor?: "behaviour" | "singleton";
}

export type AttributeKind = "plain" | "observations" | "timeseries";

/** A link from an attribute to an entity type. */
export interface Relation {
  readonly target: string;
  readonly mirror: string | null;
}

/** One attribute of an entity type. */
export interface AttributeSpec {
  readonly id: string;
  /** Position in the entity type, from 0: where its state stands in a resident entity. */
  readonly index: number;
  readonly kind: AttributeKind;
  readonly name: string;
  readonly description: string;
  /** Of plain and observations; a timeseries has `series` instead. */
  readonly dataType: DataType | null;
  readonly editable: boolean;
  readonly ttlMs: number;
  readonly relation: Relation | null;
  /** A mirror: computed, never sent. */
  readonly readOnly: boolean;
  readonly confidence: boolean;
  readonly multiValue: boolean;
  readonly historyForceGraph: boolean;
  readonly history: HistoryParams | null;
  readonly timeseries: TimeseriesParams | null;
}

/** `history_params`; durations in milliseconds. Null: no bound; of the expire time, that there is none, and infinity for `inf`. */
export interface HistoryParams {
  readonly maxAgeMs: number | null;
  readonly maxItems: number | null;
  readonly expireTimeMs: number | null;
  readonly preValidityMs: number;
  readonly postValidityMs: number;
  readonly aggregate: boolean;
}

export type TimeseriesKind = "regular" | "irregular" | "irregular_intervals";

export interface TimeseriesParams {
  readonly kind: TimeseriesKind;
  readonly maxAgeMs: number | null;
  /** Set for `regular`. */
  readonly timeStepMs: number | null;
  /** Series by name, the implicit ones (`time`, or `time_first` and `time_last`) included. */
  readonly series: ReadonlyMap<string, DataType>;
}
