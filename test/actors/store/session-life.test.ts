import { afterEach, beforeEach, expect, test } from "vitest";
import { type Connection, createConnection } from "../../../actors/store/connection.ts";
import { openPostgresStore, type PostgresStore } from "../../../actors/store/postgres-store.ts";
import { toSessionId } from "../../../proto/ids.ts";
import { testDatabase } from "../../support/postgres.ts";
import type { TestDatabase } from "../../support/postgres-server.ts";
import { fencesOf, flushOf, nodeA, shard1, shard2 } from "./samples.ts";

/* How long sessions and channels are known: on PostgreSQL, with days that have passed by its tables. */

let database: TestDatabase;
let store: PostgresStore;
let admin: Connection;

beforeEach(async () => {
  database = await testDatabase();
  const shards = { entity: 4, system: 1 };
  store = await openPostgresStore({ url: database.url, lanes: 1, shards });
  const limits = { statementTimeoutMs: 30_000, connectTimeoutMs: 10_000 };
  admin = createConnection({ url: database.url, application: "test", ...limits });
});

afterEach(async () => {
  await admin.close();
  await store.close();
  await database.close();
});

function open(session: string, { hash, begins = true }: { readonly hash?: string; readonly begins?: boolean } = {}) {
  const named = !session.startsWith("drawn:");
  return store.openSession(toSessionId(session), { named, holder: null, begins, ...(hash !== undefined && { hash }) });
}

/** Days go by. */
async function pass(days: number): Promise<void> {
  const back = `- make_interval(hours => ${24 * days})`;
  await admin.script(`update starling.session set opened_at = opened_at ${back}, used_at = used_at ${back};
    update starling.channel set at = at ${back}`);
}

const forget = async () => [await store.forgetSessions(), await store.forgetChannels()];
const sessions = async () => {
  const text = "select session, closed from starling.session order by session";
  const rows = await admin.query<{ session: string; closed: boolean }>(text);
  return rows.map(({ session, closed }) => `${session}${closed ? " closed" : ""}`);
};

test.each(["swept", "not swept"])("an idempotency key begins anew a week after it was first seen: %s", async (how) => {
  const first = await open("key:k", { hash: "h1" });
  await pass(6);
  await expect(open("key:k", { hash: "h2" })).rejects.toMatchObject({ code: "BATCH_CHANGED" });
  const again = await open("key:k", { hash: "h1" });
  expect([again.opening, again.number]).toEqual([2, expect.any(Number)]);
  // Repeats do not make it live longer: what it repeats is as old as it is.
  await pass(2);
  if (how === "swept") expect(await forget()).toEqual([1, 0]);
  const anew = await open("key:k", { hash: "h2" });
  expect(anew.opening).toBe(1);
  // What its channels still know of the life before lies below.
  expect(anew.number).toBeGreaterThan(again.number);
  expect(Math.abs(anew.number - first.number)).toBeLessThan(60);
  expect((await open("key:k", { hash: "h2" })).number).toBe(anew.number);
});

test.each(["swept", "not swept"])("a drawn session that nobody used for a week cannot be resumed: %s", async (how) => {
  await open("drawn:1");
  await pass(8);
  if (how === "swept") {
    expect(await forget()).toEqual([1, 0]);
    await expect(open("drawn:1", { begins: false })).rejects.toMatchObject({ code: "SESSION_CLOSED" });
  } else expect((await open("drawn:1", { begins: false })).closed).toBe(true);
});

test("a drawn session that is in use is kept, and every name, for ever", async () => {
  for (const session of ["drawn:used", "drawn:closed", "closed", "open"]) await open(session);
  await store.closeSession(toSessionId("drawn:closed"));
  await store.closeSession(toSessionId("closed"));
  await pass(8);
  await store.useSession(toSessionId("drawn:used"));
  expect(await forget()).toEqual([1, 0]);
  await pass(5);
  expect((await open("drawn:used", { begins: false })).closed).toBe(false);
  expect(await forget()).toEqual([0, 0]);
  expect(await sessions()).toEqual(["closed closed", "drawn:used", "open"]);
});

