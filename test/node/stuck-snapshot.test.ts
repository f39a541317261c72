import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Client, connect } from "../../proto/client.ts";
import { type NodeProcess, startNodeProcess } from "../support/node-process.ts";
import { testDatabase } from "../support/postgres.ts";
import type { TestDatabase } from "../support/postgres-server.ts";
import { repository } from "../support/repository.ts";

let dataDir: string;
let database: TestDatabase;
let node: NodeProcess | null = null;

beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), "starling-stuck-"));
  database = await testDatabase();
}, 120_000);

afterAll(async () => {
  await node?.kill();
  await database.close();
  await rm(dataDir, { recursive: true });
});

async function start(): Promise<NodeProcess> {
  node = await startNodeProcess({
    configDir: join(repository, "test/support/stuck-config"),
    databaseUrl: database.url,
    dataDir,
    flags: ["--entity-shards", "4", "--system-shards", "1"],
  });
  return node;
}

const newest = async ({ snapshots }: Client) => (await snapshots.runs({ limit: 1 }))[0];

test("a snapshot hook that never yields ends its node once; then the run goes on without it, and counts it", async () => {
  const first = await start();
  const eids = ["a", "b", "c", "d", "endless"];
  {
    await using client = await connect({ address: first.address, level: "processed" });
    await client.send(eids.map((eid) => ({ type: "thing", eid, attr: "n", v: 1 })));
    await client.snapshots.run();
  }
  expect(await first.ended).toBe(70);
  expect(first.log.find((line) => line.includes("did not yield"))).toContain("module stuck, hook stuck/correlation");
  const second = await start();
  await using client = await connect({ address: second.address });
  await expect.poll(async () => (await newest(client))?.status, { timeout: 60_000, interval: 100 }).toBe("finished");
  const line = JSON.parse(await second.logged((text) => text.includes("a snapshot hook did not yield"))) as object;
  expect(line).toMatchObject({ type: "thing", eid: "endless", hook: expect.stringContaining("spin") });
  const run = await newest(client);
  const report = Object.entries(run?.hooks ?? {}).find(([hook]) => hook.includes("spin"))?.[1];
  expect(report?.failures).toBeGreaterThanOrEqual(1);
  expect(JSON.stringify(report?.problems)).toContain("thing endless");
  const { snapshots } = await client.snapshots.list({ type: "thing" });
  expect(snapshots).toMatchObject(eids.map((eid) => ({ eid, values: { before: 2, after: 2 } })));
}, 180_000);
