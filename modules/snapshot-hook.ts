import type { Eid, Value } from "./datapoint.ts";
import type { Hook, HookAnswer, HookOptions, ModuleLog } from "./hook.ts";

/** What the hooks of a snapshot run get beside their subject. */
export interface SnapshotContext {
  /** The instant of the snapshot in Unix milliseconds: the same for every hook of the run. */
  readonly now: number;
  /** Stable over repetitions of this call: makes side effects outside Starling idempotent. */
  readonly key: string;
  /** Aborted when the call has lost its right to answer: time-out, hand-off, stop. */
  readonly signal: AbortSignal;
  readonly log: ModuleLog;
}

/**
 * The current values of one entity, by attribute; `attr#c` holds the confidence of an observation. What a hook writes here
 * stands in the snapshot, and hooks that run later see it, over links as well; undefined and null take a value away.
 *
 * Only what `mayChange` names is taken over, and only values of the attribute's type; anything else is reported. A hook that
 * throws or comes too late has changed nothing. Values inside of values are frozen: assign a new one to the attribute.
 */
export interface SnapshotValues {
  readonly eid: Eid;
  [attr: string]: SnapshotValue | undefined;
}

export type SnapshotValue = Value | LinkedValue | readonly LinkedValue[];

/** A link as snapshot hooks see it. */
export interface LinkedValue {
  readonly eid: Eid;
  readonly data?: Value;
  /**
   * The target's live values, if the target exists and a path of this hook goes on over the link. It is not enumerated, so
   * values can be written as JSON where links form circles, and it is not in what is stored.
   */
  readonly record?: SnapshotValues | undefined;
}

/** All that is stored about one entity: a plain attribute's value, the history of the others. */
export type MasterRecord = Readonly<Record<string, MasterValue>>;
export type MasterValue = { readonly v: Value; readonly at: number } | readonly HistoryPoint[];

/** One observation or chunk of a timeseries; `c` of observations only. Times are Unix milliseconds. */
export interface HistoryPoint {
  readonly t1: number;
  readonly t2: number;
  readonly v: Value;
  readonly c?: number;
}

export type TimeseriesHook = (
  type: string,
  attr: string,
  history: readonly HistoryPoint[],
  ctx: SnapshotContext,
) => HookAnswer;
export type CorrelationHook = (type: string, values: SnapshotValues, ctx: SnapshotContext) => HookAnswer;
export type CorrelationHookWithMasterRecord = (
  type: string,
  values: SnapshotValues,
  master: MasterRecord,
  ctx: SnapshotContext,
) => HookAnswer;
export type SnapshotInitHook = (ctx: SnapshotContext) => HookAnswer;
export type SnapshotFinalizeHook = (ctx: SnapshotContext) => HookAnswer;

export type SnapshotHookKind =
  | "timeseries"
  | "correlation"
  | "correlation_with_master_record"
  | "snapshot_init"
  | "snapshot_finalize";

/** Attributes as paths: `["attr"]`, or over links `["link", "attr"]`, mirrors included. */
export type AttributePaths = readonly (readonly string[])[];

export interface PureOptions extends HookOptions {
  /**
   * The hook's answer depends on what it declares and nothing else, so it need not run where nothing of that has changed.
   * Left out, it runs for every entity of its type in every snapshot.
   */
  readonly pure?: boolean;
}

export interface CorrelationOptions extends PureOptions {
  /** What the hook reads: it runs after every hook that may change one of these. */
  readonly dependsOn: AttributePaths;
  /** What the hook may write. */
  readonly mayChange: AttributePaths;
}

/** The hooks of snapshot runs. */
export interface SnapshotHooks {
  /** By entity type, then by attribute. */
  readonly timeseries: ReadonlyMap<string, ReadonlyMap<string, readonly Hook<TimeseriesHook>[]>>;
  /**
   * Correlation hooks, and hooks of the ingestion with a refresh flag, which run while that is raised: in the order of the
   * hook graph, each with its `reach`. One runs for all entities of its type before the next one begins, and none of its calls
   * sees what another one changes.
   */
  readonly correlation: readonly Hook[];
  readonly init: readonly Hook<SnapshotInitHook>[];
  readonly finalize: readonly Hook<SnapshotFinalizeHook>[];
}
