import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Connection, createConnection } from "../../../actors/store/connection.ts";
import { openPostgresStore, type PostgresStore } from "../../../actors/store/postgres-store.ts";
import { listEntities } from "../../../actors/store/query.ts";
import type { StoredEntity } from "../../../actors/store/store.ts";
import { startTestPostgres, type TestDatabase, type TestPostgres } from "../../support/postgres-server.ts";
import { entityOf, fencesOf, flushOf, nodeA, shard1 } from "./samples.ts";

/** What PostgreSQL does for large values, as its statistics tell. What it does of itself would be counted with it. */
let server: TestPostgres;
let database: TestDatabase;
let admin: Connection;
let store: PostgresStore;

beforeAll(async () => {
  server = await startTestPostgres({ autovacuum: "off" });
  database = await server.createDatabase();
  admin = createConnection({
    url: database.url,
    application: "t",
    statementTimeoutMs: 30_000,
    connectTimeoutMs: 5_000,
  });
  store = await openPostgresStore({ url: database.url, lanes: 1, shards: { entity: 256, system: 16 } });
});

afterAll(async () => {
  await store.close();
  await admin.close();
  await server.close();
});

test("a page of a list stays full when records with large values go while it is read", async () => {
  const gone = { ...entityOf("a", 1), created_at: 1, state: marked(0, 1).state };
  const kept = { ...entityOf("b", 1), created_at: 1 };
  const next = { ...entityOf("c", 1), created_at: 1 };
  const answers = [[gone, kept], [{ numbers: null, states: null, large: null }], [next]];
  const asked: unknown[] = [];
  const query = <Row extends object>(_: string, parameters: readonly unknown[] = []): Promise<Row[]> => {
    asked.push(parameters.slice(1));
    return Promise.resolve((answers.shift() ?? []) as Row[]);
  };
  const reads = {
    query,
    alone: () => Promise.reject(new Error("nobody is alone here")),
    close: () => Promise.resolve(),
  };
  const list = await listEntities(reads, { type: "ip", after: "", limit: 2 });
  expect(list.map(({ eid }) => eid)).toEqual(["b", "c"]);
  expect(asked.at(-1)).toEqual(["b", 1]);
});

const numbers = '"t1":5,"t2":5,"c":1,"n":1';

function marked(index: number, applied: number, body?: string): StoredEntity {
  const state = `{"#large":{"a":{${numbers}}},"flag":{"v":${applied},${numbers}}}`;
  const large = body === undefined ? [] : [{ attr: "a", body }];
  return entityOf(`e-${index}`, applied, { state, large });
}

/** A connection's counts are seen when it has ended. */
async function statistics(): Promise<{ idx: number; seq: number; ins: number; upd: number; del: number }> {
  await store.close();
  const text = `select coalesce(idx_scan, 0)::int as idx, seq_tup_read::int as seq, n_tup_ins::int as ins,
      n_tup_upd::int as upd, n_tup_del::int as del
    from pg_stat_user_tables where relid = 'starling.large_value'::regclass`;
  const others =
    "select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() limit 1";
  while ((await admin.query(others)).length > 0) await admin.query("select pg_sleep(0.01)");
  const [row] = await admin.query<{ idx: number; seq: number; ins: number; upd: number; del: number }>(text);
  store = await openPostgresStore({ url: database.url, lanes: 1, shards: { entity: 256, system: 16 } });
  if (row === undefined) throw new Error("no statistics");
  return row;
}

test("records without large values never touch their table, others find theirs by key", async () => {
  const fences = fencesOf(await store.acquire(nodeA, [shard1]));
  const small = Array.from({ length: 1_000 }, (_, i) => entityOf(`small-${i}`, 1));
  await store.flush(nodeA, flushOf(fences, { entities: small }));
  expect(await store.load(small)).toHaveLength(1_000);
  await store.list({ type: "ip", after: "", limit: 1_000 });
  expect(await statistics()).toEqual({ idx: 0, seq: 0, ins: 0, upd: 0, del: 0 });
  // However small the table was when it was planned.
  const body = JSON.stringify("x".repeat(1_500));
  for (let i = 0; i < 8; i++) {
    await store.flush(nodeA, flushOf(fences, { entities: [marked(0, i + 2, body.replace("x", `${i}`))] }));
    await store.load([entityOf("e-0", 0)]);
  }
  const large = Array.from({ length: 1_000 }, (_, i) => marked(i, 20, body));
  await store.flush(nodeA, flushOf(fences, { entities: large }));
  expect((await store.load(large)).every((one) => one.large?.[0]?.body === body)).toBe(true);
  const counts = await statistics();
  expect(counts).toMatchObject({ seq: 0, ins: 1_000, upd: 8, del: 0 });
});

test("a record that changes beside a value of a mebibyte costs a few hundred bytes", async () => {
  const fences = fencesOf(await store.acquire(nodeA, [shard1]));
  const at = async () =>
    (await admin.query<{ at: number }>("select (pg_current_wal_insert_lsn() - '0/0')::float8 as at"))[0]?.at ?? 0;
  // PostgreSQL does not make it smaller.
  const body = JSON.stringify(randomBytes(1 << 19).toString("hex"));
  await store.flush(nodeA, flushOf(fences, { entities: [marked(5_000, 1, body)] }));
  await admin.script("checkpoint");
  // The first change after a checkpoint writes whole pages.
  await store.flush(nodeA, flushOf(fences, { entities: [marked(5_000, 2)] }));
  const before = await at();
  for (let i = 3; i < 103; i++) await store.flush(nodeA, flushOf(fences, { entities: [marked(5_000, i)] }));
  // Nor does a repeat write it again.
  await store.flush(nodeA, flushOf(fences, { entities: [marked(5_000, 102, body)] }));
  expect((await at()) - before).toBeLessThan(100 * 1_000);
  expect((await store.load([entityOf("e-5000", 0)]))[0]?.large).toEqual([{ attr: "a", body }]);
});
