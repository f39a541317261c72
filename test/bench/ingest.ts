import type { Bed } from "./bed.ts";
import { type Benchmark, type BenchmarkOptions, median, type Outcome } from "./benchmark.ts";
import { createCopyBaseline } from "./copy-baseline.ts";
import { type IngestRun, ingestPlan, runIngest } from "./ingest-run.ts";

/** Datapoints in at full speed, beside PostgreSQL's plain COPY of the same. */
export const ingest: Benchmark = {
  name: "ingest",
  summary: "1,000,000 datapoints at full speed, beside plain COPY, alternating three times",
  fields: [
    { key: "acked_per_s", unit: "datapoints/s", what: "durable" },
    { key: "processed_per_s", unit: "datapoints/s", what: "behind the watermark" },
    { key: "copy_per_s", unit: "rows/s", what: "plain COPY" },
    { key: "ratio", unit: "", what: "processed over COPY" },
    { key: "ack_p50_ms", unit: "ms", what: "from a batch's sending to its durable acknowledgement" },
    { key: "ack_p99_ms", unit: "ms", what: "the same" },
    { key: "node_cpu_us_per_datapoint", unit: "µs", what: "processor time of the node" },
    { key: "client_cpu_s", unit: "s", what: "processor time of the client" },
    { key: "node_cpu_s", unit: "s", what: "processor time of the node" },
    { key: "postgres_cpu_s", unit: "s", what: "processor time of PostgreSQL" },
    { key: "rss_peak_mb", unit: "MB", what: "peak resident memory of the node" },
  ],
  bounds: () => [
    { key: "ratio", sense: "at least", limit: 0.2 },
    { key: "node_cpu_us_per_datapoint", sense: "at most", limit: 12 },
    { key: "ack_p99_ms", sense: "at most", limit: 150 },
    { key: "rss_peak_mb", sense: "at most", limit: 1024 },
  ],
  run,
};

const rounds = 3;

async function run(bed: Bed, options: BenchmarkOptions): Promise<Outcome> {
  const entities = options.entities ?? 100_000;
  options.note("encoding the rows of the baseline");
  const baseline = createCopyBaseline(bed, ingestPlan(entities));
  const runs: IngestRun[] = [];
  const text: number[] = [];
  const binary: number[] = [];
  for (let round = 1; round <= rounds; round++) {
    options.note(`round ${round} of ${rounds}: node`);
    const one = await runIngest(bed, entities);
    runs.push(one);
    options.note(`round ${round} of ${rounds}: COPY`);
    const copied = await baseline.run();
    text.push(copied.textPerS);
    binary.push(copied.binaryPerS);
    const processed = one.report.sent / one.report.processedS;
    options.note(
      `round ${round} of ${rounds}: ${Math.round(processed)} processed/s, COPY ${Math.round(copied.textPerS)} as text, ` +
        `${Math.round(copied.binaryPerS)} in binary`,
    );
  }
  const copyPerS = Math.max(median(text), median(binary));
  return {
    values: valuesOf(runs, copyPerS),
    durability: await bed.durability(),
    remarks: [`COPY: ${Math.round(median(text))} rows/s as text, ${Math.round(median(binary))} in binary`],
    verdicts: runs.map(({ verdict }) => verdict),
  };
}

function valuesOf(runs: readonly IngestRun[], copyPerS: number): Outcome["values"] {
  const middle = (of: (run: IngestRun) => number): number => median(runs.map(of));
  const processedPerS = middle(({ report }) => report.sent / report.processedS);
  return {
    acked_per_s: middle(({ report }) => report.sent / report.ackedS),
    processed_per_s: processedPerS,
    copy_per_s: copyPerS,
    ratio: processedPerS / copyPerS,
    ack_p50_ms: middle(({ report }) => report.ackP50Ms),
    ack_p99_ms: middle(({ report }) => report.ackP99Ms),
    node_cpu_us_per_datapoint: middle(({ cpu, report }) => (cpu.nodeS * 1e6) / report.sent),
    client_cpu_s: middle(({ report }) => report.cpuS),
    node_cpu_s: middle(({ cpu }) => cpu.nodeS),
    postgres_cpu_s: middle(({ cpu }) => cpu.postgresS),
    rss_peak_mb: middle(({ rssPeakMb }) => rssPeakMb),
  };
}
