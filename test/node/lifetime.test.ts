import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { connect } from "../../proto/client.ts";
import type { TestDatabases } from "../support/databases.ts";
import { type NodeProcess, startNodeProcess } from "../support/node-process.ts";
import { testDatabases } from "../support/postgres.ts";
import { repository } from "../support/repository.ts";

/** The collector of a node on a real PostgreSQL, as often as it can. */
let dataDir = "";
let databases: TestDatabases;
let node: NodeProcess;

beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), "starling-lifetime-"));
  databases = await testDatabases();
  node = await startNodeProcess({
    configDir: join(repository, "test/support/lifetime-config"),
    ...databases.settings,
    dataDir,
    flags: ["--entity-shards", "8", "--system-shards", "1"],
  });
}, 120_000);

afterAll(async () => {
  await node.kill();
  await databases.close();
  await rm(dataDir, { recursive: true });
});

test("an entity is deleted when its time is over, and those that link to it forget it", async () => {
  await using client = await connect({ address: node.address, level: "processed" });
  const { entities } = client;
  await client.send([
    { type: "ip", eid: "short", attr: "name", v: "x" },
    { type: "ip", eid: "long", attr: "seen", v: 1 },
    { type: "host", eid: "h", attr: "address", v: { eid: "short" } },
  ]);
  const within = { timeout: 30_000, interval: 100 };
  const codeOf = (eid: string) =>
    entities.get({ type: "ip", eid }).then(
      () => "there",
      (error: { code: string }) => error.code,
    );
  await expect.poll(() => codeOf("short"), within).toBe("NOT_FOUND");
  await expect.poll(async () => (await entities.get({ type: "host", eid: "h" })).attributes, within).toEqual({});
  expect(await codeOf("long")).toBe("there");
}, 90_000);

test("a weak entity is deleted when the last link to it is gone, and those that are linked to stay", async () => {
  await using client = await connect({ address: node.address, level: "processed" });
  const { entities } = client;
  const name = (eid: string) => ({ type: "net", eid, attr: "name", v: eid });
  await client.send([
    ...["left", "kept", "never"].map(name),
    { type: "host", eid: "a", attr: "net", v: { eid: "left" } },
    { type: "host", eid: "b", attr: "net", v: { eid: "kept" } },
  ]);
  const there = async () => (await entities.list({ type: "net" })).records.map(({ eid }) => eid);
  const within = { timeout: 60_000, interval: 100 };
  await expect.poll(there, within).toEqual(["kept", "left"]);
  await client.send([{ type: "host", eid: "a", attr: "net", v: { eid: "kept" } }]);
  await expect.poll(there, within).toEqual(["kept"]);
  await client.send([name("left"), { type: "host", eid: "a", attr: "net", v: { eid: "left" } }]);
  await entities.delete({ type: "host", eid: "b" });
  await expect.poll(there, within).toEqual(["left"]);
}, 180_000);
