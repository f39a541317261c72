import { cpSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { chmod, chown, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, afterEach, expect, test } from "vitest";
import { createConnection } from "../../actors/store/connection.ts";
import { openPostgresStore } from "../../actors/store/postgres-store.ts";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "../../node/embedded-postgres.ts";
import { createLog } from "../../node/log.ts";
import { type Node, startNode } from "../../node/node.ts";
import { runProgram } from "../../node/postgres-binaries.ts";
import { type Client, connect } from "../../proto/client.ts";
import { fencesOf, nodeA, segmentOf, shard1 } from "../actors/store/samples.ts";
import { testDatabase } from "../support/postgres.ts";
import { repository } from "../support/repository.ts";

/** R25: on another system identifier or timeline a node drops its shards, and epochs jump by 1,000. */
const dataDir = mkdtempSync(join(tmpdir(), "starling-world-"));
const opened: { close(): Promise<void> }[] = [];

afterEach(async () => {
  for (const each of opened.splice(0).reverse()) await each.close();
});

afterAll(() => rmSync(dataDir, { recursive: true, force: true }));

async function start(url: string, configDir = join(repository, "test/support/types-config")): Promise<Node> {
  const node = await startNode({
    configDir,
    env: {},
    flags: { dataDir, databaseUrl: url, listen: "127.0.0.1:0", logLevel: "silent" },
    log: createLog({ level: "silent" }),
  });
  opened.push(node);
  return node;
}

async function open(node: Node): Promise<Client> {
  const client = await connect({ address: node.address, level: "processed", giveUpAfterMs: 500 });
  opened.push(client);
  return client;
}

function connectTo(url: string) {
  const settings = { statementTimeoutMs: 30_000, connectTimeoutMs: 5_000 };
  const connection = createConnection({ url, application: "test", ...settings });
  opened.push(connection);
  return connection;
}

const value = (v: number) => ({ type: "probe", eid: "a", attr: "observed", v, t1: v });

async function send(node: Node, v: number): Promise<void> {
  await using client = await connect({ address: node.address, level: "processed" });
  await client.send([value(v)]);
}

async function observed(node: Node): Promise<unknown> {
  await using client = await connect({ address: node.address });
  return (await client.entities.get({ type: "probe", eid: "a" })).attributes.observed;
}

/** The epochs of a node's shards, each once. */
function epochsOf(node: Node): number[] {
  return [...new Set(node.engine.status().shards.map(({ epoch }) => Number(epoch)))];
}

test.each([
  ["timeline", "update starling.world set timeline = timeline + 1"],
  ["system identifier", "update starling.world set system_identifier = '7'"],
])(
  "a start on another %s lets all epochs jump by 1,000, once, and keeps the data",
  async (_, change) => {
    const database = await testDatabase();
    opened.push(database);
    const first = await start(database.url);
    await (await open(first)).send([value(1)]);
    expect(epochsOf(first)).toEqual([1]);
    await first.close();
    await connectTo(database.url).script(change);
    const second = await start(database.url);
    expect(epochsOf(second)).toEqual([1001]);
    expect(await observed(second)).toMatchObject({ v: 1, n: 1 });
    await send(second, 2);
    await second.close();
    const third = await start(database.url);
    expect(epochsOf(third)).toEqual([1002]);
    expect(await observed(third)).toMatchObject({ v: 2, n: 2 });
  },
  60_000,
);

test("only the shards that another world owned last jump", async () => {
  const database = await testDatabase();
  opened.push(database);
  await (await start(database.url)).close();
  await connectTo(database.url).script("update starling.world set timeline = 99 where shard in (3, 5)");
  const { engine } = await start(database.url);
  const jumped = engine.status().shards.filter(({ epoch }) => epoch !== 2);
  expect(jumped.map(({ shard, epoch }) => [shard, epoch])).toEqual([
    [3, 1001],
    [5, 1001],
  ]);
}, 60_000);

/** A folder for a server, which runs under another account; it goes with the test. */
async function postgresFolder(): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), "starling-world-pg-"));
  opened.push({ close: async () => rmSync(folder, { recursive: true, force: true }) });
  await chmod(folder, 0o755);
  return folder;
}

/** PostgreSQL starts on its own data as after a restore: it ends its recovery on a timeline of its own. */
async function promote(server: EmbeddedPostgres, folder: string): Promise<EmbeddedPostgres> {
  await server.close();
  const data = join(folder, "postgres");
  const { uid, gid } = await stat(join(data, "PG_VERSION"));
  await writeFile(join(data, "recovery.signal"), "");
  await chown(join(data, "recovery.signal"), uid, gid);
  return await startPostgres(folder, { restore_command: "false" });
}

async function startPostgres(folder: string, settings: Record<string, string> = {}): Promise<EmbeddedPostgres> {
  const log = { debug: () => undefined, info: () => undefined, warn: () => undefined };
  const server = await startEmbeddedPostgres({
    dataDir: folder,
    log,
    settings: { ...settings, shared_buffers: "64MB" },
  });
  opened.push(server);
  return server;
}

