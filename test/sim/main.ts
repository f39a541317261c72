import { type BugVerdict, findBugs, type SearchOptions } from "./bugs.ts";
import { countNames, runSim, type SimResult } from "./run.ts";
import { outside } from "./scheduler.ts";

/**
 * `npm run sim -- [--runs N] [--seed S] [--first] [--trace] [--json]`: simulated runs, one after another; `--first` ends with
 * the first that fails. `--bugs [NAME…]` looks for the known bugs instead.
 */
async function main(args: readonly string[]): Promise<void> {
  const option = (name: string, fallback: number): number => {
    const at = args.indexOf(`--${name}`);
    return at < 0 ? fallback : Number(args[at + 1]);
  };
  const [runs, seed, isJson] = [option("runs", 1000), option("seed", 1), args.includes("--json")];
  if (args.includes("--bugs")) return lookForBugs(args, { seed, runsMax: option("runs", 2000) }, isJson);
  // Errors are answers here, and many: their stacks would take a tenth of the time.
  if (!args.includes("--trace")) Error.stackTraceLimit = 0;
  const results: SimResult[] = [];
  const startedAt = performance.now();
  for (let i = 0; i < runs; i++) {
    const result = await outside(() => runSim(seed + i, { trace: args.includes("--trace") }));
    if (args.includes("--trace")) process.stdout.write(`${result.trace.join("\n")}\n`);
    results.push({ ...result, trace: [] });
    if (!isJson) {
      for (const { checker, text } of result.violations.slice(0, 3))
        process.stdout.write(`seed ${result.seed}: ${checker}: ${text}\n`);
    }
    if (args.includes("--first") && result.violations.length > 0) break;
  }
  report(results, (performance.now() - startedAt) / 1000, isJson);
}

/** Sums per 1,000 runs; what never happened was not tested, and counts as a failure over enough runs. */
function report(results: readonly SimResult[], seconds: number, isJson: boolean): void {
  const failed = results.filter(({ violations }) => violations.length > 0);
  const sums = countNames.map((name): [string, number] => [
    name,
    results.reduce((all, { counts }) => all + counts[name], 0),
  ]);
  const zeros = results.length < 1000 ? [] : sums.filter(([, sum]) => sum === 0).map(([name]) => name);
  const short = results.filter(
    ({ violations, counts }) =>
      violations.length === 0 && (counts.nodes < 3 || counts.datapoints < 500 || counts.faultsInFlight < 5),
  );
  const perThousand = Object.fromEntries(sums.map(([name, sum]) => [name, Math.round((1000 * sum) / results.length)]));
  if (isJson) {
    const failures = failed.map(({ seed, violations }) => ({ seed, ...violations[0] }));
    process.stdout.write(
      `${JSON.stringify({ runs: results.length, seconds, failures, perThousand, zeros, short: short.length })}\n`,
    );
  } else {
    process.stdout.write("per 1,000 runs:\n");
    for (const [name, count] of Object.entries(perThousand)) process.stdout.write(`  ${name.padEnd(18)} ${count}\n`);
    for (const name of zeros) process.stdout.write(`nothing of the kind happened: ${name}\n`);
    if (short.length > 0)
      process.stdout.write(`${short.length} runs had too little load or too few faults in flight\n`);
    process.stdout.write(`${results.length} runs, ${failed.length} with a violation, ${seconds.toFixed(1)} s\n`);
  }
  process.exitCode = failed.length + zeros.length + short.length > 0 ? 1 : 0;
}

function lookForBugs(args: readonly string[], search: SearchOptions, isJson: boolean): void {
  const names = args.filter(
    (arg, index) => !arg.startsWith("-") && !["--seed", "--runs"].includes(args[index - 1] ?? ""),
  );
  const say = ({ rule, name, verdict, checker, runs }: BugVerdict): void => {
    if (!isJson)
      process.stdout.write(
        `${rule.padEnd(5)} ${name.padEnd(34)} ${verdict.padEnd(15)} ${checker.padEnd(10)} ${runs} runs\n`,
      );
  };
  const verdicts = findBugs(names, search, say);
  const missing = verdicts.filter(({ verdict }) => verdict !== "found").length;
  if (isJson) process.stdout.write(`${JSON.stringify({ bugs: verdicts, missing })}\n`);
  else process.stdout.write(`${verdicts.length - missing} of ${verdicts.length} known bugs found\n`);
  process.exitCode = missing === 0 ? 0 : 1;
}

await main(process.argv.slice(2));
