import { createCounters } from "../../actors/counters.ts";
import { createHookRunner, hookRunnerLimits } from "../../actors/hooks/hook-runner.ts";
import { createSnapshotComputer } from "../../actors/snapshots/snapshot-computer.ts";
import { unpaced } from "../../actors/snapshots/snapshot-pace.ts";
import { startSnapshots } from "../../actors/snapshots/snapshots.ts";
import type { Connection } from "../../actors/store/connection.ts";
import { openPostgresStore, type PostgresStore } from "../../actors/store/postgres-store.ts";
import type { SnapshotRun } from "../../actors/store/snapshot-store.ts";
import type { StoredEntity } from "../../actors/store/store.ts";
import type { Model } from "../../modules/model.ts";
import { type CallbackRegistrar, createRegistrar } from "../../modules/registrar.ts";
import { systemClock } from "../../proto/clock.ts";
import { groupOf, shardId, toNodeId, toSeq } from "../../proto/ids.ts";
import { shardOf } from "../../proto/shard-of.ts";
import { recordAt, specOf, type Told } from "../support/record-at.ts";
import type { Bed } from "./bed.ts";

/** Snapshot runs of one node in this process, over records that are written as flushes do it. */
export interface SnapshotBed {
  readonly url: string;
  /** Writes entities as they stand from now on. */
  fill(
    type: string,
    count: number,
    told: (number: number) => { eid: string; datapoints: Told[] } | null,
  ): Promise<void>;
  /** A run at an instant, Unix ms; and how long it took. */
  run(full: boolean, at: number): Promise<{ readonly run: SnapshotRun; readonly seconds: number }>;
  query<Row extends object>(text: string): Promise<Row[]>;
  close(): Promise<void>;
}

const entityShards = 32;
const node = toNodeId("bench");
const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
/** `batch`: entities that are written together. */
export async function openSnapshotBed(
  bed: Pick<Bed, "createDatabase" | "withConnection">,
  model: Model,
  register: (door: CallbackRegistrar) => void,
  { batch = 1_000 }: { readonly batch?: number } = {},
): Promise<SnapshotBed> {
  const database = await bed.createDatabase();
  const shards = { entity: entityShards, system: 1 };
  const store = await openPostgresStore({ url: database.url, lanes: 2, shards, statementTimeoutMs: 600_000 });
  // As a node has them: they stand for most of what a snapshot costs.
  await store.indexSnapshots(model);
  const ids = Array.from({ length: entityShards }, (_, index) => shardId("entity", index));
  const acquired = await store.acquire(node, [...ids, shardId("system", 0)]);
  const registrar = createRegistrar(model, { concurrency: 8, timeoutMs: 10_000, retries: 0 });
  register(registrar.forModule("bench", silent, () => ({})));
  const hooks = registrar.hookTable();
  const counters = createCounters();
  const runner = createHookRunner({
    ...{ hooks, model, limits: hookRunnerLimits, clock: systemClock, random: Math.random, counters },
    ...{ log: () => silent, getRecord: async () => null },
  });
  const none = { timeseries: new Map(), correlation: [], init: [], finalize: [] };
  const place = (type: string, eid: string) => shardOf("entity", type, eid, entityShards);
  const computer = createSnapshotComputer({
    ...{ model, hooks: hooks.snapshot ?? none, runner, keepEmpty: true, queries: store, clock: systemClock },
    ...{ shardOf: place, log: silent },
  });
  let applied = 0;
  let wall = 0;
  const query = <Row extends object>(text: string) =>
    bed.withConnection(database.url, (connection: Connection) => connection.query<Row>(text));
  const snapshots = startSnapshots({
    ...{ store: store.snapshots, reads: store, computer, self: () => node, owns: () => true, counters, log: silent },
    ...{ entityShards, systemShards: 1, clock: systemClock, wall: () => wall, newId: () => `${Math.random()}` },
    ticks: {
      learn: (tick) => {
        const own = acquired.flatMap(({ shard }) => (groupOf(shard) === "entity" ? [shard] : []));
        const text = `insert into starling.snapshot_mark (shard, tick, seq)
          select s, ${tick}, ${applied} from unnest(array[${own.join(",")}]) s on conflict do nothing`;
        void query(text);
      },
      open: () => new Set(ids),
      passed: () => {},
    },
    ...{ isRefreshing: () => false, isLinked: computer.linked.types.size > 0, fingerprint: "bench", next: null },
    ...{ stallMs: 600_000, cleanAt: null, olderThanMs: 0, send: async () => {} },
    shards: () => acquired.map(({ shard, epoch }) => ({ ...noLoad, shard, epoch })),
    pace: unpaced,
    limits: {
      visitsMax: 16,
      changesMax: 100_000,
      pageMaxEntities: 125,
      pageMaxBytes: 1024 * 1024,
      groupMaxBytes: 64 * 1024 * 1024,
    },
  });
  return {
    url: database.url,
    query,
    fill: async (type, count, told) => {
      const spec = specOf(model, type);
      applied++;
      for (let first = 0; first < count; first += batch) {
        const entities: StoredEntity[] = [];
        const history: Parameters<PostgresStore["flush"]>[1]["history"][number][] = [];
        for (let number = first; number < Math.min(count, first + batch); number++) {
          const made = told(number);
          if (made === null) continue;
          const { eid, datapoints } = made;
          const key = { shard: place(type, eid), type, eid };
          const record = recordAt(spec, eid, datapoints, wall);
          const seqs = { created: toSeq(1), createdAt: 0, applied: toSeq(applied) };
          entities.push({ ...key, ...seqs, state: record.state, large: record.large, tombstone: false });
          for (const { body } of record.rows) history.push({ ...key, seq: toSeq(applied), body });
        }
        const rest = { progress: [], refused: [], deadLetters: [] };
        if (entities.length > 0) await store.flush(node, { fences: acquired, entities, history, ...rest });
      }
    },
    run: async (full, at) => {
      wall = at;
      const begun = performance.now();
      const tick = await snapshots.runNow({ full, deadlineMs: 60_000 });
      for (;;) {
        const [run] = await store.snapshots.readRuns({ before: tick + 1, limit: 1 });
        if (run?.status === "failed") throw new Error(`the run failed: ${run.error}`);
        if (run?.status === "finished") return { run, seconds: (performance.now() - begun) / 1000 };
        await new Promise<void>((resolve) => systemClock.after(20, resolve));
      }
    },
    close: async () => {
      await snapshots.close();
      runner.close();
      await store.close();
      await database.close();
    },
  };
}

const noLoad = {
  ...{ lastSeq: toSeq(0), watermark: toSeq(0), residentEntities: 0, undelivered: 0, lagEntries: 0, lagBytes: 0 },
  ...{ outboxBytes: 0, residentBytes: 0, dirtyEntities: 0, obligations: 0 },
};
