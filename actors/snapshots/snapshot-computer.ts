import type { CheckedTask } from "../../modules/datapoint.ts";
import type { Model } from "../../modules/model.ts";
import type { SnapshotHooks } from "../../modules/snapshot-hook.ts";
import type { Clock } from "../../proto/clock.ts";
import type { ShardId } from "../../proto/ids.ts";
import {
  type EntityAt,
  entityKey,
  keyOf,
  readEntityAt,
  type SnapshotTexts,
  writeEntityAt,
} from "../history/entity-at.ts";
import { planWindows } from "../history/history-read.ts";
import type {
  NewSnapshotValue,
  SnapshotHookReport,
  SnapshotHookReports,
  SnapshotRow,
  SnapshotValueRow,
  ValueChanges,
} from "../store/snapshot-store.ts";
import type { EntityKey, PageWindow, Queries } from "../store/store.ts";
import type { TickRecord } from "../store/tick.ts";
import { createCallGuard } from "./call-guard.ts";
import { createHookPatience, type HookPatience } from "./hook-patience.ts";
import { callNodeHooks } from "./node-hook-call.ts";
import type { HookYield, SnapshotGuard } from "./snapshot-call.ts";
import { type SnapshotGroups, writeLinks } from "./snapshot-groups.ts";
import { addYield, computeSnapshots, computeValues, type SnapshotScope } from "./snapshot-hooks.ts";
import { activeHooks, pairsOf, planSnapshotLinks, type SnapshotLinks, setMirrors } from "./snapshot-link.ts";
import type { SnapshotReport } from "./snapshot-report.ts";
import { computeSpilled, type SpillOptions } from "./snapshot-spill.ts";
import { planValues, type RecordAt } from "./snapshot-values.ts";

/** What a tick computes, page by page and group by group. All of it follows from what is given, but for what hooks do beside. */
export interface SnapshotComputer {
  /** Types whose entities are computed with others: see {@link planSnapshotLinks}. */
  readonly linked: SnapshotLinks;
  /** Types with hooks that look at more than they declare: their entities are computed in every tick. */
  readonly impure: readonly string[];
  /** The histories that the values of these records need. */
  windowsOf(records: readonly TickRecord[], instant: SnapshotInstant): PageWindow[];
  /** Records as they were at the mark: snapshots of those that are computed alone, values of the others. */
  compute(records: readonly TickRecord[], instant: SnapshotInstant): Promise<ComputedPage>;
  /** Snapshots of whole groups, whose values were stored. */
  join(values: readonly SnapshotValueRow[], groups: SnapshotGroups, instant: SnapshotInstant): Promise<Computed>;
  /** The same of a group that does not fit into memory: what it comes to goes to `pieces`. */
  joinLarge(
    members: readonly EntityKey[],
    pieces: LargeGroup,
    instant: SnapshotInstant,
  ): Promise<Omit<Computed, "snapshots">>;
  /** Runs the hooks of the node itself: before its first entity, or after the last one. */
  runForNode(step: "init" | "finalize", instant: SnapshotInstant): Promise<NodeAnswers>;
}

export interface SnapshotInstant {
  readonly tick: number;
  /** Unix ms. */
  readonly atMs: number;
  readonly shard: ShardId;
  /** Whether a node may have died of it: then hooks that never yield are ended. */
  readonly careful: boolean;
  /** Aborted when the shard or the run is lost. */
  readonly signal: AbortSignal;
}

export interface Computed {
  readonly snapshots: readonly ComputedSnapshot[];
  readonly tasks: readonly CheckedTask[];
  readonly hooks: SnapshotHookReports;
}

export type ComputedSnapshot = Extract<SnapshotRow, { readonly kind: "body" }>;

/** Where the values of a large group are read from and written to, piece by piece. */
export interface LargeGroup extends Omit<SpillOptions, "sourcesOf" | "onBodies" | "spill"> {
  readonly groups: SnapshotGroups;
  readonly readValues: (keys: readonly EntityKey[]) => Promise<readonly SnapshotValueRow[]>;
  readonly writeValues: (rows: readonly ValueChanges[]) => Promise<void>;
  readonly onSnapshots: (snapshots: readonly ComputedSnapshot[]) => Promise<void>;
}

export interface ComputedPage extends Computed {
  readonly values: readonly NewSnapshotValue[];
}

export interface NodeAnswers {
  readonly hooks: SnapshotHookReports;
  readonly answers: readonly { readonly hook: string; readonly tasks: readonly CheckedTask[] }[];
}

export interface SnapshotComputerOptions {
  readonly model: Model;
  readonly hooks: SnapshotHooks;
  readonly runner: SnapshotScope["runner"];
  readonly keepEmpty: boolean;
  readonly queries: Pick<Queries, "historyHorizons">;
  readonly clock: Clock;
  readonly log: { error(fields: object, message: string): void };
  /** Where an entity lives. */
  readonly shardOf: (type: string, eid: string) => ShardId;
}

