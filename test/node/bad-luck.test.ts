import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { type Connection, createConnection } from "../../actors/store/connection.ts";
import { createLog } from "../../node/log.ts";
import { type Node, startNode } from "../../node/node.ts";
import { type Client, connect } from "../../proto/client.ts";
import { freePort } from "../support/cluster/free-port.ts";
import { dumpDatabase } from "../support/database-dump.ts";
import { watchHealth } from "../support/health-watch.ts";
import { testDatabase } from "../support/postgres.ts";
import type { TestDatabase } from "../support/postgres-server.ts";
import { startRefusingPostgres } from "../support/refusing-postgres.ts";
import { repository } from "../support/repository.ts";
import { run } from "./cli/terminal.ts";

/** What the world may do to a node: nothing acknowledged is lost, and it recovers by itself where it can. */
const configDir = join(repository, "test/support/types-config");
const dataDir = mkdtempSync(join(tmpdir(), "starling-luck-"));
const opened: { close(): Promise<void> }[] = [];
/** What the nodes of the test at hand logged. */
const lines: { readonly msg: string; readonly [field: string]: unknown }[] = [];
const soon = { timeout: 20_000 };
let database: TestDatabase;

beforeAll(async () => {
  database = await testDatabase();
});

afterEach(async () => {
  for (const each of opened.splice(0).reverse()) await each.close();
  lines.splice(0);
});

afterAll(async () => {
  await database.close();
  rmSync(dataDir, { recursive: true, force: true });
});

