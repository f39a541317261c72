import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Connection, createConnection } from "../../../actors/store/connection.ts";
import { openPostgresStore, type PostgresStore } from "../../../actors/store/postgres-store.ts";
import { fenceLockClass } from "../../../actors/store/schema.ts";
import { toSeq, toShardId } from "../../../proto/ids.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { testDatabase } from "../../support/postgres.ts";
import { startTestPostgres, type TestDatabase } from "../../support/postgres-server.ts";
import { describeStore } from "./contract.ts";
import type { HeldAppend, HoldPlace } from "./contract-locks.ts";
import {
  entityOf,
  fencesOf,
  flushOf,
  newestRows,
  nodeA,
  nodeB,
  noon,
  progressOf,
  segmentOf,
  shard1,
  shard2,
} from "./samples.ts";

const shards = { entity: 256, system: 16 };
const tableNames =
  "shard world claim progress channel log entity large_value history history_page history_horizon reference obituary lifetime refused dead_letter obligation attempt session snapshot_mark snapshot_image snapshot_run snapshot_request".split(
    " ",
  );
const dayMs = 86_400_000;

function connectTo(database: TestDatabase): Connection {
  return createConnection({
    url: database.url,
    application: "test",
    statementTimeoutMs: 30_000,
    connectTimeoutMs: 5_000,
  });
}

async function pidOf(connection: Connection): Promise<number> {
  const [row] = await connection.query<{ pid: number }>("select pg_backend_pid() as pid");
  return row?.pid ?? 0;
}

/** Before its rows an append takes a lock, and another one behind them, which are free as long as no test has them. */
const gateLock = 77;
const appendGates = `
  create function starling.gate_of_test() returns trigger language plpgsql as $$
  begin
    perform pg_advisory_xact_lock_shared(${gateLock}, case tg_when when 'BEFORE' then 0 else 1 end);
    return null;
  end
  $$;
  create trigger gate_of_test before insert on starling.log for each statement execute function starling.gate_of_test();
  create trigger late_gate_of_test after insert on starling.log for each statement execute function starling.gate_of_test()`;

async function holdAppend(admin: Connection, place: HoldPlace = "before its rows"): Promise<HeldAppend> {
  const gate = place === "before its rows" ? 0 : 1;
  await admin.query("select pg_advisory_unlock_all(), pg_advisory_lock($1, $2)", [gateLock, gate]);
  const waits = async (lockClass: number) => {
    const text = "select pid from pg_locks where locktype = 'advisory' and classid = $1 and not granted";
    for (;;) {
      const [waiting] = await admin.query<{ pid: number }>(text, [lockClass]);
      if (waiting !== undefined) return waiting.pid;
      await admin.query("select pg_sleep(0.01)");
    }
  };
  let held = 0;
  const letGo = async () => {
    await admin.query("select pg_advisory_unlock($1, $2)", [gateLock, gate]);
  };
  return {
    begun: async () => {
      held = await waits(gateLock);
    },
    awaited: async () => void (await waits(fenceLockClass)),
    // At the gate, too, or for the rows of the one that is held.
    repeated: async () => {
      const text = `select 1 from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock' and pid <> $1`;
      while ((await admin.query(text, [held])).length === 0) await admin.query("select pg_sleep(0.01)");
    },
    patience: async () => {},
    letGo,
    kill: async () => {
      await admin.query("select pg_terminate_backend($1, 5000)", [held]);
      await letGo();
    },
  };
}

describe("the store in PostgreSQL", () => {
  let database: TestDatabase;
  let admin: Connection;
  beforeAll(async () => {
    database = await testDatabase();
    admin = connectTo(database);
    const opened = await openPostgresStore({ url: database.url, lanes: 1, shards });
    await opened.close();
    await admin.script(appendGates);
  });
  afterAll(async () => {
    await admin.close();
    await database.close();
  });

  describeStore(async () => {
    const store = await openPostgresStore({ url: database.url, lanes: 2, shards });
    await admin.script(`truncate ${tableNames.map((name) => `starling.${name}`).join(", ")}`);
    return {
      ...{ store, runs: store.snapshots, holdAppend: (place) => holdAppend(admin, place) },
      claim: async (ids, node) => {
        await admin.query("select starling.claim_1($1, $2)", [node, `{${ids.join(",")}}`]);
      },
      lapse: () => admin.script("update starling.claim set until = until - interval '2 s'"),
      promote: () => admin.script("update starling.world set timeline = timeline + 1"),
      close: () => store.close(),
    };
  });
});

