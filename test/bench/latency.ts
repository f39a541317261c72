import type { Connection } from "../../actors/store/connection.ts";
import type { Bed } from "./bed.ts";
import { type Benchmark, type BenchmarkOptions, type Outcome, quantile } from "./benchmark.ts";
import { runIngest } from "./ingest-run.ts";
import { whileListing } from "./list-lag.ts";
import { createPlan } from "./plan.ts";
import type { SendReport } from "./sender.ts";

/** How long an acknowledgement takes at half of full speed, beside what an empty commit takes meanwhile. */
export const latency: Benchmark = {
  name: "latency",
  summary: "an open loop at half of full speed, latencies from the intended time of sending",
  fields: [
    { key: "ack_p50_ms", unit: "ms", what: "from the intended time of sending to the durable acknowledgement" },
    { key: "ack_p99_ms", unit: "ms", what: "the same" },
    { key: "commit_p99_ms", unit: "ms", what: "an empty commit (one row of one number), during the open loop" },
    { key: "list_lag_p50_ms", unit: "ms", what: "how old a list of entities is when it comes, during the open loop" },
    { key: "list_lag_p99_ms", unit: "ms", what: "the same" },
  ],
  bounds: ({ commit_p99_ms = Number.NaN }) => [
    { key: "ack_p99_ms", sense: "at most", limit: 30 + 3 * commit_p99_ms },
    { key: "list_lag_p99_ms", sense: "at most", limit: 1000 },
  ],
  run,
};

const commitEveryMs = 50;
const idleMs = 3000;

interface Loop {
  readonly report: SendReport;
  /** Datapoints/s. */
  readonly rate: number;
  /** In ms. */
  readonly commits: readonly number[];
  readonly lags: readonly number[];
}

async function run(bed: Bed, options: BenchmarkOptions): Promise<Outcome> {
  const entities = options.entities ?? 100_000;
  const plan = createPlan(entities, { generation: 2, seed: 3, batch: 500 });
  const loops: Loop[] = [];
  let idle: number[] = [];
  options.note("full speed");
  const { verdict } = await runIngest(bed, entities, async (node, full) => {
    const rate = Math.round(full.sent / full.processedS / 2);
    options.note(`open loop at ${rate} datapoints/s`);
    await bed.checkpoint();
    idle = (await whileCommitting(bed, idleMs, null)).commits;
    const { result, commits } = await whileCommitting(bed, null, () =>
      whileListing(node.address, "thing", () => bed.send(node, { ...plan, rate })),
    );
    if (result !== null) loops.push({ report: result.result, lags: result.lags, rate, commits });
    return loops.map(({ report: { sent } }) => ({ plan, sent }));
  });
  const [loop] = loops;
  if (loop === undefined) throw new Error("the open loop has no report");
  return {
    values: {
      ack_p50_ms: loop.report.ackP50Ms,
      ack_p99_ms: loop.report.ackP99Ms,
      commit_p99_ms: quantile(loop.commits, 0.99),
      list_lag_p50_ms: quantile(loop.lags, 0.5),
      list_lag_p99_ms: quantile(loop.lags, 0.99),
    },
    remarks: [
      `${loop.rate} datapoints/s; ${loop.commits.length} empty commits; with an idle node their p99 is ` +
        `${quantile(idle, 0.99).toFixed(1)} ms`,
    ],
    verdicts: [verdict],
  };
}

/** Commits one row every 50 ms while something runs, or for a time. Latencies in ms. */
async function whileCommitting<T>(bed: Bed, forMs: number | null, during: (() => Promise<T>) | null) {
  const database = await bed.createDatabase();
  const commits: number[] = [];
  const until = performance.now() + (forMs ?? Number.POSITIVE_INFINITY);
  let status: "running" | "ended" = "running";
  try {
    return await bed.withConnection(database.url, async (connection) => {
      await connection.script("create table tick (at int)");
      const committing = (async () => {
        while (status === "running" && performance.now() < until) commits.push(await commitOne(connection));
      })();
      try {
        const result = during === null ? null : await during();
        if (during === null) await committing;
        return { result, commits };
      } finally {
        status = "ended";
        await committing;
      }
    });
  } finally {
    await database.close();
  }
}

async function commitOne(connection: Connection): Promise<number> {
  const started = performance.now();
  await connection.query("insert into tick values (1)");
  const took = performance.now() - started;
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, commitEveryMs - took)));
  return took;
}