async function start(flags: Record<string, string> = {}): Promise<Node> {
  const node = await startNode({
    configDir,
    env: {},
    flags: { dataDir, databaseUrl: database.url, listen: "127.0.0.1:0", ...flags },
    log: createLog({ destination: { write: (line: string) => void lines.push(JSON.parse(line)) } }),
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

function openAdmin() {
  const settings = { application: "admin", statementTimeoutMs: 10_000, connectTimeoutMs: 10_000 };
  const admin = createConnection({ url: database.url, ...settings });
  opened.push(admin);
  return admin;
}

const said = (message: string) => lines.filter(({ msg }) => msg === message);
const sorted = (rows: readonly object[]) => rows.map((row) => JSON.stringify(row)).sort();

const value = (eid: string, v: number) => ({ type: "probe", eid, attr: "observed", v, t1: v });

test("every connection to PostgreSQL is killed, again and again, under load: all is there once", async () => {
  const node = await start();
  const client = await open(node);
  const killer = openAdmin();
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

test("a database that is not there at the start, and then refuses, is waited for, which is said once", async () => {
  const [port, listen] = [await freePort(), `127.0.0.1:${await freePort()}`];
  const { pathname, searchParams } = new URL(database.url);
  const httpListen = `127.0.0.1:${await freePort()}`;
  const starting = start({ databaseUrl: `postgres://starling@127.0.0.1:${port}${pathname}`, listen, httpListen });
  const ready = async () => await (await fetch(`http://${httpListen}/readyz`)).text();
  await expect.poll(() => said("waiting for postgresql").length, soon).toBe(1);
  expect(await ready()).toBe("not ready: the node is starting\n");
  const postgres = await startRefusingPostgres(port);
  opened.push(postgres);
  await expect.poll(() => postgres.refused, soon).toBeGreaterThanOrEqual(2);
  expect(await ready()).toBe("not ready: the node is starting\n");
  expect(said("serving")).toEqual([]);
  postgres.open(join(searchParams.get("host") ?? "", ".s.PGSQL.5432"));
  const client = await open(await starting);
  expect((await client.send([value("patient", 1)])).accepted).toBe(1);
  await expect.poll(ready, soon).toBe("ready\n");
  expect(said("waiting for postgresql")).toMatchObject([{ problem: expect.stringContaining("ECONNREFUSED") }]);
  // The proxy goes before the node would miss it.
  await client.close();
  await (await starting).close();
}, 60_000);

test("a database that refuses in the middle is waited for: what came before and meanwhile is there once", async () => {
  const { pathname, searchParams } = new URL(database.url);
  const socket = join(searchParams.get("host") ?? "", ".s.PGSQL.5432");
  const port = await freePort();
  const postgres = await startRefusingPostgres(port);
  opened.push(postgres);
  postgres.open(socket);
  const node = await start({ databaseUrl: `postgres://starling@127.0.0.1:${port}${pathname}` });
  const [client, health] = [await open(node), watchHealth(node.address)];
  opened.push(health);
  const before = Array.from({ length: 50 }, (_, i) => value(`refusing${i}`, i));
  expect((await client.send(before)).accepted).toBe(before.length);
  postgres.refuse();
  const meanwhile = Array.from({ length: 50 }, (_, i) => value(`refusing${i}`, 100 + i));
  let status: "waiting" | "acknowledged" = "waiting";
  const sending = client.send(meanwhile).finally(() => {
    status = "acknowledged";
  });
  await expect.poll(() => health.seen.at(-1), soon).toBe("not serving");
  await expect.poll(() => postgres.refused, soon).toBeGreaterThanOrEqual(2);
  expect([said("not serving").length, status]).toEqual([1, "waiting"]);
  postgres.open(socket);
  expect((await sending).accepted).toBe(meanwhile.length);
  await expect.poll(() => health.seen.at(-1), soon).toBe("serving");
  const rows = await openAdmin().query("select eid, v from starling.raw where eid like 'refusing%'");
  expect(sorted(rows)).toEqual(sorted([...before, ...meanwhile].map(({ eid, v }) => ({ eid, v }))));
  await client.close();
  await node.close();
}, 60_000);

/** What a full disk looks like from outside: class 53, as late as the commit. Returns the end of it. */
async function fillDisk(admin: Connection, table: string): Promise<() => Promise<void>> {
  const emptied = () => admin.script("drop function if exists starling.full cascade");
  opened.push({ close: emptied });
  await admin.script(`create function starling.full() returns trigger language plpgsql as
    $$ begin raise exception 'could not extend file: no space left on device' using errcode = '53100'; end $$;
    create constraint trigger full_disk after insert or update on ${table} deferrable initially deferred
      for each row execute function starling.full()`);
  return emptied;
}

test("a full disk at the commit loses nothing that was acknowledged; what comes waits, and is there once", async () => {
  const node = await start();
  const [client, health] = [await open(node), watchHealth(node.address)];
  opened.push(health);
  const admin = openAdmin();
  const before = Array.from({ length: 20 }, (_, i) => value(`full${i}`, i));
  expect((await client.send(before)).accepted).toBe(before.length);
  const makeSpace = await fillDisk(admin, "starling.log");
  let acknowledged = 0;
  const sending = Promise.all(
    [value("full", 1), value("full", 2), value("full0", 3)].map(async (one) => {
      const { accepted } = await client.send([one]);
      acknowledged += accepted;
    }),
  );
  await expect.poll(() => health.seen.at(-1), soon).toBe("not serving");
  const { state, problem } = await client.admin.status();
  expect([state, problem]).toEqual(["not serving", expect.stringMatching(/^STORE: .*no space left on device/)]);
  // The commit itself failed: the rows had been there.
  const [stored] = await admin.query("select count(*)::int as n from starling.raw where eid like 'full%'");
  expect([stored, acknowledged]).toEqual([{ n: before.length }, 0]);
  await makeSpace();
  await sending;
  expect(acknowledged).toBe(3);
  await expect.poll(() => health.seen, soon).toEqual(["serving", "not serving", "serving"]);
  expect(said("not serving")).toMatchObject([{ code: "STORE", problem: expect.stringContaining("no space left") }]);
  const rows = "select eid, v from starling.raw where eid like 'full%'";
  const all = [...before, value("full", 1), value("full", 2), value("full0", 3)].map(({ eid, v }) => ({ eid, v }));
  expect(sorted(await admin.query(rows))).toEqual(sorted(all));
  expect((await client.entities.get({ type: "probe", eid: "full" })).attributes.observed?.n).toBe(2);
}, 60_000);

test("a full disk at a flush loses nothing: what was acknowledged is written when there is space again", async () => {
  const node = await start({ lanes: "1" }); // of two, one could still append while the other flushes
  const client = await connect({ address: node.address, level: "durable" });
  const health = watchHealth(node.address);
  opened.push(client, health);
  const admin = openAdmin();
  const makeSpace = await fillDisk(admin, "starling.entity");
  const sent = Array.from({ length: 20 }, (_, i) => value(`flush${i}`, i));
  expect((await client.send(sent)).accepted).toBe(sent.length);
  await expect.poll(() => health.seen, soon).toEqual(["serving", "not serving"]);
  expect((await client.admin.status()).problem).toMatch(/^STORE: .*no space left on device/);
  const stored = async () => (await admin.query("select eid from starling.entity where eid like 'flush%'")).length;
  expect(await stored()).toBe(0);
  await makeSpace();
  await expect.poll(stored, soon).toBe(sent.length);
  await expect.poll(() => health.seen, soon).toEqual(["serving", "not serving", "serving"]);
  expect(said("not serving")).toHaveLength(1);
  await client.close();
  await node.close();
  const again = await open(await start());
  for (const { eid, v } of sent) {
    expect((await again.entities.get({ type: "probe", eid })).attributes.observed).toMatchObject({ n: 1, v });
  }
}, 60_000);

test("a node whose port is taken says which and what helps, ends, and changes nothing", async () => {
  // The tables are there, and nobody writes.
  await (await start()).close();
  const admin = openAdmin();
  const before = await dumpDatabase(admin, []);
  expect(before).toMatch(/^shard: 272$/m);
  const taken = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => taken.once("listening", resolve));
  opened.push({ close: () => new Promise((resolve) => taken.close(() => resolve())) });
  const address = taken.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const words = ["node", configDir, "--data-dir", dataDir, "--database-url", database.url];
  const ended = await run([...words, "--listen", `127.0.0.1:${port}`], quiet);
  expect(ended).toMatchObject({ code: 1, out: "" });
  expect(ended.err).toMatch(new RegExp(`^starling: ADDRESS_IN_USE: gRPC port ${port} on 127\\.0\\.0\\.1 is taken: `));
  expect(ended.err).toMatch(/\n {2}→ give the node another --listen address, or end the program that uses this one\n$/);
  expect(await dumpDatabase(admin, [])).toBe(before);
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

test("reads that succeed do not call a node well whose appends fail", async () => {
  const node = await start({ passivateAfterMs: "100" });
  const [client, health] = [await open(node), watchHealth(node.address)];
  opened.push(health);
  const admin = openAdmin();
  const eids = Array.from({ length: 10 }, (_, i) => `cold${i}`);
  await client.send(eids.map((eid) => value(eid, 1)));
  const resident = async () => (await client.admin.status()).shards.reduce((n, s) => n + s.residentEntities, 0);
  await expect.poll(resident, soon).toBe(0);
  const makeSpace = await fillDisk(admin, "starling.log");
  const sending = client.send([value("warm", 1)]);
  await expect.poll(() => health.seen.at(-1), soon).toBe("not serving");
  for (const eid of eids) await client.entities.get({ type: "probe", eid });
  expect(health.seen).toEqual(["serving", "not serving"]);
  await makeSpace();
  await sending;
  expect(said("not serving")).toHaveLength(1);
}, 60_000);
