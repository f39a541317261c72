import { afterEach, beforeEach, expect, test } from "vitest";
import { type Connection, createConnection } from "../../../actors/store/connection.ts";
import { openPostgresStore, type PostgresStore } from "../../../actors/store/postgres-store.ts";
import { channelLifeMs } from "../../../actors/store/session-life.ts";
import { toSessionId } from "../../../proto/ids.ts";
import { testDatabase } from "../../support/postgres.ts";
import type { TestDatabase } from "../../support/postgres-server.ts";
import { fencesOf, flushOf, nodeA, shard1, shard2 } from "./samples.ts";

/* How long sessions and channels are known: on PostgreSQL, with days that have passed by its tables. */

const day = 86_400_000;
const life = 7 * day;
let database: TestDatabase;
let store: PostgresStore;
let admin: Connection;

beforeEach(async () => {
  database = await testDatabase();
  const shards = { entity: 4, system: 1 };
  store = await openPostgresStore({ url: database.url, lanes: 1, shards, sessionLifeMs: life });
  const limits = { statementTimeoutMs: 30_000, connectTimeoutMs: 10_000 };
  admin = createConnection({ url: database.url, application: "test", ...limits });
});

afterEach(async () => {
  await admin.close();
  await store.close();
  await database.close();
});

function open(session: string, { hash, begins = true }: { readonly hash?: string; readonly begins?: boolean } = {}) {
  const named = !session.startsWith("drawn");
  return store.openSession(toSessionId(session), { named, holder: null, begins, ...(hash !== undefined && { hash }) });
}

/** Days go by. */
async function pass(days: number): Promise<void> {
  const back = `- make_interval(hours => ${24 * days})`;
  await admin.script(`update starling.session set opened_at = opened_at ${back}, used_at = used_at ${back};
    update starling.channel set at = at ${back}`);
}

const forget = async () => [await store.forgetSessions(Date.now() - life), await forgetChannels()];
const forgetChannels = () => store.forgetChannels(Date.now() - channelLifeMs(life));
const sessions = async () => {
  const text = "select session, closed from starling.session order by session";
  const rows = await admin.query<{ session: string; closed: boolean }>(text);
  return rows.map(({ session, closed }) => `${session}${closed ? " closed" : ""}`);
};

test.each(["swept", "not swept"])("an idempotency key begins anew when its life is over: %s", async (how) => {
  const first = await open("key:k", { hash: "h1" });
  await pass(6);
  await expect(open("key:k", { hash: "h2" })).rejects.toMatchObject({ code: "BATCH_CHANGED" });
  await open("key:k", { hash: "h1" });
  await pass(6);
  const again = await open("key:k", { hash: "h1" });
  expect(again.opening).toBe(3);
  await pass(8);
  if (how === "swept") expect(await forget()).toEqual([1, 0]);
  const anew = await open("key:k", { hash: "h2" });
  expect(anew.opening).toBe(1);
  // What its channels still know of the life before lies below.
  expect(anew.number).toBeGreaterThan(again.number);
  expect(Math.abs(anew.number - first.number)).toBeLessThan(60);
});

test.each(["swept", "not swept"])("a name is closed for ever when its life is over: %s", async (how) => {
  await open("n");
  await pass(8);
  if (how === "swept") expect(await forget()).toEqual([1, 0]);
  expect((await open("n")).closed).toBe(true);
  await pass(8);
  expect(await forget()).toEqual([0, 0]);
  expect((await open("n")).closed).toBe(true);
});

test.each(["swept", "not swept"])("a session whose life is over cannot be resumed: %s", async (how) => {
  await open("drawn-1");
  await pass(8);
  if (how === "swept") {
    expect(await forget()).toEqual([1, 0]);
    await expect(open("drawn-1", { begins: false })).rejects.toMatchObject({ code: "SESSION_CLOSED" });
  } else expect((await open("drawn-1", { begins: false })).closed).toBe(true);
});

test("a session that is in use is kept, and of closed ones nothing but names", async () => {
  await open("drawn-used");
  await open("drawn-closed");
  await open("closed");
  await store.closeSession(toSessionId("drawn-closed"));
  await store.closeSession(toSessionId("closed"));
  await pass(8);
  await store.useSession(toSessionId("drawn-used"));
  expect(await forget()).toEqual([1, 0]);
  expect(await sessions()).toEqual(["closed closed", "drawn-used"]);
});

test("channels of clients go a day after the sessions that could have used them; outboxes stay", async () => {
  const fences = fencesOf(await store.acquire(nodeA, [shard1, shard2]));
  const progress = (channels: readonly (readonly [string, number])[]) =>
    fences.map(({ shard }) => ({
      ...{ shard, watermark: 0, delivered: 0, at: Date.now() },
      channels: channels.map(([channel, number]) => ({ channel, number })),
    }));
  const write = async (...channels: (readonly [string, number])[]) =>
    await store.flush(nodeA, flushOf(fences, { progress: progress(channels) as never }));
  await write(["c:old", 1], ["c:used", 1], ["s:2", 1]);
  await pass(7.5);
  expect(await forget()).toEqual([0, 0]);
  // A repeat of what is known is no use; what is new is.
  await write(["c:old", 1], ["c:used", 2]);
  await pass(1);
  expect(await forget()).toEqual([0, 2]);
  const kept = async (channel: string) => await store.readChannel(shard1, channel);
  expect([await kept("c:old"), await kept("c:used"), await kept("s:2")]).toEqual([0, 2, 1]);
});
