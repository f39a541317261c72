import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createConnection } from "../../actors/store/connection.ts";
import { createLog } from "../../node/log.ts";
import { type Node, startNode } from "../../node/node.ts";
import { type Client, connect } from "../../proto/client.ts";
import { testDatabase } from "../support/postgres.ts";
import type { TestDatabase } from "../support/postgres-server.ts";
import { repository } from "../support/repository.ts";
import { run } from "./cli/terminal.ts";

/** One node on a real PostgreSQL, from datapoints in over gRPC to records out, over restarts. */
const soon = { timeout: 10_000 };
/** The default of `flush_interval_ms`, and a little for the flush and the answer. */
const flushMs = 1_000 + 250;
const dataDir = mkdtempSync(join(tmpdir(), "starling-node-"));
let databases: TestDatabase[];
let node: Node;
let client: Client;

async function start(): Promise<void> {
  node = await startNode({
    configDir: join(repository, "test/support/node-config"),
    env: {},
    flags: { ...flagsOf(databases), listen: "127.0.0.1:0", logLevel: "error" },
    log: createLog({ level: "error" }),
  });
  client = await connect({ address: node.address, level: "processed" });
}

async function stop(): Promise<void> {
  await client.close();
  await node.close();
}

function flagsOf([first, ...more]: readonly TestDatabase[]): Record<string, string> {
  const urls = more.map(({ url }) => url).join(",");
  return { dataDir, databaseUrl: first?.url ?? "", ...(urls !== "" && { databaseUrls: urls }) };
}

afterAll(() => rmSync(dataDir, { recursive: true, force: true }));

