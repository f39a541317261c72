import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { startTestEtcd, type TestEtcd } from "../support/etcd-server.ts";
import { startNodeProcess } from "../support/node-process.ts";
import { testDatabase } from "../support/postgres.ts";
import type { TestDatabase } from "../support/postgres-server.ts";
import { repository } from "../support/repository.ts";
import { run } from "./cli/terminal.ts";

const configDir = join(repository, "test/support/node-config");
let database: TestDatabase;
let etcd: TestEtcd;

beforeAll(async () => {
  database = await testDatabase();
  etcd = await startTestEtcd();
}, 60_000);

afterAll(async () => {
  await etcd.close();
  await database.close();
});

const flags = (): string[] => ["--etcd", etcd.endpoint, "--name", "ada"];
const adopt = () => run(["cluster", "adopt", configDir, "--database-url", database.url, "--etcd", etcd.endpoint]);

it("an etcd that was emptied is refused until it is adopted, and not while a node runs", async () => {
  const first = await startNodeProcess({ configDir, databaseUrl: database.url, flags: flags() });
  const early = await adopt();
  expect(early.code).toBe(1);
  expect(early.err).toMatch(/DATA_FOLDER_TAKEN: another node uses the database: starling node/);
  await first.stop();
  await etcd.restartEmpty();
  await expect(startNodeProcess({ configDir, databaseUrl: database.url, flags: flags() })).rejects.toThrow(
    /is not the one that this cluster was created with.*starling cluster adopt/,
  );
  const adopted = await adopt();
  expect({ code: adopted.code, err: adopted.err }).toEqual({ code: 0, err: "" });
  expect(adopted.out).toMatch(/^cluster [0-9a-f-]{36} meets at etcd 127/);
  const again = await startNodeProcess({ configDir, databaseUrl: database.url, flags: flags() });
  expect(await again.stop()).toBe(0);
}, 120_000);

it("a node without etcd is refused while nodes of a cluster use its database", async () => {
  const first = await startNodeProcess({ configDir, databaseUrl: database.url, flags: flags() });
  await expect(startNodeProcess({ configDir, databaseUrl: database.url })).rejects.toThrow(/DATA_FOLDER_TAKEN/);
  await first.stop();
  const alone = await startNodeProcess({ configDir, databaseUrl: database.url });
  await expect(startNodeProcess({ configDir, databaseUrl: database.url, flags: flags() })).rejects.toThrow(
    /another node uses the database alone, without etcd/,
  );
  await alone.stop();
}, 120_000);