test.each([["while it is idle"], ["while datapoints come"]])(
  "a node whose PostgreSQL comes back on another timeline %s writes nothing more and says why it ends",
  async (when) => {
    const folder = await postgresFolder();
    const server = await startPostgres(folder);
    const node = await start(server.url);
    const client = await open(node);
    await client.send([value(1)]);
    const sending = when === "while it is idle" ? null : sendOn(client);
    const promoted = await promote(server, folder);
    const acknowledged = sending?.acknowledged() ?? 1;
    const failure = await node.failed;
    expect(failure).toMatchObject({ code: "FENCED", message: expect.stringContaining("timeline 2 instead of system") });
    const before = performance.now();
    await node.close();
    expect(performance.now() - before, "its lanes wait for nothing").toBeLessThan(10_000);
    await sending?.stop();
    expect(sending?.acknowledged() ?? 1, "nothing is acknowledged in the other world").toBe(acknowledged);
    const admin = connectTo(promoted.url);
    const [row] = await admin.query<{ n: number; epoch: number }>(
      `select (select count(distinct v)::int from starling.raw) as n, max(epoch)::int as epoch from starling.shard`,
    );
    expect(row?.epoch, "nobody took the shards yet").toBe(1);
    const next = await start(promoted.url);
    expect(epochsOf(next)).toEqual([1001]);
    expect(row?.n).toBeGreaterThanOrEqual(acknowledged);
    expect(await observed(next)).toMatchObject({ n: row?.n });
  },
  120_000,
);

test("a store whose new connections lead to a promoted copy finds that while the old ones stay, and writes nothing more", async () => {
  const folder = await postgresFolder();
  const copy = await postgresFolder();
  const first = await startPostgres(folder);
  await first.close();
  await runProgram(["cp", "-a", join(folder, "postgres"), join(copy, "postgres")], { deadlineMs: 60_000 });
  const promoted = await promote(await startPostgres(copy), copy);
  const old = await startPostgres(folder);
  const socket = ".s.PGSQL.5432";
  const socketOf = ({ url }: EmbeddedPostgres): string => join(new URL(url).searchParams.get("host") ?? "", socket);
  const way = join(folder, socket);
  await symlink(socketOf(old), way);
  const url = new URL(old.url);
  url.searchParams.set("host", folder);
  const told: string[] = [];
  const shards = { entity: 4, system: 1 };
  const onOtherWorld = ({ code }: { readonly code: string }): void => void told.push(code);
  const store = await openPostgresStore({ url: url.href, lanes: 1, shards, onOtherWorld });
  opened.push(store);
  const fences = fencesOf(await store.acquire(nodeA, [shard1]));
  await store.checkWorld();
  expect(await store.append(nodeA, { fences, segments: [segmentOf(1, ["a"])] })).toEqual({ lost: [] });
  await rm(way);
  await symlink(socketOf(promoted), way);
  await expect(store.checkWorld()).rejects.toMatchObject({ code: "FENCED" });
  expect(told).toEqual(["FENCED"]);
  expect(await store.append(nodeA, { fences, segments: [segmentOf(2, ["b"])] })).toEqual({ lost: [shard1] });
}, 120_000);

/** A model, and a module that has begun when there is a file `begun`, and is ready when there is a file `ready`. */
async function slowConfig(): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), "starling-world-config-"));
  opened.push({ close: async () => rmSync(folder, { recursive: true, force: true }) });
  cpSync(join(repository, "test/support/types-config"), folder, { recursive: true });
  await writeFile(join(folder, "processing_core.yml"), "modules_dir: .\nenabled_modules: [slow]\n");
  await writeFile(
    join(folder, "slow.ts"),
    `import { existsSync, writeFileSync } from "node:fs";
     import { setTimeout } from "node:timers/promises";
     import { BaseModule } from "starling/modules";
     export class Slow extends BaseModule {
       override async start(): Promise<void> {
         writeFileSync(${JSON.stringify(join(folder, "begun"))}, "");
         while (!existsSync(${JSON.stringify(join(folder, "ready"))})) await setTimeout(20);
       }
     }`,
  );
  return folder;
}

test("a node that finds itself there before it has read what it owns does not start", async () => {
  const folder = await postgresFolder();
  const server = await startPostgres(folder);
  const configDir = await slowConfig();
  const ended = expect(start(server.url, configDir)).rejects.toMatchObject({ code: "FENCED" });
  await expect.poll(() => existsSync(join(configDir, "begun")), { timeout: 20_000 }).toBe(true);
  await promote(server, folder);
  await writeFile(join(configDir, "ready"), "");
  await ended;
}, 60_000);

/** Sends one value after the other, whatever becomes of them. */
function sendOn(client: Client) {
  let acknowledged = 1;
  let status: "sending" | "stopped" = "sending";
  const run = async (): Promise<void> => {
    for (let v = 2; status === "sending"; v++) {
      const sent = await client.send([value(v)]).catch(() => null);
      if (sent !== null) acknowledged++;
      else await delay(20);
    }
  };
  const ended = run();
  return {
    acknowledged: () => acknowledged,
    stop: (): Promise<void> => {
      status = "stopped";
      return ended;
    },
  };
}
