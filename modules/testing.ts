import type { BaseModule, ModuleConfig, PlatformConfig } from "./base-module.ts";
import { checkTask } from "./check-task.ts";
import { type ConfigProblem, writeProblem } from "./config-section.ts";
import type { CheckedTask, Eid, Value } from "./datapoint.ts";
import { canonicalEid, readEid } from "./eid.ts";
import type { Hook, HookTable, ModuleLog } from "./hook.ts";
import { type FindEntity, LinkedView, planLinkTree, withoutRecords } from "./linked-view.ts";
import type { AttributeSpec, EntitySpec, Model } from "./model.ts";
import { parseModel } from "./parse-model.ts";
import { type CallbackRegistrar, createRegistrar } from "./registrar.ts";
import type {
  CorrelationHook,
  CorrelationHookWithMasterRecord,
  MasterRecord,
  SnapshotContext,
  SnapshotValues,
} from "./snapshot-hook.ts";

/*
 * The testing kit: a module's hooks, called without a node. What a hook throws comes out; what it does against its registration
 * is an error too, where a node would report it and go on.
 */

/** A module as its author writes it. */
export type ModuleClass<M extends BaseModule> = new (
  platformConfig: PlatformConfig,
  moduleConfig: ModuleConfig,
  registrar: CallbackRegistrar,
) => M;

/** Attributes of an entity type, as its YAML file has them below `attribs`, or the whole file. */
export type TestType = Readonly<Record<string, unknown>>;

export interface ModuleTestOptions<M extends BaseModule> {
  readonly module: ModuleClass<M>;
  /** The module's name, default `module`: part of the identities of its hooks. */
  readonly name?: string;
  /** What would stand in `modules/NAME.yml`. */
  readonly config?: ModuleConfig;
  /** The entity types, by id. */
  readonly types: Readonly<Record<string, TestType>>;
  /** Default: nobody listens. */
  readonly log?: ModuleLog;
}

/** A module with its hooks. */
export interface ModuleTest<M extends BaseModule> {
  readonly module: M;
  readonly model: Model;
  readonly hooks: HookTable;
  /** Runs the correlation hooks, as a snapshot run does. */
  snapshot(entities: TestEntities, options?: TestSnapshotOptions): Promise<TestSnapshot>;
}

/** Values by type, then by entity id; `eid` is added, and so are mirrors. */
export type TestEntities = Readonly<Record<string, Readonly<Record<string, Readonly<Record<string, unknown>>>>>>;

export interface TestSnapshotOptions {
  /** The instant, Unix milliseconds; default 0. */
  readonly now?: number;
  /** Master records, for hooks that ask for them; by type, then by entity id. */
  readonly master?: Readonly<Record<string, Readonly<Record<string, MasterRecord>>>>;
}

export interface TestSnapshot {
  /** The snapshots of all entities that were given, by type, then by entity id, links without records. */
  readonly entities: Readonly<Record<string, Readonly<Record<string, Readonly<Record<string, unknown>>>>>>;
  /** What hooks returned, in the order of the calls. */
  readonly tasks: readonly CheckedTask[];
}

/** Makes a module and registers its hooks. Raises CONFIG for types that are wrong, and MODULE as registration does. */
export function testModule<M extends BaseModule>(options: ModuleTestOptions<M>): ModuleTest<M> {
  const { name = "module", config = {}, log = silent } = options;
  const model = readTypes(options.types);
  const registrar = createRegistrar(model, { concurrency: 8, timeoutMs: 60_000, retries: 0 });
  const door = registrar.forModule(name, log, () => module);
  const module: M = new options.module({ nodeName: "test", model, config: {} }, config, door);
  const hooks = registrar.hookTable();
  return {
    module,
    model,
    hooks,
    snapshot: (entities, more = {}) => takeSnapshot(model, hooks, { log, entities, ...more }),
  };
}

const silent: ModuleLog = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

function readTypes(types: ModuleTestOptions<never>["types"]): Model {
  const problems: ConfigProblem[] = [];
  const files = Object.entries(types).map(([id, given]) => {
    const { entity = {}, attribs = given } = "attribs" in given ? given : {};
    const value = { entity: { id, name: id, snapshot: true, ...(entity as object) }, attribs };
    return { file: `db_entities/${id}.yml`, value, lineOf: () => 0 };
  });
  const model = parseModel(files, problems);
  if (problems.length > 0) throw new Error(problems.map(writeProblem).join("\n"));
  return model;
}

/** An entity of a test. */
interface TestEntity {
  readonly spec: EntitySpec;
  readonly eid: Eid;
  readonly values: SnapshotValues;
  readonly master: MasterRecord;
}

type Entities = ReadonlyMap<string, ReadonlyMap<string, TestEntity>>;

async function takeSnapshot(
  model: Model,
  { snapshot }: HookTable,
  given: TestSnapshotOptions & { readonly log: ModuleLog; readonly entities: TestEntities },
): Promise<TestSnapshot> {
  const entities = readEntities(model, given);
  setMirrors(entities);
  const find: FindEntity<TestEntity> = (type, eid) => entities.get(type)?.get(String(eid));
  const tasks: CheckedTask[] = [];
  for (const hook of snapshot?.correlation ?? []) {
    if (hook.refresh !== undefined) continue;
    const changes: (() => void)[] = [];
    for (const entity of [...(entities.get(hook.type ?? "")?.values() ?? [])].sort(byEid)) {
      const ctx = contextOf(hook, entity, given);
      const { returned, apply } = await callHook(hook, entity, { find, ctx });
      for (const task of returned) tasks.push(checkTask(model, task));
      changes.push(apply);
    }
    for (const apply of changes) apply();
  }
  return { entities: tellEntities(entities), tasks };
}

