import { describe, expect, it } from "vitest";
import type { HistoryRule } from "../../../actors/history/history-rule.ts";
import {
  compareRuns,
  gapsMax,
  mergeRuns,
  observe,
  type Piece,
  type Run,
  wholeRuns,
} from "../../../actors/history/history-run.ts";
import { createRandom, type Random, seedOfRun } from "../../support/random.ts";
import { mergeNaively, pieceOf, ruleOf, shortOf } from "./history-rules.ts";

type Short = readonly [t1: number, t2: number, v: string, c?: number];

const merge = (rule: HistoryRule, points: readonly Short[], runs: readonly Run[] = []): Run[] =>
  mergeRuns(
    rule,
    runs,
    points.map(([t1, t2, v, c = 1]) => observe(v, t1, t2, c)),
  );

interface Example {
  readonly what: string;
  readonly rule?: Partial<HistoryRule>;
  readonly points: readonly Short[];
  readonly runs: readonly (readonly (string | number)[])[];
}

/** Worked examples; runs are `[t1, t2, v, mean c, count]`, the count only if it is not 1. */
const examples: readonly Example[] = [
  {
    what: "the reference's example: values that touch are one run with the mean of their confidences",
    points: [
      [0, 5, "1", 1],
      [5, 6, "1", 0.5],
      [8, 9, "1", 0.2],
      [2, 3, "2", 0.2],
    ],
    runs: [
      [2, 3, "2", 0.2],
      [0, 6, "1", 0.75, 2],
      [8, 9, "1", 0.2],
    ],
  },
  {
    what: "the same with many values",
    rule: { multiValue: true },
    points: [
      [0, 5, "1", 1],
      [5, 6, "1", 0.5],
      [8, 9, "1", 0.2],
      [2, 3, "2", 0.2],
    ],
    runs: [
      [2, 3, "2", 0.2],
      [0, 6, "1", 0.75, 2],
      [8, 9, "1", 0.2],
    ],
  },
  {
    what: "a gap of pre + post is bridged",
    rule: { preMs: 2, postMs: 3 },
    points: [
      [0, 5, "a"],
      [10, 11, "a", 0.4],
    ],
    runs: [[0, 11, "a", 0.7, 2]],
  },
  {
    what: "a longer one is not",
    rule: { preMs: 2, postMs: 3 },
    points: [
      [0, 5, "a"],
      [10.5, 11, "a"],
    ],
    runs: [
      [0, 5, "a", 1],
      [10.5, 11, "a", 1],
    ],
  },
  {
    what: "another value in a gap keeps it open",
    rule: { preMs: 5, postMs: 5 },
    points: [
      [0, 5, "a"],
      [7, 7, "b"],
      [10, 11, "a"],
    ],
    runs: [
      [0, 5, "a", 1],
      [7, 7, "b", 1],
      [10, 11, "a", 1],
    ],
  },
  {
    what: "so does one that reaches into it from before",
    rule: { preMs: 5, postMs: 5 },
    points: [
      [-3, 6, "b"],
      [0, 5, "a"],
      [10, 11, "a"],
    ],
    runs: [
      [0, 5, "a", 1],
      [-3, 6, "b", 1],
      [10, 11, "a", 1],
    ],
  },
  {
    what: "one that only touches it does not, and may bridge it itself",
    rule: { preMs: 5, postMs: 5 },
    points: [
      [3, 5, "b"],
      [0, 5, "a"],
      [10, 11, "a"],
      [10, 10, "b"],
    ],
    runs: [
      [3, 10, "b", 1, 2],
      [0, 11, "a", 1, 2],
    ],
  },
  {
    what: "of many values each is merged by itself",
    rule: { preMs: 5, postMs: 5, multiValue: true },
    points: [
      [0, 5, "a"],
      [7, 7, "b"],
      [10, 11, "a"],
    ],
    runs: [
      [7, 7, "b", 1],
      [0, 11, "a", 1, 2],
    ],
  },
  {
    what: "without `aggregate` nothing is merged",
    rule: { merges: false, postMs: 9 },
    points: [
      [0, 5, "a"],
      [0, 5, "a"],
      [4, 5, "a", 0.5],
    ],
    runs: [
      [0, 5, "a", 1],
      [0, 5, "a", 1],
      [4, 5, "a", 0.5],
    ],
  },
];

