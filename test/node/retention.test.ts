import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Connection, createConnection } from "../../actors/store/connection.ts";
import { type Client, connect } from "../../proto/client.ts";
import { type NodeProcess, startNodeProcess } from "../support/node-process.ts";
import { testDatabase } from "../support/postgres.ts";
import type { TestDatabase } from "../support/postgres-server.ts";
import { repository } from "../support/repository.ts";

/**
 * The days of a log whose raw datapoints are kept for one day (R8), over the lives of nodes whose calendars run ahead. Each
 * keeps house when it starts: that an empty day has gone says that it has looked at the others too.
 */
const dayMs = 86_400_000;
const noon = Math.floor(Date.now() / dayMs) * dayMs + dayMs / 2;
let dataDir: string;
let database: TestDatabase;
let admin: Connection;
let node: NodeProcess | null = null;

beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), "starling-retention-"));
  database = await testDatabase();
  const settings = { statementTimeoutMs: 30_000, connectTimeoutMs: 10_000 };
  admin = createConnection({ url: database.url, application: "test", ...settings });
});

afterAll(async () => {
  await node?.kill();
  await admin.close();
  await database.close();
  await rm(dataDir, { recursive: true, force: true });
});

/** Starts a node at noon of a day, counted from the first one's. */
async function start(day: number, obligationAfterMs: number): Promise<Client> {
  const preload = pathToFileURL(join(repository, "dist/test/bench/shifted-clock.js")).href;
  node = await startNodeProcess({
    ...{ configDir: join(repository, "test/support/retention-config"), dataDir, databaseUrl: database.url },
    flags: [
      ...["--entity-shards", "4", "--system-shards", "1", "--retention-days", "1"],
      ...["--obligation-after-ms", String(obligationAfterMs)],
    ],
    env: {
      NODE_OPTIONS: `${process.env.NODE_OPTIONS ?? ""} --import ${preload}`,
      BENCH_SHIFT_MS: String(noon + day * dayMs - Date.now()),
      GATE_FILE: join(dataDir, "gate"),
    },
  });
  return await connect({ address: node.address, level: "durable" });
}

async function stop(client: Client): Promise<void> {
  await client.close();
  expect(await node?.stop()).toBe(0);
  node = null;
}

const level = (eid: string, v: number) => ({ type: "device", eid, attr: "level", v, t1: v });

/** The days that the log still has. */
async function days(): Promise<number[]> {
  const rows = await admin.query<{ name: string }>(
    "select relname::text as name from pg_class where relname ~ '^log_[0-9]{8}$' order by 1",
  );
  const at = (text: string) => Date.parse(`${text.slice(4, 8)}-${text.slice(8, 10)}-${text.slice(10, 12)}T12:00:00Z`);
  return rows.map(({ name }) => (at(name) - noon) / dayMs);
}

async function count(text: string): Promise<number> {
  return (await admin.query<{ n: number }>(`select count(*)::int as n from ${text}`))[0]?.n ?? 0;
}

async function rawOf(client: Client, eid: string): Promise<unknown[]> {
  const found: unknown[] = [];
  for await (const { v } of client.entities.raw({ type: "device", eid, attr: "level" })) found.push(v);
  return found;
}

async function echoes(client: Client, eid: string): Promise<number | undefined> {
  return (await client.entities.get({ type: "device", eid })).attributes.echo?.n;
}

const never = 86_000_000;
const soon = 100;
const patience = { timeout: 20_000 };

test("a day of the log goes when watermark and obligations have passed it, and nothing else goes with it", async () => {
  let client = await start(0, never);
  await client.send([level("a", 7), level("a", 9)]);
  await client.send([level("slow", 1)]);
  await client.send([level("slow", 2)]);
  await expect.poll(() => echoes(client, "a"), patience).toBe(2);
  expect(await days()).toEqual([0, 1, 2]);
  await stop(client);

  // The hook of `slow` holds the watermark of its shard.
  client = await start(3, never);
  await expect.poll(days, patience).toEqual([0, 2, 3, 4, 5]);
  expect(await rawOf(client, "a")).toEqual([9, 7]);
  await stop(client);

  // The watermark passes, since the hook is an obligation, and so is the task behind it, which stands in the log only.
  client = await start(3, soon);
  await expect.poll(() => count("starling.obligation where first_waiting is not null"), patience).toBe(1);
  const behind =
    "starling.log l join starling.progress p using (shard) where l.last_seq > least(p.watermark, p.delivered)";
  await expect.poll(() => count(behind), patience).toBe(0);
  await stop(client);
  client = await start(4, soon);
  await expect.poll(days, patience).toEqual([0, 3, 4, 5, 6]);
  expect(await rawOf(client, "slow")).toEqual([2, 1]);
  await writeFile(join(dataDir, "gate"), "");
  await expect.poll(() => echoes(client, "slow"), patience).toBe(2);
  await expect.poll(() => count("starling.obligation"), patience).toBe(0);
  await stop(client);

  client = await start(5, soon);
  await expect.poll(days, patience).toEqual([4, 5, 6, 7]);
  for (const eid of ["a", "slow"]) expect(await rawOf(client, eid)).toEqual([]);
  const { attributes, history } = await client.entities.get({ type: "device", eid: "a", historyLimit: 10 });
  expect(attributes).toMatchObject({ level: { v: 9, n: 2 }, echo: { n: 2 } });
  expect(history.level?.map(({ v }) => v).sort()).toEqual([7, 9]);
  expect((await client.entities.get({ type: "device", eid: "slow" })).attributes.level).toMatchObject({ v: 2, n: 2 });

  // What a node that dies has only logged, the next one processes, on a log that begins in the middle.
  await client.send([level("a", 11)]);
  await node?.kill();
  await client.close().catch(() => undefined); // it has nobody to say goodbye to
  client = await start(5, soon);
  await expect.poll(() => echoes(client, "a"), patience).toBe(3);
  expect(await rawOf(client, "a")).toEqual([11]);
  const later = await client.entities.get({ type: "device", eid: "a", historyLimit: 10 });
  expect(later.attributes.level).toMatchObject({ v: 11, n: 3 });
  expect(later.history.level?.map(({ v }) => v).sort()).toEqual([11, 7, 9]);
  await stop(client);
}, 120_000);
