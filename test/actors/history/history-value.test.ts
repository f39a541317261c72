import { describe, expect, it } from "vitest";
import type { HistoryRule } from "../../../actors/history/history-rule.ts";
import {
  compareStarts,
  confidenceOf,
  mergeRuns,
  observe,
  type Piece,
  type Run,
} from "../../../actors/history/history-run.ts";
import { currentValues, isComplete, keepNewest, relevance } from "../../../actors/history/history-value.ts";
import { createRandom, type Random, seedOfRun } from "../../support/random.ts";
import { ruleOf } from "./history-rules.ts";

type Short = readonly [t1: number, t2: number, v: string, c?: number];

const historyOf = (rule: HistoryRule, points: readonly Short[]): Run[] =>
  mergeRuns(
    rule,
    [],
    points.map(([t1, t2, v, c = 1]) => observe(v, t1, t2, c)),
  );

const round = (c: number): number => Math.round(c * 1e9) / 1e9;

interface Example {
  readonly what: string;
  readonly rule?: Partial<HistoryRule>;
  readonly points: readonly Short[];
  /** By instant: what is current, `[v, c]`. */
  readonly at: Readonly<Record<number, readonly (readonly [string, number])[]>>;
}

const one = (c: number) => (c === 0 ? [] : ([["a", c]] as const));

const examples: readonly Example[] = [
  {
    what: "the reference's example of pre- and post-validity",
    rule: { preMs: 4, postMs: 10 },
    points: [[10, 20, "a", 0.8]],
    at: {
      6: one(0),
      7: one(0.2),
      8: one(0.4),
      9: one(0.6),
      10: one(0.8),
      20: one(0.8),
      21: one(0.72),
      25: one(0.4),
      29: one(0.08),
      30: one(0),
    },
  },
  {
    what: "without validities, from t1 to t2",
    points: [[10, 20, "a"]],
    at: { 9: one(0), 10: one(1), 20: one(1), 21: one(0) },
  },
  {
    what: "the most confident of single values",
    rule: { preMs: 10, postMs: 10 },
    points: [
      [0, 10, "a"],
      [20, 30, "b", 0.9],
    ],
    at: { 14: [["a", 0.6]], 16: [["b", 0.54]], 30: [["b", 0.9]] },
  },
  {
    what: "of equally confident ones the first by beginning, end and value",
    points: [
      [0, 10, "b"],
      [0, 10, "a"],
      [0, 9, "c"],
      [-1, 5, "d"],
    ],
    at: { 3: [["d", 1]], 7: [["c", 1]], 10: [["a", 1]] },
  },
  {
    what: "all of many values, by their beginnings, each at its most confident",
    rule: { multiValue: true, postMs: 10 },
    points: [
      [5, 6, "b", 0.5],
      [0, 10, "a"],
      [-30, -9, "a"],
      [20, 21, "c"],
    ],
    at: {
      0: [["a", 1]],
      6: [
        ["a", 1],
        ["b", 0.5],
      ],
      11: [
        ["a", 0.9],
        ["b", 0.25],
      ],
      30: [["c", 0.1]],
    },
  },
  { what: "confidence 0 is never current", points: [[0, 10, "a", 0]], at: { 5: one(0) } },
  {
    what: "an expire time keeps the last value, and ends every one (reference 15.1, number 20)",
    rule: { expireMs: 5, postMs: 100 },
    points: [
      [0, 10, "a", 0.8],
      [30, 40, "a", 0.6],
    ].map(([t1, t2, v, c]) => [t1, t2, v, c] as Short),
    at: { 15: one(0.7), 41: one(0.7), 45: one(0.7), 46: one(0) },
  },
  {
    what: "an expire time of 0 follows t1 and t2 strictly, though there is a post-validity",
    rule: { expireMs: 0, postMs: 100 },
    points: [[0, 10, "a"]],
    at: { 10: one(1), 11: one(0) },
  },
  {
    what: "an endless one keeps the last value until there is another",
    rule: { expireMs: Number.POSITIVE_INFINITY },
    points: [
      [0, 10, "a"],
      [20, 21, "b", 0.5],
    ],
    at: { 11: one(1), 19: one(1), 20: [["b", 0.5]], 1000: [["b", 0.5]] },
  },
  {
    what: "of many values each one's last",
    rule: { expireMs: 5, multiValue: true },
    points: [
      [0, 10, "a"],
      [12, 13, "b"],
    ],
    at: {
      14: [
        ["a", 1],
        ["b", 1],
      ],
      16: [["b", 1]],
    },
  },
];

describe("what is current", () => {
  it.each(examples)("$what", ({ rule, points, at }) => {
    const history = historyOf(ruleOf(rule), points);
    for (const [instant, wanted] of Object.entries(at)) {
      const found = currentValues(ruleOf(rule), history, Number(instant));
      expect([instant, found.map(({ run, c }) => [run.value, round(c)])]).toEqual([instant, wanted]);
    }
  });
});

const seed = seedOfRun();

