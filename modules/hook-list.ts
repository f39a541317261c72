import { StarlingError } from "../proto/starling-error.ts";
import { unreachable } from "../proto/unreachable.ts";
import type {
  AllowEntityCreationHook,
  EntityCreationHook,
  Hook,
  HookKind,
  HookTable,
  MessageHook,
  NewAttrHook,
  RefreshOptions,
  TaskHook,
} from "./hook.ts";
import { planHookOrder } from "./hook-graph.ts";
import type { HookReach } from "./hook-path.ts";
import type { SnapshotFinalizeHook, SnapshotInitHook, TimeseriesHook } from "./snapshot-hook.ts";

/** What a hook has when its registration does not say; from the configuration. */
export interface HookDefaults {
  readonly concurrency: number;
  readonly timeoutMs: number;
  readonly retries: number;
}

/** Where a hook is registered, and by which call. */
export interface HookPlace {
  readonly module: string;
  readonly method: string;
  readonly kind: HookKind;
  readonly type: string | null;
  readonly attr: string | null;
  /** Of a hook that gets a place in the hook graph. */
  readonly reach?: HookReach | undefined;
}

/** Registered hooks in their order, each identity and each callable once per place. */
export interface HookList {
  /** Adds a hook that runs with `owner()` as `this`. Raises MODULE, and then nothing is added: cycles of the graph too. */
  add(place: HookPlace, hook: unknown, owner: () => object, options: AddOptions): void;
  /** Ends the registration and binds the hooks. */
  close(): HookTable;
}

export type AddOptions = RefreshOptions & { readonly pure?: boolean };

type Callable = (...args: never[]) => unknown;

interface Registration {
  readonly place: HookPlace;
  readonly callable: Callable;
  readonly owner: () => object;
  readonly hook: Omit<Hook, "run">;
}

const optionBounds = { concurrency: [1, 10_000], timeoutMs: [1, 86_400_000], retries: [0, 100] } as const;
const nameMaxLength = 200;

/** An empty list. */
export function createHookList(defaults: HookDefaults): HookList {
  const registrations = new Map<string, Registration>();
  let table: HookTable | null = null;
  return {
    add: (place, callable, owner, options) => {
      if (table !== null) {
        throw wrong(place, "hooks are registered in the module's constructor; it is too late once modules are loaded");
      }
      const registration = createRegistration(place, callable, owner, { ...defaults, ...defined(options) });
      checkNew(registrations, registration);
      checkGraph([...registrations.values(), registration], registration);
      registrations.set(registration.hook.id, registration);
    },
    close: () => {
      table ??= createTable([...registrations.values()]);
      return table;
    },
  };
}

