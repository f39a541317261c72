import { afterAll, beforeAll, expect, test } from "vitest";
import { createPool, type Pool } from "../../../actors/store/connection.ts";
import { openPostgresStore, type PostgresStore } from "../../../actors/store/postgres-store.ts";
import { createPageWriter } from "../../../actors/store/snapshot-pages.ts";
import type { ShardWriter, SnapshotPage, SnapshotRow } from "../../../actors/store/snapshot-store.ts";
import type { ShardId } from "../../../proto/ids.ts";
import { testDatabase } from "../../support/postgres.ts";
import type { TestDatabase } from "../../support/postgres-server.ts";
import { nodeA, nodeB, shard1, shard2 } from "./samples.ts";

/* Pages of several shards that go together. */
let database: TestDatabase;
let store: PostgresStore;
let pool: Pool;

beforeAll(async () => {
  database = await testDatabase();
  store = await openPostgresStore({ url: database.url, lanes: 1, shards: { entity: 4, system: 1 } });
  const connect = { url: database.url, application: "test", statementTimeoutMs: 30_000, connectTimeoutMs: 5_000 };
  pool = createPool({ ...connect, size: 2, waitingMax: 10 });
});
afterAll(async () => {
  await pool?.close();
  await store?.close();
  await database?.close();
});

const start = { eid: "", type: "" };

async function own(node: typeof nodeA, shards: readonly ShardId[]): Promise<ShardWriter[]> {
  const acquired = await store.acquire(node, shards);
  return acquired.map(({ shard, epoch }) => ({ node, shard, epoch })).sort((a, b) => a.shard - b.shard);
}

async function mark(tick: number, ...shards: readonly ShardId[]): Promise<void> {
  const text = `insert into starling.snapshot_mark (shard, tick, seq) select s, $2::bigint, $2::bigint * 10 from unnest($1::int[]) s`;
  await pool.query(text, [`{${shards.join()}}`, tick]);
}

const bodyOf = (shard: ShardId, eid: string, body: string): SnapshotRow => ({
  ...{ kind: "body", shard, type: "ip", eid, due: null, body, confidences: null },
});

function pageOf(tick: number, rows: readonly SnapshotRow[], change: Partial<SnapshotPage> = {}): SnapshotPage {
  return {
    ...{
      tick,
      stage: "visit",
      after: start,
      cursor: start,
      visited: true,
      done: true,
      gone: "others",
      rows,
      values: [],
    },
    ...{ tasks: null, counts: { entities: rows.length }, ...change },
  };
}

async function written(tick: number): Promise<string[]> {
  const text = "select shard, eid, body::text as body from starling.snapshot where from_tick = $1 order by shard, eid";
  const rows = await pool.query<{ shard: number; eid: string; body: string }>(text, [tick]);
  return rows.map(({ shard, eid, body }) => `${shard} ${eid} ${body}`);
}

async function counts(tick: number): Promise<unknown[]> {
  const text = "select counts::text as counts from starling.snapshot_mark where tick = $1 order by shard";
  return (await pool.query<{ counts: string }>(text, [tick])).map((row) => JSON.parse(row.counts));
}

test("pages of several shards are one statement, count for their own marks, and come again without effect", async () => {
  const [one, two] = (await own(nodeA, [shard1, shard2])) as [ShardWriter, ShardWriter];
  await mark(1, shard1, shard2);
  const statements: string[] = [];
  const spied: Pool = {
    ...pool,
    query: (text, values) => {
      statements.push(text);
      return pool.query(text, values);
    },
  };
  const writer = createPageWriter(spied);
  const opened = await Promise.all([one, two].map((each) => writer.openVisit(each, 1, 0)));
  expect(opened).toMatchObject([
    { mark: { shard: shard1, tick: 1, seq: 10, cursor: start, visited: false, done: false }, baseSeq: null },
    { mark: { shard: shard2 } },
  ]);
  const tasks = "what a hook returned\u001e";
  const pages = [
    writer.writePage(one, pageOf(1, [bodyOf(shard1, "a", "1"), bodyOf(shard1, "b\u001f", "2")], { tasks })),
    writer.writePage(two, pageOf(1, [bodyOf(shard2, "a", "3")])),
  ];
  expect(await Promise.all(pages)).toEqual(["written", "written"]);
  expect(statements).toHaveLength(2);
  const expected = [`${shard1} a 1`, `${shard1} b\u001f 2`, `${shard2} a 3`];
  expect(await written(1)).toEqual(expected);
  await writer.writePage(two, pageOf(1, [bodyOf(shard2, "a", "4"), bodyOf(shard2, "c", "5")]));
  expect(await written(1)).toEqual(expected);
  expect(await counts(1)).toEqual([
    { entities: 2, written: 2, closed: 0 },
    { entities: 1, written: 1, closed: 0 },
  ]);
  const kept = await store.snapshots.readTasks([shard1, shard2], 10);
  expect(kept).toEqual([{ shard: shard1, tick: 1, page: 0, body: tasks }]);
});

test("of several pages the one of a lost shard is not written, and the one with bad data is refused, alone", async () => {
  const [one] = (await own(nodeA, [shard1])) as [ShardWriter];
  const [late] = (await own(nodeA, [shard2])) as [ShardWriter];
  await own(nodeB, [shard2]);
  await mark(2, shard1, shard2);
  const writer = createPageWriter(pool);
  const opened = await Promise.all([writer.openVisit(one, 2, 1), writer.openVisit(late, 2, 1)]);
  expect(opened).toMatchObject([{ mark: { shard: shard1 }, baseSeq: 10 }, "lost"]);
  const pages = [
    writer.writePage(
      one,
      pageOf(2, [bodyOf(shard1, "a", "7")], { visited: false, done: false, cursor: { eid: "a", type: "ip" } }),
    ),
    writer.writePage(late, pageOf(2, [bodyOf(shard2, "a", "8")])),
  ];
  expect(await Promise.all(pages)).toEqual(["written", "lost"]);
  const after = { after: { eid: "a", type: "ip" } };
  const [holder] = (await own(nodeB, [shard2])) as [ShardWriter];
  const wrong = writer.writePage({ ...one }, pageOf(2, [bodyOf(shard1, "c", '"\\u0000"')], after));
  await expect(wrong).rejects.toMatchObject({ code: "STORE_REFUSED" });
  const last = [
    writer.writePage(one, pageOf(2, [bodyOf(shard1, "c", "9")], after)),
    writer.writePage(holder, pageOf(2, [])),
  ];
  expect(await Promise.all(last)).toEqual(["written", "written"]);
  expect(await written(2)).toEqual([`${shard1} a 7`, `${shard1} c 9`]);
  // What was in between, and in the other shard, has gone.
  expect(await counts(2)).toEqual([
    { entities: 1, written: 2, closed: 1 },
    { entities: 0, written: 0, closed: 1 },
  ]);
});
