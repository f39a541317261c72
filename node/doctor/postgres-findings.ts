import type { OldTransaction, PostgresExamination, PostgresFacts } from "../../actors/store/examination.ts";
import { postgresMajorMin, schemaSteps } from "../../actors/store/migrations.ts";
import { connectionsOf } from "../../actors/store/postgres-store.ts";
import type { StarlingError } from "../../proto/starling-error.ts";
import type { Settings } from "../config/settings.ts";
import { readersOf } from "../open-database.ts";
import { createReport, type Finding, formatBytes, type Report } from "./finding.ts";

/** What a database is judged by. */
export interface PostgresExpectation {
  readonly url: string;
  readonly settings: Pick<Settings, "lanes" | "etcd" | "entityShards" | "systemShards">;
  /** How many nodes will use it, the one of this configuration included. */
  readonly nodes: number;
}

const clockWarningMs = 1_000;
const clockProblemMs = 60_000;
const transactionWarningS = 10 * 60;
const sharedBuffersMinBytes = 128 * 1024 * 1024;
const pageBytes = 8192;
const freeMinBytes = 5 * 1024 ** 3;

export interface SeenPostgres {
  readonly examination: PostgresExamination;
  /** On the disk of its data; null: not to be seen from here. */
  readonly freeBytes: number | null;
}

/** Judges what a look at a PostgreSQL showed. */
export function judgePostgres(
  { examination, freeBytes }: SeenPostgres,
  expectation: PostgresExpectation,
): readonly Finding[] {
  const report = createReport(postgresPlace(expectation.url));
  if (examination.kind === "failed") {
    judgeFailure(report, examination.reason, examination.error);
    return report.findings;
  }
  const { facts } = examination;
  judgeServer(report, facts);
  judgeDurability(report, facts);
  judgeConnections(report, facts, expectation);
  judgeSessions(report, facts);
  judgeClock(report, facts.clock);
  judgeMemory(report, facts);
  judgeDisk(report, freeBytes);
  judgeTransactions(report, facts.oldest);
  judgeSchema(report, facts, expectation.settings);
  return report.findings;
}

/** A database by its URL, which is shown without its password. */
export function postgresPlace(url: string): string {
  return `postgresql ${url.replace(/(:\/\/[^:@/]*):.*@/, "$1@")}`;
}

interface Failure {
  readonly matches: RegExp;
  readonly expected: string;
  readonly remedy: string;
}

const pooler = "give the nodes the address of the server itself, or a pooler that keeps sessions (pool_mode = session)";

/** By SQLSTATE, or by what the system or the package calls it; the first that matches. */
const failures: readonly Failure[] = [
  {
    matches: /^(DEADLINE|CONNECT_TIMEOUT|CONNECTION_CLOSED|CONNECTION_DESTROYED|ETIMEDOUT)/,
    expected: "an answer within the deadline",
    remedy: "is the server frozen or overloaded, or does a firewall swallow what is sent? Look at its log and its load",
  },
  {
    matches: /^(ECONNREFUSED|ENOENT|ECONNRESET|EHOSTUNREACH|ENETUNREACH)/,
    expected: "a server that listens there",
    remedy: "start PostgreSQL, or correct host and port of the URL; listen_addresses says where it listens",
  },
  { matches: /^(ENOTFOUND|EAI_)/, expected: "a name that is known", remedy: "correct the host of the URL, or DNS" },
  {
    matches: /^28/,
    expected: "an account that may log in",
    remedy: "correct user and password of the URL, or allow the account in pg_hba.conf",
  },
  { matches: /^3D/, expected: "a database of that name", remedy: "make it: createdb --encoding UTF8 NAME" },
  { matches: /^53300/, expected: "a free connection", remedy: "raise max_connections, or end what holds connections" },
  { matches: /^57P/, expected: "a server that is up", remedy: "wait until it has started, and look at its log" },
  { matches: /^(08P01|08P)/, expected: "the server itself", remedy: pooler },
];

function judgeFailure(report: Report, reason: string, error: StarlingError): void {
  const known = failures.find(({ matches }) => matches.test(reason));
  report.problem("reachable", {
    found: error.message,
    expected: known?.expected ?? "a PostgreSQL that answers",
    remedy: known?.remedy ?? "look at the log of PostgreSQL",
  });
}

function judgeServer(
  report: Report,
  { version, major, encoding, isInRecovery, rights, settings }: PostgresFacts,
): void {
  if (major >= postgresMajorMin) report.ok("version", version);
  else {
    const expected = `${postgresMajorMin} or newer`;
    report.problem("version", { found: version, expected, remedy: "upgrade the server, for instance by pg_upgrade" });
  }
  if (encoding !== "UTF8") {
    const remedy = "make the database anew: createdb --encoding UTF8 --template template0 NAME";
    report.problem("encoding", { found: encoding, expected: "UTF8", remedy });
  }
  if (isInRecovery || settings.get("default_transaction_read_only") === "on") {
    const found = isInRecovery ? "a standby, which is only read" : "default_transaction_read_only = on";
    const remedy = "name the primary in the URL, or promote this server if the primary is gone for good";
    report.problem("writable", { found, expected: "a server that takes writes", remedy });
  }
  if (!rights.create || !rights.control) {
    const lacks = rights.create ? "the function pg_control_system()" : "CREATE on the database";
    const right = rights.create ? "EXECUTE ON FUNCTION pg_control_system()" : "CREATE ON DATABASE …";
    const remedy = `as a superuser: GRANT ${right} TO the account of the URL`;
    report.problem("rights", { found: `the account lacks ${lacks}`, expected: "all rights on the database", remedy });
  }
}

