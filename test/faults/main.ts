import { appendFile, mkdtemp, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type RunResult, runFaults } from "./fault-run.ts";
import { summaryOf } from "./summary.ts";

/*
 * `npm run faults -- --runs N --seed S [--run R] [--json] [--resume FILE]`: runs of a real cluster under load, each with faults
 * drawn from the seed. `--run R` repeats one of them; `--resume FILE` keeps results in a file and leaves out what stands in it.
 */

const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "1" },
    seed: { type: "string" },
    run: { type: "string" },
    json: { type: "boolean", default: false },
    resume: { type: "string" },
  },
});
process.exitCode = await main();

async function main(): Promise<number> {
  const seed = Number(values.seed ?? Date.now() % 1_000_003);
  const first = Number(values.run ?? 1);
  const last = values.run === undefined ? Number(values.runs) : first;
  if (![seed, first, last].every((number) => Number.isInteger(number) && number >= 0)) {
    process.stderr.write("--runs, --seed and --run are whole numbers\n");
    return 2;
  }
  const folder = await mkdtemp(join(tmpdir(), "starling-faults-"));
  const results = values.resume === undefined ? [] : await readResults(values.resume, seed);
  const done = new Set(results.map(({ run }) => run));
  process.stderr.write(`faults: seed ${seed}, runs ${first} to ${last}, ${done.size} of them done before\n`);
  for (let run = first; run <= last; run++) {
    if (done.has(run)) continue;
    const result = await runFaults({ seed, run, folder });
    results.push(result);
    process.stderr.write(`${lineOf(result)}\n`);
    if (values.resume !== undefined) await appendFile(values.resume, `${JSON.stringify(result)}\n`);
  }
  results.sort((a, b) => a.run - b.run);
  process.stdout.write(`${values.json ? JSON.stringify(results) : summaryOf(results)}\n`);
  return results.every(({ violations }) => violations.length === 0) ? 0 : 1;
}

/** Results of this seed; a last line that was cut off is left out. */
async function readResults(file: string, seed: number): Promise<RunResult[]> {
  const text = await readFile(file, "utf8").catch(() => "");
  const results = text.split("\n").flatMap((line): RunResult[] => {
    try {
      return [JSON.parse(line) as RunResult];
    } catch {
      return [];
    }
  });
  return results.filter((result) => result.seed === seed);
}

function lineOf({ run, plan, datapoints, loadMs, caughtUpMs, violations }: RunResult): string {
  const outcome = violations.length === 0 ? "good" : `${violations.length} VIOLATIONS: ${violations[0]}`;
  const times = `${datapoints} in ${(loadMs / 1000).toFixed(0)} s, caught up in ${(caughtUpMs / 1000).toFixed(1)} s`;
  return `run ${run}: ${outcome}; ${times}; ${plan.join(", ")}`;
}