describe("merging", () => {
  it.each(examples)("$what", ({ rule, points, runs }) => {
    for (const order of [points, [...points].reverse()]) {
      expect(merge(ruleOf(rule), order).map(shortOf)).toEqual(runs);
      // One by one, too.
      const grown = order.reduce<Run[]>((history, point) => merge(ruleOf(rule), [point], history), []);
      expect(grown.map(shortOf)).toEqual(runs);
    }
  });

  it("splits a run at a bridge where another value comes late, with the counts and confidences of either side", () => {
    const rule = ruleOf({ preMs: 5, postMs: 5 });
    const before = merge(rule, [
      [0, 5, "a", 0.5],
      [5, 6, "a", 1],
      [10, 11, "a", 0.4],
      [15, 16, "a", 0.1],
    ]);
    expect(before.map(shortOf)).toEqual([[0, 16, "a", 0.5, 4]]);
    expect(merge(rule, [[12, 13, "b"]], before).map(shortOf)).toEqual([
      [0, 11, "a", 0.633333, 3],
      [12, 13, "b", 1],
      [15, 16, "a", 0.1],
    ]);
  });

  it(`bridges at most ${gapsMax} gaps, then a new run begins`, () => {
    const rule = ruleOf({ postMs: 1 });
    const points = Array.from({ length: gapsMax + 3 }, (_, i): Short => [2 * i, 2 * i + 1, "a"]);
    expect(merge(rule, points).map(({ t1, n }) => [t1, n])).toEqual([
      [0, gapsMax + 1],
      [2 * (gapsMax + 1), 2],
    ]);
  });

  it("keeps a confidence as it was given, and sums exactly", () => {
    const [run] = merge(ruleOf(), [[0, 1, "a", 0.1]]);
    expect(run?.c).toBe(100_000_000);
    const many = merge(
      ruleOf(),
      Array.from({ length: 10 }, (): Short => [0, 1, "a", 0.1]),
    );
    expect(many).toEqual([{ value: "a", t1: 0, t2: 1, n: 10, c: 1e9, gaps: [] }]);
  });
});

it("runs of which the gaps were not read are never merged", () => {
  const points: Short[] = [
    [0, 1, "a"],
    [2, 3, "a"],
  ];
  const runs = merge(ruleOf({ postMs: 1 }), points);
  expect(wholeRuns(runs)).toBe(runs);
  expect(() => wholeRuns(runs.map(pieceOf))).toThrow("without their gaps");
});

const seed = seedOfRun();

describe(`with observations drawn by seed ${seed}`, () => {
  const random = createRandom(seed);
  const draws = Array.from({ length: 300 }, () => ({ rule: drawRule(random), points: drawPoints(random) }));

  it("merging gives what the definition says", () => {
    for (const { rule, points } of draws) {
      const merged = mergeRuns(rule, [], points);
      expect(merged.map(piecesOf)).toEqual(naive(rule, points));
    }
  });

  it("merging in any order and in any portions gives the same history (reference 15.1, number 20)", () => {
    for (const { rule, points } of draws) {
      const wanted = mergeRuns(rule, [], points);
      let history: Run[] = [];
      const left = random.shuffled(points);
      while (left.length > 0) history = mergeRuns(rule, history, left.splice(0, random.between(1, 6)));
      expect(history).toEqual(wanted);
    }
  });

  it("runs that are not near an observation need not be known to add it", () => {
    for (const { rule, points } of draws) {
      const [late, ...rest] = random.shuffled(points) as [Piece, ...Piece[]];
      const history = mergeRuns(rule, [], rest);
      const reach = rule.preMs + rule.postMs;
      const isNear = ({ t1, t2 }: Run) => t2 >= late.t1 - reach && t1 <= late.t2 + reach;
      const near = mergeRuns(rule, history.filter(isNear), [late]);
      const all = [...history.filter((run) => !isNear(run)), ...near].sort(compareRuns);
      expect(all).toEqual(mergeRuns(rule, [], points));
    }
  });
});

function drawRule(random: Random): HistoryRule {
  return ruleOf({
    preMs: random.between(0, 3),
    postMs: random.between(0, 3),
    multiValue: random.next() < 0.4,
    merges: random.next() < 0.9,
  });
}

/** Few values in a short time: much overlaps, touches and ties. */
function drawPoints(random: Random): Piece[] {
  return Array.from({ length: random.between(1, 24) }, () => {
    const t1 = random.between(0, 40);
    return observe(random.next() < 0.6 ? "a" : "b", t1, t1 + random.between(0, 4), random.between(0, 10) / 10);
  });
}

function naive(rule: HistoryRule, points: readonly Piece[]): Piece[][] {
  const whole = (chain: readonly Piece[]): Piece => {
    const [first, last] = [chain[0] as Piece, chain.at(-1) as Piece];
    return { ...first, t2: last.t2 };
  };
  return mergeNaively(rule, points).sort((a, b) => compareRuns(whole(a), whole(b)));
}

function piecesOf(run: Run): Piece[] {
  const { value } = run;
  const ends = [...run.gaps.map(({ from }) => from), run.t2];
  const starts = [run.t1, ...run.gaps.map(({ until }) => until)];
  const counts = [...run.gaps.map(({ n }) => n), run.n - run.gaps.reduce((sum, { n }) => sum + n, 0)];
  const sums = [...run.gaps.map(({ c }) => c), run.c - run.gaps.reduce((sum, { c }) => sum + c, 0)];
  return starts.map((t1, i) => ({ value, t1, t2: ends[i] ?? 0, n: counts[i] ?? 0, c: sums[i] ?? 0 }));
}