function judgeDurability(report: Report, { settings }: PostgresFacts): void {
  const off = ["fsync", "full_page_writes"].filter((name) => settings.get(name) !== "on");
  for (const name of off) {
    const remedy = `set ${name} = on in postgresql.conf and restart the server: nodes refuse to run without it`;
    const expected = `${name} = on, else a crash loses what was acknowledged`;
    report.problem("durability", { found: `${name} = ${settings.get(name)}`, expected, remedy });
  }
  if (off.length === 0) report.ok("durability", "fsync and full_page_writes are on; nodes set synchronous_commit");
}

function judgeConnections(report: Report, facts: PostgresFacts, { settings, nodes }: PostgresExpectation): void {
  const number = (name: string): number => Number(facts.settings.get(name) ?? 0);
  const max = number("max_connections");
  const free = max - number("superuser_reserved_connections") - number("reserved_connections") - facts.otherConnections;
  const each = connectionsOf({ lanes: settings.lanes, readers: readersOf(settings) });
  const wanted = each * nodes;
  const found = `max_connections = ${max}, ${free} of them for Starling`;
  const expected = `${wanted} for ${nodes} node(s)`;
  if (free >= wanted) return report.ok("connections", `${found}; ${expected}`);
  const remedy = `set max_connections = ${max + wanted - free} or more in postgresql.conf and restart the server, or lower \`lanes\``;
  report.problem("connections", { found, expected, remedy });
}

function judgeSessions(report: Report, { settings, sessionKept }: PostgresFacts): void {
  if (!sessionKept) {
    const found = "settings of a session do not reach the server: a pooler seems to be in between";
    report.problem("session", { found, expected: "sessions that stay the node's own", remedy: pooler });
  }
  for (const name of ["idle_session_timeout", "transaction_timeout"]) {
    const ms = Number(settings.get(name) ?? 0);
    if (ms === 0) continue;
    const remedy = `ALTER ROLE … SET ${name} = 0 for the account of the URL`;
    const expected = `${name} = 0: the server would end connections that nodes hold for their life`;
    report.warning("session", { found: `${name} = ${ms} ms`, expected, remedy });
  }
}

function judgeClock(report: Report, { aheadMs, uncertainMs }: PostgresFacts["clock"]): void {
  const offMs = Math.max(0, Math.abs(aheadMs) - uncertainMs);
  const found = `${Math.abs(aheadMs)} ms ${aheadMs < 0 ? "behind" : "ahead of"} this machine, ±${uncertainMs} ms`;
  if (offMs <= clockWarningMs) return report.ok("clock", found);
  const remedy = "keep the clocks of both machines by NTP (chrony, systemd-timesyncd)";
  const complaint = { found, expected: `at most ${clockWarningMs} ms apart`, remedy };
  if (offMs > clockProblemMs) report.problem("clock", complaint);
  else report.warning("clock", complaint);
}

function judgeMemory(report: Report, { settings }: PostgresFacts): void {
  const pages = settings.get("shared_buffers");
  if (pages === undefined) return;
  const bytes = Number(pages) * pageBytes;
  if (bytes >= sharedBuffersMinBytes) return report.ok("shared_buffers", formatBytes(bytes));
  const expected = `${formatBytes(sharedBuffersMinBytes)} or more`;
  const remedy = "set shared_buffers to a quarter of the memory of the server's machine";
  report.warning("shared_buffers", { found: formatBytes(bytes), expected, remedy });
}

function judgeDisk(report: Report, freeBytes: number | null): void {
  if (freeBytes === null) return;
  const found = `${formatBytes(freeBytes)} free`;
  if (freeBytes >= freeMinBytes) return report.ok("disk", found);
  const remedy = "make room on the disk of the server's data, or lower `retention_days`";
  report.warning("disk", { found, expected: `${formatBytes(freeMinBytes)} or more`, remedy });
}

function judgeTransactions(report: Report, oldest: OldTransaction | null): void {
  if (oldest === null || oldest.ageS < transactionWarningS) return report.ok("old transactions", "none");
  const { id, kind, application, state, ageS } = oldest;
  const who = kind === "session" ? `process ${id} (${application || "without a name"}, ${state})` : `prepared as ${id}`;
  report.warning("old transactions", {
    found: `one has been open for ${Math.floor(ageS / 60)} min: ${who}`,
    expected: `none older than ${transactionWarningS / 60} min: tables grow, as vacuum removes nothing that is younger`,
    remedy: kind === "session" ? `end it: SELECT pg_terminate_backend(${id})` : `end it: ROLLBACK PREPARED '${id}'`,
  });
}

function judgeSchema(report: Report, { meta }: PostgresFacts, settings: PostgresExpectation["settings"]): void {
  if (meta === null) return report.ok("schema", "none yet: the first node makes it");
  const step = Number(meta.get("schema_version"));
  const known = schemaSteps.length;
  const found = `step ${step}, cluster ${meta.get("cluster_id") ?? "not named yet"}`;
  if (step > known) {
    const remedy = "run a Starling that is as new as the one that the database was last used with";
    report.problem("schema", { found, expected: `step ${known} or older`, remedy });
  } else report.ok("schema", step < known ? `${found}; the next node takes it to step ${known}` : found);
  const wanted = { entity: settings.entityShards, system: settings.systemShards };
  for (const [group, count] of Object.entries(wanted)) {
    const stored = meta.get(`shards/${group}`);
    if (stored === undefined || stored === String(count)) continue;
    const remedy = `set ${group}_shards to ${stored}: the number was fixed when the first data were stored`;
    report.problem("shards", {
      found: `${group}_shards = ${count}`,
      expected: `${stored}, as in the database`,
      remedy,
    });
  }
}