test("two nodes that open one key at once, with other content each, agree whose it is", async () => {
  for (let round = 0; round < 20; round++) {
    const openings = await Promise.allSettled(["h1", "h2", "h1"].map((hash) => open(`key:${round}`, { hash })));
    const refused = openings.map(({ status }) => status === "rejected");
    expect([
      [false, true, false],
      [true, false, true],
    ]).toContainEqual(refused);
    const numbers = openings.flatMap((one) => (one.status === "fulfilled" ? [one.value.number] : []));
    expect(new Set(numbers).size).toBe(1);
  }
});

test("a node of the version before leaves keys of this one alone, and goes on with its own", async () => {
  const openOld = async (session: string) => {
    const text = "select opening, closed from starling.open_session_3($1, true, null)";
    return (await admin.query<{ opening: number; closed: boolean }>(text, [session]))[0];
  };
  await open("key:new", { hash: "h1" });
  await expect(openOld("key:new")).rejects.toMatchObject({ code: "STORE", retryable: true });
  expect((await open("key:new", { hash: "h1" })).opening).toBe(2);
  expect(await openOld("key:old")).toEqual({ opening: 1, closed: false });
  expect(await open("key:old", { hash: "h1" })).toMatchObject({ opening: 2, number: 1 });
  expect(await openOld("name")).toEqual({ opening: 1, closed: false });
  expect(await openOld("name")).toEqual({ opening: 2, closed: false });
});

test("the step rewrites no table: rows from before are as old as the update, and say so by the column's first default", async () => {
  const text = `select attrelid::regclass || '.' || attname as name from pg_attribute
    where atthasmissing and attrelid in ('starling.channel'::regclass, 'starling.session'::regclass) order by 1`;
  const names = (await admin.query<{ name: string }>(text)).map(({ name }) => name);
  expect(names).toEqual(["channel.at", "session.opening", "session.used_at"]);
});

test("channels of keys and drawn sessions go a day later than those; names and outboxes stay", async () => {
  const fences = fencesOf(await store.acquire(nodeA, [shard1, shard2]));
  const progress = (channels: readonly (readonly [string, number])[]) =>
    fences.map(({ shard }) => ({
      ...{ shard, watermark: 0, delivered: 0, at: Date.now() },
      channels: channels.map(([channel, number]) => ({ channel, number })),
    }));
  const write = async (...channels: (readonly [string, number])[]) =>
    await store.flush(nodeA, flushOf(fences, { progress: progress(channels) as never }));
  await write(["c:key:old", 1], ["c:drawn:used", 1], ["c:name", 1], ["s:2", 1]);
  await pass(7.5);
  expect(await forget()).toEqual([0, 0]);
  // A repeat of what is known is no use; what is new is.
  await write(["c:key:old", 1], ["c:drawn:used", 2]);
  await pass(1);
  expect(await forget()).toEqual([0, 2]);
  const kept = async (channel: string) => await store.readChannel(shard1, channel);
  const names = ["c:key:old", "c:drawn:used", "c:name", "s:2"];
  expect(await Promise.all(names.map(kept))).toEqual([0, 2, 1, 1]);
});

test("the places of lanes are forgotten when none of them can have a flush on its way, and not before", async () => {
  const fences = fencesOf(await store.acquire(nodeA, [shard1]));
  const flush = (lane: number, number: number) => store.flush(nodeA, flushOf(fences, { order: { lane, number } }));
  await flush(1, 1);
  await flush(2, 1);
  await admin.script("update starling.flushed set at = at - interval '8 days'");
  await flush(2, 2);
  await admin.script("update starling.flushed set at = at - interval '6 days' where lane = 2");
  expect([await store.forgetPlaces(), await store.forgetPlaces()]).toEqual([1, 0]);
  expect(await admin.query("select lane, number::int as number from starling.flushed")).toEqual([
    { lane: 2, number: 2 },
  ]);
  // Who comes back after so long goes on where it was.
  expect(await flush(1, 2)).toEqual({ lost: [] });
});