describe("PostgreSQL itself", () => {
  let database: TestDatabase;
  let store: PostgresStore;
  let admin: Connection;
  beforeEach(async () => {
    database = await testDatabase();
    store = await openPostgresStore({ url: database.url, lanes: 2, shards });
    admin = connectTo(database);
  });
  afterEach(async () => {
    await admin.close();
    await store.close();
    await database.close();
  });

  it("ends the session that blocks an acquiring after one second, and no other", async () => {
    const fences = fencesOf(await store.acquire(nodeA, [shard1, shard2]));
    const frozen = connectTo(database);
    await frozen.script(`begin; select pg_advisory_xact_lock_shared(${fenceLockClass}, ${shard1})`);
    const pid = await pidOf(frozen);
    const bystander = connectTo(database);
    await bystander.script(`begin; select pg_advisory_xact_lock_shared(${fenceLockClass}, 3)`);
    const other = await pidOf(bystander);
    const before = performance.now();
    const acquired = await store.acquire(nodeB, [shard1, shard2]);
    const tookMs = performance.now() - before;
    expect(acquired.map(({ epoch }) => epoch)).toEqual([2, 2]);
    expect(tookMs).toBeGreaterThan(900);
    expect(tookMs).toBeLessThan(2_000);
    expect(await admin.query("select 1 from pg_stat_activity where pid = $1", [pid])).toEqual([]);
    expect(await pidOf(bystander)).toBe(other);
    await Promise.all([frozen.close(), bystander.close()]);
    expect((await store.append(nodeA, { fences, segments: [segmentOf(1, ["a"])] })).lost).toEqual([shard1, shard2]);
  });

  it("repeats a flush beside its first attempt", async () => {
    const fences = fencesOf(await store.acquire(nodeA, [shard1]));
    const history = [{ shard: shard1, type: "ip", eid: "a", seq: toSeq(1), body: "h" }];
    const first = connectTo(database);
    await first.script(
      `begin; insert into starling.entity values (${shard1}, 'ip', 'a', 1, now(), 1, false, '1');
       insert into starling.history values (${shard1}, 'ip', 'a', 1, 'h')`,
    );
    const entities = [entityOf("a", 1, { state: "1" }), entityOf("b", 1)];
    const flushing = store.flush(nodeA, flushOf(fences, { entities, history, progress: [progressOf(1)] }));
    const waits = "select 1 from pg_locks where not granted";
    while ((await admin.query(waits)).length === 0) await admin.query("select pg_sleep(0.01)");
    await first.script("commit");
    expect(await flushing).toEqual({ lost: [] });
    expect((await store.load(entities)).map(({ eid, state }) => [eid, state])).toEqual([
      ["a", "1"],
      ["b", entityOf("b", 1).state],
    ]);
    expect(await newestRows(store, entityOf("a", 0), 9)).toEqual(history);
    await first.close();
  });

  it("finds entities by key however small the table was when it was planned", async () => {
    const fences = fencesOf(await store.acquire(nodeA, [shard1]));
    const entities = Array.from({ length: 3_000 }, (_, i) => entityOf(`e-${i}`, 1));
    const countOf = async (column: string) => {
      const text = `select ${column}::int as n from pg_stat_user_tables where relid = 'starling.entity'::regclass`;
      return (await admin.query<{ n: number }>(text))[0]?.n ?? 0;
    };
    for (let i = 0; i < 8; i++) await store.flush(nodeA, flushOf(fences, { entities: [entityOf("first", i + 1)] }));
    await store.flush(nodeA, flushOf(fences, { entities }));
    const newer = entities.map((entity) => ({ ...entity, applied: toSeq(2) }));
    await store.flush(nodeA, flushOf(fences, { entities: newer }));
    // A connection's counts are seen when it has ended.
    await store.close();
    while ((await countOf("idx_scan")) < 2 * entities.length) await admin.query("select pg_sleep(0.01)");
    expect(await countOf("seq_tup_read")).toBe(0);
  });

  it("reads the log of the old owner's last commit after waiting for it (R5)", async () => {
    const fences = fencesOf(await store.acquire(nodeA, [shard1]));
    await store.append(nodeA, { fences, segments: [segmentOf(1, ["a"])] });
    const slow = connectTo(database);
    await slow.script(
      `begin; select pg_advisory_xact_lock_shared(${fenceLockClass}, ${shard1});
       insert into starling.log select shard, 2, 9, at, brief, keys, head, body from starling.log`,
    );
    const acquiring = store.acquire(nodeB, [shard1]);
    const waits = "select 1 from pg_locks where locktype = 'advisory' and not granted";
    while ((await admin.query(waits)).length === 0) await admin.query("select pg_sleep(0.01)");
    await slow.script("commit");
    expect((await acquiring)[0]).toMatchObject({ epoch: 2, lastSeq: 9 });
    await slow.close();
  });

  it("lets an acquiring wait for what has passed the fence, and counts what that writes (R5, R22)", async () => {
    await store.ensurePartitions(noon);
    const fences = fencesOf(await store.acquire(nodeA, [shard1]));
    const waiting = async (kind: string, count: number) => {
      const text = "select 1 from pg_locks where locktype = $1 and not granted";
      while ((await admin.query(text, [kind])).length < count) await admin.query("select pg_sleep(0.01)");
      return "waits";
    };
    // An append and a flush that hold the locks of their fences, but cannot write their rows.
    const blocker = connectTo(database);
    await blocker.script("begin; lock table starling.log, starling.entity in exclusive mode");
    const appending = store.append(nodeA, { fences, segments: [segmentOf(1, ["a", "b"])] });
    const attempt = { from: toSeq(1), to: toSeq(2), until: toSeq(2), deaths: 0 };
    const flushing = store.flush(nodeA, {
      ...flushOf(fences, { entities: [entityOf("a", 1)], progress: [progressOf(1)] }),
      attempts: [{ shard: shard1, mark: attempt }],
      marks: [{ shard: shard1, tick: 1, seq: toSeq(2) }],
    });
    await waiting("relation", 2);
    const acquiring = store.acquire(nodeB, [shard1]);
    expect(await Promise.race([waiting("advisory", 1), acquiring.then(() => "acquired")])).toBe("waits");
    await blocker.script("commit");
    expect(await Promise.all([appending, flushing])).toEqual([{ lost: [] }, { lost: [] }]);
    const mark = { tick: 1, seq: 2 };
    expect((await acquiring)[0]).toMatchObject({ epoch: 2, lastSeq: 2, watermark: 1, attempt, mark });
    await blocker.close();
  });

  it("acquires 256 shards in well under a second", async () => {
    const all = Array.from({ length: 256 }, (_, i) => toShardId(i));
    const before = performance.now();
    expect(await store.acquire(nodeA, all)).toHaveLength(256);
    expect(performance.now() - before).toBeLessThan(1_000);
  });

  it("shows datapoints in the view raw as SQL", async () => {
    const fences = fencesOf(await store.acquire(nodeA, [shard1]));
    const body = 'd\tip\ta\tport\ts\t1000\t\t0.5\t{"a":1}\nx\tip\ta\nd\tip\ta\tport\t\t\t\t1\t"\\u0000"';
    await store.append(nodeA, { fences, segments: [segmentOf(1, [], { body, lastSeq: toSeq(3) })] });
    const text = "select seq, eid, src, t1::text as t1, t2, c, v->>'a' as a, v from starling.raw order by seq";
    expect(await admin.query(text)).toEqual([
      { seq: "1", eid: "a", src: "s", t1: "1970-01-01 00:00:01+00", t2: null, c: 0.5, a: "1", v: { a: 1 } },
      { seq: "3", eid: "a", src: null, t1: null, t2: null, c: 1, a: null, v: '"\\u0000"' },
    ]);
  });

  it("drops a partition only when watermark, outbox and obligations of every shard have passed it", async () => {
    const fences = fencesOf(await store.acquire(nodeA, [shard1, shard2]));
    const at = noon - 10 * dayMs;
    const segments = [segmentOf(1, ["a"], { at }), segmentOf(1, ["a", "b"], { at, shard: shard2 })];
    await store.append(nodeA, { fences, segments });
    const progress = [progressOf(1), progressOf(2, { shard: shard2, delivered: toSeq(1) })];
    await store.flush(nodeA, flushOf(fences, { progress }));
    expect(await store.dropPartitions(noon)).toEqual([]);
    await store.flush(nodeA, flushOf(fences, { progress: [progressOf(2, { shard: shard2 })] }));
    const key = { shard: shard2, type: "ip", eid: "b", held: null };
    await store.flush(nodeA, flushOf(fences, { obligations: [{ ...key, firstWaiting: toSeq(2) }] }));
    expect(await store.dropPartitions(noon)).toEqual([]);
    await store.flush(nodeA, flushOf(fences, { obligations: [{ ...key, firstWaiting: null }] }));
    expect(await store.dropPartitions(at)).toEqual([]);
    expect(await store.dropPartitions(noon)).toEqual(["2026-11-11"]);
    expect(await store.readLog(shard2, toSeq(0), 1)).toEqual([]);
    expect((await store.acquire(nodeA, [shard2]))[0]?.lastSeq).toBe(2);
  });

  it("makes the partition of an append that retention has taken", async () => {
    const fences = fencesOf(await store.acquire(nodeA, [shard1]));
    const at = noon - 10 * dayMs;
    await store.append(nodeA, { fences, segments: [segmentOf(1, ["a"], { at })] });
    await store.flush(nodeA, flushOf(fences, { progress: [progressOf(1)] }));
    const other = await openPostgresStore({ url: database.url, lanes: 1, shards });
    expect(await other.dropPartitions(noon)).toEqual(["2026-11-11"]);
    await other.close();
    expect(await store.append(nodeA, { fences, segments: [segmentOf(2, ["a"], { at })] })).toEqual({ lost: [] });
  });

  it("refuses other numbers of shards, another cluster's database and a newer schema", async () => {
    const open = (change: object) => openPostgresStore({ url: database.url, lanes: 1, shards, ...change });
    await expect(open({ shards: { entity: 128 } })).rejects.toMatchObject({ code: "CONFIG" });
    await expect(open({ clusterId: "other" })).rejects.toMatchObject({ code: "WRONG_CLUSTER" });
    const same = await open({ clusterId: store.clusterId });
    await same.close();
    await admin.query("update starling.meta set value = '99' where key = 'schema_version'");
    await expect(open({})).rejects.toMatchObject({ code: "STORE_FATAL" });
  });

  it("migrates once when several nodes start at the same time", async () => {
    const fresh = await testDatabase();
    const opened = await Promise.all([1, 2, 3].map(() => openPostgresStore({ url: fresh.url, lanes: 1, shards })));
    expect(new Set(opened.map(({ clusterId }) => clusterId)).size).toBe(1);
    await Promise.all(opened.map((one) => one.close()));
    await fresh.close();
  });

  it("lets one node hold the exclusive lock, and names it to the next", async () => {
    const onLost = () => undefined;
    const lock = await store.lockExclusively({ name: "first (process 7)", onLost });
    const second = store.lockExclusively({ name: "second", onLost });
    await expect(second).rejects.toMatchObject({
      code: "DATA_FOLDER_TAKEN",
      message: expect.stringContaining("first (process 7)"),
    });
    await admin.query("select pg_terminate_backend(pid) from pg_stat_activity where application_name like '%first%'");
    const held = "select 1 from pg_locks where locktype = 'advisory' and objid = 2 and granted";
    while ((await admin.query(held)).length === 0) await admin.query("select pg_sleep(0.01)");
    await lock.close();
    await (await store.lockExclusively({ name: "second", onLost })).close();
  });

  it("answers STORE while a connection is lost, and serves again after it", async () => {
    const fences = fencesOf(await store.acquire(nodeA, [shard1]));
    const ending =
      "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname = current_database()";
    const slow = connectTo(database);
    const failing = expect(slow.query("select pg_sleep(20)")).rejects.toMatchObject({ code: "STORE" });
    while ((await admin.query("select 1 from pg_stat_activity where wait_event = 'PgSleep'")).length === 0);
    await admin.query(ending);
    await failing;
    await slow.close();
    // The store's own connections are lost, too, and it may learn so by using them.
    const append = () => store.append(nodeA, { fences, segments: [segmentOf(1, ["a"])] }).catch(codeOf);
    const codeOf = (error: unknown) => (error instanceof StarlingError ? error.code : error);
    let outcome = await append();
    while (outcome === "STORE") outcome = await append();
    expect(outcome).toEqual({ lost: [] });
  });

  it("gives up on a statement that does not end, on the server", async () => {
    const impatient = createConnection({
      url: database.url,
      application: "t",
      statementTimeoutMs: 100,
      connectTimeoutMs: 5_000,
    });
    await expect(impatient.query("select pg_sleep(20)")).rejects.toMatchObject({ code: "STORE" });
    await impatient.close();
  });
});

describe("durability", () => {
  it("refuses a PostgreSQL without fsync", async () => {
    await using server = await closing(await startTestPostgres({ fsync: "off" }));
    const opening = openPostgresStore({ url: server.url, lanes: 1, shards });
    await expect(opening).rejects.toMatchObject({ code: "STORE_FATAL", message: expect.stringContaining("fsync") });
  });

  it("keeps what it acknowledged when PostgreSQL is killed", async () => {
    const server = await startTestPostgres();
    const store = await openPostgresStore({ url: server.url, lanes: 1, shards });
    const fences = fencesOf(await store.acquire(nodeA, [shard1]));
    await store.append(nodeA, { fences, segments: [segmentOf(1, ["a"])] });
    process.kill(server.pid, "SIGKILL");
    await store.close();
    const again = await server.restart();
    const reopened = await openPostgresStore({ url: again.url, lanes: 1, shards });
    expect(await reopened.readLog(shard1, toSeq(0), 9)).toEqual([segmentOf(1, ["a"])]);
    await reopened.close();
    await again.close();
  });
});

async function closing<T extends { close(): Promise<void> }>(resource: T): Promise<T & AsyncDisposable> {
  return Object.assign(resource, { [Symbol.asyncDispose]: () => resource.close() });
}
