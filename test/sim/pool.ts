import { type ChildProcess, fork } from "node:child_process";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import type { SimReport } from "./worker.ts";

export interface PoolOptions {
  readonly seed: number;
  readonly runs: number;
  /** Seeds that are left out. */
  readonly done?: ReadonlySet<number>;
  /** Where the compiled tree is: its worker plays the runs. */
  readonly dist: string;
  /** Processes; default one for each core. */
  readonly workers?: number;
  /** Ends with the first run that fails. */
  readonly first?: boolean;
  readonly onReport?: (report: PoolReport) => void;
}

/** A run that was played, or one whose process died or went on without end. */
export type PoolReport =
  | ({ readonly kind: "played" } & SimReport)
  | { readonly kind: "broken"; readonly seed: number; readonly text: string };

/** A run takes about a second, and on a busy machine some. */
const runMaxMs = 300_000;

/** Plays runs in processes beside each other; resolves with what came of each, in the order of the seeds. */
export async function playRuns(options: PoolOptions): Promise<readonly PoolReport[]> {
  const { seed, runs, done, workers = availableParallelism() } = options;
  const reports: PoolReport[] = [];
  const all = Array.from({ length: runs }, (_, index) => seed + index).filter((one) => done?.has(one) !== true);
  const seeds = all.values();
  let status: "running" | "over" = "running";
  const take = (): number | null => (status === "over" ? null : (seeds.next().value ?? null));
  const onReport = (report: PoolReport): void => {
    reports.push(report);
    options.onReport?.(report);
    if (options.first === true && isFailed(report)) status = "over";
  };
  await Promise.all(Array.from({ length: Math.min(workers, all.length) }, () => work(options.dist, take, onReport)));
  return reports.sort((a, b) => a.seed - b.seed);
}

export function isFailed(report: PoolReport): boolean {
  return report.kind === "broken" || report.violations.length > 0;
}

/** One worker after another, as long as there are seeds: one that died is replaced. */
async function work(dist: string, take: () => number | null, onReport: (report: PoolReport) => void): Promise<void> {
  let child: ChildProcess | null = null;
  for (let seed = take(); seed !== null; seed = take()) {
    child ??= fork(join(dist, "test/sim/worker.js"), { execArgv: ["--max-semi-space-size=32"] });
    const report = await play(child, seed);
    if (report.kind === "broken") {
      child.kill("SIGKILL");
      child = null;
    }
    onReport(report);
  }
  child?.kill("SIGKILL");
}

function play(child: ChildProcess, seed: number): Promise<PoolReport> {
  return new Promise((resolve) => {
    const end = (report: PoolReport): void => {
      clearTimeout(timer);
      child.removeAllListeners();
      resolve(report);
    };
    const timer = setTimeout(() => end({ kind: "broken", seed, text: "the run does not end" }), runMaxMs);
    child.once("message", (report: SimReport) => end({ kind: "played", ...report }));
    child.once("exit", (code, signal) => end({ kind: "broken", seed, text: `its process ended (${code ?? signal})` }));
    child.once("error", (error) => end({ kind: "broken", seed, text: String(error) }));
    child.send(seed);
  });
}
