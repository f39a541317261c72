import { afterAll, beforeAll, expect, test } from "vitest";
import { type Connection, createConnection } from "../../../actors/store/connection.ts";
import { openPostgresStore, type PostgresStore } from "../../../actors/store/postgres-store.ts";
import { testDatabase } from "../../support/postgres.ts";
import type { TestDatabase } from "../../support/postgres-server.ts";
import { shard1, shard2 } from "./samples.ts";

/* Why an entity is looked at in a run of what changed: one of each, and one beside it that is not. */
let database: TestDatabase;
let store: PostgresStore;
let admin: Connection;
const base = 4;
const at = 1_000;

beforeAll(async () => {
  database = await testDatabase();
  store = await openPostgresStore({ url: database.url, lanes: 1, shards: { entity: 8, system: 1 } });
  admin = createConnection({
    ...{ url: database.url, application: "test" },
    ...{ statementTimeoutMs: 30_000, connectTimeoutMs: 5_000 },
  });
  await admin.query("insert into starling.snapshot_mark (shard, tick, seq) values (1, 4, 10), (2, 4, 20), (3, 4, 10)");
});
afterAll(async () => {
  await admin?.close();
  await store?.close();
  await database?.close();
});

async function entity(shard: number, eid: string, applied: number, tombstone = false): Promise<void> {
  await admin.query(
    `insert into starling.entity (shard, type, eid, created, created_at, applied, state, tombstone)
      values ($1, 'ip', $2, 1, now(), $3, '', $4)`,
    [shard, eid, applied, String(tombstone)],
  );
}

async function snapshot(shard: number, eid: string, due: number | null, to: number | null = null): Promise<void> {
  await admin.query(
    "insert into starling.snapshot (shard, type, eid, from_tick, to_tick, due, body) values ($1, 'ip', $2, 1, $3, $4, '{}')",
    [shard, eid, to, due],
  );
}

async function value(shard: number, eid: string, due: number | null, body = "{}"): Promise<void> {
  await admin.query(
    `insert into starling.snapshot_value (shard, type, eid, tick, due, links, was, body)
      values ($1, 'ip', $2, 1, $3, '', '', $4)`,
    [shard, eid, due, body],
  );
}

async function listed(limit = 100): Promise<string[] | null> {
  const found = await store.snapshots.readChanges({ shards: [shard1, shard2], base, at, limit });
  return found?.map(({ shard, eid }) => `${shard} ${eid}`) ?? null;
}

test("entities are listed that were written, are due, or of which only a snapshot is left", async () => {
  // Each shard by its own mark.
  await entity(1, "written", 11);
  await entity(1, "not written", 10);
  await entity(2, "not written", 20);
  await entity(2, "written, a tombstone", 21, true);
  for (const eid of ["due", "not due", "was due", "linked and due", "linked and not due"]) await entity(1, eid, 5);
  await snapshot(1, "due", at);
  await snapshot(1, "not due", at + 1);
  await snapshot(1, "was due", at, 3);
  await value(1, "linked and due", at);
  await value(1, "linked and not due", null);
  await snapshot(1, "left", null);
  await snapshot(1, "left, and ended", null, 3);
  await value(2, "linked, and left", null);
  await value(2, "linked, left, and ended", null, "");
  // Another node's.
  await entity(3, "written", 11);
  const expected = ["1 due", "1 left", "1 linked and due", "1 written", "2 linked, and left", "2 written, a tombstone"];
  expect(await listed()).toEqual(expected);
  expect(await listed(expected.length)).toEqual(expected);
  expect(await listed(expected.length - 1)).toBeNull();
});
