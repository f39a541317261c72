import type { Value } from "../../modules/datapoint.ts";
import type { Hook } from "../../modules/hook.ts";
import type { FindEntity } from "../../modules/linked-view.ts";
import type { EntitySpec } from "../../modules/model.ts";
import type { SnapshotHooks } from "../../modules/snapshot-hook.ts";
import { type EntityAt, entityKey, keyOf, type SnapshotTexts, writeSnapshot } from "../history/entity-at.ts";
import { RefreshCall, refreshSubjects } from "../hooks/refresh-call.ts";
import { CorrelationCall } from "./correlation-call.ts";
import { hasMany, Live } from "./live-entity.ts";
import { callAll, type HookYield, type SnapshotCall, type TickScope } from "./snapshot-call.ts";
import { type SnapshotLinks, targetsOf } from "./snapshot-link.ts";
import { addReport } from "./snapshot-report.ts";
import { draftValues, finishValues, planValues, type RecordAt } from "./snapshot-values.ts";
import { TimeseriesCall } from "./timeseries-call.ts";

/*
 * What hooks make of the entities of a tick.
 *
 * 1. A hook runs for all entities of its type in the page or component before the next one begins, in the order of the graph.
 * 2. What a hook changes is taken over when all its calls have ended, in the order of the entities' keys. So bodies depend
 *    neither on the order in which entities come nor on which asynchronous call ends first.
 * 3. A call that fails changes nothing; a change that a hook did not declare is not taken. Both are reported, the others go on.
 * 4. Bodies hold links without records: records are only in what hooks see.
 */

/** A tick, as the computing of its snapshots needs it. */
export interface SnapshotScope extends TickScope {
  /** Those that run in this tick: see `activeHooks`. */
  readonly hooks: SnapshotHooks;
  readonly links: SnapshotLinks;
  /** Whether links to entities that do not exist stay, without a record. */
  readonly keepEmpty: boolean;
}

export interface ComputedValues extends HookYield {
  /** In the order of the records. */
  readonly entities: EntityAt[];
}

export interface ComputedSnapshots extends HookYield {
  /** The body of every entity of a type that has snapshots, as JSON text, by key. */
  readonly bodies: ReadonlyMap<string, SnapshotTexts>;
}

/** The values of entities of one type, with what timeseries hooks derive from them. Rejects with the signal's reason. */
export async function computeValues(
  scope: SnapshotScope,
  spec: EntitySpec,
  records: readonly RecordAt[],
): Promise<ComputedValues> {
  const plan = planValues(spec.id, scope.hooks, scope.atMs);
  const done: HookYield = { tasks: [], report: new Map() };
  const drafts = records.map((record) => draftValues(spec, record, plan));
  const series = scope.hooks.timeseries.get(spec.id);
  for (const attribute of series === undefined ? [] : spec.attributeList) {
    for (const hook of series?.get(attribute.id) ?? []) {
      const own = drafts.filter(({ histories }) => histories.has(attribute.id));
      const calls = own.map((draft) => new TimeseriesCall(scope, hook, draft, attribute));
      if (calls.length > 0) await callAll(scope, hook, calls, done);
    }
  }
  return { ...done, entities: drafts.map((draft) => finishValues(draft, plan)) };
}

/**
 * The snapshots of entities that are computed together: a page of unlinked ones, or a component with its mirrors set. The
 * entities are changed. Rejects with the signal's reason.
 */
export async function computeSnapshots(scope: SnapshotScope, entities: Iterable<EntityAt>): Promise<ComputedSnapshots> {
  const done: HookYield = { tasks: [], report: new Map() };
  const bodies = new Map<string, SnapshotTexts>();
  const all = [...entities];
  if (scope.hooks.correlation.some(({ type }) => all.some(({ spec }) => spec.id === type)) || !scope.keepEmpty) {
    const live = new Map(all.map((at): [string, Live] => [keyOf(at), new Live(at)]));
    if (!scope.keepEmpty) for (const one of live.values()) dropEmptyLinks(scope, one, (key) => live.has(key));
    await runHooks(scope, live, done);
  }
  for (const entity of all) if (entity.spec.snapshot) bodies.set(keyOf(entity), writeSnapshot(entity));
  return { ...done, bodies };
}

/** Runs all correlation hooks over entities by their keys. */
async function runHooks(scope: SnapshotScope, live: ReadonlyMap<string, Live>, done: HookYield): Promise<void> {
  const find: FindEntity<Live> = (type, eid) => live.get(entityKey(type, String(eid)));
  const byType = new Map<string, string[]>();
  for (const [key, { at }] of live) {
    const known = byType.get(at.spec.id);
    if (known === undefined) byType.set(at.spec.id, [key]);
    else known.push(key);
  }
  for (const keys of byType.values()) keys.sort();
  for (const hook of scope.hooks.correlation) {
    const own = (byType.get(hook.type ?? "") ?? []).flatMap((key) => live.get(key) ?? []);
    await runHook(scope, hook, { entities: own, find }, done);
  }
}

/** Runs one hook over entities of its type, which come in the order of their keys. */
export async function runHook(
  scope: SnapshotScope,
  hook: Hook,
  { entities, find }: { readonly entities: readonly Live[]; readonly find: FindEntity<Live> },
  done: HookYield,
): Promise<void> {
  if (entities.length > 0) await callAll(scope, hook, callsOf(scope, hook, entities, find), done);
}

function* callsOf(
  scope: SnapshotScope,
  hook: Hook,
  entities: readonly Live[],
  find: FindEntity<Live>,
): Generator<SnapshotCall> {
  for (const entity of entities) {
    if (hook.refresh === undefined) yield new CorrelationCall(scope, hook, entity, find);
    else for (const subject of refreshSubjects(hook, entity)) yield new RefreshCall(scope, hook, entity, subject);
  }
}

/**
 * Takes links of which no target is there out of the values, as far as hooks go over them: one by one where an attribute has
 * many values, else only if all of an attribute's targets are missing.
 */
export function dropEmptyLinks({ model, links }: SnapshotScope, one: Live, exists: (key: string) => boolean): void {
  const { spec } = one.at;
  for (const { type, attr, target, connects } of links.list) {
    const attribute = spec.attributes.get(attr);
    const targetSpec = model.entities.get(target);
    if (!connects || type !== spec.id || attribute === undefined || targetSpec === undefined) continue;
    const value = one.values[attr] as Value | undefined;
    if (value === undefined) continue;
    const isThere = (item: Value) => [...targetsOf(targetSpec, item)].some((eid) => exists(entityKey(target, eid)));
    const c = one.values[`${attr}#c`] as Value | undefined;
    if (!hasMany(attribute)) {
      if (!isThere(value)) one.set(attribute, undefined, undefined);
      continue;
    }
    const kept = [...(value as readonly Value[]).entries()].filter(([, item]) => isThere(item));
    const cs = c as readonly number[];
    const values = kept.length === 0 ? undefined : Object.freeze(kept.map(([, item]) => item));
    one.set(attribute, values, values && Object.freeze(kept.map(([place]) => cs[place] ?? 1)));
  }
}

/** Adds up what hooks did. */
export function addYield(sum: HookYield, { tasks, report }: HookYield): void {
  for (const task of tasks) sum.tasks.push(task);
  addReport(sum.report, report);
}