/** How long a hook may hold the loop where a node may have died of it: less than the watchdog bears with. */
const yieldWithinMs = 5_000;

/** The computing of a node. */
export function createSnapshotComputer(options: SnapshotComputerOptions): SnapshotComputer {
  const { model, runner, keepEmpty, clock, shardOf } = options;
  const horizons = createHorizons(options.queries);
  // Those that only run after a change of their modules' configuration as well: what is linked is the same in every tick.
  const linked = planSnapshotLinks(model, options.hooks);
  const hooksOf = createActiveHooks(options.hooks);
  const patienceOf = createPatience();
  const guard: SnapshotGuard = {
    ...createCallGuard(yieldWithinMs),
    onStuck: ({ hook, type, eid, scope: { tick, shard } }) => {
      const where = { hook: hook.id, type, eid, tick, shard };
      options.log.error(where, "a snapshot hook did not yield: it was ended, and is given up for this run");
    },
  };
  const scopeOf = (instant: SnapshotInstant): SnapshotScope => {
    return {
      guard: instant.careful ? guard : null,
      ...{
        model,
        hooks: hooksOf(instant.tick),
        patience: patienceOf(instant.tick),
        runner,
        keepEmpty,
        clock,
        links: linked,
      },
      ...instant,
    };
  };
  /** Values by type, in the order of the types' first records. */
  const valuesOf = async (scope: SnapshotScope, records: readonly TickRecord[], done: HookYield) => {
    const byType = new Map<string, TickRecord[]>();
    for (const record of records) {
      const known = byType.get(record.type);
      if (known === undefined) byType.set(record.type, [record]);
      else known.push(record);
    }
    const entities: EntityAt[] = [];
    for (const [type, some] of byType) {
      const spec = model.entities.get(type);
      if (spec === undefined || !(spec.snapshot || linked.types.has(type))) continue;
      const found = await horizons(scope.tick, type);
      const own = some.map(({ eid, state, rows, pages }): RecordAt => ({ eid, state, rows, pages, horizons: found }));
      const computed = await computeValues(scope, spec, own);
      addYield(done, computed);
      for (const entity of computed.entities) entities.push(entity);
    }
    return entities;
  };
  const keyed = ({ spec, eid }: EntityAt): EntityKey => ({ shard: shardOf(spec.id, eid), type: spec.id, eid });
  return {
    linked,
    impure: findImpure(options.hooks),
    windowsOf: (records, { tick, atMs }) =>
      records.flatMap((record) => {
        const spec = model.entities.get(record.type);
        if (spec === undefined || spec.attributeList.every(({ kind }) => kind === "plain")) return [];
        return planWindows(spec, record, record.rows, planValues(record.type, hooksOf(tick), atMs).part);
      }),
    compute: async (records, instant) => {
      const scope = scopeOf(instant);
      const done: HookYield = { tasks: [], report: new Map() };
      const entities = await valuesOf(scope, records, done);
      const alone = entities.filter(({ spec }) => !linked.types.has(spec.id));
      const computed = await computeSnapshots(scope, alone);
      addYield(done, computed);
      const values = entities.flatMap((entity): NewSnapshotValue[] => {
        if (!linked.types.has(entity.spec.id)) return [];
        const links = writeLinks(pairsOf(model, linked, entity), linked);
        return [{ ...keyed(entity), due: entity.due, links, body: writeEntityAt(entity) }];
      });
      return { snapshots: snapshotsOf(alone, computed.bodies, keyed), values, ...yielded(done) };
    },
    join: async (values, groups, instant) => {
      const scope = scopeOf(instant);
      const entities = values.flatMap(({ type, eid, body, due }) => {
        const spec = model.entities.get(type);
        if (spec === undefined) return [];
        const entity = { ...readEntityAt(spec, eid, body), due };
        setMirrors(model, entity, groups.sourcesOf(entityKey(type, eid)));
        return [entity];
      });
      const done: HookYield = { tasks: [], report: new Map() };
      const computed = await computeSnapshots(scope, entities);
      addYield(done, computed);
      return { snapshots: snapshotsOf(entities, computed.bodies, keyed), ...yielded(done) };
    },
    joinLarge: async (members, pieces, instant) => {
      const keys = new Map(members.map((member) => [entityKey(member.type, member.eid), member]));
      const of = (key: string): EntityKey[] => {
        const found = keys.get(key);
        return found === undefined ? [] : [found];
      };
      const dues = new Map<string, number>();
      const done = await computeSpilled(scopeOf(instant), [...keys.keys()], {
        ...{ attempt: pieces.attempt, bytesMax: pieces.bytesMax, sourcesOf: pieces.groups.sourcesOf },
        spill: {
          read: async (wanted) => {
            const rows = new Map<string, string>();
            for (const { type, eid, body, due } of await pieces.readValues(wanted.flatMap(of))) {
              rows.set(entityKey(type, eid), body);
              if (due !== null) dues.set(entityKey(type, eid), due);
            }
            return wanted.map((key) => rows.get(key) ?? null);
          },
          write: (records) =>
            pieces.writeValues(records.flatMap(({ key, changes }) => of(key).map((own) => ({ ...own, changes })))),
        },
        onBodies: (bodies) => {
          const all = [...bodies].flatMap(([key, texts]) =>
            of(key).map((own) => ({ kind: "body" as const, ...own, ...texts, due: dues.get(key) ?? null })),
          );
          return pieces.onSnapshots(all);
        },
      });
      return yielded(done);
    },
    runForNode: async (step, instant) => {
      const scope = scopeOf(instant);
      const { report, answers } = await callNodeHooks(scope, scope.hooks[step]);
      if (step === "finalize") for (const { refresh } of scope.hooks.correlation) refresh?.flag.lower();
      const tasks = answers.map((answer) => ({ hook: answer.hook, tasks: answer.tasks.map(({ task }) => task) }));
      return { hooks: reportsOf(report), answers: tasks };
    },
  };
}

