import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createConnection } from "../../actors/store/connection.ts";
import { openPostgresStore } from "../../actors/store/postgres-store.ts";
import { connect } from "../../proto/client.ts";
import { shardId, toNodeId, toSeq } from "../../proto/ids.ts";
import { startNodeProcess } from "../support/node-process.ts";
import { testDatabase } from "../support/postgres.ts";
import type { TestDatabase } from "../support/postgres-server.ts";
import { repository } from "../support/repository.ts";

let database: TestDatabase;

beforeAll(async () => {
  database = await testDatabase();
});

afterAll(() => database.close());

const connection = { application: "test", statementTimeoutMs: 60_000, connectTimeoutMs: 10_000 };

test("a frozen writer whose shards were taken over cannot commit, and says so (P4, R22)", async () => {
  const configDir = join(repository, "test/support/node-config");
  const node = await startNodeProcess({ configDir, databaseUrl: database.url });
  const store = await openPostgresStore({ url: database.url, lanes: 1, shards: { entity: 256, system: 16 } });
  const blocker = createConnection({ ...connection, url: database.url });
  const watcher = createConnection({ ...connection, url: database.url });
  const client = await connect({ address: node.address, giveUpAfterMs: 500 });
  try {
    await client.send([{ type: "device", eid: "x", attr: "level", v: 1, t1: 1 }]);
    // What its hook derived is appended, too: nothing but the next append will wait.
    const totals = async () => (await client.entities.get({ type: "site", eid: "1" })).attributes.total;
    await expect.poll(totals, { timeout: 10_000 }).toBeDefined();
    // An append that has passed the fence and holds its locks, but cannot write its rows.
    await blocker.script("begin; lock table starling.log in exclusive mode");
    const lost = client.send([{ type: "device", eid: "x", attr: "level", v: 2, t1: 2 }]).then(
      () => "acknowledged",
      () => "refused",
    );
    const waiting =
      "select count(*)::int as n from pg_stat_activity where query like '%append%' and wait_event_type = 'Lock'";
    await expect.poll(async () => (await watcher.query<{ n: number }>(waiting))[0]?.n, { timeout: 10_000 }).toBe(1);
    node.freeze();

    const ids = Array.from({ length: 256 }, (_, index) => shardId("entity", index));
    const taken = await store.acquire(toNodeId("successor"), ids);
    expect(taken).toHaveLength(256);
    expect(taken.every(({ epoch }) => epoch === 2)).toBe(true);
    await blocker.script("rollback");

    node.thaw();
    const said = await node.logged((line) => line.includes("taken over by another node"), 20_000);
    expect(JSON.parse(said).level).toBe(50);
    expect(await lost).toBe("refused");
    const segments = (await Promise.all(ids.map((id) => store.readLog(id, toSeq(0), 100)))).flat();
    const values = segments.flatMap(({ body }) => body.split("\n").filter((line) => line.includes("\tlevel\t")));
    expect(values).toHaveLength(1);
    expect(await node.ended).not.toBe(0);
  } finally {
    await client.close().catch(() => {});
    await blocker.close();
    await watcher.close();
    await store.close();
    await node.kill();
  }
}, 60_000);
