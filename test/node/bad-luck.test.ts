import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { createConnection } from "../../actors/store/connection.ts";
import { createLog } from "../../node/log.ts";
import { type Node, startNode } from "../../node/node.ts";
import { type Client, connect } from "../../proto/client.ts";
import { testDatabase } from "../support/postgres.ts";
import type { TestDatabase } from "../support/postgres-server.ts";
import { repository } from "../support/repository.ts";
import { run } from "./cli/terminal.ts";

/** What the world may do to a node: nothing acknowledged is lost, and it recovers by itself where it can. */
const configDir = join(repository, "test/support/types-config");
const dataDir = mkdtempSync(join(tmpdir(), "starling-luck-"));
const opened: { close(): Promise<void> }[] = [];
let database: TestDatabase;

beforeAll(async () => {
  database = await testDatabase();
});

afterEach(async () => {
  for (const each of opened.splice(0).reverse()) await each.close();
});

afterAll(async () => {
  await database.close();
  rmSync(dataDir, { recursive: true, force: true });
});

async function start(flags: Record<string, string> = {}): Promise<Node> {
  const node = await startNode({
    configDir,
    env: {},
    flags: { dataDir, databaseUrl: database.url, listen: "127.0.0.1:0", logLevel: "silent", ...flags },
    log: createLog({ level: "silent" }),
  });
  opened.push(node);
  return node;
}

async function open(node: Node): Promise<Client> {
  const client = await connect({ address: node.address, level: "processed" });
  opened.push(client);
  return client;
}

const quiet = { env: { STARLING_HTTP_LISTEN: "none", STARLING_LOG_LEVEL: "silent" } };
const value = (eid: string, v: number) => ({ type: "probe", eid, attr: "observed", v, t1: v });

test("every connection to PostgreSQL is killed, again and again, under load: all is there once", async () => {
  const node = await start();
  const client = await open(node);
  const killer = createConnection({
    url: database.url,
    application: "killer",
    statementTimeoutMs: 10_000,
    connectTimeoutMs: 10_000,
  });
  opened.push(killer);
  const kill =
    "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
  const batches = 60;
  const sent = Array.from({ length: batches }, (_, i) => {
    return client.send(Array.from({ length: 50 }, (_, j) => value(`k${j}`, i * 50 + j)));
  });
  for (let i = 0; i < 8; i++) {
    await killer.query(kill);
    await Promise.race([sent[i * 7], sent[batches - 1]]);
  }
  const outcomes = await Promise.all(sent);
  expect(outcomes.reduce((sum, { accepted }) => sum + accepted, 0)).toBe(batches * 50);
  const [row] = await killer.query<{ n: number; distinct: number }>(
    "select count(*)::int as n, count(distinct v)::int as distinct from starling.raw where eid like 'k%'",
  );
  expect(row).toEqual({ n: batches * 50, distinct: batches * 50 });
  const { attributes } = await client.entities.get({ type: "probe", eid: "k7" });
  expect(attributes.observed).toMatchObject({ n: batches, v: (batches - 1) * 50 + 7 });
}, 60_000);

test("a database that refuses for now turns the node to not serving, and it serves again by itself", async () => {
  const node = await start();
  const client = await open(node);
  const admin = createConnection({
    url: database.url,
    application: "admin",
    statementTimeoutMs: 10_000,
    connectTimeoutMs: 10_000,
  });
  opened.push(admin);
  const health: (string | null)[] = [];
  node.engine.onHealth((problem) => health.push(problem?.code ?? null));
  // What a full disk looks like from outside: class 53, on every append.
  await admin.script(`create function starling.full() returns trigger language plpgsql as
    $$ begin raise exception 'could not extend file: no space left on device' using errcode = '53100'; end $$;
    create trigger full_disk before insert on starling.log for each statement execute function starling.full()`);
  const sending = client.send([value("full", 1)]);
  await expect.poll(() => health.at(-1), { timeout: 10_000 }).toBe("STORE");
  await admin.script("drop trigger full_disk on starling.log; drop function starling.full");
  expect((await sending).accepted).toBe(1);
  expect(health.at(-1)).toBeNull();
  expect((await client.entities.get({ type: "probe", eid: "full" })).attributes.observed?.n).toBe(1);
}, 60_000);

test("a port that is taken is an error that names it", async () => {
  const taken = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => taken.once("listening", resolve));
  opened.push({ close: () => new Promise((resolve) => taken.close(() => resolve())) });
  const address = taken.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  await expect(start({ listen: `127.0.0.1:${port}` })).rejects.toMatchObject({
    code: "ADDRESS_IN_USE",
    message: expect.stringContaining(String(port)),
  });
  // Everything that had been opened is closed: the database is free again.
  await start();
});

const brokenModules = [
  ["throws on load", 'throw new Error("no coffee");', /^starling: MODULE: .*broken\.ts.*no coffee/],
  ["exports nothing", "export const nothing = 1;", /^starling: MODULE: .*broken\.ts\) exports no module/],
] as const;

test.each(brokenModules)(
  "a node with a module that %s says so and ends, and leaves nothing taken",
  async (_, code, told) => {
    const broken = mkdtempSync(join(dataDir, "broken-"));
    cpSync(configDir, broken, { recursive: true });
    writeFileSync(join(broken, "processing_core.yml"), "modules_dir: .\nenabled_modules: [broken]\n");
    writeFileSync(join(broken, "broken.ts"), code);
    const words = ["node", broken, "--data-dir", dataDir, "--database-url", database.url, "--listen", "127.0.0.1:0"];
    const ended = await run(words, quiet);
    expect(ended).toMatchObject({ code: 1, out: "" });
    expect(ended.err).toMatch(told);
    expect(ended.err).toMatch(/\n {2}→ `starling check DIR` shows everything that is wrong\n$/);
    await start();
  },
);

test("other numbers of shards than the cluster's are refused by name", async () => {
  await expect(start({ entityShards: "128" })).rejects.toMatchObject({
    code: "CONFIG",
    message: expect.stringMatching(/256[\s\S]*128|128[\s\S]*256/),
  });
});

test("a stop in the middle of a load loses nothing that was acknowledged", async () => {
  const first = await start();
  const client = await connect({ address: first.address, giveUpAfterMs: 200 });
  const outcomes: Promise<number>[] = [];
  for (let i = 0; i < 40; i++) {
    outcomes.push(
      client.send([value("stop", i)]).then(
        ({ accepted }) => accepted,
        () => 0,
      ),
    );
    if (i === 20) void first.close();
  }
  const acknowledged = (await Promise.all(outcomes)).reduce((sum, accepted) => sum + accepted, 0);
  await client.close().catch(() => {});
  await first.close();
  const again = await open(await start());
  const { attributes } = await again.entities.get({ type: "probe", eid: "stop" });
  expect(attributes.observed?.n).toBeGreaterThanOrEqual(acknowledged);
  expect(acknowledged).toBeGreaterThan(0);
}, 60_000);
