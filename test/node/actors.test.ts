import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createLog } from "../../node/log.ts";
import { type Node, startNode } from "../../node/node.ts";
import { connect } from "../../proto/client.ts";
import { type Calls, openCalls } from "../../proto/client-calls.ts";
import type { TestDatabases } from "../support/databases.ts";
import { testDatabases } from "../support/postgres.ts";
import { repository } from "../support/repository.ts";
import { run } from "./cli/terminal.ts";

/** A module with a behaviour, a singleton and schedules, on one node with a real PostgreSQL, over restarts. */
const dataDir = mkdtempSync(join(tmpdir(), "starling-actors-"));
let databases: TestDatabases;
let node: Node;
let calls: Calls;

async function start(): Promise<void> {
  node = await startNode({
    configDir: join(repository, "test/support/actors-config"),
    env: {},
    flags: { dataDir, ...databases.settings, listen: "127.0.0.1:0", logLevel: "error" },
    log: createLog({ level: "error" }),
  });
  calls = await openCalls({ address: node.address });
}

async function stop(): Promise<void> {
  await calls.close();
  await node.close();
}

beforeAll(async () => {
  databases = await testDatabases();
  await start();
});

afterAll(async () => {
  await stop();
  await databases.close();
  rmSync(dataDir, { recursive: true, force: true });
});

const counter = (key: string) => ({ behaviour: "counter", key });
const board = { singleton: "board" };

test("a behaviour answers what it was asked, one message after another, and tells the singleton", async () => {
  expect(await calls.actors.ask(counter("alice"), { add: 2 })).toEqual({ total: 2 });
  const asked = Array.from({ length: 20 }, () => calls.actors.ask(counter("alice"), { add: 1 }));
  const totals = (await Promise.all(asked)).map((reply) => (reply as { total: number }).total);
  expect(totals.sort((a, b) => a - b)).toEqual(Array.from({ length: 20 }, (_, i) => i + 3));
  await expect.poll(() => calls.actors.ask(board, null)).toMatchObject({ alice: 22 });
});

test("a message under an idempotency key counts once, and its reply stays the first one", async () => {
  const key = { idempotencyKey: "order 1" };
  for (let i = 0; i < 3; i++) expect(await calls.actors.ask(counter("bob"), { add: 5 }, key)).toEqual({ total: 5 });
  await expect(calls.actors.ask(counter("bob"), { add: 6 }, key)).rejects.toMatchObject({ code: "BATCH_CHANGED" });
  expect(await calls.actors.send(counter("bob"), { add: 1 })).toMatchObject({ epoch: expect.any(Number) });
  expect(await calls.actors.ask(counter("bob"), { add: 0 })).toEqual({ total: 6 });
});

test("a message that fails for good is an error for who asked, a dead letter, and changes nothing", async () => {
  const failed = calls.actors.ask(counter("carol"), { add: 1, fail: true });
  await expect(failed).rejects.toMatchObject({ code: "HOOK_FAILED", message: expect.stringContaining("told to fail") });
  expect(await calls.actors.ask(counter("carol"), { add: 1 })).toEqual({ total: 1 });
  const letters = async () => (await calls.admin.deadLetters()).letters.filter(({ type }) => type === "@counter");
  await expect.poll(async () => (await letters()).length).toBe(1);
  const [letter] = await letters();
  expect((await calls.admin.replay(letter?.id ?? "")).status).toBe("replayed");
  await expect.poll(async () => (await letters()).filter(({ status }) => status === "open").length).toBe(1);
  expect(await calls.actors.ask(counter("carol"), { add: 1 })).toEqual({ total: 2 });
});

test("who asks waits no longer than it said; the message counts all the same, once", async () => {
  const key = { idempotencyKey: "slow" };
  const add = { add: 1, tookMs: 1_500 };
  const beganMs = performance.now();
  const asked = calls.actors.ask(counter("erin"), add, { ...key, deadlineMs: 300 });
  await expect(asked).rejects.toMatchObject({ code: "DEADLINE" });
  expect(performance.now() - beganMs).toBeLessThan(1_300);
  expect(await calls.actors.ask(counter("erin"), add, key)).toEqual({ total: 1 });
  expect(await calls.actors.ask(counter("erin"), { add: 0 })).toEqual({ total: 1 });
});

