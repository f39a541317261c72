import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Connection, createConnection } from "../../../actors/store/connection.ts";
import { type ExclusiveLockOptions, lockExclusively } from "../../../actors/store/exclusive-lock.ts";
import type { StarlingError } from "../../../proto/starling-error.ts";
import { createNetwork } from "../../support/cluster/network.ts";
import { startTestPostgres, type TestPostgres } from "../../support/postgres-server.ts";

let postgres: TestPostgres;
const network = createNetwork([]);
let near: Connection;
let distantUrl = "";

beforeAll(async () => {
  postgres = await startTestPostgres();
  const socket = join(new URL(postgres.url).searchParams.get("host") ?? "", ".s.PGSQL.5432");
  const { port } = await network.open({ from: "node", to: "postgres", target: () => ({ path: socket }) });
  distantUrl = `postgres://starling@127.0.0.1:${port}/postgres`;
  near = createConnection({
    url: postgres.url,
    application: "near",
    statementTimeoutMs: 30_000,
    connectTimeoutMs: 5_000,
  });
}, 60_000);

afterAll(async () => {
  await near?.close();
  await network.close();
  await postgres?.close();
});

const holders = async (): Promise<number> =>
  (await near.query("select 1 from pg_locks where locktype = 'advisory' and objid = 2 and granted")).length;

async function untilHeldBy(count: number): Promise<void> {
  while ((await holders()) !== count) await near.query("select pg_sleep(0.01)");
}

/** The holder's session ends on both sides, and nothing new gets through. */
async function goAway(): Promise<void> {
  network.cut("node", "postgres", "lost");
  network.reset("node", "postgres");
  await near.query(
    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'starling distant'",
  );
  await untilHeldBy(0);
}

function lock(url: string, options: Pick<ExclusiveLockOptions, "name" | "onLost">) {
  return lockExclusively({ url, statementTimeoutMs: 5_000, connectTimeoutMs: 2_000 }, { ...options, lostAfterMs: 300 });
}

test("a holder waits for PostgreSQL as long as it is away, and ends once another node has the lock", async () => {
  const lost: StarlingError[] = [];
  const held = await lock(distantUrl, { name: "distant", onLost: (error) => void lost.push(error) });
  await goAway();
  // Longer than another node may have the lock.
  await near.query("select pg_sleep(1)");
  network.heal("node", "postgres");
  await untilHeldBy(1);
  expect(lost).toEqual([]);
  await goAway();
  const other = await lock(postgres.url, { name: "another", onLost: () => undefined });
  network.heal("node", "postgres");
  while (lost.length === 0) await near.query("select pg_sleep(0.01)");
  expect(lost).toMatchObject([{ code: "DATA_FOLDER_TAKEN" }]);
  await other.close();
  await held.close();
}, 60_000);
