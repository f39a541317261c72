import { createCounters } from "../../actors/counters.ts";
import type { SnapshotComputer } from "../../actors/snapshot-computer.ts";
import { type Snapshots, startSnapshots } from "../../actors/snapshots.ts";
import { type Connection, createConnection } from "../../actors/store/connection.ts";
import { openPostgresStore, type PostgresStore } from "../../actors/store/postgres-store.ts";
import type { SnapshotStore } from "../../actors/store/snapshot-store.ts";
import type { AcquiredShard, StoredEntity } from "../../actors/store/store.ts";
import { checkTask } from "../../modules/check-task.ts";
import { systemClock } from "../../proto/clock.ts";
import { groupOf, type ShardId, shardId, toNodeId, toSeq } from "../../proto/ids.ts";
import { shardOf } from "../../proto/shard-of.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { testDatabase } from "./postgres.ts";
import { testModel } from "./test-model.ts";

/** Shards, entities and nodes that take snapshots of them, over a real PostgreSQL and without an engine. */
export interface SnapshotWorld {
  readonly store: PostgresStore;
  readonly admin: Connection;
  /** Writes entities as a flush does; null deletes one. */
  put(entities: Readonly<Record<string, number | null>>): Promise<void>;
  /** A node that takes over all shards. */
  start(options?: SnapshotNodeOptions): Promise<SnapshotTestNode>;
  /** What readers see as of the newest finished tick: eid to value. */
  visible(): Promise<Record<string, number>>;
  /** Tasks that came through, each as often as it did. */
  readonly delivered: Map<string, number>;
  close(): Promise<void>;
}

export interface SnapshotNodeOptions {
  /** Stands between the node and its store. */
  readonly around?: (store: SnapshotStore) => SnapshotStore;
  readonly computer?: Partial<SnapshotComputer>;
  readonly fingerprint?: string;
  readonly stallMs?: number;
  /** A task of each entity. */
  readonly tasks?: boolean;
  readonly next?: ((after: number) => number | null) | null;
  readonly wall?: () => number;
  readonly shards?: readonly ShardId[];
}

export interface SnapshotTestNode {
  readonly snapshots: Snapshots;
  readonly warnings: string[];
  readonly counters: ReturnType<typeof createCounters>;
}

const entityShards = 4;
const systemShards = 1;
export const snapshotModel = testModel({ thing: { n: { kind: "plain", type: "int" } } });

