import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Connection } from "../../actors/store/connection.ts";
import { type Client, connect } from "../../proto/client.ts";
import { connectAll, type TestDatabases } from "../support/databases.ts";
import { type NodeProcess, startNodeProcess } from "../support/node-process.ts";
import { testDatabases } from "../support/postgres.ts";
import { repository } from "../support/repository.ts";
import { run } from "./cli/terminal.ts";

/*
 * Records at any time, asked of a real node. The model of test/support/history-config: `level` has pre-validity 1 m and
 * post-validity 2 m; `ports` many values; `recent` keeps a day, `few` two items, `held` expires 1 h after its end.
 */
const minuteMs = 60_000;
const start = Date.parse("2026-01-01T00:00:00Z");
let dataDir: string;
let databases: TestDatabases;
let node: NodeProcess;
let client: Client;
let admin: Connection;

beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), "starling-at-"));
  databases = await testDatabases();
  node = await startNodeProcess({
    configDir: join(repository, "test/support/history-config"),
    dataDir,
    ...databases.settings,
    flags: ["--entity-shards", "4", "--system-shards", "1", "--lanes", "1"],
  });
  const settings = { statementTimeoutMs: 30_000, connectTimeoutMs: 10_000 };
  admin = connectAll(databases.urls, { application: "test", ...settings });
  client = await connect({ address: node.address, level: "processed" });
});

afterAll(async () => {
  await client?.close();
  await node?.kill();
  await admin?.close();
  await databases?.close();
  await rm(dataDir, { recursive: true, force: true });
});

/** An observation from minute `from` to minute `until`. */
const seen = (eid: string, attr: string, v: unknown, from: number, until: number, c = 1) => ({
  ...{ type: "device", eid, attr, v, c },
  ...{ t1: start + from * minuteMs, t2: start + until * minuteMs },
});

async function at(eid: string, minute: number) {
  const record = await client.entities.get({ type: "device", eid, at: start + minute * minuteMs });
  return record.at;
}

async function valuesAt(eid: string, attr: string, minute: number) {
  return (await at(eid, minute))?.attributes[attr]?.values.map((value) => [value.v, "c" in value ? value.c : null]);
}

