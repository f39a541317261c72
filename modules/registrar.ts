import { StarlingError } from "../proto/starling-error.ts";
import { didYouMean } from "./did-you-mean.ts";
import type {
  AllowEntityCreationHook,
  EntityCreationHook,
  HookOptions,
  HookTable,
  ModuleLog,
  NewAttrHook,
  RefreshOptions,
  TaskHook,
} from "./hook.ts";
import { createHookList, type HookDefaults, type HookList, type HookPlace } from "./hook-list.ts";
import type { AttributeSpec, EntitySpec, Model } from "./model.ts";

/** A cron dictionary, DP³'s keys; what is left out follows DP³'s rules. */
export type CronFields = Readonly<
  Partial<
    Record<
      "second" | "minute" | "hour" | "day" | "day_of_week" | "week" | "month" | "year" | "timezone",
      string | number
    >
  >
>;

/** A callback that a module asked to have run on a schedule. */
export interface ScheduledCallback {
  readonly module: string;
  readonly name: string;
  readonly run: () => unknown;
  readonly cron: CronFields;
}

/** Where a module registers its hooks, in its constructor. Every method raises MODULE. */
export interface CallbackRegistrar {
  readonly log: ModuleLog;
  /** `hook(task, ctx)` runs as each task begins; what it returns is ignored. */
  registerTaskHook(point: "on_task_start", hook: TaskHook, options?: HookOptions): void;
  /** `hook(eid, task, ctx)` runs before an entity is created; a falsy answer refuses the whole task. */
  registerAllowEntityCreationHook(hook: AllowEntityCreationHook, type: string, options?: HookOptions): void;
  /** `hook(eid, task, ctx)` runs once when an entity was created; it may return tasks. */
  registerOnEntityCreationHook(hook: EntityCreationHook, type: string, options?: RefreshOptions): void;
  /** `hook(eid, datapoint, ctx)` runs for every datapoint of the attribute; it may return tasks. */
  registerOnNewAttrHook(hook: NewAttrHook, type: string, attr: string, options?: RefreshOptions): void;
  /** Keeps a callback with its schedule. */
  schedulerRegister(callback: () => unknown, cron: CronFields, options?: { readonly name?: string }): void;
}

/** Collects what all modules register. */
export interface Registrar {
  /** The registrar of one module. `owner` gives its instance, which hooks get as `this`; asked once all are loaded. */
  forModule(module: string, log: ModuleLog, owner: () => object): CallbackRegistrar;
  /** Every hook, in registration order. Ends the registration. */
  hookTable(): HookTable;
  readonly scheduled: readonly ScheduledCallback[];
}

/** A registrar without hooks; `defaults` stand for what hooks leave out. */
export function createRegistrar(model: Model, defaults: HookDefaults): Registrar {
  const list = createHookList(defaults);
  const scheduled: ScheduledCallback[] = [];
  return {
    forModule: (module, log, owner) => moduleRegistrar({ model, list, scheduled, module, log, owner }),
    hookTable: () => list.close(),
    scheduled,
  };
}

interface Door {
  readonly model: Model;
  readonly list: HookList;
  readonly scheduled: ScheduledCallback[];
  readonly module: string;
  readonly log: ModuleLog;
  readonly owner: () => object;
}

function moduleRegistrar(door: Door): CallbackRegistrar {
  const { list, module, log, owner } = door;
  return {
    log,
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
      checkRefresh(door, place, entityOf(door, place, type), options);
      list.add(place, hook, owner, options);
    },
    registerOnNewAttrHook: (hook, type, attr, options = {}) => {
      const place: HookPlace = { module, method: "registerOnNewAttrHook", kind: "on_new_attr", type, attr };
      const entity = entityOf(door, place, type);
      const spec = attributeOf(place, entity, attr);
      if (spec.readOnly) {
        throw wrong(place, `attribute '${attr}' is a mirror: it never gets datapoints; hook the link it mirrors`);
      }
      checkRefresh(door, place, entity, options);
      list.add(place, hook, owner, options);
    },
    schedulerRegister: (callback, cron, options = {}) => addScheduled(door, callback, cron, options.name),
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

function checkRefresh(door: Door, place: HookPlace, entity: EntitySpec, options: RefreshOptions): void {
  const { refresh, mayChange } = options;
  if (refresh !== undefined && mayChange === undefined) {
    throw wrong(place, "'refresh' needs 'mayChange': name the attributes that the hook may change");
  }
  for (const path of mayChange ?? []) checkPath(door, place, entity, path);
}

/** A path is links followed by one attribute. */
function checkPath(door: Door, place: HookPlace, entity: EntitySpec, path: readonly string[]): void {
  if (!Array.isArray(path) || path.length === 0) {
    throw wrong(place, `'mayChange' holds ${JSON.stringify(path)}: each path is a list such as ["attr"]`);
  }
  let at = entity;
  for (const [index, attr] of path.entries()) {
    const spec = attributeOf(place, at, attr);
    if (index === path.length - 1) return;
    const next = spec.relation && door.model.entities.get(spec.relation.target);
    if (!next) throw wrong(place, `'mayChange' goes on after '${attr}' of '${at.id}', which is no link`);
    at = next;
  }
}

function addScheduled(door: Door, callback: unknown, cron: CronFields, name: string | undefined): void {
  const where = `module ${door.module}: schedulerRegister`;
  if (typeof callback !== "function") throw new StarlingError("MODULE", `${where}: the callback is not a function`);
  const called = name ?? callback.name.replace(/^bound /, "");
  const run = () => callback.call(door.owner()) as unknown;
  door.log.warn({ callback: called }, "schedule kept, but this version runs no schedules");
  door.scheduled.push({ module: door.module, name: called, run, cron });
}

function wrong(place: HookPlace, what: string): StarlingError {
  return new StarlingError("MODULE", `module ${place.module}: ${place.method}: ${what}`);
}
