import { isFailed, type PoolReport } from "./pool.ts";
import { countNames } from "./run.ts";

/** What came of many runs. */
export interface Summary {
  readonly runs: number;
  readonly seconds: number;
  readonly failures: readonly { readonly seed: number; readonly checker: string; readonly text: string }[];
  readonly perThousand: Readonly<Record<string, number>>;
  /** What never happened was not tested: it counts as a failure from 1,000 runs on. */
  readonly zeros: readonly string[];
  /** What each end of a link takes for something else has to be in a quarter of so many runs: that, and in how many it was. */
  readonly rare: readonly string[];
  /** Seeds of runs with too little load, or too few faults that hit work in flight. */
  readonly short: readonly number[];
}

const quarterNames: ReadonlySet<string> = new Set<(typeof countNames)[number]>(["runsCutOneWay", "runsHalfOpen"]);

/** Adds up, per 1,000 runs. Pure. */
export function summarize(reports: readonly PoolReport[], seconds: number): Summary {
  const failures = reports.filter(isFailed).map((report) => {
    if (report.kind === "broken") return { seed: report.seed, checker: "broken", text: report.text };
    const [{ checker, text } = { checker: "", text: "" }] = report.violations;
    return { seed: report.seed, checker, text };
  });
  const played = reports.filter((report) => report.kind === "played");
  const sums = countNames.map((name): [string, number] => [
    name,
    played.reduce((all, { counts }) => all + counts[name], 0),
  ]);
  const zeros = played.length < 1000 ? [] : sums.filter(([, sum]) => sum === 0).map(([name]) => name);
  const rare = sums
    .filter(([name, sum]) => quarterNames.has(name) && played.length >= 1000 && sum < played.length / 4)
    .map(([name, sum]) => `${name}: ${sum}`);
  const short = played.filter(
    ({ violations, counts }) =>
      violations.length === 0 && (counts.nodes < 3 || counts.datapoints < 500 || counts.faultsInFlight < 5),
  );
  const perThousand = sums.map(([name, sum]) => [name, Math.round((1000 * sum) / Math.max(1, played.length))]);
  return {
    ...{ runs: reports.length, seconds: Math.round(seconds * 10) / 10, failures, zeros, rare },
    perThousand: Object.fromEntries(perThousand),
    short: short.map(({ seed }) => seed),
  };
}

/** As a table for people. */
export function writeSummary({ runs, seconds, failures, perThousand, zeros, rare, short }: Summary): string {
  const lines = ["per 1,000 runs:"];
  for (const [name, count] of Object.entries(perThousand)) lines.push(`  ${name.padEnd(18)} ${count}`);
  for (const name of zeros) lines.push(`nothing of the kind happened: ${name}`);
  for (const one of rare) lines.push(`in less than a quarter of the runs: ${one}`);
  if (short.length > 0) lines.push(`too little load or too few faults in flight: seeds ${short.join(", ")}`);
  lines.push(`${runs} runs, ${failures.length} with a violation, ${seconds.toFixed(1)} s`);
  return `${lines.join("\n")}\n`;
}