test("an entity is asked for its values and sent datapoints, and hooks send messages on", async () => {
  const page = { type: "page", eid: "home" };
  expect(await calls.actors.ask(page, null)).toBe(null);
  await calls.actors.send(page, { datapoints: [{ attr: "visit", v: 3, t1: 1000 }] });
  await using client = await connect({ address: node.address, level: "processed" });
  await client.send([{ ...page, attr: "visit", v: 4, t1: 2000 }]);
  expect(await calls.actors.ask(page, null)).toEqual({ visit: 4 });
  await expect.poll(() => calls.actors.ask(counter("home"), { add: 0 })).toEqual({ total: 7 });
});

test("wrong addresses and messages are refused with the reason", async () => {
  const code = async (to: Parameters<Calls["actors"]["ask"]>[0], message: unknown = {}) =>
    calls.actors.ask(to, message).then(String, (error) => error.code);
  expect(await code({ behaviour: "countre", key: "a" })).toBe("NOT_FOUND");
  expect(await code({ behaviour: "board", key: "a" })).toBe("NOT_FOUND");
  expect(await code({ singleton: "counter" })).toBe("NOT_FOUND");
  expect(await code({ type: "@counter", eid: "alice" })).toBe("UNKNOWN_TYPE");
  expect(await code(counter("x".repeat(2000)))).toBe("TOO_LARGE");
  expect(await code(counter("a"), "x".repeat(2 ** 21))).toBe("TOO_LARGE");
  await using client = await connect({ address: node.address });
  const { rejections } = await client.send([{ type: "@counter", eid: "alice", attr: "state", v: 1 }]);
  expect(rejections).toMatchObject([{ code: "UNKNOWN_TYPE" }]);
});

test("the command line asks and sends", async () => {
  const env = { STARLING_ADDRESS: node.address };
  const asked = await run(["actor", "ask", "counter", "dave", '{"add":3}', "--json"], { env });
  expect([asked.code, JSON.parse(asked.out)]).toEqual([0, { total: 3 }]);
  const sent = await run(["actor", "send", "counter", "dave", '{"add":4}', "--key", "k"], { env });
  expect(sent).toMatchObject({ code: 0, out: expect.stringMatching(/^accepted: shard \d+, seq \d+\n$/) });
  await expect.poll(async () => (await run(["actor", "ask", "board", "null"], { env })).out).toContain('"dave": 7');
  const wrong = await run(["actor", "ask", "counter", "dave", "{add:1}"], { env });
  expect(wrong).toMatchObject({ code: 1, err: expect.stringContaining("the message is not JSON") });
});

test("states and schedules go on after a restart: no deadline of the cluster's is left out or run twice", async () => {
  const deadlines = async () => {
    const record = await calls.entities.get({ type: "page", eid: "digest", historyLimit: 1000 });
    const all = (record.history.digest ?? []).map(({ v }) => Number(v)).sort((a, b) => a - b);
    expect(record.attributes.digest?.n).toBe(all.length);
    return all;
  };
  await expect.poll(async () => (await deadlines()).length, { timeout: 10_000 }).toBeGreaterThan(2);
  await stop();
  // A downtime of some deadlines.
  await setTimeout(2500);
  await start();
  expect(await calls.actors.ask(counter("alice"), { add: 0 })).toEqual({ total: 22 });
  const before = Date.now();
  await expect.poll(async () => (await deadlines()).at(-1) ?? 0, { timeout: 10_000 }).toBeGreaterThan(before);
  const all = await deadlines();
  expect(all.length).toBeGreaterThan(5);
  const [first = 0] = all;
  expect(all).toEqual(all.map((_, i) => first + 1000 * i));
  const beats = (await calls.actors.ask(counter("beat"), { add: 0 })) as { total: number };
  expect(beats.total).toBeGreaterThan(2);
  // What modules keep for themselves does not count as entities.
  expect(Object.keys((await calls.entities.count()).counts)).toEqual(["page"]);
});