function byEid(a: TestEntity, b: TestEntity): number {
  return String(a.eid) < String(b.eid) ? -1 : 1;
}

function contextOf(
  hook: Hook,
  { spec, eid }: TestEntity,
  { now = 0, log }: TestSnapshotOptions & { readonly log: ModuleLog },
): SnapshotContext {
  return { now, key: `1-${spec.id}-${eid}-${hook.id}`, signal: new AbortController().signal, log };
}

interface CallParts {
  readonly find: FindEntity<TestEntity>;
  readonly ctx: SnapshotContext;
}

async function callHook(hook: Hook, entity: TestEntity, { find, ctx }: CallParts) {
  const { reach, kind, type } = hook;
  if (reach === undefined || type === null) throw new Error(`${hook.id} is no correlation hook`);
  const view = new LinkedView(entity, planLinkTree(reach), find);
  const answer =
    kind === "correlation"
      ? (hook.run as CorrelationHook)(type, view.values, ctx)
      : (hook.run as CorrelationHookWithMasterRecord)(type, view.values, entity.master, ctx);
  const returned = (await answer) ?? [];
  if (!Array.isArray(returned)) throw new Error(`${hook.id} returned no list of tasks for ${type} ${entity.eid}`);
  const declared = new Set(reach.mayChange.map(({ end }) => end));
  const changes = view.changes();
  const apply = (): void => {
    for (const { entity: changed, name, value } of changes) {
      const attr = name.replace(/#c$/, "");
      const spec = changed.spec.attributes.get(attr);
      const place = `${hook.id} set ${name} of ${changed.spec.id} ${changed.eid}`;
      if (spec === undefined || !declared.has(`${changed.spec.id}.${attr}`)) {
        throw new Error(`${place}, which its 'mayChange' does not name`);
      }
      if (value === undefined || value === null) delete changed.values[name];
      else changed.values[name] = name === attr ? checkValue(spec, value) : (value as Value);
    }
  };
  return { returned, apply };
}

function readEntities(
  model: Model,
  { entities, master = {} }: TestSnapshotOptions & { readonly entities: TestEntities },
): Entities {
  const read = new Map<string, Map<string, TestEntity>>();
  for (const [type, ofType] of Object.entries(entities)) {
    const spec = model.entities.get(type);
    if (spec === undefined) throw new Error(`there is no entity type '${type}'`);
    const own = Object.entries(ofType).map(([id, given]): [string, TestEntity] => {
      const text = canonicalEid(spec, id);
      const values: SnapshotValues = { eid: readEid(spec, text) };
      for (const [name, value] of Object.entries(given)) {
        const attribute = spec.attributes.get(name.replace(/#c$/, ""));
        if (attribute === undefined) throw new Error(`entity type '${type}' has no attribute '${name}'`);
        values[name] = name === attribute.id ? checkValue(attribute, value) : (value as Value);
      }
      return [text, { spec, eid: values.eid, values, master: freeze(master[type]?.[id] ?? {}) }];
    });
    read.set(type, new Map(own));
  }
  return read;
}

/** Mirrors show who links here, among the entities that were given. */
function setMirrors(entities: Entities): void {
  const all = [...entities.values()].flatMap((ofType) => [...ofType.values()]);
  for (const { spec, values } of all) {
    for (const { id, readOnly } of spec.attributeList) if (readOnly) values[id] = Object.freeze([]);
  }
  for (const { spec, eid, values } of all) {
    for (const { id, relation, readOnly } of spec.attributeList) {
      if (relation === null || relation.mirror === null || readOnly || values[id] === undefined) continue;
      for (const link of [values[id]].flat(3) as { readonly eid: Eid }[]) {
        const target = entities.get(relation.target)?.get(String(link.eid));
        const known = (target?.values[relation.mirror] ?? []) as readonly Value[];
        if (target !== undefined) target.values[relation.mirror] = freeze([...known, { eid }]);
      }
    }
  }
}

function checkValue(spec: AttributeSpec, value: unknown): Value {
  const { dataType, kind, multiValue, id } = spec;
  if (dataType === null) throw new Error(`'${id}' is a timeseries, which no snapshot holds`);
  if (kind !== "observations" || !multiValue) return freeze(dataType.check(withoutRecords(value)));
  if (!Array.isArray(value)) throw new Error(`'${id}' has many values: give a list of them`);
  return freeze(value.map((one: unknown) => dataType.check(withoutRecords(one))));
}

function freeze<T>(value: T): T {
  if (typeof value === "object" && value !== null) for (const item of Object.values(value)) freeze(item);
  return Object.freeze(value);
}

function tellEntities(entities: Entities): TestSnapshot["entities"] {
  return Object.fromEntries(
    [...entities].map(([type, ofType]) => [
      type,
      Object.fromEntries([...ofType].map(([eid, { values }]) => [eid, { ...values }])),
    ]),
  );
}
