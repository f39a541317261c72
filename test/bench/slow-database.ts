import { rssPeakMb } from "../support/process-usage.ts";
import type { Bed } from "./bed.ts";
import type { Benchmark, BenchmarkOptions, Outcome } from "./benchmark.ts";
import { expectThings } from "./expectation.ts";
import { createPlan } from "./plan.ts";
import { verify } from "./verify.ts";

/**
 * Full speed against a database that takes 200 ms for every commit of an append or a flush. What makes it slow is a
 * constraint trigger, deferred to the commit, that sleeps once in each transaction with its locks held, as a slow disk
 * would have it; a proxy in the network would also slow down what only reads. Appends write `log`, flushes `entity` and
 * `progress`.
 */
export const slowDatabase: Benchmark = {
  name: "slow-database",
  summary: "ten minutes at full speed against a database that takes 200 ms a commit",
  fields: [
    { key: "acked_per_s", unit: "datapoints/s", what: "durable" },
    { key: "processed_per_s", unit: "datapoints/s", what: "behind the watermark" },
    { key: "ack_p50_ms", unit: "ms", what: "from a batch's sending to its durable acknowledgement" },
    { key: "ack_p99_ms", unit: "ms", what: "the same" },
    { key: "unacked_batches_max", unit: "batches", what: "most that the client could send ahead" },
    { key: "rss_peak_mb", unit: "MB", what: "peak resident memory of the node" },
    { key: "client_rss_peak_mb", unit: "MB", what: "peak resident memory of the client" },
  ],
  bounds: () => [
    { key: "ack_p50_ms", sense: "at least", limit: 200 },
    // The window, and the one that waits for a place in it.
    { key: "unacked_batches_max", sense: "at most", limit: window + 1 },
    { key: "rss_peak_mb", sense: "at most", limit: 1024 },
    { key: "client_rss_peak_mb", sense: "at most", limit: 1024 },
  ],
  run,
};

const window = 8;
const commitS = 0.2;

const slowly = `
  create function starling.bench_sleep() returns trigger language plpgsql as $$
  begin
    if current_setting('bench.slept', true) is distinct from pg_current_xact_id()::text then
      perform set_config('bench.slept', pg_current_xact_id()::text, true);
      perform pg_sleep(${commitS});
    end if;
    return null;
  end
  $$;
  ${["log", "entity", "progress"]
    .map(
      (table) => `create constraint trigger bench_slow after insert or update on starling.${table}
    deferrable initially deferred for each row execute function starling.bench_sleep();`,
    )
    .join("\n  ")}`;

async function run(bed: Bed, options: BenchmarkOptions): Promise<Outcome> {
  const entities = options.entities ?? 100_000;
  const durationS = options.minutes * 60;
  const database = await bed.createDatabase();
  try {
    const node = await bed.startNode({ databaseUrl: database.url });
    await bed.withConnection(database.url, (connection) => connection.script(slowly));
    options.note(`${options.minutes} minutes at full speed`);
    const plan = createPlan(entities, { generation: 0, passes: 1_000_000, durationS, maxInFlight: window });
    const report = await bed.send(node, plan);
    const peak = rssPeakMb(node.pid);
    await bed.stopNode(node);
    options.note(`verifying ${report.sent} datapoints`);
    const expectation = expectThings([{ plan, sent: report.sent }]);
    const verdict = await bed.withConnection(database.url, (connection) => verify(connection, expectation));
    return {
      values: {
        acked_per_s: report.sent / report.ackedS,
        processed_per_s: report.sent / report.processedS,
        ack_p50_ms: report.ackP50Ms,
        ack_p99_ms: report.ackP99Ms,
        unacked_batches_max: report.unackedMax,
        rss_peak_mb: peak,
        client_rss_peak_mb: report.rssPeakMb,
      },
      remarks: [],
      verdicts: [verdict],
    };
  } finally {
    await database.close();
  }
}
