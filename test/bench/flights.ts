import { join } from "node:path";
import type { Connection } from "../../actors/store/connection.ts";
import { readWhole } from "../../actors/store/load.ts";
import type { EntityKey } from "../../actors/store/store.ts";
import { rssPeakMb } from "../support/process-usage.ts";
import { repository } from "../support/repository.ts";
import { fieldsOf } from "../support/state-fields.ts";
import type { Bed } from "./bed.ts";
import { type Benchmark, type BenchmarkOptions, type Outcome, quantile } from "./benchmark.ts";
import { flightsMax } from "./flights-file.ts";
import type { FlightsReport } from "./flights-sender.ts";
import { untilSettled } from "./settled.ts";
import type { Verdict } from "./verify.ts";

/**
 * The example `flights` with more of its real data, at their real skew: of each flight the module derives one datapoint for its
 * route and one for the airport of its arrival, and a few airports take most of them.
 */
export const flights: Benchmark = {
  name: "flights",
  summary: "300,000 real flights through the example's module, which derives two datapoints of each",
  fields: [
    { key: "flights_per_s", unit: "flights/s", what: "until all that they derive is processed" },
    { key: "datapoints_per_s", unit: "datapoints/s", what: "the same, those that are sent and derived" },
    { key: "acked_per_s", unit: "datapoints/s", what: "those that are sent, durable" },
    { key: "ack_p50_ms", unit: "ms", what: "from a batch's sending to its durable acknowledgement" },
    { key: "ack_p99_ms", unit: "ms", what: "the same" },
    { key: "node_cpu_us_per_datapoint", unit: "µs", what: "processor time of the node" },
    { key: "postgres_cpu_us_per_datapoint", unit: "µs", what: "processor time of PostgreSQL" },
    { key: "rss_peak_mb", unit: "MB", what: "peak resident memory of the node" },
    { key: "entities", unit: "", what: "airports and routes" },
  ],
  bounds: () => [{ key: "rss_peak_mb", sense: "at most", limit: 1024 }],
  run,
};

const example = join(repository, "examples/flights");
const flightsUsual = 300_000;
const firstMax = 10;

async function run(bed: Bed, options: BenchmarkOptions): Promise<Outcome> {
  const count = Math.min(flightsMax, options.entities ?? flightsUsual);
  const database = await bed.createDatabase();
  try {
    const node = await bed.startNode({ databaseUrl: database.url, configDir: join(example, "config") });
    options.note(`${count} flights`);
    const { result, ...cpu } = await bed.measureCpu(node, async () => {
      const args = [node.address, join(example, "data"), String(count)];
      const report = (await bed.runClient(node, "flights-sender", args)) as FlightsReport;
      await untilSettled(node.address);
      return { report, seconds: (Date.now() - report.startedAt) / 1000 };
    });
    const peak = rssPeakMb(node.pid);
    await bed.stopNode(node);
    const { report, seconds } = result;
    const verdict = await bed.withConnection(database.url, (connection) => compare(connection, report));
    const all = report.expected.reduce((sum, [, n]) => sum + n, 0);
    return {
      values: {
        flights_per_s: count / seconds,
        datapoints_per_s: all / seconds,
        acked_per_s: report.sent / report.ackedS,
        ack_p50_ms: quantile(report.ackMs, 0.5),
        ack_p99_ms: quantile(report.ackMs, 0.99),
        node_cpu_us_per_datapoint: (cpu.nodeS * 1e6) / all,
        postgres_cpu_us_per_datapoint: (cpu.postgresS * 1e6) / all,
        rss_peak_mb: peak,
        entities: verdict.entities,
      },
      durability: await bed.durability(),
      remarks: [`${report.sent} datapoints were sent, ${all} stand in the records; client ${report.cpuS.toFixed(1)} s`],
      verdicts: [verdict],
    };
  } finally {
    await database.close();
  }
}

interface Row extends EntityKey {
  readonly state: string;
}

/** Compares how many datapoints each attribute has with what was sent and what the module derives of it. */
async function compare(connection: Connection, { expected }: FlightsReport): Promise<Verdict> {
  const rows = await connection.query<Row>("select shard, type, eid, state from starling.entity where not tombstone");
  const left = new Map(expected);
  const first: string[] = [];
  const sums = { history: 0, differences: 0, lost: 0, duplicated: 0 };
  const differ = (key: string, wanted: number, found: number): void => {
    sums.differences++;
    sums.lost += Math.max(0, wanted - found);
    sums.duplicated += Math.max(0, found - wanted);
    if (first.length < firstMax) first.push(`${key.replaceAll("\t", " ")}: ${wanted} expected, ${found} found`);
  };
  for (const { type, eid, state } of await readWhole(connection, rows)) {
    for (const [attr, { n }] of Object.entries(fieldsOf(state))) {
      const key = `${type}\t${eid}\t${attr}`;
      const wanted = left.get(key) ?? 0;
      left.delete(key);
      sums.history += n;
      if (wanted !== n) differ(key, wanted, n);
    }
  }
  for (const [key, wanted] of left) differ(key, wanted, 0);
  const [letters] = await connection.query<{ n: number }>("select count(*)::float8 as n from starling.dead_letter");
  if (letters !== undefined && letters.n > 0) differ("dead letters", 0, letters.n);
  return { entities: rows.length, ...sums, first };
}
