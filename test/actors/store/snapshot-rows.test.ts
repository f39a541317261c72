import { afterAll, beforeAll, expect, test } from "vitest";
import { createPool, type Pool } from "../../../actors/store/connection.ts";
import { openPostgresStore, type PostgresStore } from "../../../actors/store/postgres-store.ts";
import { createPageWriter } from "../../../actors/store/snapshot-pages.ts";
import type { ShardWriter, SnapshotPage, SnapshotRow, SnapshotStore } from "../../../actors/store/snapshot-store.ts";
import { configModel } from "../../support/config-model.ts";
import { testDatabase } from "../../support/postgres.ts";
import type { TestDatabase } from "../../support/postgres-server.ts";
import { nodeA, shard1 } from "./samples.ts";

/* Rows of an entity from tick to tick, of which often the confidences alone change. */
const model = configModel({ ip: { label: "plain string", load: "observations int" } });
let database: TestDatabase;
let store: PostgresStore;
let pool: Pool;
let writer: ShardWriter;

beforeAll(async () => {
  database = await testDatabase();
  store = await openPostgresStore({ url: database.url, lanes: 1, shards: { entity: 4, system: 1 } });
  await store.indexSnapshots(model);
  const connect = { url: database.url, application: "test", statementTimeoutMs: 30_000, connectTimeoutMs: 5_000 };
  pool = createPool({ ...connect, size: 2, waitingMax: 10 });
  for (const { epoch } of await store.acquire(nodeA, [shard1])) writer = { node: nodeA, shard: shard1, epoch };
});
afterAll(async () => {
  await pool?.close();
  await store?.close();
  await database?.close();
});

interface Told {
  readonly load: number;
  readonly c: number | null;
  readonly due?: number | null;
}

const rowOf = (eid: string, { load, c, due = null }: Told): SnapshotRow => ({
  ...{ kind: "body", shard: shard1, type: "ip", eid, due },
  body: JSON.stringify({ eid, label: `the ${eid}`, load }),
  confidences: c === null ? null : JSON.stringify({ "load#c": c }),
});

const start = { eid: "", type: "" };

/** All of a shard in a tick. */
function pageOf(tick: number, rows: readonly SnapshotRow[]): SnapshotPage {
  return {
    ...{ tick, stage: "visit", after: start, cursor: start, visited: true, done: true, gone: "others" },
    ...{ rows, values: [], tasks: null, counts: { entities: rows.length } },
  };
}

/** Writes a tick as one page, the way its owner does. */
async function write(
  tick: number,
  rows: readonly SnapshotRow[],
  {
    base = tick - 1,
    by = createPageWriter(pool),
  }: { base?: number; by?: Pick<SnapshotStore, "openVisit" | "writePage"> } = {},
): Promise<void> {
  await pool.query("insert into starling.snapshot_mark (shard, tick, seq) values ($1, $2, $2)", [shard1, tick]);
  await by.openVisit(writer, tick, base);
  expect(await by.writePage(writer, pageOf(tick, rows))).toBe("written");
}

interface StoredRow {
  readonly from: number;
  readonly to: number | null;
  readonly due: number | null;
  readonly body: string;
}

async function stored(eid: string): Promise<StoredRow[]> {
  const text = `select from_tick::float8 as "from", to_tick::float8 as "to", due::float8 as due,
      (body->>'load') || coalesce(' at ' || (confidences->>'load#c'), '') as body
    from starling.snapshot where eid = $1 order by from_tick`;
  return await pool.query<StoredRow>(text, [eid]);
}

async function countsOf(tick: number): Promise<unknown> {
  const [row] = await pool.query<{ counts: string }>(
    "select counts::text as counts from starling.snapshot_mark where tick = $1",
    [tick],
  );
  return JSON.parse(row?.counts ?? "null");
}

async function updates(): Promise<{ all: number; inPlace: number }> {
  const text = `select n_tup_upd::int as all, n_tup_hot_upd::int as "inPlace" from pg_stat_user_tables
    where schemaname = 'starling' and relname = 'snapshot'`;
  const [row] = await pool.query<{ all: number; inPlace: number }>(text, []);
  return row ?? { all: 0, inPlace: 0 };
}