function snapshotsOf(
  entities: readonly EntityAt[],
  bodies: ReadonlyMap<string, SnapshotTexts>,
  keyed: (entity: EntityAt) => EntityKey,
): ComputedSnapshot[] {
  return entities.flatMap((entity) => {
    const texts = bodies.get(keyOf(entity));
    if (texts === undefined) return [];
    const { shard, type, eid } = keyed(entity);
    return [{ kind: "body", shard, type, eid, due: entity.due, body: texts.body, confidences: texts.confidences }];
  });
}

function yielded({ tasks, report }: HookYield): Pick<Computed, "tasks" | "hooks"> {
  return { tasks: tasks.map(({ task }) => task), hooks: reportsOf(report) };
}

function reportsOf(report: SnapshotReport): SnapshotHookReports {
  return Object.fromEntries(report);
}

/** Hooks with a refresh flag run while it is raised: then the whole run is. */
function findImpure({ timeseries, correlation }: SnapshotHooks): string[] {
  const types = new Set<string>();
  for (const { type, reach, refresh } of correlation) {
    if (refresh === undefined && reach?.pure !== true && type !== null) types.add(type);
  }
  for (const [type, byAttribute] of timeseries) {
    if ([...byAttribute.values()].some((hooks) => hooks.some(({ pure }) => pure !== true))) types.add(type);
  }
  return [...types];
}

/** The hooks of a tick: a flag that is raised or lowered in its middle counts from the next one on. */
function createActiveHooks(hooks: SnapshotHooks): (tick: number) => SnapshotHooks {
  let known: { readonly tick: number; readonly active: SnapshotHooks } | null = null;
  return (tick) => {
    if (known?.tick !== tick) known = { tick, active: activeHooks(hooks) };
    return known.active;
  };
}

/** How long hooks are put up with: anew in every tick. */
function createPatience(): (tick: number) => HookPatience {
  let known: { readonly tick: number; readonly patience: HookPatience } | null = null;
  return (tick) => {
    if (known?.tick !== tick) known = { tick, patience: createHookPatience() };
    return known.patience;
  };
}

/** What is too old to be told, read once per tick and type. */
function createHorizons(queries: SnapshotComputerOptions["queries"]) {
  let of = 0;
  const found = new Map<string, Promise<ReadonlyMap<string, number>>>();
  return (tick: number, type: string): Promise<ReadonlyMap<string, number>> => {
    if (tick !== of) found.clear();
    of = tick;
    const known = found.get(type);
    if (known !== undefined) return known;
    const reading = queries.historyHorizons(type);
    found.set(type, reading);
    reading.catch(() => found.delete(type));
    return reading;
  };
}

/** Reports of several pages, shards or nodes as one. */
export function addReports(...all: readonly SnapshotHookReports[]): SnapshotHookReports {
  const sums = new Map<string, SnapshotHookReport>();
  for (const reports of all) {
    for (const [hook, report] of Object.entries(reports)) {
      const known = sums.get(hook);
      sums.set(hook, known === undefined ? report : addReport(known, report));
    }
  }
  return Object.fromEntries([...sums].sort(([a], [b]) => (a < b ? -1 : 1)));
}

function addReport(one: SnapshotHookReport, other: SnapshotHookReport): SnapshotHookReport {
  return {
    calls: one.calls + other.calls,
    failures: one.failures + other.failures,
    undeclared: one.undeclared + other.undeclared,
    refused: one.refused + other.refused,
    tasks: one.tasks + other.tasks,
    ms: one.ms + other.ms,
    problems: [...one.problems, ...other.problems].slice(0, problemsMax),
  };
}

const problemsMax = 5;