describe.each([1, 2])("with its shards over %i database(s)", (count) => {
  beforeAll(async () => {
    databases = await Promise.all(Array.from({ length: count }, () => testDatabase()));
    await start();
  });

  afterAll(async () => {
    await stop();
    await Promise.all(databases.map((database) => database.close()));
  });

  const level = (eid: string, v: number, t1: number) => ({ type: "device", eid, attr: "level", v, t1 });

  test("what was sent, and what hooks derived from it, is in the records and in the raw datapoints", async () => {
    const { accepted, rejections } = await client.send([level("a", 7, 1000), level("a", 9, 3000), level("a", 8, 2000)]);
    expect({ accepted, rejections }).toEqual({ accepted: 3, rejections: [] });
    await expect.poll(async () => (await client.entities.get({ type: "device", eid: "a" })).attributes.echo?.n).toBe(3);
    const record = await client.entities.get({ type: "device", eid: "a", historyLimit: 10 });
    expect(record.attributes.level).toEqual({ v: 9, t1: 3000, t2: 3000, c: 1, n: 3 });
    expect(record.history.level?.map(({ v }) => v).sort()).toEqual([7, 8, 9]);
    await expect.poll(async () => (await client.entities.get({ type: "site", eid: "2" })).attributes.total?.v).toBe(8);
    const raw = [];
    for await (const row of client.entities.raw({ type: "device", eid: "a", attr: "level" })) raw.push(row.v);
    expect(raw).toEqual([8, 9, 7]);
  });

  test("everything is there after a stop and a start, and goes on", async () => {
    const before = await client.entities.get({ type: "device", eid: "a", historyLimit: 10 });
    await stop();
    await start();
    const after = await client.entities.get({ type: "device", eid: "a", historyLimit: 10 });
    expect({ ...after, token: null }).toEqual({ ...before, token: null });
    await client.send([level("a", 30, 4000)]);
    const { attributes } = await client.entities.get({ type: "device", eid: "a" });
    expect(attributes.level).toMatchObject({ v: 30, n: 4 });
  });

  test("a refused entity leaves no record and no raw datapoints", async () => {
    await client.send([level("refused-1", 5, 1000)]);
    await expect(client.entities.get({ type: "device", eid: "refused-1" })).rejects.toMatchObject({
      code: "NOT_FOUND",
    });
    const raw = [];
    for await (const row of client.entities.raw({ type: "device", eid: "refused-1" })) raw.push(row);
    expect(raw).toEqual([]);
  });

  test("a deleted entity is gone with its history, and what comes after creates it anew", async () => {
    await client.send([level("b", 1, 1000), level("b", 2, 2000)]);
    await expect.poll(async () => (await client.entities.get({ type: "device", eid: "b" })).attributes.echo?.n).toBe(2);
    await client.entities.delete({ type: "device", eid: "b" });
    const gone = () =>
      client.entities.get({ type: "device", eid: "b" }).then(
        () => "there",
        (error) => error.code,
      );
    await expect.poll(gone).toBe("NOT_FOUND");
    await client.send([level("b", 3, 3000)]);
    const record = await client.entities.get({ type: "device", eid: "b", historyLimit: 10 });
    expect(record.attributes.level).toMatchObject({ v: 3, n: 1 });
    expect(record.history.level?.map(({ v }) => v)).toEqual([3]);
  });

  test("a failing hook becomes a dead letter that can be listed, shown and replayed once its cause is gone", async () => {
    await client.send([{ type: "device", eid: "c", attr: "label", v: "throw" }]);
    const { letters } = await client.admin.deadLetters({ status: "open" });
    expect(letters).toHaveLength(1);
    const [letter] = letters;
    if (letter === undefined) throw new Error("no letter");
    expect(letter).toMatchObject({ kind: "hook", type: "device", eid: "c", code: "HOOK_FAILED" });
    expect(letter.error).toContain("no echo yet");
    // The datapoint itself was applied.
    expect((await client.entities.get({ type: "device", eid: "c" })).attributes.label?.v).toBe("throw");
    await expect(client.admin.replay(letter.id)).rejects.toMatchObject({ code: "HOOK_FAILED" });
    await client.entities.set({ type: "device", eid: "c", attr: "echo", v: 1 });
    expect((await client.admin.replay(letter.id)).status).toBe("replayed");
    await expect(client.admin.replay(letter.id)).rejects.toMatchObject({ code: "NOT_FOUND" });
    expect((await client.admin.deadLetters({ status: "open" })).letters).toEqual([]);
  });

  test("a hook's error may be any text, and holds nothing up", async () => {
    await client.send([{ type: "device", eid: "odd", attr: "label", v: "throw odd text" }]);
    const { letters } = await client.admin.deadLetters({ status: "open" });
    expect(letters).toMatchObject([{ type: "device", eid: "odd", code: "HOOK_FAILED" }]);
    expect(letters[0]?.error).toMatch(/: odd text: \\u0000\ufffd$/);
    await client.admin.discard(letters[0]?.id ?? "");
    await client.entities.delete({ type: "device", eid: "odd" });
  });

  test("dead letters are listed, shown, replayed and discarded from the command line", async () => {
    const letters = async (...words: readonly string[]) => {
      const { code, out, err } = await run(["dead-letter", ...words, "--address", node.address]);
      return { code, err, out };
    };
    const open = async () => (await client.admin.deadLetters({ status: "open" })).letters.map(({ id }) => id);
    const fail = async (eid: string): Promise<string> => {
      await client.send([{ type: "device", eid, attr: "label", v: "throw" }]);
      const [id, ...more] = await open();
      if (id === undefined || more.length > 0) throw new Error("not one letter");
      return id;
    };
    const first = await fail("cli-1");
    const listed = await letters("list");
    expect(listed).toMatchObject({ code: 0, err: "1 dead letters\n" });
    expect(listed.out).toMatch(
      new RegExp(`^${first} .* hook +open +device cli-1 +derive/.*fail.* HOOK_FAILED: .*no echo yet`, "m"),
    );
    const shown = await letters("show", first);
    expect(shown).toMatchObject({ code: 0, err: "" });
    expect(shown.out).toMatch(new RegExp(`^${first}  hook, open, since `));
    for (const line of [
      /^entity {2}device cli-1$/m,
      /^hook {4}derive\/.*fail$/m,
      /^error {3}HOOK_FAILED: .*no echo yet/m,
    ]) {
      expect(shown.out).toMatch(line);
    }
    expect(JSON.parse(shown.out.split("\ntask    ")[1] ?? "")).toMatchObject({
      datapoints: [{ attr: "label", v: "throw" }],
    });
    // Its cause is still there; then it is gone.
    const early = await letters("replay", first);
    expect(early).toMatchObject({ code: 1, out: "" });
    expect(early.err).toMatch(new RegExp(`^starling: HOOK_FAILED: ${first}: .*no echo yet`));
    expect(await open()).toEqual([first]);
    await client.entities.set({ type: "device", eid: "cli-1", attr: "echo", v: 1 });
    expect(await letters("replay", first)).toEqual({ code: 0, out: `${first} is replayed\n`, err: "" });
    const second = await fail("cli-2");
    const discarded = await letters("discard", second, "--json");
    expect(discarded).toMatchObject({ code: 0, err: "" });
    expect(JSON.parse(discarded.out)).toMatchObject({ letters: [{ id: second, status: "discarded", eid: "cli-2" }] });
    expect(await open()).toEqual([]);
    const { out } = await letters("list", "--status", "all", "--json");
    const all = JSON.parse(out) as { letters: { id: string; status: string }[] };
    const statuses = new Map(all.letters.map(({ id, status }) => [id, status]));
    expect([first, second].map((id) => statuses.get(id))).toEqual(["replayed", "discarded"]);
    // What the hook did not do is not done; the datapoint stands.
    expect((await client.entities.get({ type: "device", eid: "cli-2" })).attributes).toMatchObject({
      label: { v: "throw" },
    });
  });

  test("lists page by page and counts, saying as of when", async () => {
    await client.send(Array.from({ length: 25 }, (_, i) => level(`p${String(i).padStart(2, "0")}`, i, 1000)));
    const seen: string[] = [];
    let cursor = "";
    do {
      const page = await client.entities.list({ type: "device", cursor, limit: 10 });
      seen.push(...page.records.map(({ eid }) => eid));
      cursor = page.cursor;
    } while (cursor !== "");
    expect(seen).toEqual([...new Set(seen)].sort());
    expect(seen.filter((eid) => eid.startsWith("p"))).toHaveLength(25);
    const { counts } = await client.entities.count();
    expect(counts.device).toBe(seen.length);
  });

  /** A datapoint of a new entity that is in memory, and not flushed by then as one that is processed would be. */
  async function apply(eid: string): Promise<number> {
    await using sender = await connect({ address: node.address, level: "durable" });
    await sender.send([level(eid, 1, 1000)]);
    const known = () =>
      client.entities.get({ type: "device", eid }).then(
        () => true,
        () => false,
      );
    await expect.poll(known, { ...soon, interval: 5 }).toBe(true);
    return Date.now();
  }

  test("lists and counts are at most one flush old, and say as of when", async () => {
    const agesMs: { list: number; count: number }[] = [];
    for (const eid of ["fresh1", "fresh2", "fresh3"]) {
      const { counts: before } = await client.entities.count();
      const appliedAt = await apply(eid);
      /** Asks until the entity is there; until then an answer must say that it is older. */
      const ageOf = async (ask: () => Promise<{ found: boolean; asOf: number }>): Promise<number> => {
        const askOnce = async () => {
          const { found, asOf } = await ask();
          expect(found || asOf <= appliedAt, `${eid} is missing as of ${asOf}, applied ${appliedAt}`).toBe(true);
          expect(asOf).toBeLessThanOrEqual(Date.now());
          return found;
        };
        await expect.poll(askOnce, { ...soon, interval: 20 }).toBe(true);
        return Date.now() - appliedAt;
      };
      const inList = ageOf(async () => {
        const { records, asOf } = await client.entities.list({ type: "device", limit: 1000 });
        return { found: records.some((record) => record.eid === eid), asOf };
      });
      const inCount = ageOf(async () => {
        const { counts, asOf } = await client.entities.count();
        return { found: (counts.device ?? 0) > (before.device ?? 0), asOf };
      });
      agesMs.push({ list: await inList, count: await inCount });
    }
    // The best of three: the promise is the node's, what comes on top is the machine's.
    const best = (of: "list" | "count") => Math.min(...agesMs.map((ages) => ages[of]));
    expect({ list: best("list") <= flushMs, count: best("count") <= flushMs, agesMs }).toMatchObject({
      list: true,
      count: true,
    });
  });

  test("a list and a count that a flush has not reached yet say that they are older", async ({ onTestFinished }) => {
    const locks = databases.map(({ url }) =>
      createConnection({ url, application: "lock", statementTimeoutMs: 10_000, connectTimeoutMs: 10_000 }),
    );
    onTestFinished(async () => void (await Promise.all(locks.map((lock) => lock.close()))));
    // Who reads may, who writes waits.
    for (const lock of locks) await lock.script("begin; lock table starling.entity in exclusive mode");
    const before = Date.now();
    const appliedAt = await apply("late");
    const list = () => client.entities.list({ type: "device", limit: 1000 });
    const first = await list();
    expect(first.records.map(({ eid }) => eid)).not.toContain("late");
    for (const { asOf } of [first, await client.entities.count()]) {
      expect(asOf).toBeLessThanOrEqual(appliedAt);
      expect(asOf).toBeGreaterThan(before - flushMs);
    }
    for (const lock of locks) await lock.script("commit");
    await expect.poll(async () => (await list()).records.map(({ eid }) => eid), soon).toContain("late");
    await expect.poll(async () => (await list()).asOf, soon).toBeGreaterThan(appliedAt);
  });

  test("raw --follow shows what arrives from then on", async () => {
    const stop = new AbortController();
    const rows: unknown[] = [];
    const following = (async () => {
      for await (const row of client.entities.raw({ type: "device", eid: "f", follow: true, signal: stop.signal })) {
        rows.push(row.v);
        if (rows.length === 2) stop.abort();
      }
    })();
    // The stream is open once one datapoint came through it.
    await expect
      .poll(async () => {
        await client.send([level("f", 1, 1000)]);
        return rows.length;
      })
      .toBeGreaterThan(0);
    await client.send([level("f", 2, 2000)]);
    await following.catch(() => {});
    expect(rows).toHaveLength(2);
  });

  test("a second node on the same database is refused and names the first", async () => {
    const second = startNode({
      configDir: join(repository, "test/support/node-config"),
      env: {},
      flags: { ...flagsOf(databases), listen: "127.0.0.1:0", logLevel: "silent" },
      log: createLog({ level: "silent" }),
    });
    await expect(second).rejects.toMatchObject({ code: "DATA_FOLDER_TAKEN", message: expect.stringContaining("node") });
  });
});
