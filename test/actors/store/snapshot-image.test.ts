import { afterAll, beforeAll, expect, test } from "vitest";
import { planFold } from "../../../actors/history/history-fold.ts";
import { windowOf } from "../../../actors/history/history-read.ts";
import { createPool, type Pool } from "../../../actors/store/connection.ts";
import { openPostgresStore, type PostgresStore } from "../../../actors/store/postgres-store.ts";
import type { EntityKey, Fence, FlushRequest, HistorySegment } from "../../../actors/store/store.ts";
import type { StoredImage, TickWindows } from "../../../actors/store/tick.ts";
import { createTickReads } from "../../../actors/store/tick-pages.ts";
import { toSeq } from "../../../proto/ids.ts";
import { testDatabase } from "../../support/postgres.ts";
import type { TestDatabase } from "../../support/postgres-server.ts";
import { testModel } from "../../support/test-model.ts";
import { entityOf, fencesOf, flushOf, nodeA, shard1 } from "./samples.ts";

/* Images and merged histories, which only PostgreSQL has. */
const spec = testModel({ ip: { one: { kind: "observations", type: "string" } } }).entities.get("ip");
let database: TestDatabase;
let store: PostgresStore;
let pool: Pool;
let fences: Fence[];

beforeAll(async () => {
  database = await testDatabase();
  store = await openPostgresStore({ url: database.url, lanes: 1, shards: { entity: 4, system: 1 } });
  const connect = { url: database.url, application: "test", statementTimeoutMs: 30_000, connectTimeoutMs: 5_000 };
  pool = createPool({ ...connect, size: 1, waitingMax: 10 });
  fences = fencesOf(await store.acquire(nodeA, [shard1]));
});
afterAll(async () => {
  await pool?.close();
  await store?.close();
  await database?.close();
});

const keyOf = (eid: string): EntityKey => ({ shard: shard1, type: "ip", eid });
const flush = (change: Partial<FlushRequest>) => store.flush(nodeA, flushOf(fences, change));

function rowOf(eid: string, seq: number): HistorySegment {
  return { ...keyOf(eid), seq: toSeq(seq), body: `one\t\t${10 * seq}\t${10 * seq + 5}\t1\t"${seq}"` };
}

function imageOf(eid: string, applied: number, tick = 1): StoredImage {
  const { created, createdAt, state } = entityOf(eid, applied);
  return { ...keyOf(eid), created, createdAt, state, tick, applied: toSeq(applied) };
}

/** What an entity's flush writes. */
const changed = (eid: string, seq: number): Partial<FlushRequest> => ({
  entities: [entityOf(eid, seq)],
  history: [rowOf(eid, seq)],
});

async function fold(eid: string): Promise<boolean> {
  const rows = await store.historyRows([keyOf(eid)], null);
  const pages = await store.historyPages([windowOf(keyOf(eid), "one", {})]);
  return store.fold(planFold(spec, keyOf(eid), rows, pages));
}

async function unfolded(): Promise<string[]> {
  return (await store.unfolded({ shard: shard1, type: "", eid: "" }, 100)).map(({ eid }) => eid);
}

const whole: TickWindows = (records) => records.map(({ eid }) => windowOf(keyOf(eid), "one", {}));

async function read(reads: Pick<Pool, "query">, eid: string, tick = 1): Promise<string> {
  const request = { shard: shard1, tick, after: null, limit: 100, maxBytes: 1e9 };
  const { records } = await createTickReads({ ...pool, ...reads }).readTickPage(request, whole);
  const record = records.find((one) => one.eid === eid);
  const rows = record?.rows.map(({ seq }) => seq).join();
  return `rows ${rows}, pages ${record?.pages.map(({ body, cut }) => `${body.replaceAll("\t", " ")} (${cut})`).join()}`;
}

test("no fold takes the rows of an entity with an image, so that those of before the mark stay apart from later ones", async () => {
  await flush(changed("a", 3));
  await flush({ ...changed("b", 3) });
  expect(await unfolded()).toEqual(["a", "b"]);
  await flush({ ...changed("a", 7), images: [imageOf("a", 3)] });
  expect(await unfolded()).toEqual(["b"]);
  expect([await fold("a"), await fold("b")]).toEqual([false, true]);
  expect([await read(pool, "a"), await read(pool, "b")]).toEqual([
    "rows 3, pages ",
    'rows , pages 30 35 1   "3" (-Infinity)',
  ]);
  // The row of a mark may come after the images; once the shard is visited they mean nothing.
  await flush({ marks: [{ shard: shard1, tick: 1, seq: toSeq(5) }] });
  expect(await fold("a")).toBe(false);
  await pool.query("update starling.snapshot_mark set visited = true");
  expect(await unfolded()).toEqual(["a"]);
  expect(await fold("a")).toBe(true);
});

test("an image that is left over from a former tick keeps nobody from folding", async () => {
  await flush({ ...changed("left", 7), images: [imageOf("left", 3, 2)] });
  expect(await fold("left")).toBe(false);
  await flush({ marks: [{ shard: shard1, tick: 3, seq: toSeq(9) }] });
  expect(await fold("left")).toBe(true);
});

test("what is deleted leaves rows and pages to its image", async () => {
  await flush(changed("c", 3));
  expect(await fold("c")).toBe(true);
  await flush(changed("c", 4));
  const before = await read(pool, "c", 4);
  expect(before).toBe('rows 4, pages 30 35 1   "3" (-Infinity)');
  await flush({ ...changed("c", 7), images: [imageOf("c", 4, 4)] });
  await flush({ entities: [entityOf("c", 9, { tombstone: true, state: "{}" })] });
  expect(await store.historyPages([windowOf(keyOf("c"), "one", {})])).toEqual([]);
  expect(await read(pool, "c", 4)).toBe(before);
  await flush({ ...changed("c", 11) });
  expect(await read(pool, "c", 4)).toBe(before);
});

test("a page whose entity is deleted while it is read is read again", async () => {
  await flush(changed("d", 3));
  expect(await fold("d")).toBe(true);
  const before = await read(pool, "d", 5);
  let deletions = 0;
  const query: Pool["query"] = async (text, parameters) => {
    if (text.includes("starling.history_page") && deletions++ === 0) {
      await flush({ entities: [entityOf("d", 9, { tombstone: true, state: "{}" })], images: [imageOf("d", 3, 5)] });
    }
    return pool.query(text, parameters);
  };
  expect(await read({ query }, "d", 5)).toBe(before);
  expect(deletions).toBeGreaterThan(1);
});
