import { expect, test } from "vitest";
import { allPairs, type FaultKind, pairsRuns, planFaults, planLongFaults } from "./fault-plan.ts";
import type { FaultResult, RunResult } from "./fault-run.ts";
import { lacksPairs, summaryOf } from "./summary.ts";

const faultOf = (kind: FaultKind, skipped: string | null = null): FaultResult => ({ kind, stallMs: 0, skipped });

function resultOf(run: number, faults: readonly FaultResult[]): RunResult {
  return {
    ...{ seed: 1, run, plan: [], faults, datapoints: 1, loadMs: 1, tookMs: 1, lost: 0, doubled: 0, disordered: 0 },
    ...{
      clientErrors: 0,
      reads: { exact: 0, refused: 0 },
      epochChanges: 0,
      liveMs: 0,
      caughtUpMs: 0,
      rssPeakMb: 0,
      queuePeakPercent: 0,
    },
    snapshots: { finished: 0, failed: 0, told: 0, refused: 0 },
    ...{ violations: [], logs: "" },
  };
}

/** What comes of the plan of seed 1 when every fault can be played, but for those of one pair. */
function playedRuns(count: number, skipped: readonly FaultKind[] = []): RunResult[] {
  return Array.from({ length: count }, (_, index) => {
    const kinds = planFaults(1, index + 1, 3).map(({ kind }) => kind);
    const isSkipped = skipped.length > 0 && kinds.slice(0, 2).every((kind, at) => kind === skipped[at]);
    return resultOf(
      index + 1,
      kinds.map((kind, at) => faultOf(kind, isSkipped && at === 1 ? "it was busy" : null)),
    );
  });
}

test("the runs that are asked for hit every pair of kinds, in whichever order", () => {
  const results = playedRuns(pairsRuns);
  expect(allPairs).toHaveLength(66);
  expect(lacksPairs(results)).toBe(false);
  expect(summaryOf(results)).toMatch(/pairs of kinds +66 of 66/);
  expect(summaryOf(results)).not.toContain("never hit");
});

test("a pair that is missing when all of them were played is told by its name, and fails", () => {
  const pair = ["restart-etcd", "restart-etcd"] as const;
  const results = playedRuns(pairsRuns, pair);
  expect(lacksPairs(results)).toBe(true);
  expect(summaryOf(results)).toMatch(/pairs of kinds +65 of 66/);
  expect(summaryOf(results)).toContain("after 100 runs these pairs were never hit: restart-etcd + restart-etcd");
});

test("fewer runs, and the long ones, do not have to hit them all", () => {
  expect(lacksPairs(playedRuns(pairsRuns - 1, ["restart-etcd", "restart-etcd"]))).toBe(false);
  const long = Array.from({ length: pairsRuns }, (_, index) =>
    resultOf(
      index + 1,
      planLongFaults(1, index + 1, 3).map(({ kind }) => faultOf(kind)),
    ),
  );
  expect(lacksPairs(long)).toBe(false);
});
