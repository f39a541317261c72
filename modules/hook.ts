import type { MessageAnswer, MessageContext, Send } from "./behaviour.ts";
import type { DataPointTask, Datapoint, DerivedTask, Eid, Value } from "./datapoint.ts";
import type { HookReach } from "./hook-path.ts";
import type { AttributePaths, SnapshotHookKind, SnapshotHooks } from "./snapshot-hook.ts";

/** What every hook gets beside its subject. */
export interface HookContext {
  /** The arrival time of the cause in Unix milliseconds: the same in every run of the hook. */
  readonly now: number;
  /** Stable over repetitions of this run: makes side effects outside Starling idempotent. */
  readonly key: string;
  /** Aborted when the run has lost its right to answer: time-out, hand-off, stop. */
  readonly signal: AbortSignal;
  readonly log: ModuleLog;
  /** The entity's record, read only; null before it exists. */
  readonly record: RecordView | null;
  /** Another entity's record as of its last flush or newer; null if there is none. */
  readonly get: (type: string, eid: Eid) => Promise<RecordView | null>;
}

/** An entity's record as hooks see it. */
export interface RecordView {
  readonly type: string;
  readonly eid: Eid;
  /** The newest value of an attribute, undefined if it has none. */
  value(attr: string): Value | undefined;
  /** The newest datapoint of an attribute: by arrival for plain, by `t1` for the others. */
  latest(attr: string): LatestValue | undefined;
  /** Names of the attributes that have a value. */
  attributes(): string[];
}

export interface LatestValue {
  readonly v: Value;
  /** Plain: both are the arrival time. */
  readonly t1: number;
  readonly t2: number;
  readonly c: number;
  /** Datapoints ever applied to this attribute. */
  readonly count: number;
}

export interface ModuleLog {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export type Awaitable<T> = T | Promise<T>;
/** Tasks, and messages for actors. */
export type HookAnswer = Awaitable<readonly (DerivedTask | Send)[] | null | undefined>;

export type TaskHook = (task: DataPointTask, ctx: HookContext) => Awaitable<unknown>;
export type AllowEntityCreationHook = (eid: Eid, task: DataPointTask, ctx: HookContext) => Awaitable<boolean>;
export type EntityCreationHook = (eid: Eid, task: DataPointTask, ctx: HookContext) => HookAnswer;
export type NewAttrHook = (eid: Eid, datapoint: Datapoint, ctx: HookContext) => HookAnswer;

/** What a behaviour's `receive` becomes; the state is undefined before the first message. */
export type MessageHook = (
  state: Value | undefined,
  message: Value,
  ctx: MessageContext,
) => Awaitable<MessageAnswer<unknown> | null | undefined>;

export type HookKind =
  | "on_task_start"
  | "allow_entity_creation"
  | "on_entity_creation"
  | "on_new_attr"
  | "on_message"
  | SnapshotHookKind;

/** How a hook runs; what is not given comes from the configuration. */
export interface HookOptions {
  /** Part of the hook's identity; default the function's name. */
  readonly name?: string;
  /** Runs of this hook at once on a node; asynchronous hooks only. */
  readonly concurrency?: number;
  /** Bound on one attempt. */
  readonly timeoutMs?: number;
  /** Further attempts after the first failed. */
  readonly retries?: number;
}

/** Options of hooks whose values can be derived anew after their module's configuration changed. */
export interface RefreshOptions extends HookOptions {
  /** The module's `refresh` flag; needs `mayChange`. */
  readonly refresh?: RefreshFlag;
  /** Attributes that the hook may change, as paths: `["attr"]`, or over links `["link", "attr"]`. */
  readonly mayChange?: AttributePaths;
}

/** Raised when a module's configuration was loaded anew: the values derived from it are to be derived again. */
export interface RefreshFlag {
  readonly raised: boolean;
  raise(): void;
  lower(): void;
}

/** A registered hook. */
export interface Hook<F = (...args: never[]) => unknown> {
  /** `module/kind/target/name`: durable, so that a recorded answer is found again. */
  readonly id: string;
  readonly module: string;
  readonly kind: HookKind;
  /** Entity type; null for a task hook of all types. */
  readonly type: string | null;
  readonly attr: string | null;
  readonly name: string;
  readonly run: F;
  readonly concurrency: number;
  readonly timeoutMs: number;
  readonly retries: number;
  /** Set when the hook was registered with a refresh flag. */
  readonly refresh?: { readonly flag: RefreshFlag; readonly mayChange: AttributePaths };
  /** Set on hooks that have a place in the hook graph: what they read and may change in a snapshot. */
  readonly reach?: HookReach;
  /** Of a timeseries hook: see `PureOptions`. */
  readonly pure?: boolean;
}

/** Every hook, in registration order unless said otherwise; what the registrar collected. */
export interface HookTable {
  readonly onTaskStart: readonly Hook<TaskHook>[];
  /** By entity type. */
  readonly allowEntityCreation: ReadonlyMap<string, readonly Hook<AllowEntityCreationHook>[]>;
  readonly onEntityCreation: ReadonlyMap<string, readonly Hook<EntityCreationHook>[]>;
  /** By entity type, then by attribute. */
  readonly onNewAttr: ReadonlyMap<string, ReadonlyMap<string, readonly Hook<NewAttrHook>[]>>;
  /** By the type that stands for the behaviour, one each; left out: there are none. */
  readonly onMessage?: ReadonlyMap<string, readonly Hook<MessageHook>[]>;
  /** Left out: there are none. */
  readonly snapshot?: SnapshotHooks;
}
