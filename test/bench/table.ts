import { type Benchmark, type Bound, keeps, type Outcome, type Values } from "./benchmark.ts";

/** The figures for people: one line each, with unit and bound, then what was remarked and verified. */
export function table(
  benchmark: Benchmark,
  values: Values,
  outcomes: readonly Outcome[],
  bounds: readonly Bound[],
): string {
  const rows = benchmark.fields.map(({ key, unit, what }) => {
    const bound = bounds.find((one) => one.key === key);
    const verdict = bound === undefined ? "" : `${boundText(bound)} ${keeps(bound, values) ? "✓" : "✗ missed"}`;
    return [key, figure(values[key]), unit, verdict, what];
  });
  const widths = [0, 1, 2, 3].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const lines = rows.map((row) => {
    const cells = row.map((cell, i) => (i === 1 ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0)));
    return `  ${cells.join("  ").trimEnd()}`;
  });
  const [first] = outcomes;
  const runs = outcomes.length > 1 ? `, medians of ${outcomes.length} runs` : "";
  const durability = Object.entries(first?.durability ?? {}).map(([name, value]) => `${name}=${value}`);
  return [
    `${benchmark.name}: ${benchmark.summary}${runs}`,
    ...lines,
    ...(durability.length > 0 ? [`  PostgreSQL: ${durability.join(" ")}`] : []),
    ...outcomes.flatMap(({ remarks }) => remarks.map((remark) => `  ${remark}`)),
    `  ${verified(outcomes)}`,
    "",
  ].join("\n");
}

/** Exactly the fields that the benchmark is defined to have, on one line. */
export function jsonLine(benchmark: Benchmark, values: Values, outcomes: readonly Outcome[]): string {
  const fields: Record<string, unknown> = {};
  for (const { key } of benchmark.fields) fields[key] = rounded(values[key] ?? Number.NaN);
  const durability = outcomes[0]?.durability;
  return JSON.stringify(durability === undefined ? fields : { ...fields, durability });
}

/** A sentence for every bound that was missed. */
export function missedLines(missed: readonly Bound[], values: Values): string[] {
  return missed.map((bound) => `missed: ${bound.key} must be ${boundText(bound)}, it is ${figure(values[bound.key])}`);
}

function boundText({ sense, limit }: Bound): string {
  return `${sense} ${figure(limit)}`;
}

function verified(outcomes: readonly Outcome[]): string {
  const sums = { entities: 0, history: 0, differences: 0 };
  for (const { entities, history, differences } of outcomes.flatMap(({ verdicts }) => verdicts)) {
    sums.entities += entities;
    sums.history += history;
    sums.differences += differences;
  }
  return `verified: ${sums.entities} entities, ${sums.history} datapoints of histories, ${sums.differences} differences`;
}

function figure(value: number | undefined): string {
  return value === undefined ? "–" : String(rounded(value));
}

/** Three digits behind the point where it is small, none where it is large. */
function rounded(value: number): number {
  if (Math.abs(value) >= 1000) return Math.round(value);
  return Math.abs(value) >= 10 ? Math.round(value * 10) / 10 : Math.round(value * 1000) / 1000;
}
