import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createOutput } from "../../node/cli/output.ts";
import { runCommandLine } from "../../node/cli/program.ts";
import { connect } from "../../proto/client.ts";
import { type Calls, openCalls } from "../../proto/client-calls.ts";
import { freePort } from "../support/cluster/free-port.ts";
import type { TestDatabases } from "../support/databases.ts";
import { type NodeProcess, startNodeProcess } from "../support/node-process.ts";
import { testDatabases } from "../support/postgres.ts";
import { repository } from "../support/repository.ts";
import { instantOf, openSnapshotRows, type SnapshotRows } from "../support/snapshot-rows.ts";
import { createSink, run } from "./cli/terminal.ts";

/** What people see of snapshots: the service and the command line, of a node that makes them. */
let dataDir = "";
let databases: TestDatabases;
let node: NodeProcess;
let calls: Calls;
let rows: SnapshotRows;

beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), "starling-faces-"));
  databases = await testDatabases();
  node = await startNodeProcess({
    configDir: join(repository, "test/support/links-config"),
    ...databases.settings,
    dataDir,
    flags: ["--listen", `127.0.0.1:${await freePort()}`, "--entity-shards", "8", "--system-shards", "1"],
  });
  calls = await openCalls({ address: node.address });
  rows = openSnapshotRows(databases.settings.databaseUrl); // with one system shard the first has the runs
}, 120_000);

afterAll(async () => {
  await calls?.close();
  await rows?.close();
  await node?.kill();
  await databases?.close();
  await rm(dataDir, { recursive: true });
});

async function starling(...args: string[]) {
  return await run(args, { env: { STARLING_ADDRESS: node.address } });
}

