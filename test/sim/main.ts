import { availableParallelism } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { repository } from "../support/repository.ts";
import { keepResult, readResults, readVersion } from "../support/result-file.ts";
import { type BugVerdict, findBugs, knownBugs } from "./bugs.ts";
import { type PoolReport, playRuns } from "./pool.ts";
import { startProgress } from "./progress.ts";
import { runSim } from "./run.ts";
import { outside } from "./scheduler.ts";
import { summarize, writeSummary } from "./summary.ts";

const help = `Runs whole clusters on a simulated clock, network, etcd and PostgreSQL, with faults drawn from seeds.

  npm run sim -- [--runs N] [--seed S] [--workers W] [--resume FILE] [--first] [--json]
  npm run sim -- --trace --seed S
  npm run sim -- --bugs [NAME…] [--runs N] [--seed S] [--json]

  --runs N      runs, with the seeds S, S + 1 …: 1,000; with --bugs the most for each bug: 2,000
  --seed S      the first seed: 1
  --workers W   processes beside each other: one for each core
  --resume FILE keeps what came of each run in a file, and leaves out the seeds that stand in it, of the same program
  --first       end with the first run that fails
  --trace       one run, with what happens in it
  --bugs        put known bugs back, all or these, and look whether a checker finds each
  --json        one line of JSON instead of a table

Examples:
  npm run sim -- --runs 100 --seed 1
  npm run sim -- --runs 10000 --seed 1 --resume sim.jsonl
  npm run sim -- --bugs gap-taken key-share-fence
`;

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      ...{ runs: { type: "string" }, seed: { type: "string", default: "1" }, workers: { type: "string" } },
      ...{
        resume: { type: "string" },
        first: { type: "boolean", default: false },
        trace: { type: "boolean", default: false },
      },
      ...{ bugs: { type: "boolean", default: false }, json: { type: "boolean", default: false } },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return void process.stdout.write(help);
  const seed = parseCount("seed", values.seed);
  if (values.trace) return traceRun(seed);
  const workers = parseCount("workers", values.workers ?? String(availableParallelism()));
  const runs = parseCount("runs", values.runs ?? (values.bugs ? "2000" : "1000"));
  const settings = { seed, runs, workers, isJson: values.json };
  if (values.bugs) return lookForBugs(positionals, settings);
  return playAll({ ...settings, first: values.first, file: values.resume ?? null });
}

interface Settings {
  readonly seed: number;
  readonly runs: number;
  readonly workers: number;
  readonly isJson: boolean;
}

async function traceRun(seed: number): Promise<void> {
  const { trace, violations } = await outside(() => runSim(seed, { trace: true }));
  process.stdout.write(`${trace.join("\n")}\n`);
  for (const { checker, text } of violations) process.stdout.write(`${checker}: ${text}\n`);
  process.exitCode = violations.length > 0 ? 1 : 0;
}

interface PlaySettings extends Settings {
  readonly first: boolean;
  /** Where results are kept; null: nowhere. */
  readonly file: string | null;
}

async function playAll({ seed, runs, workers, isJson, first, file }: PlaySettings): Promise<void> {
  const startedMs = performance.now();
  const version = await readVersion();
  const before =
    file === null ? [] : (await readReports(file, version)).filter(({ seed: s }) => s >= seed && s < seed + runs);
  const progress = startProgress("", runs);
  const keeping: Promise<void>[] = [];
  const show = (report: PoolReport): void => {
    progress.add(report);
    for (const text of problemsOf(report)) progress.say(`seed ${report.seed}: ${text}`);
  };
  for (const report of before) show(report);
  const onReport = (report: PoolReport): void => {
    show(report);
    // A run whose process died, or did not end, is played again.
    if (file !== null && report.kind === "played") keeping.push(keepResult(file, version, report));
  };
  const done = new Set(before.map((report) => report.seed));
  const reports = await playRuns({ seed, runs, done, workers, first, dist: join(repository, "dist"), onReport });
  progress.end();
  await Promise.all(keeping);
  const all = [...before, ...reports].sort((a, b) => a.seed - b.seed);
  const summary = summarize(all, (performance.now() - startedMs) / 1000);
  process.stdout.write(isJson ? `${JSON.stringify(summary)}\n` : writeSummary(summary));
  process.exitCode = [summary.failures, summary.zeros, summary.rare, summary.short].some((list) => list.length > 0)
    ? 1
    : 0;
}

/** One of each seed. */
async function readReports(file: string, version: string): Promise<PoolReport[]> {
  const reports = await readResults<PoolReport>(file, version);
  return [...new Map(reports.map((report) => [report.seed, report])).values()];
}

function problemsOf(report: PoolReport): string[] {
  if (report.kind === "broken") return [report.text];
  return report.violations.slice(0, 3).map(({ checker, text }) => `${checker}: ${text}`);
}

async function lookForBugs(named: readonly string[], { seed, runs, workers, isJson }: Settings): Promise<void> {
  const known = knownBugs();
  for (const name of named) if (!known.includes(name)) throw new Error(`there is no test/bugs/sim/${name}.patch`);
  const names = named.length > 0 ? named : known;
  let progress = startProgress(names[0] ?? "", runs);
  const onVerdict = ({ rule, name, verdict, checker, runs: needed }: BugVerdict): void => {
    progress.end();
    const row = `${rule.padEnd(5)} ${name.padEnd(34)} ${verdict.padEnd(15)} ${checker.padEnd(10)} ${needed} runs\n`;
    if (!isJson) process.stdout.write(row);
    progress = startProgress(names[names.indexOf(name) + 1] ?? "", runs);
  };
  const onReport = (report: PoolReport): void => progress.add(report);
  const verdicts = await findBugs(names, { seed, runsMax: runs, workers, onReport }, onVerdict);
  progress.end();
  const missing = verdicts.filter(({ verdict }) => verdict !== "found").length;
  if (isJson) process.stdout.write(`${JSON.stringify({ bugs: verdicts, missing })}\n`);
  else process.stdout.write(`${verdicts.length - missing} of ${verdicts.length} known bugs found\n`);
  process.exitCode = missing === 0 ? 0 : 1;
}

function parseCount(name: string, text: string): number {
  const count = Number(text);
  if (!Number.isInteger(count) || count < 1) throw new Error(`--${name} takes a whole number above 0, not ${text}`);
  return count;
}

main().catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}; --help says more\n`);
  process.exitCode = 2;
});
