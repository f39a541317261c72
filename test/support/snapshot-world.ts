import { setMaxListeners } from "node:events";
import { createCounters } from "../../actors/counters.ts";
import type { SnapshotComputer } from "../../actors/snapshots/snapshot-computer.ts";
import { unpaced } from "../../actors/snapshots/snapshot-pace.ts";
import type { RecordAt } from "../../actors/snapshots/snapshot-values.ts";
import { type Snapshots, startSnapshots } from "../../actors/snapshots/snapshots.ts";
import { type Connection, createConnection } from "../../actors/store/connection.ts";
import { openPostgresStore, type PostgresStore } from "../../actors/store/postgres-store.ts";
import { wholeBodyText } from "../../actors/store/snapshot-rows.ts";
import type { SnapshotStore } from "../../actors/store/snapshot-store.ts";
import type { AcquiredShard } from "../../actors/store/store.ts";
import { checkTask } from "../../modules/check-task.ts";
import { systemClock } from "../../proto/clock.ts";
import { groupOf, type ShardId, shardId, toNodeId, toSeq } from "../../proto/ids.ts";
import { shardOf } from "../../proto/shard-of.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { testDatabase } from "./postgres.ts";
import { fieldsOf, type StateField } from "./state-fields.ts";
import { testModel } from "./test-model.ts";

/** Shards, entities and nodes that take snapshots of them, over a real PostgreSQL and without an engine. */
export interface SnapshotWorld {
  readonly store: PostgresStore;
  readonly admin: Connection;
  /** Writes entities as a flush does; null deletes one. */
  put(entities: Readonly<Record<string, number | null>>): Promise<void>;
  /** Writes an entity as it stands after a flush; null deletes it, with a tombstone or without. */
  write(
    type: string,
    eid: string,
    record: (Partial<Pick<RecordAt, "rows">> & Pick<RecordAt, "state">) | null,
  ): Promise<void>;
  /** A node that takes over all shards. */
  start(options?: SnapshotNodeOptions): Promise<SnapshotTestNode>;
  /** What readers see as of the newest finished tick: eid to value. */
  visible(): Promise<Record<string, number>>;
  /** Aborted when the world ends. */
  readonly closing: AbortSignal;
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
  readonly groupMaxBytes?: number;
  readonly changesMax?: number;
  /** Drops what is older, all the time. */
  readonly olderThanMs?: number;
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
  const closing = new AbortController();
  setMaxListeners(0, closing.signal);
  let names = 0;
  let applied = 0;

  const write: SnapshotWorld["write"] = async (type, eid, record) => {
    const shard = shardOf("entity", type, eid, entityShards);
    applied++;
    await admin.query("delete from starling.history where shard = $1 and type = $2 and eid = $3", [shard, type, eid]);
    if (record === null && applied % 2 === 0) {
      const text = "update starling.entity set tombstone = true, state = '{}', applied = $4";
      await admin.query(`${text} where shard = $1 and type = $2 and eid = $3`, [shard, type, eid, applied]);
      return;
    }
    if (record === null) {
      await admin.query("delete from starling.entity where shard = $1 and type = $2 and eid = $3", [shard, type, eid]);
      return;
    }
    await admin.query(
      `insert into starling.entity (shard, type, eid, created, created_at, applied, tombstone, state)
        values ($1, $2, $3, 1, now(), $4, false, $5)
        on conflict (shard, eid, type) do update set applied = excluded.applied, state = excluded.state, tombstone = false`,
      [shard, type, eid, applied, record.state],
    );
    for (const { body } of record.rows ?? []) {
      const text = "insert into starling.history (shard, type, eid, seq, body) values ($1, $2, $3, $4, $5)";
      await admin.query(text, [shard, type, eid, applied, body]);
    }
  };
  const put: SnapshotWorld["put"] = async (entities) => {
    for (const [eid, n] of Object.entries(entities)) {
      await write("thing", eid, n === null ? null : { state: `{"n":{"v":${n},"t1":1,"t2":1,"c":1,"n":1}}` });
    }
  };

