import { parseArgs } from "node:util";
import { activation } from "./activation.ts";
import { type Bed, startBed } from "./bed.ts";
import type { Benchmark, Outcome } from "./benchmark.ts";
import { cluster } from "./cluster.ts";
import { component } from "./component.ts";
import { computing } from "./computing.ts";
import { failover } from "./failover.ts";
import { fanout } from "./fanout.ts";
import { flights } from "./flights.ts";
import { handoff } from "./handoff.ts";
import { history } from "./history.ts";
import { ingest } from "./ingest.ts";
import { latency } from "./latency.ts";
import { listing } from "./listing.ts";
import { longHistory } from "./long-history.ts";
import { metrics } from "./metrics.ts";
import { nodes } from "./nodes.ts";
import { raw } from "./raw.ts";
import { reportOf } from "./report.ts";
import { residency } from "./residency.ts";
import { slowDatabase } from "./slow-database.ts";
import { snapshots } from "./snapshots.ts";
import { soak } from "./soak.ts";
import { stagesBenchmark } from "./stages.ts";
import { versions } from "./versions.ts";

const benchmarks: readonly Benchmark[] = [
  ingest,
  latency,
  activation,
  longHistory,
  fanout,
  flights,
  residency,
  soak,
  slowDatabase,
  raw,
  listing,
  history,
  snapshots,
  computing,
  component,
  stagesBenchmark,
  cluster,
  failover,
  handoff,
  nodes,
  metrics,
  versions,
];

const help = `npm run --silent bench -- NAME [OPTIONS]

${benchmarks.map(({ name, summary }) => `  ${name.padEnd(14)} ${summary}`).join("\n")}

  --json            the last line of the output is one JSON object
  --check           the median of 5 runs; where a bound is missed, bound and value, and exit code 1
  --runs N          runs, of which the medians count
  --entities N      entities, instead of what the benchmark is defined with; in flights the flights, at most 3,000,000
  --minutes N       how long soak, slow-database and the search for false suspicions in failover go on (default 10)
  --rounds N        rounds of cluster (default 3) and versions (5), passes of metrics (6), kills of failover (20), moves of handoff (200)
  --rate N          datapoints/s in cluster, handoff (default 8000, 30 % of what one node takes) and failover (measured)
  --nodes N         metrics only on one node, or only on three
  --against COMMIT  what versions compares this version with; and metrics, instead of nodes of its own without them
  --stored N        datapoints of the longest history in long-history (default 100000)
  --node-flags TEXT further flags of the node, such as "--lanes 3"

Each run verifies what is stored against what was sent; a difference is exit code 1. Exit code 2: wrong usage.
`;

/** The program; returns the exit code. */
async function main(args: readonly string[], signal: AbortSignal): Promise<number> {
  const { values: flags, positionals } = parseFlags(args);
  if (flags.help) {
    process.stdout.write(help);
    return 0;
  }
  const benchmark = benchmarks.find(({ name }) => name === positionals[0]);
  if (benchmark === undefined || positionals.length !== 1) {
    throw new WrongUsage(`give the name of one benchmark: ${benchmarks.map(({ name }) => name).join(", ")}`);
  }
  const runs = numberOf(flags.runs, "--runs") ?? (flags.check ? 5 : 1);
  const outcomes: Outcome[] = [];
  for (let run = 1; run <= runs; run++) {
    if (runs > 1) note(`run ${run} of ${runs}`);
    outcomes.push(await runOnce(benchmark, flags, signal));
  }
  return tell(benchmark, outcomes, flags);
}

type Flags = ReturnType<typeof parseFlags>["values"];

/** A wrong command line. */
class WrongUsage extends Error {}

function parseFlags(args: readonly string[]) {
  const text = { type: "string" } as const;
  const options = {
    json: { type: "boolean", default: false },
    check: { type: "boolean", default: false },
    help: { type: "boolean", default: false, short: "h" },
    runs: text,
    entities: text,
    minutes: text,
    rounds: text,
    rate: text,
    nodes: text,
    against: text,
    stored: text,
    "node-flags": text,
  } as const;
  try {
    return parseArgs({ args: [...args], options, allowPositionals: true });
  } catch (error) {
    throw new WrongUsage(error instanceof Error ? error.message : String(error));
  }
}

function numberOf(text: string | undefined, flag: string): number | null {
  if (text === undefined) return null;
  const value = Number(text);
  if (!(value > 0) || (flag !== "--minutes" && !Number.isInteger(value))) {
    throw new WrongUsage(`${flag} takes a number above 0, found '${text}'`);
  }
  return value;
}

async function runOnce(benchmark: Benchmark, flags: Flags, signal: AbortSignal): Promise<Outcome> {
  const options = {
    entities: numberOf(flags.entities, "--entities"),
    minutes: numberOf(flags.minutes, "--minutes") ?? 10,
    rounds: numberOf(flags.rounds, "--rounds"),
    rate: numberOf(flags.rate, "--rate"),
    nodes: numberOf(flags.nodes, "--nodes"),
    against: flags.against ?? null,
    stored: numberOf(flags.stored, "--stored") ?? 100_000,
    signal,
    note,
  };
  const nodeFlags = (flags["node-flags"] ?? "").split(/\s+/).filter((flag) => flag !== "");
  signal.throwIfAborted();
  const { settings } = benchmark;
  const bed: Bed = await startBed({ signal, nodeFlags, ...(settings && { settings }) });
  try {
    return await benchmark.run(bed, options);
  } finally {
    await bed.close();
  }
}

/** Prints what came out. */
function tell(benchmark: Benchmark, outcomes: readonly Outcome[], flags: Flags): number {
  const { text, json, exitCode } = reportOf(benchmark, outcomes, { isChecked: flags.check });
  const people = flags.json ? process.stderr : process.stdout;
  people.write(text);
  if (flags.json) process.stdout.write(`${json}\n`);
  return exitCode;
}

function note(text: string): void {
  process.stderr.write(`bench: ${text}\n`);
}

const stop = new AbortController();
for (const name of ["SIGINT", "SIGTERM"] as const) process.on(name, () => stop.abort());
try {
  process.exitCode = await main(process.argv.slice(2), stop.signal);
} catch (error) {
  if (stop.signal.aborted) {
    note("interrupted");
    process.exitCode = 130;
  } else if (error instanceof WrongUsage) {
    note(`${error.message}\n  → see: npm run --silent bench -- --help`);
    process.exitCode = 2;
  } else {
    note(error instanceof Error ? (error.stack ?? error.message) : String(error));
    process.exitCode = 1;
  }
}
// What proxies and killed nodes left open must not keep a program that is done.
setTimeout(() => process.exit(), 2_000).unref();
