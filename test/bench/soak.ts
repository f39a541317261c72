import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { openPostgresStore } from "../../actors/store/postgres-store.ts";
import type { NodeProcess } from "../support/node-process.ts";
import { repository } from "../support/repository.ts";
import type { Bed } from "./bed.ts";
import type { Benchmark, BenchmarkOptions, Outcome } from "./benchmark.ts";
import { expectThings, type Sent } from "./expectation.ts";
import { type MemoryWatch, residentEntities, watchMemory } from "./memory-watch.ts";
import { createPlan } from "./plan.ts";
import type { SendReport } from "./sender.ts";
import { verify } from "./verify.ts";

/**
 * Ten minutes at 70 % of full speed. Entities come in blocks and passivate before their block comes again. The node's
 * calendar is shifted so that midnight falls into the middle: the log gets a new partition, and as soon as every shard has
 * passed yesterday's, the benchmark has the store drop it (a node does that once in ten minutes, after the days of
 * retention).
 */
export const soak: Benchmark = {
  name: "soak",
  summary: "ten minutes at 70 % of full speed, with passivation and a dropped partition of the log",
  fields: [
    { key: "rss_mb_start", unit: "MB", what: "highest resident memory of the node in the second minute" },
    { key: "rss_mb_end", unit: "MB", what: "the same in the last minute" },
    { key: "p99_start_ms", unit: "ms", what: "durable acknowledgements in the second minute" },
    { key: "p99_end_ms", unit: "ms", what: "the same in the last minute" },
  ],
  bounds: ({ rss_mb_start = Number.NaN }) => [{ key: "rss_mb_end", sense: "at most", limit: 1.1 * rss_mb_start }],
  run,
};

const share = 0.7;
const blocks = 10;
const flags = ["--passivate-after-ms", "5000"];
const windows = 10;
const dayMs = 86_400_000;
const tryEveryMs = 1000;

interface Soaked {
  readonly sent: readonly Sent[];
  readonly report: SendReport;
  readonly memory: MemoryWatch;
  readonly dropped: readonly string[];
  readonly residents: number;
}

async function run(bed: Bed, options: BenchmarkOptions): Promise<Outcome> {
  const entities = options.entities ?? 200_000;
  const database = await bed.createDatabase();
  try {
    const soaked = await soakNode(bed, database.url, entities, options);
    const { report, dropped } = soaked;
    options.note(`verifying ${report.sent} datapoints`);
    const verdict = await bed.withConnection(database.url, (connection) =>
      verify(connection, expectThings(soaked.sent)),
    );
    if (dropped.length === 0) throw new Error("no partition of the log was dropped");
    return {
      values: valuesOf(soaked, (options.minutes * 60) / windows),
      remarks: [
        `${report.sent} datapoints, ${Math.round(report.sent / report.ackedS)} per second; the last was processed ` +
          `${(report.processedS - report.ackedS).toFixed(1)} s after the last acknowledgement`,
        `${soaked.residents} of ${entities} entities were resident near the end; dropped: the log of ${dropped.join(", ")}`,
      ],
      verdicts: [verdict],
    };
  } finally {
    await database.close();
  }
}

async function soakNode(bed: Bed, url: string, entities: number, options: BenchmarkOptions): Promise<Soaked> {
  const durationS = options.minutes * 60;
  options.note("full speed");
  const first = createPlan(entities, { blockEntities: entities / blocks, generation: 0 });
  const before = await bed.startNode({ databaseUrl: url, flags });
  const full = await bed.send(before, first);
  await bed.stopNode(before);
  const rate = Math.round((share * full.sent) / full.processedS);
  options.note(`${options.minutes} minutes at ${rate} datapoints/s`);
  const windowS = durationS / windows;
  const plan = { ...first, generation: 1, passes: 1_000_000, rate, durationS, windowS };
  const midnight = (Math.floor(Date.now() / dayMs) + 1) * dayMs;
  const node = await startShiftedNode(bed, url, midnight - (durationS * 1000) / 2);
  const memory = watchMemory(node.pid);
  const ended = new AbortController();
  const dropping = dropWhenPassed(bed, url, midnight, ended.signal);
  const counting = countNearEnd(node, durationS, options.signal);
  try {
    const report = await bed.send(node, plan);
    ended.abort();
    const [dropped, residents] = [await dropping, await counting];
    await bed.stopNode(node);
    const sent = [
      { plan: first, sent: full.sent },
      { plan, sent: report.sent },
    ];
    return { sent, report, memory, dropped, residents };
  } finally {
    memory.stop();
    ended.abort();
    await Promise.allSettled([dropping, counting]);
  }
}

function startShiftedNode(bed: Bed, databaseUrl: string, now: number): Promise<NodeProcess> {
  const preload = pathToFileURL(join(repository, "dist/test/bench/shifted-clock.js")).href;
  const env = {
    NODE_OPTIONS: `${process.env.NODE_OPTIONS ?? ""} --import ${preload}`,
    BENCH_SHIFT_MS: String(Math.round(now - Date.now())),
  };
  return bed.startNode({ databaseUrl, flags, env });
}

async function countNearEnd(node: NodeProcess, durationS: number, signal: AbortSignal): Promise<number> {
  await delay(durationS * 900, undefined, { signal });
  return residentEntities(node.address);
}

/** Has the store drop yesterday's partition once today's has rows, again and again until it has gone. Returns its day. */
async function dropWhenPassed(bed: Bed, url: string, midnight: number, ended: AbortSignal): Promise<string[]> {
  const text = "select exists (select from starling.log where at >= starling.to_time_1($1)) as found";
  const store = await openPostgresStore({ url, lanes: 1, shards: { entity: 256, system: 16 } });
  try {
    return await bed.withConnection(url, async (connection) => {
      while (!ended.aborted) {
        await delay(tryEveryMs);
        const [today] = await connection.query<{ found: boolean }>(text, [midnight]);
        const dropped = today?.found ? await store.dropPartitions(midnight) : [];
        if (dropped.length > 0) return dropped;
      }
      return [];
    });
  } finally {
    await store.close();
  }
}

function valuesOf({ report, memory }: Soaked, windowS: number): Outcome["values"] {
  return {
    rss_mb_start: memory.peakBetween(windowS, 2 * windowS),
    rss_mb_end: memory.peakBetween((windows - 1) * windowS, windows * windowS),
    p99_start_ms: report.windows[1]?.p99Ms ?? Number.NaN,
    p99_end_ms: report.windows[windows - 1]?.p99Ms ?? Number.NaN,
  };
}
