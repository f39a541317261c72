import { StarlingError } from "../../proto/starling-error.ts";
import { acquireAboveFunctions, acquireFunctions, acquireWorldFunctions, claimFunctions } from "./acquire.ts";
import { appendFunctions } from "./append.ts";
import type { Connection } from "./connection.ts";
import { flushFunctions, orderedFlushFunctions } from "./flush.ts";
import { historyFunctions } from "./history.ts";
import { lifetimeFunctions } from "./lifetime.ts";
import { linkFunctions, referenceFunctions, seenLinkFunctions } from "./link.ts";
import { loadFunctions } from "./load.ts";
import { obituaryFunctions } from "./obituary.ts";
import { attemptRanges, obligationFunctions } from "./obligation.ts";
import { partitionFunctions } from "./partition.ts";
import { queryFunctions } from "./query.ts";
import { readLogFunctions } from "./read-log.ts";
import { clusterLockClass, commonFunctions, modelTables, shortStates, tables, worldTable } from "./schema.ts";
import { sessionFunctions, sessionHolders, sessionLife, sessionOpenings } from "./session.ts";
import { snapshotImageFunctions } from "./snapshot-image.ts";
import { snapshotIndexFunctions } from "./snapshot-index.ts";
import { confidentPages, seenGonePages, snapshotPageFunctions } from "./snapshot-pages.ts";
import { snapshotRunFunctions } from "./snapshot-run.ts";
import { snapshotTables } from "./snapshot-schema.ts";
import { snapshotWriteFunctions } from "./snapshot-write.ts";
import { boundedTickPage, tickPageFunctions } from "./tick-pages.ts";
import { worldFunctions } from "./world.ts";

/**
 * The schema's steps, in order; the database knows how many it has taken. A step is never changed once released, and
 * leaves what the nodes of the version before call: a function that they could not call as before gets a new number in its name.
 */
export const schemaSteps: readonly string[] = [
  [
    tables,
    commonFunctions,
    partitionFunctions,
    appendFunctions,
    obligationFunctions,
    flushFunctions,
    acquireFunctions,
    loadFunctions,
    readLogFunctions,
    sessionFunctions,
    queryFunctions,
  ].join("\n"),
  [modelTables, worldTable, worldFunctions, acquireWorldFunctions].join("\n"),
  [claimFunctions, sessionOpenings, orderedFlushFunctions].join("\n"),
  historyFunctions,
  linkFunctions,
  [
    snapshotTables,
    snapshotRunFunctions,
    snapshotWriteFunctions,
    snapshotImageFunctions,
    snapshotIndexFunctions,
    sessionHolders,
    referenceFunctions,
    obituaryFunctions,
    lifetimeFunctions,
  ].join("\n"),
  [snapshotPageFunctions, tickPageFunctions, seenLinkFunctions].join("\n"),
  [boundedTickPage, seenGonePages].join("\n"),
  confidentPages,
  sessionLife,
  attemptRanges,
  shortStates,
  acquireAboveFunctions,
];

/** The oldest PostgreSQL that has all that the schema calls (`pg_input_is_valid`). */
export const postgresMajorMin = 16;

export interface ClusterExpectation {
  /** Number of shards by group: fixed for the life of a cluster. */
  readonly shards: Readonly<Record<string, number>>;
  /** The id that the database must have; a new one takes it. */
  readonly clusterId?: string;
}

/**
 * Brings the database to this version's schema and returns the cluster's id. Raises STORE_FATAL for a server that is too
 * old or not durable and for a database that is newer, CONFIG for other numbers of shards, WRONG_CLUSTER for another cluster's.
 */
export async function migrate(connection: Connection, expected: ClusterExpectation): Promise<string> {
  await checkVersion(connection);
  await checkDurability(connection);
  await connection.query("select pg_advisory_lock($1, 1)", [clusterLockClass]);
  try {
    await connection.script(metaTable);
    await takeSteps(connection);
    return await checkCluster(connection, expected);
  } finally {
    await connection.query("select pg_advisory_unlock($1, 1)", [clusterLockClass]);
  }
}

const metaTable = `
create schema if not exists starling;
create table if not exists starling.meta (key text primary key, value text not null);
insert into starling.meta values ('schema_version', '0') on conflict do nothing;
`;

async function checkVersion(connection: Connection): Promise<void> {
  const [row] = await connection.query<{ value: string }>("select current_setting('server_version_num') as value");
  const major = Math.floor(Number(row?.value) / 10_000);
  if (major >= postgresMajorMin) return;
  throw new StarlingError(
    "STORE_FATAL",
    `PostgreSQL is of version ${major}: it has to be ${postgresMajorMin} or newer`,
  );
}

/** R8: what the server acknowledges has to be on the disk. */
async function checkDurability(connection: Connection): Promise<void> {
  for (const name of ["fsync", "full_page_writes"]) {
    const [row] = await connection.query<{ value: string }>("select current_setting($1) as value", [name]);
    if (row?.value === "on") continue;
    throw new StarlingError(
      "STORE_FATAL",
      `PostgreSQL runs with ${name} = ${row?.value}: acknowledged data could be lost`,
    );
  }
}

async function takeSteps(connection: Connection): Promise<void> {
  const [row] = await connection.query<{ value: string }>(readMeta, ["schema_version"]);
  const version = Number(row?.value ?? "0");
  if (version > schemaSteps.length) {
    const message = `the database has schema ${version}, of a newer Starling: this one knows ${schemaSteps.length}`;
    throw new StarlingError("STORE_FATAL", message);
  }
  for (const [index, step] of schemaSteps.entries()) {
    if (index < version) continue;
    await connection.script(`${step}\n${setVersion(index + 1)}`);
  }
}

/** The SQL that makes an empty database of the first `version` steps. */
export function schemaScript(version: number): string {
  return [metaTable, ...schemaSteps.slice(0, version), setVersion(version)].join("\n");
}

function setVersion(version: number): string {
  return `update starling.meta set value = '${version}' where key = 'schema_version';`;
}

const readMeta = "select value from starling.meta where key = $1";

async function checkCluster(connection: Connection, expected: ClusterExpectation): Promise<string> {
  const id = await keepMeta(connection, "cluster_id", expected.clusterId ?? null);
  if (expected.clusterId !== undefined && id !== expected.clusterId) {
    throw new StarlingError("WRONG_CLUSTER", `the database belongs to cluster ${id}, not ${expected.clusterId}`);
  }
  for (const [group, count] of Object.entries(expected.shards)) {
    const stored = await keepMeta(connection, `shards/${group}`, String(count));
    if (stored === String(count)) continue;
    const message = `the cluster has ${stored} shards of group ${group} for ever, the configuration says ${count}`;
    throw new StarlingError("CONFIG", message);
  }
  return id;
}

/** Writes a value unless there is one, and returns the one that stands; null makes a new UUID. */
async function keepMeta(connection: Connection, key: string, value: string | null): Promise<string> {
  const text = "insert into starling.meta values ($1, coalesce($2, gen_random_uuid()::text)) on conflict do nothing";
  await connection.query(text, [key, value]);
  const [row] = await connection.query<{ value: string }>(readMeta, [key]);
  return row?.value ?? "";
}