describe(`with observations drawn by seed ${seed}`, () => {
  const random = createRandom(seed);

  it("a value is current exactly where the definition says", () => {
    for (let draw = 0; draw < 100; draw++) {
      const rule = drawRule(random);
      const history = mergeRuns(rule, [], drawPoints(random));
      for (let at = -5; at < 55; at += 0.5) {
        const found = currentValues(rule, history, at).map(({ run, c }) => [run.value, round(c)]);
        expect([at, found]).toEqual([at, naiveValues(rule, history, at)]);
        const { from, until } = relevance(rule, at);
        const part = history.filter(({ t1, t2 }) => t2 >= from && t1 <= until);
        expect(currentValues(rule, part, at)).toEqual(currentValues(rule, history, at));
      }
    }
  });

  it("what retention took is answered as incomplete wherever it would change the answer", () => {
    let differing = 0;
    for (let draw = 0; draw < 100; draw++) {
      const rule = { ...drawRule(random), maxAgeMs: random.between(0, 40), maxItems: random.between(1, 6) };
      const history = mergeRuns(rule, [], drawPoints(random));
      const kept = keepNewest(rule, history, 50, Number.NEGATIVE_INFINITY);
      for (let at = -5; at < 55; at += 0.5) {
        const [whole, left] = [history, kept.runs].map((runs) => currentValues(rule, runs, at));
        if (JSON.stringify(whole) === JSON.stringify(left)) continue;
        differing++;
        expect([at, isComplete(rule, kept, at)]).toEqual([at, false]);
      }
    }
    expect(differing).toBeGreaterThan(0);
  });
});

describe("retention", () => {
  const points: Short[] = [
    [0, 10, "a"],
    [20, 30, "b"],
    [40, 50, "c"],
  ];

  it("takes what ended longer ago than max_age", () => {
    const rule = ruleOf({ maxAgeMs: 70 });
    const { runs, cut } = keepNewest(rule, historyOf(rule, points), 100, Number.NEGATIVE_INFINITY);
    expect([runs.map(({ value }) => value), cut]).toEqual([["b", "c"], 30]);
  });

  it("keeps max_items of those that ended last (reference 15.1, number 20)", () => {
    const rule = ruleOf({ maxItems: 1 });
    const { runs, cut } = keepNewest(rule, historyOf(rule, points), 100, Number.NEGATIVE_INFINITY);
    expect([runs.map(({ value }) => value), cut]).toEqual([["c"], 30]);
  });

  it("makes earlier times incomplete, for as long as what is gone could be current", () => {
    const kept = { runs: historyOf(ruleOf(), [[40, 50, "c"]]), cut: 30 };
    const complete = (rule: Partial<HistoryRule>, at: number) => isComplete(ruleOf(rule), kept, at);
    expect([30, 31].map((at) => complete({}, at))).toEqual([false, true]);
    expect([34, 35].map((at) => complete({ postMs: 5 }, at))).toEqual([false, true]);
    expect([39, 40].map((at) => complete({ expireMs: Number.POSITIVE_INFINITY }, at))).toEqual([false, true]);
    expect([36, 37].map((at) => complete({ expireMs: 6, multiValue: true }, at))).toEqual([false, true]);
  });
});

function drawRule(random: Random): HistoryRule {
  const expire = [null, null, 0, 3, Number.POSITIVE_INFINITY][random.between(0, 4)] ?? null;
  return ruleOf({
    preMs: random.between(0, 6),
    postMs: random.between(0, 6),
    expireMs: expire,
    multiValue: random.next() < 0.4,
    merges: random.next() < 0.7,
  });
}

function drawPoints(random: Random): Piece[] {
  return Array.from({ length: random.between(1, 12) }, () => {
    const t1 = random.between(0, 45);
    const value = ["a", "b", "c"][random.between(0, 2)] ?? "a";
    return observe(value, t1, t1 + random.between(0, 6), random.between(0, 4) / 4);
  });
}

/** The definition of reference 6.1 and of the expire time, run by run and sentence by sentence. */
function naiveValues(rule: HistoryRule, runs: readonly Run[], at: number): [string, number][] {
  const all = runs
    .map((run) => ({ run, c: naiveConfidence(rule, run, runs, at) }))
    .filter(({ c }) => c > 0)
    .sort((a, b) => b.c - a.c || compareStarts(a.run, b.run));
  const values = rule.multiValue ? [...new Set(runs.map(({ value }) => value))] : [null];
  return values
    .flatMap((value) => all.find(({ run }) => value === null || run.value === value) ?? [])
    .sort((a, b) => compareStarts(a.run, b.run))
    .map(({ run, c }) => [run.value, round(c)]);
}

function naiveConfidence(rule: HistoryRule, run: Run, runs: readonly Run[], at: number): number {
  const { preMs, postMs, expireMs } = rule;
  const c = confidenceOf(run);
  if (run.t1 <= at && at <= run.t2) return c;
  if (at < run.t1) return at > run.t1 - preMs ? c * (1 - (run.t1 - at) / preMs) : 0;
  const since = at - run.t2;
  if (expireMs !== null && since > expireMs) return 0;
  const begun = runs.filter(({ t1, value }) => t1 <= at && (!rule.multiValue || value === run.value));
  const isLast = begun.every((other) => other.t2 < run.t2 || (other.t2 === run.t2 && compareStarts(other, run) <= 0));
  if (expireMs !== null && isLast) return c;
  return since < postMs ? c * (1 - since / postMs) : 0;
}
