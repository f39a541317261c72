import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { createLog } from "../../../node/log.ts";
import { startNode } from "../../../node/node.ts";
import { type Client, type ConnectOptions, connect } from "../../../proto/client.ts";
import { createFakeEngine } from "../../support/fake-engine.ts";
import { startEdge } from "../../support/grpc-edge.ts";
import { testDatabase } from "../../support/postgres.ts";
import { repository } from "../../support/repository.ts";

const closers: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

async function open(address: string, rest: Partial<ConnectOptions> = {}): Promise<Client> {
  const client = await connect({ address, connectMs: 10_000, ...rest });
  closers.push(() => client.close());
  return client;
}

/** What connecting fails with while there is no room. */
const refusal = (address: string) => open(address, { connectMs: 300 }).catch((error: unknown) => error);

test("a session above the bound is refused with BUSY and counted; it is served once another has gone", async () => {
  const engine = createFakeEngine();
  const server = await startEdge(engine, { limits: { maxStreams: 2 } });
  closers.push(() => server.close());
  const first = await open(server.address);
  const second = await open(server.address);
  const waiting = open(server.address);
  await expect.poll(() => engine.counters.read().sessions_refused).toBeGreaterThan(0);
  expect(await refusal(server.address)).toMatchObject({
    message: expect.stringContaining("the node serves 2 sessions already"),
  });
  // Those that are there notice nothing.
  const point = { type: "thing", eid: "a", attr: "name", v: "x" };
  expect((await second.send([point])).accepted).toBe(1);
  await first.close();
  expect((await (await waiting).send([{ ...point, eid: "b" }])).accepted).toBe(1);
});

test("the bound of a node is its setting session_max_count", async () => {
  const database = await testDatabase();
  closers.push(() => database.close());
  const dataDir = await mkdtemp(join(tmpdir(), "starling-bound-"));
  closers.push(() => rm(dataDir, { recursive: true, force: true }));
  const node = await startNode({
    configDir: join(repository, "test/support/types-config"),
    env: {},
    flags: { dataDir, databaseUrl: database.url, listen: "127.0.0.1:0", logLevel: "silent", sessionMaxCount: 1 },
    log: createLog({ level: "silent" }),
  });
  closers.push(() => node.close());
  const client = await open(node.address);
  expect(await refusal(node.address)).toMatchObject({
    message: expect.stringContaining("the node serves 1 sessions already"),
  });
  expect((await client.admin.status()).counters.sessions_refused).toBeGreaterThan(0);
});