test("of a change of confidences alone the open row keeps its place in all indexes, and the one before becomes history", async () => {
  const eids = Array.from({ length: 20 }, (_, i) => `e${i}`);
  await write(
    1,
    eids.map((eid) => rowOf(eid, { load: 5, c: 0.9, due: 0 })),
  );
  await expect.poll(async () => (await updates()).all).toBe(0);
  // One in ten: a page has room for so many.
  const some = new Set(["e3", "e14"]);
  await write(
    2,
    eids.map((eid) => rowOf(eid, { load: 5, c: some.has(eid) ? 0.8 : 0.9, due: 0 })),
  );
  expect(await stored("e3")).toEqual([
    { from: 1, to: 2, due: 0, body: "5 at 0.9" },
    { from: 2, to: null, due: 0, body: "5 at 0.8" },
  ]);
  expect(await stored("e4")).toEqual([{ from: 1, to: null, due: 0, body: "5 at 0.9" }]);
  expect(await countsOf(2)).toEqual({ entities: 20, written: 2, closed: 0 });
  await expect.poll(updates, { timeout: 20_000 }).toEqual({ all: 2, inPlace: 2 });
});

test("a value that changes, confidences that come or go, and a due alone", async () => {
  await write(3, [
    rowOf("a", { load: 1, c: 0.5, due: 7 }),
    rowOf("b", { load: 1, c: null }),
    rowOf("c", { load: 1, c: 1 }),
  ]);
  await write(4, [
    rowOf("a", { load: 2, c: 0.5, due: 8 }),
    rowOf("b", { load: 1, c: 0.4 }),
    rowOf("c", { load: 1, c: null }),
  ]);
  await write(5, [rowOf("a", { load: 2, c: 0.5, due: 9 }), rowOf("b", { load: 1, c: 0.4 })]);
  expect(await stored("a")).toEqual([
    { from: 3, to: 4, due: 7, body: "1 at 0.5" },
    { from: 4, to: null, due: 9, body: "2 at 0.5" },
  ]);
  expect(await stored("b")).toEqual([
    { from: 3, to: 4, due: null, body: "1" },
    { from: 4, to: null, due: null, body: "1 at 0.4" },
  ]);
  expect(await stored("c")).toEqual([
    { from: 3, to: 4, due: null, body: "1 at 1" },
    { from: 4, to: 5, due: null, body: "1" },
  ]);
  expect(await countsOf(4)).toEqual({ entities: 3, written: 3, closed: 0 });
  expect(await countsOf(5)).toEqual({ entities: 2, written: 0, closed: 1 });
});

test("what a failed tick wrote in place is taken back, with the due of before", async () => {
  await write(6, [rowOf("t", { load: 1, c: 0.5, due: 60 })]);
  await write(7, [rowOf("t", { load: 1, c: 0.4, due: null })]);
  // Tick 7 failed: the next one builds on 6.
  await write(8, [rowOf("t", { load: 1, c: 0.5, due: 60 })], { base: 6 });
  expect(await stored("t")).toEqual([{ from: 6, to: null, due: 60, body: "1 at 0.5" }]);
});

test("readers find the rows of every tick, wherever they stand, also those that an earlier version wrote", async () => {
  await pool.query(
    `insert into starling.snapshot (shard, type, eid, from_tick, body)
      values ($1, 'ip', 'r', 8, '{"eid": "r", "label": "the r", "load": 3, "load#c": 0.9}')`,
    [shard1],
  );
  await write(9, [rowOf("r", { load: 3, c: 0.8 })]);
  await write(10, [rowOf("r", { load: 3, c: 0.7 })]);
  await write(11, [rowOf("r", { load: 4, c: 0.7 })]);
  const key = { shard: shard1, type: "ip", eid: "r" };
  const { snapshotQueries: queries } = store;
  const spans = await queries.snapshotSpans(key, { before: null, limit: 10 });
  expect(spans).toEqual([
    { from: 11, to: null },
    { from: 10, to: 11 },
    { from: 9, to: 10 },
    { from: 8, to: 9 },
  ]);
  expect(await queries.snapshotSpans(key, { before: 11, limit: 1 })).toEqual([{ from: 10, to: 11 }]);
  const bodies = await queries.snapshotBodies(spans.map(({ from }) => ({ ...key, from })));
  expect(bodies.map((body) => JSON.parse(body ?? "null"))).toEqual([
    { eid: "r", label: "the r", load: 4, "load#c": 0.7 },
    { eid: "r", label: "the r", load: 3, "load#c": 0.7 },
    { eid: "r", label: "the r", load: 3, "load#c": 0.8 },
    { eid: "r", label: "the r", load: 3, "load#c": 0.9 },
  ]);
  // No row begins there, though one ends later.
  expect(await queries.snapshotBodies([{ ...key, from: 7 }])).toEqual([undefined]);
  for (const [tick, from] of [
    [8, 8],
    [10, 10],
    [12, 11],
  ] as const) {
    const page = await queries.snapshotPage({ shard: shard1, type: "ip", tick, after: start, limit: 100 });
    expect(page.filter(({ eid }) => eid === "r")).toEqual([{ ...key, from }]);
  }
});

