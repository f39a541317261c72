import { describe, expect, test } from "vitest";
import type { Benchmark, Outcome } from "./benchmark.ts";
import { reportOf } from "./report.ts";

const benchmark: Benchmark = {
  name: "sample",
  summary: "what is told of runs",
  fields: [
    { key: "ratio", unit: "", what: "of the one to the other" },
    { key: "p99_ms", unit: "ms", what: "how long" },
  ],
  bounds: ({ base_ms: base = 0 }) => [
    { key: "ratio", sense: "at least", limit: 0.2 },
    { key: "p99_ms", sense: "at most", limit: 30 + 3 * base },
  ],
  run: () => Promise.reject(new Error("is not run")),
};

function outcome(ratio: number, p99: number, differences = 0): Outcome {
  const first = differences > 0 ? ["thing t1: load 5, stored 6"] : [];
  const verdict = { entities: 10, history: 20, differences, lost: 0, duplicated: differences, first };
  return { values: { ratio, p99_ms: p99, base_ms: 10 }, remarks: [], verdicts: [verdict] };
}

const good = outcome(0.25, 50);
const checked = { isChecked: true };

describe("what a benchmark tells of its runs", () => {
  test("the medians count: of five runs two may miss a bound", () => {
    const five = [outcome(0.1, 90), good, outcome(0.21, 59.5), outcome(0.3, 40), outcome(0.15, 61)];
    const { exitCode, json, text } = reportOf(benchmark, five, checked);
    expect(JSON.parse(json)).toEqual({ ratio: 0.21, p99_ms: 59.5 });
    expect(text).toContain("medians of 5 runs");
    expect(text).not.toContain("missed");
    expect(exitCode).toBe(0);
  });

  test("each bound that is missed is told with its value, and is an error where bounds are checked", () => {
    const bad = [outcome(0.199, 60.5)];
    const { exitCode, text } = reportOf(benchmark, bad, checked);
    expect(text).toContain("missed: ratio must be at least 0.2, it is 0.199\n");
    expect(text).toContain("missed: p99_ms must be at most 60, it is 60.5\n");
    expect(exitCode).toBe(1);
    const unchecked = reportOf(benchmark, bad, { isChecked: false });
    expect(unchecked.exitCode).toBe(0);
    expect(unchecked.text.match(/✗ missed/g)).toHaveLength(2);
  });

  test("a bound's value that was not measured keeps no bound", () => {
    const { exitCode } = reportOf(benchmark, [{ ...good, values: { ratio: Number.NaN, p99_ms: 1 } }], checked);
    expect(exitCode).toBe(1);
  });

  test("what is stored otherwise than it was sent is an error, checked or not, and is shown", () => {
    const { exitCode, text } = reportOf(benchmark, [good, outcome(0.25, 50, 1)], { isChecked: false });
    expect(text).toContain("verified: 20 entities, 40 datapoints of histories, 1 differences");
    expect(text).toContain("  different: thing t1: load 5, stored 6\n");
    expect(exitCode).toBe(1);
  });
});
