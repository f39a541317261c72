import { afterEach, beforeEach, expect, test } from "vitest";
import { type Connection, createConnection } from "../../../actors/store/connection.ts";
import { openPostgresStore, type PostgresStore } from "../../../actors/store/postgres-store.ts";
import { type NodeId, toEpoch } from "../../../proto/ids.ts";
import { testDatabase } from "../../support/postgres.ts";
import type { TestDatabase } from "../../support/postgres-server.ts";
import { fencesOf, nodeA, nodeB, segmentOf, shard1 } from "./samples.ts";

/* Claims of acquirers that died or froze between their claim and their epoch, by PostgreSQL's clock (R22). */

let database: TestDatabase;
let store: PostgresStore;
let admin: Connection;

beforeEach(async () => {
  database = await testDatabase();
  store = await openPostgresStore({ url: database.url, lanes: 1, shards: { entity: 4, system: 1 } });
  const limits = { statementTimeoutMs: 30_000, connectTimeoutMs: 10_000 };
  admin = createConnection({ url: database.url, application: "test", ...limits });
});

afterEach(async () => {
  await admin.close();
  await store.close();
  await database.close();
});

/** Claims as a node does that goes no further; how many shards it got. */
async function claim(node: NodeId): Promise<number> {
  return (await admin.query("select starling.claim_1($1, $2)", [node, `{${shard1}}`])).length;
}

/** As a node that goes on after its claim. */
async function bump(node: NodeId): Promise<number> {
  return (await admin.query("select shard from starling.acquire_2($1, $2)", [node, `{${shard1}}`])).length;
}

async function epoch(): Promise<{ epoch: number; owner: string | null } | undefined> {
  const text = "select epoch::int as epoch, owner from starling.shard where shard = $1";
  return (await admin.query<{ epoch: number; owner: string | null }>(text, [shard1]))[0];
}

test("a claim that nobody makes use of keeps owner and acquirers out for two seconds, and no longer", async () => {
  const fences = fencesOf(await store.acquire(nodeA, [shard1]));
  const append = async () => (await store.append(nodeA, { fences, segments: [segmentOf(1, ["a"])] })).lost;
  const from = performance.now();
  expect(await claim(nodeB)).toBe(1);
  expect(await append()).toEqual([shard1]);
  expect(await store.acquire(nodeA, [shard1])).toEqual([]);
  await expect.poll(append, { timeout: 5_000, interval: 20 }).toEqual([]);
  // Less by what passed before the claim was made.
  expect(performance.now() - from).toBeGreaterThan(1_900);
  expect(await epoch()).toEqual({ epoch: 1, owner: nodeA });
});

test("a claim that has lapsed keeps nobody out that knows the owner and the newest membership", async () => {
  await store.acquire(nodeA, [shard1]);
  const terms = { epochOf: () => toEpoch(1), revision: 7 };
  expect(await claim(nodeB)).toBe(1);
  expect(await store.acquire(nodeA, [shard1], terms)).toEqual([]);
  await admin.script("update starling.claim set until = until - interval '2 s'");
  expect((await store.acquire(nodeA, [shard1], terms)).map((acquired) => acquired.epoch)).toEqual([2]);
});

test("who claimed and comes back after its claim has lapsed gets nothing, taken or not", async () => {
  await store.acquire(nodeA, [shard1]);
  expect(await claim(nodeB)).toBe(1);
  await admin.script("update starling.claim set until = until - interval '2 s'");
  expect(await bump(nodeB)).toBe(0);
  expect(await epoch()).toEqual({ epoch: 1, owner: nodeA });
  expect(await claim(nodeB)).toBe(1);
  await admin.script("update starling.claim set until = until - interval '2 s'");
  expect((await store.acquire(nodeA, [shard1])).map((acquired) => acquired.epoch)).toEqual([2]);
  expect(await bump(nodeB)).toBe(0);
  expect(await epoch()).toEqual({ epoch: 2, owner: nodeA });
});

test("who waited for another's claim takes nothing from that one, of whose epoch it had not heard", async () => {
  const terms = { epochOf: () => toEpoch(0), revision: 7 };
  expect(await claim(nodeA)).toBe(1);
  await admin.script("begin");
  expect(await bump(nodeA)).toBe(1);
  const late = store.acquire(nodeB, [shard1], terms);
  const limits = { statementTimeoutMs: 30_000, connectTimeoutMs: 10_000 };
  const watcher = createConnection({ url: database.url, application: "watch", ...limits });
  const waits = "select 1 from pg_stat_activity where query like '%claim_2%' and wait_event_type = 'Lock'";
  await expect.poll(() => watcher.query(waits), { timeout: 5_000 }).toHaveLength(1);
  await watcher.close();
  await admin.script("commit");
  expect(await late).toEqual([]);
  expect(await epoch()).toEqual({ epoch: 1, owner: nodeA });
  // Nor does its claim keep anybody out.
  expect(await admin.query("select 1 from starling.claim")).toEqual([]);
  expect(await store.acquire(nodeB, [shard1], { ...terms, epochOf: () => toEpoch(1) })).toHaveLength(1);
});
