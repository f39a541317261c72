import { StarlingError } from "../proto/starling-error.ts";
import { actorType, type Behaviour, type BehaviourSpec, checkBehaviourName } from "./behaviour.ts";
import { didYouMean } from "./did-you-mean.ts";
import type {
  AllowEntityCreationHook,
  EntityCreationHook,
  HookOptions,
  HookTable,
  MessageHook,
  ModuleLog,
  NewAttrHook,
  RefreshOptions,
  TaskHook,
} from "./hook.ts";
import { createHookList, type HookDefaults, type HookList, type HookPlace } from "./hook-list.ts";
import { type HookReach, type PathList, parsePaths } from "./hook-path.ts";
import type { AttributeSpec, EntitySpec, Model } from "./model.ts";
import { createModuleActorsDoor, type ModuleActors, type ModuleActorsDoor } from "./module-actors.ts";
import {
  type Cron,
  type ScheduleCallback,
  type ScheduledCallback,
  type ScheduleOptions,
  scheduleActor,
  scheduleBehaviour,
} from "./schedule.ts";
import type {
  CorrelationHook,
  CorrelationHookWithMasterRecord,
  CorrelationOptions,
  PureOptions,
  SnapshotFinalizeHook,
  SnapshotInitHook,
  TimeseriesHook,
} from "./snapshot-hook.ts";

/** Where a module registers its hooks, in its constructor. Every method raises MODULE. */
export interface CallbackRegistrar {
  readonly log: ModuleLog;
  /** For messages from outside of hooks. */
  readonly actors: ModuleActors;
  /** `hook(task, ctx)` runs as each task begins; what it returns is ignored. */
  registerTaskHook(point: "on_task_start", hook: TaskHook, options?: HookOptions): void;
  /** `hook(eid, task, ctx)` runs before an entity is created; a falsy answer refuses the whole task. */
  registerAllowEntityCreationHook(hook: AllowEntityCreationHook, type: string, options?: HookOptions): void;
  /** `hook(eid, task, ctx)` runs once when an entity was created; it may return tasks. */
  registerOnEntityCreationHook(hook: EntityCreationHook, type: string, options?: RefreshOptions): void;
  /** `hook(eid, datapoint, ctx)` runs for every datapoint of the attribute; it may return tasks. */
  registerOnNewAttrHook(hook: NewAttrHook, type: string, attr: string, options?: RefreshOptions): void;
  /** `hook(type, attr, history, ctx)` runs in every snapshot of an entity that has the timeseries; it may return tasks. */
  registerTimeseriesHook(hook: TimeseriesHook, type: string, attr: string, options?: PureOptions): void;
  /**
   * `hook(type, values, ctx)` runs in every snapshot, on the current values of an entity and of those that it is linked to,
   * and may change them; it may return tasks. Hooks run in the order that `dependsOn` and `mayChange` ask for.
   */
  registerCorrelationHook(hook: CorrelationHook, type: string, options: CorrelationOptions): void;
  /** The same with all that is stored about the entity: `hook(type, values, master, ctx)`. */
  registerCorrelationHookWithMasterRecord(
    hook: CorrelationHookWithMasterRecord,
    type: string,
    options: CorrelationOptions,
  ): void;
  /** `hook(ctx)` runs on every node before the first entity of a snapshot run; it may return tasks. */
  registerSnapshotInitHook(hook: SnapshotInitHook, options?: HookOptions): void;
  /** `hook(ctx)` runs on every node after the last entity of a snapshot run; it may return tasks. */
  registerSnapshotFinalizeHook(hook: SnapshotFinalizeHook, options?: HookOptions): void;
  /** An actor for every key, or one for the cluster, under a name that no other module uses; functions run with the module as `this`. */
  behaviour<State, Message>(name: string, behaviour: Behaviour<State, Message>): void;
  /** `callback(run)` runs when the schedule says so. */
  schedulerRegister(callback: ScheduleCallback, cron: Cron, options?: ScheduleOptions): void;
}

/** Collects what all modules register. */
export interface Registrar {
  /** The registrar of one module. `owner` gives its instance, which hooks get as `this`; asked once all are loaded. */
  forModule(module: string, log: ModuleLog, owner: () => object): CallbackRegistrar;
  /** Every hook, in registration order. Ends the registration. */
  hookTable(): HookTable;
  readonly scheduled: readonly ScheduledCallback[];
  /** Those that keep schedules included. */
  readonly behaviours: readonly BehaviourSpec[];
  /** To be opened when the node has its actors. */
  readonly actors: ModuleActorsDoor;
}

/** A registrar without hooks; `defaults` stand for what hooks leave out. */
export function createRegistrar(model: Model, defaults: HookDefaults): Registrar {
  const list = createHookList(defaults);
  const all = { model, list, defaults, scheduled: [], behaviours: [], actors: createModuleActorsDoor() };
  return {
    forModule: (module, log, owner) => moduleRegistrar({ ...all, module, log, owner }),
    hookTable: () => list.close(),
    scheduled: all.scheduled,
    behaviours: all.behaviours,
    actors: all.actors,
  };
}

