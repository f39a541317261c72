import { afterEach, beforeEach, expect, test } from "vitest";
import { openPostgresStore, type PostgresStore } from "../../../actors/store/postgres-store.ts";
import {
  createShardedLifetimes,
  createShardedObituaries,
  createShardedStore,
} from "../../../actors/store/sharded-store.ts";
import type { LinkRow, LinkSegment } from "../../../actors/store/stored-link.ts";
import { toSeq } from "../../../proto/ids.ts";
import { testDatabase } from "../../support/postgres.ts";
import type { TestDatabase } from "../../support/postgres-server.ts";
import { entityOf, fencesOf, flushOf, nodeA, segmentOf, shard1, shard2 } from "./samples.ts";

/* One store over two databases: shard 2 lives in the other one. */

const databases: TestDatabase[] = [];
let store: PostgresStore;
let other: PostgresStore;
const storeOf = (shard: number): PostgresStore => (shard === shard2 ? other : store);

async function open(): Promise<PostgresStore> {
  const database = await testDatabase();
  databases.push(database);
  return await openPostgresStore({ url: database.url, lanes: 1, shards: { entity: 256, system: 16 } });
}

beforeEach(async () => {
  [store, other] = [await open(), await open()];
});

afterEach(async () => {
  for (const one of [store, other, ...databases.splice(0)]) await one.close();
});

test("spreads shards over two databases", async () => {
  const spread = createShardedStore([store, other], storeOf);
  const fences = fencesOf(await spread.acquire(nodeA, [shard1, shard2]));
  await spread.append(nodeA, { fences: fences.slice(0, 1), segments: [segmentOf(1, ["a"])] });
  await spread.append(nodeA, { fences: fences.slice(1), segments: [segmentOf(1, ["b"], { shard: shard2 })] });
  const whole = { fences, segments: [segmentOf(2, ["a"]), segmentOf(2, ["b"], { shard: shard2 })] };
  await expect(async () => spread.append(nodeA, whole)).rejects.toThrow(/several databases/);
  const entities = [entityOf("a", 1), entityOf("b", 1, { shard: shard2 })];
  expect(await spread.flush(nodeA, flushOf(fences, { entities }))).toEqual({ lost: [] });
  expect(await spread.load(entities)).toEqual(entities);
  expect(await store.load(entities)).toEqual(entities.slice(0, 1));
  const state = '{"#large":{"a":{"t1":5,"t2":5,"c":1,"n":1}}}';
  const large = [{ attr: "a", body: `"${"x".repeat(2_000)}"` }];
  const marked = entities.map((entity) => ({ ...entity, applied: toSeq(2), state, large }));
  await spread.flush(nodeA, flushOf(fences, { entities: marked }));
  expect(await spread.load(entities)).toEqual(marked);
  expect(await store.load(entities)).toEqual(marked.slice(0, 1));
  const states = (await spread.list({ type: "ip", after: "", limit: 9 })).map((entity) => entity.state);
  expect(states).toEqual(Array(2).fill(`{"a":{"v":${large[0]?.body},"t1":5,"t2":5,"c":1,"n":1}}`));
  expect((await spread.list({ type: "ip", after: "", limit: 9 })).map(({ eid }) => eid)).toEqual(["a", "b"]);
  expect(await spread.count("ip")).toEqual(new Map([["ip", 2]]));
});

test("finds who links to an entity in all databases, and the ends of all logs", async () => {
  const spread = createShardedStore([store, other], storeOf);
  const keeping = createShardedObituaries([store, other], storeOf);
  const fences = fencesOf(await spread.acquire(nodeA, [shard1, shard2]));
  await spread.append(nodeA, { fences: fences.slice(1), segments: [segmentOf(1, ["b"], { shard: shard2 })] });
  const from = (eid: string, shard: typeof shard1): LinkSegment => {
    const rows: LinkRow[] = ["x", "y"].map((target) => ({ kind: "plain", attr: "net", type: "net", eid: target }));
    return { shard, type: "ip", eid, cleared: false, rows };
  };
  const links = [from("c", shard1), from("b", shard2), from("a", shard1), from("B", shard2)];
  const obituaries = [shard1, shard2].map((shard) => ({ shard, type: "net", eid: "x", seq: toSeq(1) }));
  await spread.flush(nodeA, flushOf(fences, { links, obituaries }));
  const rule = { type: "ip", attr: "net", preValidityMs: 0, postValidityMs: 0 };
  const query = { shard: shard2, type: "net", eid: "x", reverse: true, at: 0, attributes: [rule], limit: 3 };
  const eids = (found: readonly { readonly eid: string }[]) => found.map(({ eid }) => eid);
  expect(eids(await spread.links({ ...query, after: null }))).toEqual(["B", "a", "b"]);
  const last = { attr: "net", type: "ip", eid: "b" };
  expect(eids(await spread.links({ ...query, after: last }))).toEqual(["c"]);
  expect(eids(await keeping.referrers({ type: "net", eid: "y" }, null, 9))).toEqual(["B", "a", "b", "c"]);
  const found = await keeping.obituaries([shard1, shard2], 9);
  expect(found.map(({ shard }) => shard)).toEqual([shard1, shard2]);
  for (const { places } of found) {
    expect(new Map([...places].map(([shard, { seq }]) => [shard, seq]))).toEqual(
      new Map([
        [shard1, 0],
        [shard2, 1],
      ]),
    );
  }
  const lifetimes = createShardedLifetimes([store, other], storeOf);
  const asked = { type: "net", eids: ["x", "z", "y"], at: 0, attributes: [rule] };
  expect((await lifetimes.referred(asked)).sort()).toEqual(["x", "y"]);
  expect((await lifetimes.places()).map(({ shard }) => shard)).toEqual([shard1, shard2]);
  const entities = [entityOf("b", 1), entityOf("a", 1, { shard: shard2 })];
  await spread.flush(nodeA, flushOf(fences, { entities }));
  const inhabitants = { shards: [shard1, shard2], type: "ip", after: "", limit: 9 };
  expect(eids(await lifetimes.inhabitants(inhabitants))).toEqual(["a", "b"]);
  await keeping.bury({ shard: shard2, seq: toSeq(1) });
  expect(await keeping.obituaries([shard2], 9)).toEqual([]);
});