function defined(options: AddOptions): AddOptions {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

function createRegistration(
  place: HookPlace,
  callable: unknown,
  owner: () => object,
  options: AddOptions & HookDefaults,
): Registration {
  if (typeof callable !== "function") {
    throw wrong(place, `the hook is ${callable === null ? "null" : typeof callable}, not a function`);
  }
  for (const [option, [least, most]] of Object.entries(optionBounds)) {
    const value = options[option as keyof typeof optionBounds];
    if (!Number.isInteger(value) || value < least || value > most) {
      throw wrong(place, `option '${option}' is ${String(value)}: give a whole number from ${least} to ${most}`);
    }
  }
  const { module, kind, type, attr, reach } = place;
  const name = nameOf(place, callable as Callable, options.name);
  const target = type === null ? "*" : attr === null ? type : `${type}.${attr}`;
  const { concurrency, timeoutMs, retries, refresh, mayChange, pure } = options;
  const hook = {
    id: `${module}/${kind}/${target}/${name}`,
    module,
    kind,
    type,
    attr,
    name,
    concurrency,
    timeoutMs,
    retries,
    ...(refresh && { refresh: { flag: refresh, mayChange: mayChange ?? [] } }),
    ...(reach && { reach }),
    ...(pure !== undefined && { pure }),
  };
  return { place, callable: callable as Callable, owner, hook };
}

/** The name is part of a durable identity, so a hook without one is refused. */
function nameOf(place: HookPlace, callable: Callable, given: string | undefined): string {
  const name = given ?? callable.name.replace(/^bound /, "");
  if (name === "") throw wrong(place, "the function has no name: pass one as the option 'name'");
  if (typeof name !== "string" || name.length > nameMaxLength || /[/\s]/.test(name)) {
    throw wrong(place, `the name '${String(name)}' is longer than ${nameMaxLength} or holds '/' or blanks`);
  }
  return name;
}

function checkNew(registrations: ReadonlyMap<string, Registration>, added: Registration): void {
  const { kind, type, attr } = added.place;
  for (const { place, callable, hook } of registrations.values()) {
    if (callable !== added.callable || place.kind !== kind || place.type !== type || place.attr !== attr) continue;
    throw wrong(added.place, `the same function is registered here already, as ${hook.id}`);
  }
  if (registrations.has(added.hook.id)) {
    throw wrong(added.place, `${added.hook.id} is registered already: tell the two apart by the option 'name'`);
  }
}

function checkGraph(registrations: readonly Registration[], added: Registration): void {
  if (added.hook.reach === undefined) return;
  const planned = planHookOrder(graphOf(registrations));
  if (planned.kind === "ordered") return;
  throw wrong(added.place, `the hook would wait for itself: ${planned.cycle.join(" → ")}`);
}

function graphOf(registrations: readonly Registration[]) {
  return registrations.flatMap(({ hook: { id, reach } }) =>
    reach === undefined
      ? []
      : { id, reads: reach.dependsOn.map(({ end }) => end), changes: reach.mayChange.map(({ end }) => end) },
  );
}

function createTable(registrations: readonly Registration[]): HookTable {
  const onTaskStart: Hook<TaskHook>[] = [];
  const allowEntityCreation = new Map<string, Hook<AllowEntityCreationHook>[]>();
  const onEntityCreation = new Map<string, Hook<EntityCreationHook>[]>();
  const onNewAttr = new Map<string, Map<string, Hook<NewAttrHook>[]>>();
  const onMessage = new Map<string, Hook<MessageHook>[]>();
  const timeseries = new Map<string, Map<string, Hook<TimeseriesHook>[]>>();
  const init: Hook<SnapshotInitHook>[] = [];
  const finalize: Hook<SnapshotFinalizeHook>[] = [];
  const graph: Hook[] = [];
  for (const { hook, callable, owner } of registrations) {
    // The registrar's signatures tie the kind to the type of the callable.
    const bound = { ...hook, run: callable.bind(owner()) as never };
    const { kind } = hook;
    const type = hook.type ?? "";
    const attr = hook.attr ?? "";
    if (hook.reach !== undefined) graph.push(bound);
    if (kind === "on_task_start") onTaskStart.push(bound);
    else if (kind === "allow_entity_creation") push(allowEntityCreation, type, bound);
    else if (kind === "on_entity_creation") push(onEntityCreation, type, bound);
    else if (kind === "on_new_attr") push(ofType(onNewAttr, type), attr, bound);
    else if (kind === "on_message") push(onMessage, type, bound);
    else if (kind === "timeseries") push(ofType(timeseries, type), attr, bound);
    else if (kind === "snapshot_init") init.push(bound);
    else if (kind === "snapshot_finalize") finalize.push(bound);
    else if (kind !== "correlation" && kind !== "correlation_with_master_record") unreachable(kind);
  }
  const snapshot = { timeseries, correlation: inOrder(graph, registrations), init, finalize };
  return { onTaskStart, allowEntityCreation, onEntityCreation, onNewAttr, onMessage, snapshot };
}

/** The hooks of the graph in its order; there is one, or registration would have failed. */
function inOrder(hooks: readonly Hook[], registrations: readonly Registration[]): readonly Hook[] {
  const planned = planHookOrder(graphOf(registrations));
  return planned.kind === "ordered" ? planned.order.flatMap((place) => hooks[place] ?? []) : [];
}

function ofType<V>(map: Map<string, Map<string, V>>, type: string): Map<string, V> {
  const known = map.get(type) ?? new Map<string, V>();
  map.set(type, known);
  return known;
}

function push<V>(map: Map<string, V[]>, key: string, value: V): void {
  const values = map.get(key);
  if (values === undefined) map.set(key, [value]);
  else values.push(value);
}

function wrong(place: HookPlace, what: string): StarlingError {
  return new StarlingError("MODULE", `module ${place.module}: ${place.method}: ${what}`);
}