interface Door {
  readonly model: Model;
  readonly list: HookList;
  readonly defaults: HookDefaults;
  readonly scheduled: ScheduledCallback[];
  readonly behaviours: BehaviourSpec[];
  readonly actors: ModuleActorsDoor;
  readonly module: string;
  readonly log: ModuleLog;
  readonly owner: () => object;
}

function moduleRegistrar(door: Door): CallbackRegistrar {
  const { list, module, log, owner } = door;
  return {
    log,
    actors: door.actors,
    registerTaskHook: (point, hook, options = {}) => {
      const place: HookPlace = { module, method: "registerTaskHook", kind: "on_task_start", type: null, attr: null };
      if (point !== "on_task_start") {
        throw wrong(place, `there is no task hook '${String(point)}'${didYouMean(String(point), ["on_task_start"])}`);
      }
      list.add(place, hook, owner, options);
    },
    registerAllowEntityCreationHook: (hook, type, options = {}) => {
      const method = "registerAllowEntityCreationHook";
      const place: HookPlace = { module, method, kind: "allow_entity_creation", type, attr: null };
      entityOf(door, place, type);
      list.add(place, hook, owner, options);
    },
    registerOnEntityCreationHook: (hook, type, options = {}) => {
      const method = "registerOnEntityCreationHook";
      const place: HookPlace = { module, method, kind: "on_entity_creation", type, attr: null };
      const reach = refreshReach(door, place, entityOf(door, place, type), options);
      list.add({ ...place, reach }, hook, owner, options);
    },
    registerOnNewAttrHook: (hook, type, attr, options = {}) => {
      const place: HookPlace = { module, method: "registerOnNewAttrHook", kind: "on_new_attr", type, attr };
      const entity = entityOf(door, place, type);
      const spec = attributeOf(place, entity, attr);
      if (spec.readOnly) {
        throw wrong(place, `attribute '${attr}' is a mirror: it never gets datapoints; hook the link it mirrors`);
      }
      list.add({ ...place, reach: refreshReach(door, place, entity, options, spec) }, hook, owner, options);
    },
    ...snapshotRegistrar(door),
    behaviour: (name, behaviour) => {
      checkBehaviourName(`module ${module}: behaviour`, name);
      addBehaviour(door, name, behaviour as Behaviour);
    },
    schedulerRegister: (callback, cron, options = {}) => addScheduled(door, callback, cron, options),
  };
}

function entityOf(door: Door, place: HookPlace, type: unknown): EntitySpec {
  const entity = door.model.entities.get(String(type));
  if (entity !== undefined) return entity;
  const hint = didYouMean(String(type), door.model.entities.keys());
  throw wrong(place, `entity type '${String(type)}' is not in the model${hint}`);
}

function attributeOf(place: HookPlace, entity: EntitySpec, attr: unknown): AttributeSpec {
  const spec = entity.attributes.get(String(attr));
  if (spec !== undefined) return spec;
  const hint = didYouMean(String(attr), entity.attributes.keys());
  throw wrong(place, `entity type '${entity.id}' has no attribute '${String(attr)}'${hint}`);
}

/** What a hook that is registered with a refresh flag reads and may change when it runs in a snapshot. */
function refreshReach(
  door: Door,
  place: HookPlace,
  entity: EntitySpec,
  options: RefreshOptions,
  spec?: AttributeSpec,
): HookReach | undefined {
  if (options.refresh !== undefined && options.mayChange === undefined) {
    throw wrong(place, "'refresh' needs 'mayChange': name the attributes that the hook may change");
  }
  const mayChange = pathsOf(door, place, entity, "mayChange", options.mayChange ?? []);
  if (options.refresh === undefined) return undefined;
  const reads = spec === undefined || spec.kind === "timeseries" ? [] : [[spec.id]];
  return { dependsOn: pathsOf(door, place, entity, "dependsOn", reads), mayChange, pure: false };
}

