import type { Clock } from "../../proto/clock.ts";
import { withDeadline } from "../../proto/deadline.ts";
import { StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import { type Connection, createConnection } from "./connection.ts";
import { codeOf } from "./postgres-error.ts";

/** What a look at one PostgreSQL showed: nothing is changed there. */
export type PostgresExamination =
  | { readonly kind: "answered"; readonly facts: PostgresFacts }
  /** `reason`: the SQLSTATE, or the code of the system, of the package or of ours (`ECONNREFUSED`, `CONNECT_TIMEOUT`, `DEADLINE`). */
  | { readonly kind: "failed"; readonly reason: string; readonly error: StarlingError };

export interface PostgresFacts {
  /** As people write it: `18.4`. */
  readonly version: string;
  readonly major: number;
  readonly encoding: string;
  /** A standby that is only read. */
  readonly isInRecovery: boolean;
  /** It runs on this machine, so its data folder can be looked at from here. */
  readonly isLocal: boolean;
  /** The account may make a schema, and may read which server this is. */
  readonly rights: { readonly create: boolean; readonly control: boolean };
  /** By name, in PostgreSQL's own units; what the account may not see is missing. */
  readonly settings: ReadonlyMap<string, string>;
  /** Whether the session has the settings that it asked for when it connected: a pooler in between loses them. */
  readonly sessionKept: boolean;
  /** Client connections that are not Starling's. */
  readonly otherConnections: number;
  /** The server's clock less this machine's, and by how much that may be wrong. */
  readonly clock: { readonly aheadMs: number; readonly uncertainMs: number };
  /** What the database knows of the cluster; null: there is no schema yet. */
  readonly meta: ReadonlyMap<string, string> | null;
  /** The oldest transaction that is open; null: none that the account may see. */
  readonly oldest: OldTransaction | null;
}

export interface OldTransaction {
  /** What a person ends it by: a process id, or the id of a prepared transaction. */
  readonly id: string;
  readonly kind: "session" | "prepared";
  readonly application: string;
  readonly state: string;
  readonly ageS: number;
}

export interface ExaminationOptions {
  readonly url: string;
  /** Bounds the whole look. */
  readonly deadlineMs: number;
  readonly clock: Clock;
  /** Unix milliseconds. */
  readonly wall: () => number;
}

/** The last word is the server's, where it has one, so each statement ends a little earlier than the whole. */
const marginMs = 400;

/** Looks at a server and at the cluster's data in it. Never raises: what failed is part of the answer. */
export async function examinePostgres({
  url,
  deadlineMs,
  clock,
  wall,
}: ExaminationOptions): Promise<PostgresExamination> {
  try {
    const stepMs = Math.max(1, deadlineMs - marginMs);
    const connection = createConnection({
      ...{ url, application: "starling doctor", connectTimeoutMs: stepMs },
      ...{ statementTimeoutMs: stepMs, graceMs: marginMs / 4 },
    });
    const work = readFacts(connection, stepMs, wall).finally(() => connection.close());
    const facts = await withDeadline(work, { clock, deadlineMs, text: "postgresql did not answer" });
    return { kind: "answered", facts };
  } catch (error) {
    const known = toStarlingError(error, "STORE");
    return { kind: "failed", reason: codeOf(known) ?? known.code, error: known };
  }
}

interface ServerRow {
  readonly versionNum: number;
  readonly version: string;
  readonly encoding: string;
  readonly isInRecovery: boolean;
  readonly isLocal: boolean;
  readonly create: boolean;
  readonly control: boolean;
  readonly hasSchema: boolean;
  readonly otherConnections: number;
}

const serverText = `select current_setting('server_version_num')::int as "versionNum",
  split_part(current_setting('server_version'), ' ', 1) as version, current_setting('server_encoding') as encoding,
  pg_is_in_recovery() as "isInRecovery",
  inet_server_addr() is null or inet_server_addr() <<= '127.0.0.0/8' or inet_server_addr() = '::1' as "isLocal",
  has_database_privilege(current_database(), 'create') as create,
  has_function_privilege('pg_control_system()', 'execute') as control,
  exists (select from pg_namespace n join pg_class c on c.relnamespace = n.oid
    where nspname = 'starling' and relname = 'meta') as "hasSchema",
  (select count(*)::int from pg_stat_activity
    where backend_type = 'client backend' and application_name not like 'starling%') as "otherConnections"`;

const settingsText = `select name, setting from pg_settings where name in ('fsync', 'full_page_writes', 'max_connections',
  'superuser_reserved_connections', 'reserved_connections', 'idle_session_timeout', 'transaction_timeout',
  'shared_buffers', 'data_directory', 'default_transaction_read_only', 'synchronous_commit', 'statement_timeout', 'jit')`;

/** Transactions that keep vacuum from removing what died after they began. */
const oldestText = `select id, kind, application, state, age as "ageS" from (
    select pid::text, 'session', application_name, coalesce(state, ''), extract(epoch from now() - xact_start)::float8
      from pg_stat_activity
      where xact_start is not null and (backend_xid is not null or backend_xmin is not null) and pid <> pg_backend_pid()
    union all
    select gid, 'prepared', owner::text, 'prepared', extract(epoch from now() - prepared)::float8 from pg_prepared_xacts
  ) t(id, kind, application, state, age) order by age desc limit 1`;

async function readFacts(connection: Connection, stepMs: number, wall: () => number): Promise<PostgresFacts> {
  const [server] = await connection.query<ServerRow>(serverText);
  if (server === undefined) throw new StarlingError("STORE", "postgresql does not say which version it is");
  const clock = await compareClocks(connection, wall);
  const settings = await readPairs(connection, settingsText, "name", "setting");
  const meta = server.hasSchema
    ? await readPairs(connection, "select key, value from starling.meta", "key", "value")
    : null;
  const [oldest] = await connection.query<OldTransaction>(oldestText);
  const { versionNum, version, encoding, isInRecovery, isLocal, create, control, otherConnections } = server;
  return {
    ...{ version, encoding, isInRecovery, isLocal, otherConnections, settings, clock, meta },
    major: Math.floor(versionNum / 10_000),
    rights: { create, control },
    sessionKept: settings.get("jit") === "off" && settings.get("statement_timeout") === String(stepMs),
    oldest: oldest ?? null,
  };
}

/** The server's clock was read somewhere between our two looks at ours. */
async function compareClocks(connection: Connection, wall: () => number): Promise<PostgresFacts["clock"]> {
  const before = wall();
  const text = "select (extract(epoch from clock_timestamp()) * 1000)::float8 as at";
  const [row] = await connection.query<{ at: number }>(text);
  const after = wall();
  return { aheadMs: Math.round((row?.at ?? 0) - (before + after) / 2), uncertainMs: Math.ceil((after - before) / 2) };
}

async function readPairs<K extends string, V extends string>(
  connection: Connection,
  text: string,
  key: K,
  value: V,
): Promise<ReadonlyMap<string, string>> {
  const rows = await connection.query<Record<K | V, string>>(text);
  return new Map(rows.map((row) => [row[key], row[value]]));
}
