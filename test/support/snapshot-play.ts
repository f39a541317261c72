import { createCounters } from "../../actors/counters.ts";
import { type EntityAt, entityKey, keyOf } from "../../actors/history/entity-at.ts";
import { createHookRunner, hookRunnerLimits } from "../../actors/hooks/hook-runner.ts";
import { createHookPatience } from "../../actors/snapshots/hook-patience.ts";
import type { HookYield } from "../../actors/snapshots/snapshot-call.ts";
import { createLinkGraph } from "../../actors/snapshots/snapshot-component.ts";
import {
  addYield,
  computeSnapshots,
  computeValues,
  type SnapshotScope,
} from "../../actors/snapshots/snapshot-hooks.ts";
import { activeHooks, pairsOf, planSnapshotLinks, setMirrors } from "../../actors/snapshots/snapshot-link.ts";
import type { RecordAt } from "../../actors/snapshots/snapshot-values.ts";
import type { HookTable } from "../../modules/hook.ts";
import type { Model } from "../../modules/model.ts";
import { type CallbackRegistrar, createRegistrar } from "../../modules/registrar.ts";
import type { Clock } from "../../proto/clock.ts";
import { shardId } from "../../proto/ids.ts";
import { createManualClock } from "./manual-clock.ts";
import { specOf } from "./record-at.ts";
import { wholeBody } from "./whole-body.ts";

export interface SnapshotPlay {
  readonly model: Model;
  /** Registers the hooks of a module `m`. */
  readonly register?: (door: CallbackRegistrar) => void;
  /** Hooks that are registered already. */
  readonly table?: HookTable;
  readonly atMs?: number;
  readonly keepEmpty?: boolean;
  readonly clock?: Clock;
  readonly signal?: AbortSignal;
  readonly timeoutMs?: number;
  readonly retries?: number;
}

/** What is needed to compute snapshots, without nodes and shards. */
export function snapshotScope(play: SnapshotPlay): SnapshotScope {
  const { model, clock = createManualClock(), timeoutMs = 1000, retries = 0 } = play;
  const registrar = createRegistrar(model, { concurrency: 8, timeoutMs, retries });
  play.register?.(registrar.forModule("m", silent, () => ({})));
  const table = play.table ?? registrar.hookTable();
  const none = { timeseries: new Map(), correlation: [], init: [], finalize: [] };
  const runner = createHookRunner({
    ...{ hooks: table, model, limits: hookRunnerLimits, clock, random: () => 1, counters: createCounters() },
    ...{ log: () => silent, getRecord: async () => null },
  });
  const hooks = activeHooks(table.snapshot ?? none);
  return {
    ...{
      model,
      hooks,
      links: planSnapshotLinks(model, hooks),
      runner,
      patience: createHookPatience(),
      guard: null,
      clock,
      tick: 3,
      shard: shardId("entity", 0),
    },
    ...{ atMs: play.atMs ?? 0, keepEmpty: play.keepEmpty ?? true },
    signal: play.signal ?? new AbortController().signal,
  };
}

/** What is stored of entities, by type. */
export type Records = Readonly<Record<string, readonly RecordAt[]>>;

export interface PlayedTick extends HookYield {
  /** Bodies, parsed, by type and eid. */
  readonly bodies: Readonly<Record<string, Record<string, unknown>>>;
  readonly texts: ReadonlyMap<string, string>;
}

/** A whole tick: values page by page, then what is linked component by component, and the rest in pages. */
export async function playTick(scope: SnapshotScope, records: Records, pageSize = 100): Promise<PlayedTick> {
  const { model, links } = scope;
  const done: HookYield = { tasks: [], report: new Map() };
  const texts = new Map<string, string>();
  const linked = new Map<string, EntityAt>();
  const compute = async (entities: Iterable<EntityAt>): Promise<void> => {
    const computed = await computeSnapshots(scope, entities);
    addYield(done, computed);
    for (const [key, found] of computed.bodies) texts.set(key, wholeBody(found));
  };
  for (const [type, all] of Object.entries(records)) {
    for (let from = 0; from < all.length; from += pageSize) {
      const computed = await computeValues(scope, specOf(model, type), all.slice(from, from + pageSize));
      addYield(done, computed);
      if (!links.types.has(type)) await compute(computed.entities);
      else for (const entity of computed.entities) linked.set(keyOf(entity), entity);
    }
  }
  const graph = createLinkGraph(links);
  for (const entity of linked.values()) for (const pair of pairsOf(model, links, entity)) graph.add(pair);
  for (const [key, entity] of linked) setMirrors(model, entity, graph.sourcesOf(key));
  for (const component of graph.components()) {
    await compute(component.flatMap((key) => linked.get(key) ?? []));
    for (const key of component) linked.delete(key);
  }
  for (const entity of linked.values()) await compute([entity]);
  return { ...done, texts, bodies: bodiesOf(texts) };
}

function bodiesOf(texts: ReadonlyMap<string, string>): PlayedTick["bodies"] {
  const bodies: Record<string, Record<string, unknown>> = {};
  for (const [key, text] of texts) {
    const [type = "", eid = ""] = key.split("\t");
    const ofType = bodies[type] ?? {};
    bodies[type] = ofType;
    ofType[eid] = JSON.parse(text);
  }
  return bodies;
}

/** The body of an entity as the tick told it. */
export function bodyOf({ texts }: PlayedTick, type: string, eid: string): unknown {
  return JSON.parse(texts.get(entityKey(type, eid)) ?? "null");
}

const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
