import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { keepResult, readResults, readVersion } from "../support/result-file.ts";
import { faultText, longKinds, planFaults, planLongFaults } from "./fault-plan.ts";
import { nodesCount, type RunResult, runFaults } from "./fault-run.ts";
import { lacksPairs, summaryOf } from "./summary.ts";

const help = `Runs of real clusters under load, each with faults that are drawn from the seed. A run takes a minute or more.

  npm run faults -- [--runs N | --run R] [--seed S] [--long] [--resume FILE] [--json]

  --runs N       runs 1 to N of the seed: 1; with --long one for each kind
  --run R        only this one
  --seed S       a whole number; without it, one of the time
  --long         what takes longer instead: a minute without etcd, half a minute's freeze
  --resume FILE  keeps results in a file, and leaves out the runs that stand in it, of the same program
  --json         the results in JSON instead of a summary

Examples:
  npm run faults -- --runs 3 --seed 1
  npm run faults -- --runs 100 --seed 1 --resume faults.jsonl
`;

const interrupt = new AbortController();
process.once("SIGINT", () => interrupt.abort());
process.once("SIGTERM", () => interrupt.abort());
process.exit(await main()); // whatever a run that has failed has left open

async function main(): Promise<number> {
  const { values } = readArguments();
  if (values.help) {
    process.stdout.write(help);
    return 0;
  }
  const seed = Number(values.seed ?? Date.now() % 1_000_003);
  const first = Number(values.run ?? 1);
  const last = values.run === undefined ? Number(values.runs ?? (values.long ? longKinds.length : 1)) : first;
  if (![seed, first, last].every((number) => Number.isInteger(number) && number >= 0)) {
    process.stderr.write("--runs, --seed and --run are whole numbers\n");
    return 2;
  }
  const folder = await mkdtemp(join(tmpdir(), "starling-faults-"));
  const planOf = (run: number) => (values.long ? planLongFaults : planFaults)(seed, run, nodesCount);
  const version = await readVersion();
  const stored = values.resume === undefined ? [] : await readResults<RunResult>(values.resume, version);
  const results = stored.filter((one) => {
    return one.seed === seed && String(one.plan) === String(planOf(one.run).map(faultText));
  });
  const done = new Set(results.map(({ run }) => run));
  process.stderr.write(`faults: seed ${seed}, runs ${first} to ${last}, ${done.size} of them done before\n`);
  for (let run = first; run <= last; run++) {
    if (done.has(run)) continue;
    const result = await runFaults({ seed, run, plan: planOf(run), folder, signal: interrupt.signal }).catch(
      endIfAborted,
    );
    if (result === null) {
      process.stderr.write(`faults: interrupted in run ${run}; its nodes have ended\n`);
      return 130;
    }
    results.push(result);
    process.stderr.write(`${lineOf(result)}\n`);
    if (values.resume !== undefined) await keepResult(values.resume, version, result);
  }
  results.sort((a, b) => a.run - b.run);
  process.stdout.write(`${values.json ? JSON.stringify(results) : summaryOf(results)}\n`);
  return results.every(({ violations }) => violations.length === 0) && !lacksPairs(results) ? 0 : 1;
}

function readArguments() {
  try {
    return parseArgs({
      options: {
        ...{ runs: { type: "string" }, seed: { type: "string" }, run: { type: "string" }, resume: { type: "string" } },
        ...{ long: { type: "boolean", default: false }, json: { type: "boolean", default: false } },
        help: { type: "boolean", default: false },
      },
    });
  } catch (error) {
    process.stderr.write(`faults: ${error instanceof Error ? error.message : error}\nTry --help.\n`);
    return process.exit(2);
  }
}

function endIfAborted(error: unknown): null {
  if (interrupt.signal.aborted) return null;
  throw error;
}

function lineOf({ run, plan, datapoints, loadMs, liveMs, caughtUpMs, violations }: RunResult): string {
  const outcome = violations.length === 0 ? "good" : `${violations.length} VIOLATIONS: ${violations[0]}`;
  const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;
  const times = `${datapoints} in ${seconds(loadMs)}, live in ${seconds(liveMs)}, caught up in ${seconds(caughtUpMs)}`;
  return `run ${run}: ${outcome}; ${times}; ${plan.join(", ")}`;
}