  const mark = async (shards: readonly ShardId[], tick: number): Promise<void> => {
    const text = `insert into starling.snapshot_mark (shard, tick, seq) select s, $2, $3 from unnest($1::int[]) s
      on conflict do nothing`;
    await admin.query(text, [`{${shards.join(",")}}`, tick, applied]);
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
        open: () => new Set(acquired.map(({ shard }) => shard)),
        passed: () => {},
      },
      computer: { ...createTestComputer(options.tasks ?? false), ...options.computer },
      isRefreshing: () => false,
      isLinked: (options.computer?.linked?.types.size ?? 0) > 0,
      fingerprint: options.fingerprint ?? "same",
      shards: () => acquired.map(({ shard, epoch }) => ({ ...noLoad, shard, epoch })),
      self: () => node,
      owns: (shard) => acquired.some((one) => one.shard === shard),
      cleanAt: options.olderThanMs === undefined ? null : (after) => after + 1,
      olderThanMs: options.olderThanMs ?? 0,
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
      pace: unpaced,
      limits: {
        visitsMax: 2,
        changesMax: options.changesMax ?? 1_000,
        pageMaxEntities: 2,
        pageMaxBytes: 1_000_000,
        groupMaxBytes: options.groupMaxBytes ?? 1_000_000,
      },
      ...{ entityShards, systemShards, next: options.next ?? null, stallMs: options.stallMs ?? 60_000 },
      ...{ clock: systemClock, wall, newId: () => `${node}-${Math.random()}`, counters },
      log: { info: () => {}, warn: say, error: say },
    });
    nodes.push(snapshots);
    return { snapshots, warnings, counters };
  };

  return {
    ...{ store, admin, put, write, start, delivered, closing: closing.signal },
    visible: async () => {
      const rows = await admin.query<{ eid: string; body: string; count: number }>(`
        select s.eid, max(${wholeBodyText("s")}::text) as body, count(*)::int as count from starling.snapshot s,
          (select coalesce(max(tick), 0) as tick from starling.snapshot_run where status = 'finished') current
        where s.from_tick <= current.tick and (s.to_tick is null or s.to_tick > current.tick)
        group by s.shard, s.type, s.eid order by s.eid`);
      const twice = rows.filter(({ count }) => count !== 1);
      if (twice.length > 0) throw new Error(`more than one snapshot of ${twice.map(({ eid }) => eid).join()}`);
      return Object.fromEntries(rows.map(({ eid, body }) => [eid, JSON.parse(body).n as number]));
    },
    close: async () => {
      closing.abort(new StarlingError("UNAVAILABLE", "the world ends"));
      await Promise.all(nodes.map((snapshots) => snapshots.close()));
      await store.close();
      await admin.close();
      await database.close();
    },
  };
}

/** A call that is never answered, as long as the world stands. */
export function never(world: Pick<SnapshotWorld, "closing">): Promise<never> {
  return new Promise((_, reject) => world.closing.addEventListener("abort", () => reject(world.closing.reason)));
}

const writes = /^(begin|note|end|open|write|drop)/;

/** A store of a node that dies at its `count`-th write: when it is done, or before. What it calls later is never answered. */
export function dyingAt(
  world: Pick<SnapshotWorld, "closing">,
  { count, when, onDeath }: { readonly count: number; readonly when: "before" | "after"; readonly onDeath: () => void },
) {
  let calls = 0;
  const die = (): Promise<never> => {
    onDeath();
    return never(world);
  };
  return (store: SnapshotStore): SnapshotStore =>
    new Proxy(store, {
      get: (target, name, receiver) => {
        const method: unknown = Reflect.get(target, name, receiver);
        if (typeof method !== "function") return method;
        return async (...values: unknown[]) => {
          if (!writes.test(String(name))) return calls < count ? method.apply(target, values) : die();
          calls++;
          if (calls > count || (calls === count && when === "before")) return die();
          const value: unknown = await method.apply(target, values);
          return calls >= count ? die() : value;
        };
      },
    });
}

const noLoad = {
  ...{ lastSeq: toSeq(0), watermark: toSeq(0), residentEntities: 0, undelivered: 0, lagEntries: 0, lagBytes: 0 },
  ...{ outboxBytes: 0, residentBytes: 0, dirtyEntities: 0, obligations: 0 },
};

const noProblems = { failures: 0, undeclared: 0, refused: 0, problems: [] };

/** A snapshot is the entity's number; a task names its entity. */
function createTestComputer(hasTasks: boolean): SnapshotComputer {
  return {
    linked: { list: [], types: new Set() },
    impure: [],
    windowsOf: () => [],
    compute: async (records) => ({
      values: [],
      snapshots: records.map(({ shard, type, eid, state }) => {
        const { n } = fieldsOf<StateField<number>>(state);
        return {
          kind: "body" as const,
          shard,
          type,
          eid,
          due: null,
          confidences: null,
          body: JSON.stringify({ eid, n: n?.v }),
        };
      }),
      tasks: !hasTasks
        ? []
        : records.map(({ type, eid }) => checkTask(snapshotModel, { type, eid, datapoints: [{ attr: "n", v: 1 }] })),
      hooks: { counted: { ...noProblems, calls: records.length, tasks: hasTasks ? records.length : 0, ms: 1 } },
    }),
    join: () => Promise.reject(new Error("nothing is linked")),
    joinLarge: () => Promise.reject(new Error("nothing is linked")),
    runForNode: async () => ({ hooks: {}, answers: [] }),
  };
}
