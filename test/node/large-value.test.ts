import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Connection } from "../../actors/store/connection.ts";
import { createLog } from "../../node/log.ts";
import { type Node, startNode } from "../../node/node.ts";
import { type Client, connect } from "../../proto/client.ts";
import { connectAll, type TestDatabases } from "../support/databases.ts";
import { testDatabases } from "../support/postgres.ts";
import { repository } from "../support/repository.ts";

/** A real node and an entity that has one large value among small ones. */
const dataDir = mkdtempSync(join(tmpdir(), "starling-large-"));
const bytes = 900 * 1024;
const text = '\u001d\u001e\u001f\\"'.padEnd(bytes, "large ");
let databases: TestDatabases;
let admin: Connection;
let node: Node;
let client: Client;

beforeEach(async () => {
  databases = await testDatabases();
  const limits = { statementTimeoutMs: 30_000, connectTimeoutMs: 5_000 };
  admin = connectAll(databases.urls, { application: "test", ...limits });
  await start();
});

afterEach(async () => {
  await stop();
  await admin.close();
  await databases.close();
  rmSync(dataDir, { recursive: true, force: true });
});

async function start(): Promise<void> {
  node = await startNode({
    configDir: join(repository, "test/support/node-config"),
    env: {},
    flags: { dataDir, ...databases.settings, listen: "127.0.0.1:0", logLevel: "error" },
    log: createLog({ level: "error" }),
  });
  client = await connect({ address: node.address, level: "processed" });
}

async function stop(): Promise<void> {
  await client.close();
  await node.close();
}

const label = (v: string) => ({ type: "device", eid: "a", attr: "label", v });
const level = (v: number) => ({ type: "device", eid: "a", attr: "level", v, t1: 1000 + v });

async function walBytes(): Promise<number> {
  const [row] = await admin.query<{ at: number }>("select (pg_current_wal_lsn() - '0/0')::float8 as at");
  return row?.at ?? 0;
}

async function rowOf(): Promise<{ length: number; version: string } | undefined> {
  const text = "select length(body) as length, xmin::text as version from starling.large_value where eid = 'a'";
  return (await admin.query<{ length: number; version: string }>(text))[0];
}

test("small changes of an entity do not rewrite its large value, and both are there after a restart", async () => {
  await client.send([label(text)]);
  const stored = await rowOf();
  expect(stored?.length).toBe(JSON.stringify(text).length);
  const before = await walBytes();
  // Each is processed, so flushed, before the next is sent.
  for (let v = 1; v <= 100; v++) await client.send([level(v)]);
  // Written a hundred times it would be a hundred times its size; a checkpoint in between costs images of some pages.
  expect((await walBytes()) - before).toBeLessThan(2 * bytes);
  expect(await rowOf()).toEqual(stored);
  await stop();
  await start();
  const wanted = { label: { v: text, n: 1 }, level: { v: 100, n: 100 } };
  expect((await client.entities.get({ type: "device", eid: "a" })).attributes).toMatchObject(wanted);
  const { records } = await client.entities.list({ type: "device" });
  expect(records.find(({ eid }) => eid === "a")?.attributes).toMatchObject(wanted);
  // What was loaded is not written again either.
  await client.send([level(101)]);
  expect(await rowOf()).toEqual(stored);
});

test("a large value that is sent once more is not rewritten, a small one takes its row away", async () => {
  await client.send([label(text)]);
  const stored = await rowOf();
  await client.send([label(text)]);
  expect(await rowOf()).toEqual(stored);
  await client.send([label("small")]);
  expect(await rowOf()).toBeUndefined();
  await client.send([label(text)]);
  await client.entities.delete({ type: "device", eid: "a" });
  await expect.poll(rowOf).toBeUndefined();
  await client.send([level(1)]);
  await stop();
  await start();
  const { attributes } = await client.entities.get({ type: "device", eid: "a" });
  expect(attributes.label).toBeUndefined();
  expect(attributes.level?.v).toBe(1);
});