describe("a record at a time", () => {
  it("holds what was current then, with its confidence, from history and without a snapshot", async () => {
    await client.send([
      seen("a", "level", 7, 10, 20, 0.8),
      seen("a", "level", 9, 40, 50),
      seen("a", "level", 8, 21, 30, 0.5),
    ]);
    expect(await valuesAt("a", "level", 15)).toEqual([[7, 0.8]]);
    expect(await valuesAt("a", "level", 9.5)).toEqual([[7, 0.4]]);
    expect(await valuesAt("a", "level", 25)).toEqual([[8, 0.5]]);
    expect(await valuesAt("a", "level", 31)).toEqual([[8, 0.25]]);
    expect(await valuesAt("a", "level", 35)).toBeUndefined();
    expect(await valuesAt("a", "level", 45)).toEqual([[9, 1]]);
  });

  it("holds all of many values, equal ones merged", async () => {
    await client.send([
      seen("b", "ports", 80, 0, 10),
      seen("b", "ports", 22, 5, 6),
      seen("b", "ports", 80, 10, 20, 0.5),
    ]);
    const { values } = (await at("b", 6))?.attributes.ports ?? {};
    expect(values).toEqual([
      { v: 80, c: 0.75, t1: start, t2: start + 20 * minuteMs, n: 2 },
      { v: 22, c: 1, t1: start + 5 * minuteMs, t2: start + 6 * minuteMs, n: 1 },
    ]);
  });

  it("holds plain attributes with their present value, marked as such", async () => {
    await client.send([{ type: "device", eid: "a", attr: "label", v: "new" }]);
    const { attributes } = (await at("a", 15)) ?? {};
    expect(attributes?.label).toMatchObject({ values: [{ v: "new" }], present: true });
    expect(attributes?.level).toMatchObject({ values: [{ v: 7 }], complete: true });
  });

  it("keeps the last value until its expire time", async () => {
    await client.send([seen("c", "held", 1, 0, 10)]);
    expect(await valuesAt("c", "held", 70)).toEqual([[1, 1]]);
    expect(await valuesAt("c", "held", 71)).toBeUndefined();
  });

  it("is incomplete before what retention kept, and does not tell what is too old", async () => {
    const now = (Date.now() - start) / minuteMs;
    await client.send([seen("d", "recent", 1, 0, 10), seen("d", "recent", 2, now - 5, now - 1)]);
    expect((await at("d", 5))?.attributes.recent).toEqual({ values: [], complete: false });
    expect((await at("d", now - 3))?.attributes.recent).toMatchObject({ values: [{ v: 2 }], complete: true });
    expect((await at("d", 5))?.complete).toBe(false);
    await client.send([1, 2, 3, 4].map((v) => seen("e", "few", v, 10 * v, 10 * v + 5)));
    expect((await at("e", 25))?.attributes.few).toEqual({ values: [], complete: false });
    expect(await valuesAt("e", "few", 32)).toEqual([[3, 1]]);
  });

  it("is the same when its history has been merged, and so is the history but for what is too old", async () => {
    const ask = () =>
      Promise.all(
        ["a", "b", "c", "e"].map((eid) =>
          client.entities.get({ type: "device", eid, historyLimit: 100, at: start + 15 * minuteMs }),
        ),
      );
    const before = await ask();
    const left = () => admin.query("select from starling.history");
    await expect.poll(left, { timeout: 30_000 }).toEqual([]);
    expect(await ask()).toEqual(before);
    expect(before[1]?.history.ports).toMatchObject([
      { v: 80, n: 2, c: 0.75 },
      { v: 22, n: 1 },
    ]);
    expect(before[3]?.history.few).toMatchObject([{ v: 4 }, { v: 3 }]);
    const { history } = await client.entities.get({ type: "device", eid: "d", historyLimit: 100 });
    expect(history.recent).toContainEqual(expect.objectContaining({ v: 2 }));
  });

  it("goes with its entity", async () => {
    await client.send([seen("f", "level", 1, 0, 10)]);
    await client.entities.delete({ type: "device", eid: "f" });
    await client.send([seen("f", "level", 2, 20, 30)]);
    expect(await valuesAt("f", "level", 5)).toBeUndefined();
    expect(await valuesAt("f", "level", 25)).toEqual([[2, 1]]);
  });

  it("of what there is not is an error that says so", async () => {
    await expect(at("nobody", 0)).rejects.toMatchObject({ code: "NOT_FOUND" });
    await expect(client.entities.get({ type: "device", eid: "a", at: Number.NaN })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
    });
  });
});

describe("starling entity get --at", () => {
  const starling = (...args: string[]) => run(args, { env: { STARLING_ADDRESS: node.address } });

  it("shows it as a table, and with --json as one document", async () => {
    const time = "2026-01-01T00:15:00Z";
    const shown = await starling("entity", "get", "device", "a", "--at", time);
    expect(shown.code).toBe(0);
    expect(shown.out).toContain(`at ${time}`);
    expect(shown.out).toMatch(/level +7 +0\.8 +2026-01-01T00:10:00Z … 2026-01-01T00:20:00Z/);
    expect(shown.out).toMatch(/label +new +present value/);
    const { out } = await starling("entity", "get", "device", "a", "--at", time, "--json");
    expect(JSON.parse(out)).toMatchObject({
      ...{ type: "device", eid: "a", at: time, complete: false },
      attributes: {
        level: { values: [{ v: 7, c: 0.8, t1: "2026-01-01T00:10:00Z" }], complete: true },
        label: { present: true },
      },
    });
  });

  it("refuses what is no time", async () => {
    const { code, err } = await starling("entity", "get", "device", "a", "--at", "yesterday");
    expect(code).toBe(2);
    expect(err).toContain("yesterday");
  });
});
