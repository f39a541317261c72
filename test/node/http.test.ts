import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createLog } from "../../node/log.ts";
import { type Node, startNode } from "../../node/node.ts";
import { planHttpPort } from "../../node/open-http.ts";
import { type Client, connect } from "../../proto/client.ts";
import { openDatabases } from "../support/databases.ts";
import { type ReadSample, readExposition } from "../support/exposition.ts";
import { watchHealth } from "../support/health-watch.ts";
import { startTestPostgres, type TestPostgres } from "../support/postgres-server.ts";
import { complaintsOfPromtool } from "../support/promtool.ts";
import { repository } from "../support/repository.ts";

/** What a real node tells of itself over HTTP. */
const dataDir = mkdtempSync(join(tmpdir(), "starling-http-"));
const messages: string[] = [];
const said = (message: string): number => messages.filter((one) => one === message).length;
let postgres: TestPostgres;
let node: Node;
let client: Client;

beforeAll(async () => {
  postgres = await startTestPostgres();
  const { settings } = await openDatabases(postgres.createDatabase);
  node = await startNode({
    configDir: join(repository, "test/support/node-config"),
    env: {},
    flags: { dataDir, ...settings, listen: "127.0.0.1:0" },
    log: createLog({ destination: { write: (line: string) => void messages.push(JSON.parse(line).msg) } }),
  });
  client = await connect({ address: node.address, level: "processed" });
}, 60_000);

afterAll(async () => {
  await client?.close();
  await node?.close();
  await postgres?.close();
  rmSync(dataDir, { recursive: true, force: true });
});

async function ask(path: string): Promise<{ status: number; body: string }> {
  const response = await fetch(`http://${node.httpAddress}${path}`);
  return { status: response.status, body: await response.text() };
}

async function samples(): Promise<readonly ReadSample[]> {
  return readExposition((await ask("/metrics")).body).flatMap((metric) => metric.samples);
}

async function value(name: string, labels: Record<string, string> = {}): Promise<number | undefined> {
  const all = await samples();
  return all.find((one) => one.name === name && Object.entries(labels).every(([k, v]) => one.labels[k] === v))?.value;
}

test("the metrics of a node that works are what it was sent, and what became of that", async () => {
  const level = (eid: string, v: unknown, t1: number) => ({ type: "device", eid, attr: "level", v, t1 });
  const good = Array.from({ length: 40 }, (_, index) => level(`d${index}`, index, 1000));
  await client.send([...good, level("d1", "no number", 2000), level("refused", 1, 1000)]);
  await client.send([{ type: "device", eid: "d2", attr: "label", v: "throw" }]);
  await expect.poll(() => value("starling_entities_created_total"), { timeout: 30_000 }).toBe(43);
  await expect.poll(() => value("starling_lag_entries"), { timeout: 30_000 }).toBe(0);
  expect(await value("starling_datapoints_total", { result: "accepted" })).toBe(42);
  expect(await value("starling_datapoints_total", { result: "INVALID_VALUE" })).toBe(1);
  expect(await value("starling_creations_refused_total")).toBe(1);
  const hook = { module: "derive", hook: "derive", kind: "on_new_attr", target: "device.level" };
  expect(await value("starling_hook_runs_total", hook)).toBe(40);
  expect(await value("starling_hook_tasks_total", hook)).toBe(80);
  expect(await value("starling_hook_seconds_count", hook)).toBeGreaterThanOrEqual(16);
  expect(await value("starling_ack_seconds_count", { level: "durable" })).toBe(2);
  expect(await value("starling_ack_seconds_count", { level: "processed" })).toBe(2);
  for (const histogram of ["append", "flush", "load"]) {
    expect(await value(`starling_${histogram}_seconds_count`), histogram).toBeGreaterThan(0);
  }
  expect(await value("starling_shards", { group: "entity" })).toBe(256);
  expect(await value("starling_shards_acquired_total")).toBe(272);
  expect(await value("starling_queue_bound_bytes", { queue: "shard" })).toBe(64 * 1024 * 1024);
  expect(await value("starling_nodes", { state: "serving" })).toBe(1);
  expect(await value("starling_serving")).toBe(1);
  expect(await value("starling_info", { cluster: (await client.admin.status()).clusterId })).toBe(1);
  expect(complaintsOfPromtool((await ask("/metrics")).body)).toBe("");
});

test("a node without its PostgreSQL is alive and not ready, says so once and why, counts it, and comes back", async () => {
  expect(await ask("/healthz")).toEqual({ status: 200, body: "alive\n" });
  await expect.poll(() => ask("/readyz"), { timeout: 30_000 }).toEqual({ status: 200, body: "ready\n" });
  const health = watchHealth(node.address);
  await expect.poll(() => health.seen, { timeout: 30_000 }).toEqual(["serving"]);
  process.kill(postgres.pid, "SIGQUIT");
  const patient = client.send([{ type: "device", eid: "patient", attr: "level", v: 1, t1: 1000 }]);
  const gone = { status: 503, body: expect.stringMatching(/^not ready: (STORE|UNAVAILABLE|DEADLINE): ./) };
  await expect.poll(() => ask("/readyz"), { timeout: 30_000 }).toEqual(gone);
  expect((await ask("/healthz")).status).toBe(200);
  const failures = async () => (await samples()).filter(({ name }) => name === "starling_database_errors_total");
  await expect.poll(failures, { timeout: 30_000 }).not.toEqual([]);
  await expect.poll(() => health.seen, { timeout: 30_000 }).toEqual(["serving", "not serving"]);
  await expect
    .poll(() => said("postgresql does not answer this node: it is given no shards"), { timeout: 30_000 })
    .toBe(1);
  postgres = await postgres.restart();
  await expect.poll(() => ask("/readyz"), { timeout: 30_000 }).toEqual({ status: 200, body: "ready\n" });
  await expect.poll(() => health.seen, { timeout: 30_000 }).toEqual(["serving", "not serving", "serving"]);
  expect((await patient).accepted).toBe(1);
  expect([said("not serving"), said("serving again")]).toEqual([1, 1]);
  await health.close();
}, 120_000);

test("the port is gRPC's plus 80, or a free one beside a free one", () => {
  expect(planHttpPort(4700)).toBe(4780);
  expect(planHttpPort(0)).toBe(0);
  expect(planHttpPort(65_500)).toBe(0);
});

test("open dead letters are told as long as they are open", async () => {
  await client.send([{ type: "device", eid: "alone", attr: "label", v: "throw" }]);
  const open = async () => (await client.admin.deadLetters({ status: "open" })).letters;
  await expect.poll(async () => (await open()).length, { timeout: 40_000 }).toBeGreaterThan(0);
  const letters = await open();
  await expect.poll(() => value("starling_dead_letters"), { timeout: 40_000 }).toBe(letters.length);
  for (const { id } of letters) await client.admin.discard(id);
  await expect.poll(() => value("starling_dead_letters"), { timeout: 40_000 }).toBe(0);
}, 90_000);
