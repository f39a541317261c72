import { type Benchmark, keeps, medians, type Outcome } from "./benchmark.ts";
import { jsonLine, missedLines, table } from "./table.ts";

/** What came of a benchmark's runs. */
export interface Report {
  /** For people: the table, what is stored otherwise than it was sent, and, if asked for, the bounds that were missed. */
  readonly text: string;
  /** The same figures as one line of JSON. */
  readonly json: string;
  /** 1: something is stored otherwise, or a bound was asked for and missed. */
  readonly exitCode: 0 | 1;
}

const differencesShown = 10;

/** Puts the runs together: their medians count. */
export function reportOf(
  benchmark: Benchmark,
  outcomes: readonly Outcome[],
  { isChecked }: { readonly isChecked: boolean },
): Report {
  const values = medians(outcomes.map((outcome) => outcome.values));
  const bounds = benchmark.bounds(values);
  const verdicts = outcomes.flatMap((outcome) => outcome.verdicts);
  const first = verdicts.flatMap((verdict) => verdict.first).slice(0, differencesShown);
  const missed = isChecked ? bounds.filter((bound) => !keeps(bound, values)) : [];
  const lines = [...first.map((line) => `  different: ${line}`), ...missedLines(missed, values)];
  const isDifferent = verdicts.some(({ differences }) => differences > 0);
  return {
    text: table(benchmark, values, outcomes, bounds) + lines.map((line) => `${line}\n`).join(""),
    json: jsonLine(benchmark, values, outcomes),
    exitCode: isDifferent || missed.length > 0 ? 1 : 0,
  };
}
