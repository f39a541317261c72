import { allPairs, faultKinds, longKinds, pairName, pairsRuns } from "./fault-plan.ts";
import type { RunResult } from "./fault-run.ts";

/** What all runs came to, as text. */
export function summaryOf(results: readonly RunResult[]): string {
  const played = new Set(results.flatMap(({ faults }) => faults.map(({ kind }) => kind)));
  const rows = [...faultKinds, ...longKinds.filter((kind) => played.has(kind))].map((kind) => {
    const runs = results.filter(({ faults }) => faults.some((one) => one.kind === kind && one.skipped === null));
    const faults = results.flatMap((result) => result.faults.filter((one) => one.kind === kind));
    const hits = faults.filter(({ skipped }) => skipped === null);
    const worst = Math.max(0, ...hits.map(({ stallMs }) => stallMs));
    return [kind, hits.length, faults.length - hits.length, runs.length, (worst / 1000).toFixed(1)];
  });
  const sum = (of: (result: RunResult) => number): number => results.reduce((total, one) => total + of(one), 0);
  const worst = (of: (result: RunResult) => number): number => Math.max(0, ...results.map(of));
  const failed = results.filter(({ violations }) => violations.length > 0);
  const missing = missingPairs(results);
  const totals: readonly (readonly [string, string | number])[] = [
    ["runs", results.length],
    ["time, all runs", `${Math.round(sum(({ tookMs }) => tookMs) / 60_000)} min`],
    ["pairs of kinds", `${allPairs.length - missing.length} of ${allPairs.length}`],
    ["datapoints sent", sum(({ datapoints }) => datapoints)],
    ["streams with losses", sum(({ lost }) => lost)],
    ["streams with doubles", sum(({ doubled }) => doubled)],
    ["streams out of order", sum(({ disordered }) => disordered)],
    ["errors at the client", sum(({ clientErrors }) => clientErrors)],
    [
      "reads with a token",
      `${sum(({ reads }) => reads.exact)} exact, ${sum(({ reads }) => reads.refused)} for now not`,
    ],
    [
      "snapshot runs",
      `${sum(({ snapshots }) => snapshots.finished)} finished, ${sum(({ snapshots }) => snapshots.failed)} failed`,
    ],
    [
      "runs that were read",
      `${sum(({ snapshots }) => snapshots.told)} whole, ${sum(({ snapshots }) => snapshots.refused)} for now not`,
    ],
    ["epoch changes", sum(({ epochChanges }) => epochChanges)],
    ["live after the last fault, worst", `${(worst(({ liveMs }) => liveMs) / 1000).toFixed(1)} s`],
    ["caught up, worst", `${(worst(({ caughtUpMs }) => caughtUpMs) / 1000).toFixed(1)} s`],
    ["memory of a node, worst", `${worst((one) => one.rssPeakMb)} MB`],
    ["fullest queue, worst", `${worst((one) => one.queuePeakPercent)} % of its bound`],
    ["runs with a violation", failed.length],
  ];
  return [
    table([["fault", "hits", "skipped", "runs", "worst stall, s"], ...rows]),
    table(totals),
    ...(lacksPairs(results) ? [`after ${results.length} runs these pairs were never hit: ${missing.join(", ")}`] : []),
    ...failed.map(({ seed, run, violations, logs }) => {
      const replay = `npm run faults -- --seed ${seed} --run ${run}`;
      return `run ${run} (${replay}), logs in ${logs}\n${violations.map((one) => `  ${one}`).join("\n")}`;
    }),
  ].join("\n\n");
}

/** Whether so many runs were played that every pair of kinds had to be among them, and one was not: that is a failure. */
export function lacksPairs(results: readonly RunResult[]): boolean {
  const short = results.filter(({ faults }) => faults.every(({ kind }) => !isLong(kind)));
  return short.length >= pairsRuns && missingPairs(short).length > 0;
}

function isLong(kind: string): boolean {
  return longKinds.some((one) => one === kind);
}

/** Pairs of kinds that neither overlapped nor could have: of each run its first two faults count. */
function missingPairs(results: readonly RunResult[]): readonly string[] {
  const pairs = results.flatMap(({ faults }) => {
    const [one, other] = faults;
    if (one === undefined || other === undefined || one.skipped !== null || other.skipped !== null) return [];
    return [pairName(one.kind, other.kind)];
  });
  const hit = new Set(pairs);
  return allPairs.map(([one, other]) => pairName(one, other)).filter((name) => !hit.has(name));
}

function table(rows: readonly (readonly (string | number)[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => String(row[column]).length)));
  const line = (row: readonly (string | number)[]): string =>
    row
      .map((cell, column) =>
        column === 0 ? String(cell).padEnd(widths[0] ?? 0) : String(cell).padStart(widths[column] ?? 0),
      )
      .join("  ");
  return rows.map(line).join("\n");
}