test("the key by the beginnings of rows goes as soon as the index by their ends is there, and rows move before that, too", async () => {
  const other = await testDatabase();
  const late = await openPostgresStore({ url: other.url, lanes: 1, shards: { entity: 4, system: 1 } });
  const admin = createPool({
    ...{ url: other.url, application: "test", statementTimeoutMs: 30_000, connectTimeoutMs: 5_000 },
    ...{ size: 1, waitingMax: 10 },
  });
  try {
    const [acquired] = await late.acquire(nodeA, [shard1]);
    expect(acquired).toBeDefined();
    const by = late.snapshots;
    for (const [tick, c] of [
      [1, 0.9],
      [2, 0.8],
    ] as const) {
      await admin.query("insert into starling.snapshot_mark (shard, tick, seq) values ($1, $2, $2)", [shard1, tick]);
      const own = { node: nodeA, shard: shard1, epoch: acquired?.epoch ?? writer.epoch };
      await by.openVisit(own, tick, tick - 1);
      expect(await by.writePage(own, pageOf(tick, [rowOf("k", { load: 1, c })]))).toBe("written");
    }
    const keys = async () =>
      admin.query<{ name: string }>(
        `select conname as name from pg_constraint where conrelid = 'starling.snapshot'::regclass and contype = 'p'`,
        [],
      );
    expect(await keys()).toEqual([{ name: "snapshot_pkey" }]);
    expect(await late.indexSnapshots(model)).toBeGreaterThan(0);
    expect(await keys()).toEqual([]);
    const found = await admin.query<{ text: string }>(
      `select concat_ws(' ', from_tick, to_tick, confidences) as text from starling.snapshot order by from_tick`,
      [],
    );
    expect(found.map(({ text }) => text)).toEqual(['1 2 {"load#c": 0.9}', '2 {"load#c": 0.8}']);
  } finally {
    await admin.close();
    await late.close();
    await other.close();
  }
});

test("no reader needs the whole table, nor do those of nodes of the version before", async () => {
  const columns = "s.shard = p.shard and s.eid = p.eid and s.type = p.type";
  const places = `jsonb_to_recordset('[]') p(i int, shard int, type text, eid text, "from" int8)`;
  const key = "shard = 1 and eid = 'r' and type = 'ip'";
  for (const text of [
    `select s.body from ${places} join starling.snapshot s on ${columns} and s.from_tick = p."from"`,
    `select from_tick from starling.snapshot where ${key} order by from_tick desc limit 5`,
    `select to_tick from starling.snapshot where ${key} and to_tick is not null order by to_tick desc limit 5`,
    `select s.eid from starling.snapshot s where s.shard = 1 and (s.eid, s.type) > ('', '') and s.from_tick <= 5
      and (s.to_tick is null or s.to_tick > 5) order by s.eid, s.type limit 9`,
  ]) {
    const plan = await pool.alone(async (connection) => {
      await connection.script("set enable_seqscan = off");
      const lines = await connection.query<{ "QUERY PLAN": string }>(`explain ${text}`);
      await connection.script("reset enable_seqscan");
      return lines;
    });
    expect(plan.map((line) => line["QUERY PLAN"]).join("\n")).not.toContain("Seq Scan on snapshot");
  }
});
