import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Connection, createConnection } from "../../actors/store/connection.ts";
import { schemaScript, schemaSteps } from "../../actors/store/migrations.ts";
import { indexSnapshots } from "../../actors/store/snapshot-index.ts";
import { type Client, connect } from "../../proto/client.ts";
import { type NodeProcess, startNodeProcess } from "../support/node-process.ts";
import { oldDatabaseFile, oldDatapoints, oldFlags, oldSession, oldSteps } from "../support/old-database.ts";
import { testDatabase } from "../support/postgres.ts";
import type { TestDatabase } from "../support/postgres-server.ts";
import { repository } from "../support/repository.ts";

/*
 * A node of this version starts on the databases of earlier ones, kept as test/support/old-database/step-N.sql. A step
 * that was released never changes, and neither does its script. As long as step N is not released and changes,
 * `npm run old-database N` writes the script anew; without N it is the step before the newest.
 */
const steps = await oldSteps();
let dataDir: string;
let database: TestDatabase;
let admin: Connection;
let node: NodeProcess | null;

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), "starling-old-"));
  database = await testDatabase();
  admin = connectTo(database);
  node = null;
});

afterEach(async () => {
  await node?.kill();
  await admin.close();
  await database.close();
  await rm(dataDir, { recursive: true, force: true });
});

function connectTo({ url }: TestDatabase): Connection {
  return createConnection({ url, application: "old", statementTimeoutMs: 30_000, connectTimeoutMs: 10_000 });
}

async function start(): Promise<NodeProcess> {
  const configDir = join(repository, "test/support/node-config");
  node = await startNodeProcess({ configDir, dataDir, databaseUrl: database.url, flags: oldFlags });
  return node;
}

async function stored(connection: Connection): Promise<number> {
  const text = "select value::int as version from starling.meta where key = 'schema_version'";
  return (await connection.query<{ version: number }>(text))[0]?.version ?? 0;
}

test("there is a database of the step before the newest one", () => {
  expect(steps).toContain(schemaSteps.length - 1);
});

describe.each(steps)("a database of step %i", (step) => {
  beforeEach(async () => admin.script(await readFile(oldDatabaseFile(step), "utf8")));

  test("is brought to this version, with its records, its log and its dead letters", async () => {
    expect(await stored(admin)).toBe(step);
    const { address } = await start();
    expect(await stored(admin)).toBe(schemaSteps.length);
    await using client = await connect({ address, session: { name: oldSession }, level: "processed" });
    await expect.poll(() => nOf(client, "a", "level")).toBe(3);
    const { attributes, history } = await client.entities.get({ type: "device", eid: "a", historyLimit: 10 });
    expect(attributes).toMatchObject({
      label: { v: "tab\t, line\n, backslash \\ and é", n: 1 },
      level: { v: 11, t1: 5000, n: 3 },
      near: { v: { eid: "b" } },
    });
    await expect.poll(() => nOf(client, "a", "echo")).toBe(3);
    expect(history.level).toContainEqual({ v: 7, t1: 1000, t2: 1500, c: 0.5, n: 1 });
    expect((await client.entities.get({ type: "device", eid: "c" })).attributes.label?.v).toBe("late");
    const large = await client.entities.get({ type: "device", eid: "large" });
    expect(large.attributes.label?.v).toBe("long ".repeat(300));
    await expect(client.entities.get({ type: "device", eid: "refused-1" })).rejects.toMatchObject({
      code: "NOT_FOUND",
    });
    const raw = [];
    for await (const { v } of client.entities.raw({ type: "device", eid: "a", attr: "level" })) raw.push(v);
    expect(raw).toEqual([11, 9, 7]);
    const { letters } = await client.admin.deadLetters({ status: "open" });
    expect(letters).toMatchObject([{ kind: "hook", type: "device", eid: "b", code: "HOOK_FAILED" }]);
    // The sender of then repeats its first batch, and goes on.
    expect((await client.send(oldDatapoints)).accepted).toBe(oldDatapoints.length);
    expect(await nOf(client, "a", "level")).toBe(3);
  });

  test("becomes what a new database of this version is", async () => {
    await (await start()).stop();
    const fresh = await testDatabase();
    const other = connectTo(fresh);
    await other.script(schemaScript(schemaSteps.length));
    await indexSnapshots(other, { entities: new Map() });
    expect(await catalogueOf(admin)).toEqual(await catalogueOf(other));
    await other.close();
    await fresh.close();
  });
});

test("a database of a newer step is refused by a node at its start, and left as it is", async () => {
  const newer = schemaSteps.length + 1;
  await admin.script(schemaScript(schemaSteps.length));
  await admin.query("update starling.meta set value = $1 where key = 'schema_version'", [String(newer)]);
  const refused = start();
  await expect(refused).rejects.toThrow("the node ended with 1 before it served");
  const message = `STORE_FATAL: the database has schema ${newer}, of a newer Starling: this one knows ${schemaSteps.length}`;
  await expect(refused).rejects.toThrow(message);
  expect(await stored(admin)).toBe(newer);
});

async function nOf({ entities }: Client, eid: string, attr: string): Promise<number> {
  return (await entities.get({ type: "device", eid })).attributes[attr]?.n ?? 0;
}

/** Everything that steps define, as text; partitions are not the steps'. */
async function catalogueOf(connection: Connection): Promise<string[]> {
  const rows = await connection.query<{ line: string }>(`
    with tables as (
      select oid, relname, reloptions from pg_class
        where relnamespace = 'starling'::regnamespace and relkind in ('r', 'p', 'v') and not relispartition
    )
    select 'table ' || relname || ' ' || coalesce(reloptions::text, '') as line from tables
    union all
    select 'column ' || concat_ws(' ', t.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
        a.attstorage, a.attcollation, pg_get_expr(d.adbin, d.adrelid))
      from tables t join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
        left join pg_attrdef d on d.adrelid = t.oid and d.adnum = a.attnum
    union all
    select 'constraint ' || t.relname || ' ' || pg_get_constraintdef(c.oid)
      from tables t join pg_constraint c on c.conrelid = t.oid
    union all
    select pg_get_indexdef(i.indexrelid) from tables t join pg_index i on i.indrelid = t.oid
    union all
    select 'view ' || relname || ' ' || pg_get_viewdef(oid) from tables t where relname = 'raw'
    union all
    select pg_get_functiondef(oid) from pg_proc where pronamespace = 'starling'::regnamespace
    order by 1`);
  return rows.map(({ line }) => line);
}