async function send(points: readonly object[]): Promise<void> {
  await using client = await connect({ address: node.address, level: "processed" });
  expect((await client.send(points as never)).rejections).toEqual([]);
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

describe("before the first run", () => {
  test("what is read says how to make one", async () => {
    const ran = await starling("snapshot", "list", "bus");
    expect(ran).toMatchObject({ code: 1, out: "" });
    expect(ran.err).toBe("starling: NOT_FOUND: no snapshot run has finished: `starling snapshot run` makes one\n");
    expect(await starling("snapshot", "runs")).toMatchObject({
      code: 0,
      err: expect.stringContaining("no run has begun"),
    });
  });
});

describe("a run", () => {
  test("is waited for, and then told by every question", async () => {
    const buses = Array.from({ length: 30 }, (_, i) => ({
      type: "bus",
      eid: `b${i}`,
      attr: "line",
      v: { eid: i % 3 },
    }));
    await send(buses);
    const ran = await starling("snapshot", "run", "--full", "--wait", "--json");
    expect(ran.code, ran.err).toBe(0);
    const { tick, status, kind, counts } = JSON.parse(ran.out);
    expect({ status, kind }).toEqual({ status: "finished", kind: "full" });
    expect(counts.entities).toBeGreaterThanOrEqual(30);
    const list = await calls.snapshots.list({ type: "bus", filter: { line: 1 }, sort: ["eid:-1"], limit: 4 });
    expect(list).toMatchObject({ tick, nextSkip: 4 });
    expect(list.snapshots.map(({ eid }) => eid)).toEqual(["b7", "b4", "b28", "b25"]);
    expect(list.snapshots[0]?.values).toMatchObject({ line: { eid: 1 } });
    expect((await calls.snapshots.count({ type: "bus", fulltext: { eid: "^B1" } })).count).toBe(11);
    const { values } = await calls.snapshots.distinct({ type: "bus", attr: "line" });
    expect(values).toEqual([0, 1, 2].map((value) => ({ value, count: 10 })));
    const told = await all(calls.snapshots.stream({ type: "bus" }));
    expect(new Set(told.map(({ eid }) => eid)).size).toBe(30);
    expect(told).toHaveLength(30);
  }, 60_000);

  test("that changes one entity is a history of two values, and the others' stay as they were", async () => {
    await send([{ type: "bus", eid: "b0", attr: "line", v: { eid: 99 } }]);
    const before = (await calls.snapshots.runs())[0];
    const ran = await starling("snapshot", "run", "--full", "--wait");
    expect(ran.out).toMatch(
      /^run \d+ at .+: [\d,]+ entities computed, [\d,]+ unchanged, [\d,]+ snapshots written in .+\n$/,
    );
    const { moments } = await calls.snapshots.history({ type: "bus", eid: "b0" });
    expect(moments.map(({ values }) => values.line)).toEqual([{ eid: 99 }, { eid: 0 }]);
    const text = (await starling("snapshot", "history", "bus", "b1")).out;
    expect(text.split("\n")[1]).toMatch(/the same$/);
    const then = await calls.snapshots.list({ type: "bus", tick: before?.tick ?? 0, filter: { eid: "b0" } });
    expect(then.snapshots[0]?.values.line).toEqual({ eid: 0 });
    const early = await starling("snapshot", "count", "bus", "--at", "2001-01-01");
    expect(early.err).toContain("no snapshot run at or before that time has finished");
  }, 60_000);

  test("goes on when Ctrl-C ends the waiting, and says so", async () => {
    const stop = new AbortController();
    const out = createSink(false);
    const err = createSink(true, () => stop.abort());
    const env = { STARLING_ADDRESS: node.address };
    const output = createOutput(out.stream, err.stream, env);
    const stdin = (async function* () {})();
    // The first line of progress is the moment of Ctrl-C; a run may be over before it.
    const code = await runCommandLine(["snapshot", "run", "--wait"], {
      ...{ output, env, stdin, signal: stop.signal, onReload: () => () => {} },
    });
    expect(code).toBe(0);
    expect(err.text() + out.text()).toMatch(/goes on without this command|snapshots written/);
  }, 60_000);
});

describe("what cannot be asked", () => {
  test.each([
    [
      ["list", "bus", "--filter", '{"line":{"$where":"1"}}'],
      "line.$where: $where is not among the operators here: $eq,",
    ],
    [
      ["list", "bus", "--filter", '{"lime":1}'],
      "lime: entity type bus has no attribute \"lime\": did you mean 'line'?",
    ],
    [["list", "bus", "--sort", "stops"], "sort stops: set<link<stop>> has no order"],
    [["count", "bus", "--filter", '{"eid":{"$regex":"("}}'], "PostgreSQL refuses it: invalid regular expression"],
    [
      ["list", "bus", "--fulltext", JSON.stringify({ eid: "x".repeat(201) })],
      "eid: a regular expression has at most 200",
    ],
  ])("%j is refused by place", async (args, message) => {
    const ran = await starling("snapshot", ...args);
    expect(ran).toMatchObject({ code: 1, out: "" });
    expect(ran.err).toContain(`starling: INVALID_FILTER: ${message}`);
    expect(ran.err).toContain("→");
  });

  test("a filter that is no JSON is wrong usage", async () => {
    const ran = await starling("snapshot", "list", "bus", "--filter", "line=1");
    expect(ran.code).toBe(2);
    expect(ran.err).toContain("it is not JSON");
  });
});

test("large snapshots come in several messages, and a whole run as a stream", async () => {
  const text = Array.from({ length: 60_000 }, (_, i) => i * 7919).join(" ");
  await rows.run(1_000, "finished");
  for (let i = 0; i < 40; i++) await rows.row("line", String(1_000 + i), { eid: 1_000 + i, text }, [1_000, null]);
  const filter = { eid: { $gte: 1_000 } };
  const first = await calls.snapshots.list({ type: "line", filter, limit: 40, tick: 1_000 });
  expect(first.snapshots.length).toBeGreaterThan(0);
  expect(first.nextSkip).toBe(first.snapshots.length);
  const ran = await starling("snapshot", "list", "line", "--filter", JSON.stringify(filter), "-n", "40", "--json");
  const { snapshots, at } = JSON.parse(ran.out);
  expect(snapshots).toHaveLength(40);
  expect(at).toBe(new Date(instantOf(1_000)).toISOString().replace(".000Z", "Z"));
  const told = await all(calls.snapshots.stream({ type: "line", tick: 1_000 }));
  expect(told.filter(({ eid }) => Number(eid) >= 1_000)).toHaveLength(40);
}, 60_000);
