import type { CheckedTask } from "../modules/datapoint.ts";
import type { Model } from "../modules/model.ts";
import type { SnapshotHooks } from "../modules/snapshot-hook.ts";
import { writeBody } from "./entity-at.ts";
import { planWindows } from "./history-read.ts";
import { planValues, type RecordAt, type ValuesPlan, valuesAt } from "./snapshot-values.ts";
import type { SnapshotHookReport, SnapshotHookReports } from "./store/snapshot-store.ts";
import type { EntityKey, PageWindow, Queries } from "./store/store.ts";
import type { TickRecord, TickWindows } from "./store/tick.ts";

/** What a tick computes. All of it is a function of what is given, but for what hooks do beside. */
export interface SnapshotComputer {
  /** Types of entities that hooks reach over links, or that have such hooks themselves. */
  readonly linked: ReadonlySet<string>;
  /** The histories that the values of these records need. */
  readonly windowsOf: (records: readonly TickRecord[], instant: SnapshotInstant) => ReturnType<TickWindows>;
  /** Records of unlinked types: their snapshots. */
  compute(records: readonly TickRecord[], instant: SnapshotInstant): Promise<Computed>;
  /** A record of a linked type: its values, and whom it links to over paths of hooks. */
  read(record: TickRecord, instant: SnapshotInstant): Promise<ReadValues>;
  /** Hooks that run on every node, before its first entity and after the last one. */
  runForNode(step: "init" | "finalize", instant: SnapshotInstant): Promise<NodeAnswers>;
}

export interface SnapshotInstant {
  readonly tick: number;
  /** Unix ms. */
  readonly atMs: number;
  /** Aborted when the shard or the run is lost. */
  readonly signal: AbortSignal;
}

export interface Computed {
  /** In the order in which they were given; null: the type has no snapshots. */
  readonly snapshots: readonly ComputedSnapshot[];
  readonly tasks: readonly CheckedTask[];
  readonly hooks: SnapshotHookReports;
}

export interface ComputedSnapshot extends EntityKey {
  readonly body: string;
  readonly due: number | null;
}

export interface ReadValues {
  readonly body: string;
  readonly due: number | null;
  readonly links: string;
  readonly tasks: readonly CheckedTask[];
  readonly hooks: SnapshotHookReports;
}

export interface NodeAnswers {
  readonly hooks: SnapshotHookReports;
  readonly answers: readonly { readonly hook: string; readonly tasks: readonly CheckedTask[] }[];
}

export interface SnapshotComputerOptions {
  readonly model: Model;
  readonly hooks: SnapshotHooks;
  readonly queries: Pick<Queries, "historyHorizons">;
}

/** The computing of a node. */
export function createSnapshotComputer({ model, hooks, queries }: SnapshotComputerOptions): SnapshotComputer {
  const horizons = createHorizons(queries);
  const planOf = createPlans(hooks);
  return {
    linked: new Set(),
    windowsOf: (records, { atMs }) => {
      const windows: PageWindow[] = [];
      for (const record of records) {
        const spec = model.entities.get(record.type);
        if (spec === undefined || spec.attributeList.every(({ kind }) => kind === "plain")) continue;
        windows.push(...planWindows(spec, record, record.rows, planOf(record.type, atMs).part));
      }
      return windows;
    },
    compute: async (records, { tick, atMs }) => {
      const snapshots: ComputedSnapshot[] = [];
      for (const { shard, type, eid, state, rows, pages } of records) {
        const spec = model.entities.get(type);
        if (spec === undefined) continue;
        const record: RecordAt = { eid, state, rows, pages, horizons: await horizons(tick, type) };
        const entity = valuesAt(spec, record, planOf(type, atMs));
        snapshots.push({ shard, type, eid, body: writeBody(entity), due: entity.due });
      }
      return { snapshots, tasks: [], hooks: {} };
    },
    read: () => Promise.reject(new Error("no type is linked")),
    runForNode: () => Promise.resolve({ hooks: {}, answers: [] }),
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

function createPlans(hooks: SnapshotHooks) {
  let of = 0;
  const plans = new Map<string, ValuesPlan>();
  return (type: string, atMs: number): ValuesPlan => {
    if (atMs !== of) plans.clear();
    of = atMs;
    const known = plans.get(type) ?? planValues(type, hooks, atMs);
    plans.set(type, known);
    return known;
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
  const error = one.error ?? other.error;
  const undeclared = [...new Set([...(one.undeclared ?? []), ...(other.undeclared ?? [])])].sort();
  return {
    calls: one.calls + other.calls,
    errors: one.errors + other.errors,
    tasks: one.tasks + other.tasks,
    ms: one.ms + other.ms,
    ...(error !== undefined && { error }),
    ...(undeclared.length > 0 && { undeclared }),
  };
}
