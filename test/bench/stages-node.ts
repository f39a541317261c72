import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import type { Connection } from "../../actors/store/connection.ts";
import type { NodeProcess } from "../support/node-process.ts";
import { repository } from "../support/repository.ts";
import type { Bed } from "./bed.ts";
import { expectThings } from "./expectation.ts";
import { ingestPlan } from "./ingest-run.ts";
import { readProcessClock, secondsBetween } from "./process-clock.ts";
import type { CpuProfile } from "./profile-stages.ts";
import type { SendReport } from "./sender.ts";
import { preloadPlan } from "./stage.ts";
import { type Verdict, verify } from "./verify.ts";

/** A run of `ingest`'s datapoints through a real node. */
export interface NodeRun {
  readonly report: SendReport;
  /** µs of processor time for each datapoint: of the node's main thread, of its other threads, and of PostgreSQL. */
  readonly mainUs: number;
  readonly threadsUs: number;
  readonly postgresUs: number;
  /** Of the rows that were written, for each datapoint. */
  readonly rows: Readonly<Record<"log" | "state" | "history", number>>;
  /** Null without profiler. */
  readonly profile: CpuProfile | null;
  readonly verdict: Verdict;
}

const profileWithinMs = 60_000;

/** Sends and measures, with or without a profile of the time of sending. */
export async function runNode(bed: Bed, entities: number, { profiled }: { profiled: boolean }): Promise<NodeRun> {
  const database = await bed.createDatabase();
  const folder = await mkdtemp(join(tmpdir(), "starling-stages-"));
  const file = join(folder, "node.cpuprofile");
  try {
    const env = profiled ? profilingEnv(file) : {};
    const node = await bed.startNode({ databaseUrl: database.url, env });
    const before = preloadPlan(entities);
    const preload = await bed.send(node, before);
    const preloaded = await bed.withConnection(database.url, countRows);
    await bed.checkpoint();
    if (profiled) process.kill(node.pid, "SIGUSR2");
    const started = readClocks(bed, node);
    const plan = ingestPlan(entities);
    const report = await bed.send(node, plan);
    const ended = readClocks(bed, node);
    if (profiled) process.kill(node.pid, "SIGUSR2");
    const profile = profiled ? await readProfile(file, node) : null;
    await bed.stopNode(node);
    return await bed.withConnection(database.url, async (connection) => {
      const sent = [
        { plan: before, sent: preload.sent },
        { plan, sent: report.sent },
      ];
      const verdict = await verify(connection, expectThings(sent));
      const rows = rowsBetween(preloaded, await countRows(connection), report.sent);
      return { report, ...usBetween(started, ended, report.sent), rows, profile, verdict };
    });
  } finally {
    await database.close();
    await rm(folder, { recursive: true, force: true });
  }
}

function profilingEnv(file: string): Record<string, string> {
  const preload = pathToFileURL(join(repository, "dist/test/bench/cpu-profile.js")).href;
  return { NODE_OPTIONS: `${process.env.NODE_OPTIONS ?? ""} --import ${preload}`, BENCH_PROFILE: file };
}

/** The file is there when it is whole. */
async function readProfile(file: string, node: NodeProcess): Promise<CpuProfile> {
  const ended = node.ended.then((code) => {
    throw new Error(`the node ended with ${code} before its profile was written`);
  });
  const written = async (): Promise<void> => {
    for (const until = Date.now() + profileWithinMs; Date.now() < until; await delay(50)) {
      if (await stat(file).catch(() => null)) return;
    }
    throw new Error("the node wrote no profile");
  };
  ended.catch(() => undefined); // the race has it; later the node ends as it should
  await Promise.race([written(), ended]);
  return JSON.parse(await readFile(file, "utf8")) as CpuProfile;
}

function readClocks(bed: Bed, node: NodeProcess) {
  return { pid: node.pid, node: readProcessClock(node.pid), postgres: readProcessClock(bed.postgres.pid) };
}

type Clocks = ReturnType<typeof readClocks>;

function usBetween(before: Clocks, after: Clocks, datapoints: number) {
  const main = `${before.pid}/${before.pid}`;
  const mainS = ((after.node.get(main) ?? 0) - (before.node.get(main) ?? 0)) / 1e9;
  const us = (seconds: number) => (seconds * 1e6) / datapoints;
  return {
    mainUs: us(mainS),
    threadsUs: us(secondsBetween(before.node, after.node) - mainS),
    postgresUs: us(secondsBetween(before.postgres, after.postgres)),
  };
}

interface RowCounts {
  readonly log: number;
  readonly history: number;
  /** Inserts and updates of records; what the statistics have heard of so far. */
  readonly written: number;
}

async function countRows(connection: Connection): Promise<RowCounts> {
  const [row] = await connection.query<{ log: number; history: number; written: number }>(`select
    (select count(*) from starling.log)::float8 as log, (select count(*) from starling.history)::float8 as history,
    (select n_tup_ins + n_tup_upd from pg_stat_user_tables where relid = 'starling.entity'::regclass)::float8
      as written`);
  if (row === undefined) throw new Error("PostgreSQL counted nothing");
  return row;
}

/**
 * The statistics are whole only once the node's connections are closed. Before, each record was written with a row
 * of its history, since all that was sent then has one: these rows tell how many there were.
 */
function rowsBetween(before: RowCounts, after: RowCounts, datapoints: number): NodeRun["rows"] {
  return {
    log: (after.log - before.log) / datapoints,
    history: (after.history - before.history) / datapoints,
    state: (after.written - before.history) / datapoints,
  };
}