function snapshotRegistrar(door: Door): Pick<CallbackRegistrar, keyof typeof snapshotMethods> {
  const { list, module, owner } = door;
  const addCorrelation = (method: keyof typeof snapshotMethods, hook: unknown, type: string, given: unknown) => {
    const place: HookPlace = { module, method, kind: snapshotMethods[method], type, attr: null };
    const entity = entityOf(door, place, type);
    const { dependsOn, mayChange, pure = false, ...options } = (given ?? {}) as CorrelationOptions;
    const reach: HookReach = {
      dependsOn: pathsOf(door, place, entity, "dependsOn", dependsOn),
      mayChange: pathsOf(door, place, entity, "mayChange", mayChange),
      pure: pureOf(place, pure),
    };
    list.add({ ...place, reach }, hook, owner, options);
  };
  const addForRun = (method: keyof typeof snapshotMethods, hook: unknown, options: HookOptions = {}) => {
    list.add({ module, method, kind: snapshotMethods[method], type: null, attr: null }, hook, owner, options);
  };
  return {
    registerTimeseriesHook: (hook, type, attr, options = {}) => {
      const place: HookPlace = { module, method: "registerTimeseriesHook", kind: "timeseries", type, attr };
      const { kind } = attributeOf(place, entityOf(door, place, type), attr);
      if (kind !== "timeseries") throw wrong(place, `attribute '${attr}' of '${type}' is no timeseries but ${kind}`);
      list.add(place, hook, owner, { ...options, pure: pureOf(place, options.pure ?? false) });
    },
    registerCorrelationHook: (hook, type, options) => addCorrelation("registerCorrelationHook", hook, type, options),
    registerCorrelationHookWithMasterRecord: (hook, type, options) =>
      addCorrelation("registerCorrelationHookWithMasterRecord", hook, type, options),
    registerSnapshotInitHook: (hook, options) => addForRun("registerSnapshotInitHook", hook, options),
    registerSnapshotFinalizeHook: (hook, options) => addForRun("registerSnapshotFinalizeHook", hook, options),
  };
}

const snapshotMethods = {
  registerTimeseriesHook: "timeseries",
  registerCorrelationHook: "correlation",
  registerCorrelationHookWithMasterRecord: "correlation_with_master_record",
  registerSnapshotInitHook: "snapshot_init",
  registerSnapshotFinalizeHook: "snapshot_finalize",
} as const;

function pureOf(place: HookPlace, pure: unknown): boolean {
  if (typeof pure === "boolean") return pure;
  throw wrong(place, `option 'pure' is ${String(pure)}: give true or false`);
}

function pathsOf(door: Door, place: HookPlace, entity: EntitySpec, list: PathList, paths: unknown) {
  try {
    return parsePaths(door.model, entity, list, paths);
  } catch (error) {
    if (!(error instanceof StarlingError)) throw error;
    throw wrong(place, error.message);
  }
}

function addBehaviour(door: Door, name: string, behaviour: Behaviour): void {
  const { module, list, owner, behaviours } = door;
  const { singleton = false, initial = () => null, receive, concurrency, timeoutMs, retries } = behaviour;
  const type = actorType(name, singleton);
  const place: HookPlace = { module, method: "behaviour", kind: "on_message", type, attr: null };
  const taken = behaviours.find((other) => other.name === name);
  if (taken !== undefined) throw wrong(place, `module ${taken.module} has a behaviour '${name}' already`);
  for (const [part, given] of Object.entries({ initial, receive })) {
    if (typeof given !== "function") throw wrong(place, `'${part}' of '${name}' is not a function`);
  }
  const run: MessageHook = function (this: unknown, state, message, ctx) {
    return receive.call(this, state === undefined ? initial.call(this, ctx.self) : state, message, ctx);
  };
  list.add(place, run, owner, defined({ name: "receive", concurrency, timeoutMs, retries }));
  behaviours.push({ module, name, type, singleton });
}

function addScheduled(door: Door, callback: unknown, cron: Cron, options: ScheduleOptions): void {
  const { module, scheduled, owner } = door;
  const where = `module ${module}: schedulerRegister`;
  const refuse = (what: string) => new StarlingError("MODULE", `${where}: ${what}`);
  if (typeof callback !== "function") throw refuse("the callback is not a function");
  const name = options.name ?? callback.name.replace(/^bound /, "");
  checkBehaviourName(where, name);
  if (scheduled.some((other) => other.module === module && other.name === name)) {
    throw refuse(`'${name}' is scheduled already: tell the two apart by the option 'name'`);
  }
  const { where: place = "node", catchUp = "skip", timeoutMs = door.defaults.timeoutMs, retries } = options;
  if (place !== "node" && place !== "cluster") throw refuse(`'where' is '${String(place)}': 'node' or 'cluster'`);
  if (!["skip", "once", "all"].includes(catchUp)) throw refuse(`'catchUp' is '${catchUp}': 'skip', 'once' or 'all'`);
  if (place === "node" && options.catchUp !== undefined) throw refuse("'catchUp' needs where: 'cluster'");
  const run: ScheduleCallback = (one) => callback.call(owner(), one) as unknown;
  scheduled.push({ module, name, cron, where: place, catchUp, timeoutMs, run });
  if (place === "node") return;
  const actor = scheduleActor(module, name);
  addBehaviour(door, actor, { ...(scheduleBehaviour(actor, run) as Behaviour), ...defined({ timeoutMs, retries }) });
}

/** Without what is undefined: that stands for the default. */
function defined(options: { readonly [K in keyof HookOptions]?: HookOptions[K] | undefined }): HookOptions {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

function wrong(place: HookPlace, what: string): StarlingError {
  return new StarlingError("MODULE", `module ${place.module}: ${place.method}: ${what}`);
}
