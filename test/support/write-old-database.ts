import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Connection, createConnection } from "../../actors/store/connection.ts";
import { schemaScript, schemaSteps } from "../../actors/store/migrations.ts";
import { failPointVariable } from "../../node/armed-fail-point.ts";
import { connect } from "../../proto/client.ts";
import { startNodeProcess } from "./node-process.ts";
import { oldDatabaseFile, oldDatapoints, oldFlags, oldSession, oldUnprocessed } from "./old-database.ts";
import { startTestPostgres, type TestDatabase } from "./postgres-server.ts";
import { repository } from "./repository.ts";

/*
 * Writes test/support/old-database/step-N.sql, N being the argument or else the step before the newest one. The data are a
 * real node's, with this version's code, in the tables that the steps up to N have: so it is to be run while N is the last
 * step that changed a table, and never again once N is released.
 */
const step = Number(process.argv[2] ?? schemaSteps.length - 1);
const postgres = await startTestPostgres();
const dataDir = await mkdtemp(join(tmpdir(), "starling-old-"));
try {
  const [lived, empty] = [await postgres.createDatabase(), await postgres.createDatabase()];
  await live(lived);
  const old = connectTo(empty);
  await old.script(schemaScript(step));
  const full = connectTo(lived);
  const script = [
    `-- Written by test/support/write-old-database.ts: see there.`,
    schemaScript(step),
    ...(await partitionsOf(full)),
    ...(await rowsOf(full, await tablesOf(old))),
  ];
  await writeFile(oldDatabaseFile(step), `${script.join("\n")}\n`);
  await Promise.all([old.close(), full.close()]);
  process.stdout.write(`${oldDatabaseFile(step)}\n`);
} finally {
  await postgres.close();
  await rm(dataDir, { recursive: true, force: true });
}

/** Two lives of a node: one ends in order, the other dies before its first flush. */
async function live({ url }: TestDatabase): Promise<void> {
  const configDir = join(repository, "test/support/node-config");
  const options = { configDir, dataDir, databaseUrl: url, flags: oldFlags };
  const session = { name: oldSession };
  const first = await startNodeProcess(options);
  const client = await connect({ address: first.address, session, level: "processed" });
  await client.send(oldDatapoints);
  await client.close();
  await first.stop();
  const second = await startNodeProcess({ ...options, env: { [failPointVariable]: "before-flush:1" } });
  const later = await connect({ address: second.address, session, startNumber: 2, giveUpAfterMs: 100 });
  const sent = later.send(oldUnprocessed);
  await second.ended;
  // Whether the acknowledgement came through is chance.
  await Promise.allSettled([sent, later.close()]);
}

function connectTo({ url }: TestDatabase): Connection {
  return createConnection({ url, application: "old", statementTimeoutMs: 30_000, connectTimeoutMs: 10_000 });
}

async function tablesOf(connection: Connection): Promise<string[]> {
  const text = `select c.relname::text as name from pg_class c
    where c.relnamespace = 'starling'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition order by 1`;
  return (await connection.query<{ name: string }>(text)).map(({ name }) => name);
}

async function partitionsOf(connection: Connection): Promise<string[]> {
  const text = "select distinct at::date::text as day from starling.log order by 1";
  const days = await connection.query<{ day: string }>(text);
  return days.map(({ day }) => `select starling.ensure_partition_1('${day}');`);
}

async function rowsOf(connection: Connection, tables: readonly string[]): Promise<string[]> {
  const rows: string[] = [];
  for (const table of tables) {
    const columnsText = `select a.attname::text as name from pg_attribute a
      where a.attrelid = ('starling.' || $1)::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum`;
    const columns = (await connection.query<{ name: string }>(columnsText, [table])).map(({ name }) => name);
    const values = columns.map((name) => `quote_nullable(${name})`).join(" || ', ' || ");
    const found = await connection.query<{ row: string }>(`select ${values} as row from starling.${table} order by 1`);
    // The script makes the row of the version itself.
    const kept = found.filter(({ row }) => !row.startsWith("'schema_version'"));
    rows.push(...kept.map(({ row }) => `insert into starling.${table} (${columns.join(", ")}) values (${row});`));
  }
  return rows;
}
