import type { AttributeSpec, EntitySpec } from "./model.ts";

/** An entity id as a module sees it: text, or a number for types with `id_data_type: int` (bigint beyond 2^53). */
export type Eid = string | number | bigint;

/** A value as a module sees it. Links are `{ eid, data? }`; ids, addresses and times are canonical text. */
export type Value = string | number | bigint | boolean | null | readonly Value[] | { readonly [key: string]: Value };

/** One value of one attribute, with validity, confidence and source. */
export interface Datapoint {
  readonly type: string;
  readonly eid: Eid;
  readonly attr: string;
  readonly v: Value;
  /** Unix milliseconds (fractions to 1 µs); null for plain attributes. */
  readonly t1: number | null;
  readonly t2: number | null;
  /** Confidence, 0 to 1. */
  readonly c: number;
  readonly src: string | null;
}

/** A datapoint after the check at the edge: what the log, the state and the hooks work on. */
export interface CheckedDatapoint extends Datapoint {
  readonly spec: AttributeSpec;
  /** The canonical JSON text of `v`: what is stored. */
  readonly json: string;
  /** Its line in the log from the attribute on, once it is there: what history takes over. */
  line: string | null;
}

/** What a datapoint looks like before the check: from the wire, a file, or a hook. */
export interface LooseDatapoint {
  readonly type: unknown;
  readonly eid: unknown;
  readonly attr: unknown;
  readonly v: unknown;
  readonly t1?: unknown;
  readonly t2?: unknown;
  readonly c?: unknown;
  readonly src?: unknown;
}

/** Datapoints for one entity that are processed together; what hooks see. */
export interface DataPointTask {
  readonly type: string;
  readonly eid: Eid;
  readonly datapoints: readonly Datapoint[];
  /** TTL tokens to extend: name to Unix milliseconds. */
  readonly ttlTokens?: Readonly<Record<string, number>>;
  readonly delete?: boolean;
}

/** What a hook may return: tasks whose datapoints may leave out `type` and `eid`. */
export interface DerivedTask {
  readonly type: string;
  readonly eid: Eid;
  readonly datapoints?: readonly {
    readonly attr: string;
    readonly v: Value;
    readonly t1?: number | Date | string | null;
    readonly t2?: number | Date | string | null;
    readonly c?: number;
    readonly src?: string | null;
  }[];
  readonly ttlTokens?: Readonly<Record<string, number | Date | string>>;
  readonly delete?: boolean;
}

/** A task after the check. `eid` is the canonical text, `eidValue` what modules see. */
export interface CheckedTask {
  readonly entity: EntitySpec;
  readonly eid: string;
  readonly eidValue: Eid;
  readonly datapoints: readonly CheckedDatapoint[];
  readonly ttlTokens: Readonly<Record<string, number>> | null;
  readonly delete: boolean;
}