export async function openSnapshotWorld(): Promise<SnapshotWorld> {
  const database = await testDatabase();
  const shards = { entity: entityShards, system: systemShards };
  const store = await openPostgresStore({ url: database.url, lanes: 2, shards });
  const settings = { statementTimeoutMs: 30_000, connectTimeoutMs: 10_000 };
  const admin = createConnection({ url: database.url, application: "test", ...settings });
  const all = [
    ...Array.from({ length: entityShards }, (_, i) => shardId("entity", i)),
    ...Array.from({ length: systemShards }, (_, i) => shardId("system", i)),
  ];
  const nodes: Snapshots[] = [];
  const delivered = new Map<string, number>();
  const numbers = new Map<string, string>();
  let names = 0;
  let applied = 0;

  const put: SnapshotWorld["put"] = async (entities) => {
    const rows = Object.entries(entities).map(([eid, n]): StoredEntity => {
      const shard = shardOf("entity", "thing", eid, entityShards);
      const state = `{"n":{"v":${n},"t1":1,"t2":1,"c":1,"n":1}}`;
      applied++;
      const at = { created: toSeq(1), createdAt: 0, applied: toSeq(applied) };
      return { shard, type: "thing", eid, ...at, state, tombstone: n === null };
    });
    for (const row of rows) {
      if (row.tombstone) {
        await admin.query("delete from starling.entity where shard = $1 and eid = $2", [row.shard, row.eid]);
        continue;
      }
      await admin.query(
        `insert into starling.entity (shard, type, eid, created, created_at, applied, tombstone, state)
          values ($1, $2, $3, 1, now(), $4, false, $5)
          on conflict (shard, eid, type) do update set applied = excluded.applied, state = excluded.state`,
        [row.shard, row.type, row.eid, row.applied, row.state],
      );
    }
  };

  const mark = async (shards: readonly ShardId[], tick: number): Promise<void> => {
    const text = `insert into starling.snapshot_mark (shard, tick, seq) select s, $2, 0 from unnest($1::int[]) s
      on conflict do nothing`;
    await admin.query(text, [`{${shards.join(",")}}`, tick]);
  };

  const acquireAll = async (node: ReturnType<typeof toNodeId>, wanted: readonly ShardId[]) => {
    const acquired: AcquiredShard[] = [];
    while (acquired.length < wanted.length) {
      const left = wanted.filter((shard) => !acquired.some((one) => one.shard === shard));
      acquired.push(...(await store.acquire(node, left)));
    }
    return acquired;
  };

  const start: SnapshotWorld["start"] = async (options = {}) => {
    const node = toNodeId(`node-${++names}`);
    const acquired = await acquireAll(node, options.shards ?? all);
    const { around = (inner) => inner, wall = Date.now } = options;
    const counters = createCounters();
    const warnings: string[] = [];
    const say = (_: object, message: string): void => void warnings.push(message);
    const snapshots = startSnapshots({
      store: around(store.snapshots),
      reads: store,
      ticks: {
        learn: (tick) => {
          const own = acquired.flatMap(({ shard }) => (groupOf(shard) === "entity" ? [shard] : []));
          mark(own, tick).catch(() => {}); // the next look does it
        },
        passed: () => {},
      },
      computer: { ...createTestComputer(options.tasks ?? false), ...options.computer },
      isStored: () => true,
      isLinked: false,
      fingerprint: options.fingerprint ?? "same",
      shards: () => acquired.map(({ shard, epoch }) => ({ ...noLoad, shard, epoch })),
      self: () => node,
      owns: (shard) => acquired.some((one) => one.shard === shard),
      send: async (row) => {
        // As a channel does: a number counts once, and comes back with the same content.
        const key = `${row.shard}/${row.tick}/${row.page}`;
        const known = numbers.get(key);
        if (known !== undefined && known !== row.body) throw new StarlingError("BATCH_CHANGED", key);
        if (known !== undefined) return;
        numbers.set(key, row.body);
        for (const line of row.body.split("\n").filter((text) => text !== "")) {
          const task = `${row.tick} ${line.split("\t")[2]}`;
          delivered.set(task, (delivered.get(task) ?? 0) + 1);
        }
      },
      limits: { visitsMax: 2, pageMaxEntities: 2, pageMaxBytes: 1_000_000 },
      ...{ entityShards, systemShards, next: options.next ?? null, stallMs: options.stallMs ?? 60_000 },
      ...{ clock: systemClock, wall, newId: () => `${node}-${Math.random()}`, counters },
      log: { info: () => {}, warn: say, error: say },
    });
    nodes.push(snapshots);
    return { snapshots, warnings, counters };
  };

  return {
    ...{ store, admin, put, start, delivered },
    visible: async () => {
      const rows = await admin.query<{ eid: string; body: string; count: number }>(`
        select s.eid, max(s.body::text) as body, count(*)::int as count from starling.snapshot s,
          (select coalesce(max(tick), 0) as tick from starling.snapshot_run where status = 'finished') current
        where s.from_tick <= current.tick and (s.to_tick is null or s.to_tick > current.tick)
        group by s.shard, s.type, s.eid order by s.eid`);
      const twice = rows.filter(({ count }) => count !== 1);
      if (twice.length > 0) throw new Error(`more than one snapshot of ${twice.map(({ eid }) => eid).join()}`);
      return Object.fromEntries(rows.map(({ eid, body }) => [eid, JSON.parse(body).n as number]));
    },
    close: async () => {
      for (const snapshots of nodes) await snapshots.close();
      await store.close();
      await admin.close();
      await database.close();
    },
  };
}

const noLoad = {
  ...{ lastSeq: toSeq(0), watermark: toSeq(0), residentEntities: 0, undelivered: 0, lagEntries: 0, lagBytes: 0 },
  ...{ outboxBytes: 0, residentBytes: 0, dirtyEntities: 0, obligations: 0 },
};

/** A snapshot is the entity's number; a task names its entity. */
function createTestComputer(hasTasks: boolean): SnapshotComputer {
  return {
    linked: new Set(),
    windowsOf: () => [],
    compute: async (records) => ({
      snapshots: records.map(({ shard, type, eid, state }) => {
        const { n } = JSON.parse(state) as { n: { v: number } };
        return { shard, type, eid, due: null, body: JSON.stringify({ eid, n: n.v }) };
      }),
      tasks: !hasTasks
        ? []
        : records.map(({ type, eid }) => checkTask(snapshotModel, { type, eid, datapoints: [{ attr: "n", v: 1 }] })),
      hooks: { counted: { calls: records.length, errors: 0, tasks: hasTasks ? records.length : 0, ms: 1 } },
    }),
    read: () => Promise.reject(new Error("nothing is linked")),
    runForNode: async () => ({ hooks: {}, answers: [] }),
  };
}
