import type { Bed } from "./bed.ts";
import type { Verdict } from "./verify.ts";

/** One benchmark: what it runs, what it tells, and how good that must be. */
export interface Benchmark {
  readonly name: string;
  readonly summary: string;
  /** The fields of its JSON object, in order. */
  readonly fields: readonly Field[];
  /** Further settings of PostgreSQL. */
  readonly settings?: Readonly<Record<string, string>>;
  bounds(values: Values): readonly Bound[];
  run(bed: Bed, options: BenchmarkOptions): Promise<Outcome>;
}

export interface Field {
  readonly key: string;
  readonly unit: string;
  readonly what: string;
}

/** Numbers by field. */
export type Values = Readonly<Record<string, number>>;

export interface Bound {
  readonly key: string;
  readonly sense: "at least" | "at most";
  readonly limit: number;
}

export interface BenchmarkOptions {
  /** Null: what the benchmark is defined with. */
  readonly entities: number | null;
  readonly minutes: number;
  /** Rounds of faults or moves; null: what the benchmark is defined with. */
  readonly rounds: number | null;
  /** Datapoints a second at 30 % of the full rate; null: what the benchmark is defined with. */
  readonly rate: number | null;
  /** Only with so many nodes; null: with each number that the benchmark is defined with. */
  readonly nodes: number | null;
  /** The commit to compare with; null: what the benchmark is defined with. */
  readonly against: string | null;
  /** Datapoints of the longest history. */
  readonly stored: number;
  readonly signal: AbortSignal;
  /** Says what goes on. */
  note(text: string): void;
}

export interface Outcome {
  readonly values: Values;
  /** Not a number: what the figures depend on. */
  readonly durability?: Readonly<Record<string, string>>;
  /** What people want to know beside, not part of the JSON object. */
  readonly remarks: readonly string[];
  readonly verdicts: readonly Verdict[];
}

/** Whether a value keeps a bound; one that is not there does not. */
export function keeps(bound: Bound, values: Values): boolean {
  const value = values[bound.key];
  if (value === undefined || Number.isNaN(value)) return false;
  return bound.sense === "at least" ? value >= bound.limit : value <= bound.limit;
}

/** The middle one; of an even number the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = Math.floor(sorted.length / 2);
  const upper = sorted[half] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[half - 1] ?? Number.NaN) + upper) / 2;
}

/** Every field's median over several runs. */
export function medians(runs: readonly Values[]): Values {
  const keys = Object.keys(runs[0] ?? {});
  return Object.fromEntries(keys.map((key) => [key, median(runs.map((run) => run[key] ?? Number.NaN))]));
}

/** The value below which the share `q` of the samples lies. */
export function quantile(samples: readonly number[], q: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? Number.NaN;
}
