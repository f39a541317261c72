import type { HistoryRule } from "./history-rule.ts";
import { compareStarts, confidenceOf, type Run } from "./history-run.ts";

/** A value that is current at an instant. */
export interface CurrentValue {
  readonly run: Run;
  /** Its confidence at that instant, above 0 and at most 1. */
  readonly c: number;
}

/**
 * The values that are current at `at` (Unix ms), in the order of their beginnings; of single values the most confident one, and of
 * equally confident ones the first (reference 6.1). `runs` may be any part of a history that holds all within {@link relevance}.
 */
export function currentValues(rule: HistoryRule, runs: readonly Run[], at: number): CurrentValue[] {
  const last = rule.expireMs === null ? null : lastBegun(rule, runs, at);
  const found = new Map<string, CurrentValue>();
  for (const run of runs) {
    const isLast = last?.get(rule.multiValue ? run.value : "") === run;
    const c = confidenceAt(rule, run, at, isLast);
    if (c <= 0) continue;
    const key = rule.multiValue ? run.value : "";
    const best = found.get(key);
    if (best === undefined || c > best.c || (c === best.c && compareStarts(run, best.run) < 0)) {
      found.set(key, { run, c });
    }
  }
  return [...found.values()].sort((a, b) => compareStarts(a.run, b.run));
}

/**
 * How confident a run's value is at an instant: fully from t1 to t2, then falling in a straight line to 0 over the
 * post-validity; before t1 rising over the pre-validity. An expire time ends it for every value, and makes the last one last
 * so long.
 */
export function confidenceAt(rule: HistoryRule, run: Run, at: number, isLast: boolean): number {
  const { preMs, postMs, expireMs } = rule;
  if (at < run.t1) return at <= run.t1 - preMs ? 0 : confidenceOf(run) * (1 - (run.t1 - at) / preMs);
  if (at <= run.t2) return confidenceOf(run);
  if (expireMs !== null) {
    if (at > run.t2 + expireMs) return 0;
    if (isLast) return confidenceOf(run);
  }
  return at >= run.t2 + postMs ? 0 : confidenceOf(run) * (1 - (at - run.t2) / postMs);
}

/** Of the runs that have begun, the one that ends last: of each value, or of all. */
function lastBegun(rule: HistoryRule, runs: readonly Run[], at: number): Map<string, Run> {
  const last = new Map<string, Run>();
  for (const run of runs) {
    if (run.t1 > at) continue;
    const key = rule.multiValue ? run.value : "";
    const best = last.get(key);
    if (best === undefined || run.t2 > best.t2 || (run.t2 === best.t2 && compareStarts(run, best) > 0)) {
      last.set(key, run);
    }
  }
  return last;
}

/** Runs that end before or begin after have no part in what is current at `at`. */
export function relevance(rule: HistoryRule, at: number): { from: number; until: number } {
  return { from: at - Math.max(rule.postMs, rule.expireMs ?? 0), until: at + rule.preMs };
}

/** What of a history is kept at `now`, and up to where some of it may be missing. */
export interface Kept {
  readonly runs: readonly Run[];
  /** Runs that ended up to here may be gone; minus infinity: none are. */
  readonly cut: number;
}

/** Takes off what is too old, or too much. `cut`: as it was. */
export function keepNewest(rule: HistoryRule, runs: readonly Run[], now: number, cut: number): Kept {
  const { maxAgeMs, maxItems } = rule;
  const horizon = maxAgeMs === null ? Number.NEGATIVE_INFINITY : now - maxAgeMs;
  let gone = 0;
  if (maxItems !== null) gone = Math.max(0, runs.length - maxItems);
  while (gone < runs.length && (runs[gone] as Run).t2 < horizon) gone++;
  const lost = runs[gone - 1]?.t2 ?? Number.NEGATIVE_INFINITY;
  return { runs: gone === 0 ? runs : runs.slice(gone), cut: Math.max(cut, lost, horizon) };
}

/** Whether nothing that retention took could change what is current at `at`; `runs`: what is kept. */
export function isComplete(rule: HistoryRule, { runs, cut }: Kept, at: number): boolean {
  const { postMs, expireMs, multiValue } = rule;
  if (expireMs === null) return at > cut && at >= cut + postMs;
  if (at > cut + expireMs) return true;
  const overtaken = !multiValue && runs.some(({ t1 }) => t1 <= at);
  return overtaken && at > cut && at >= cut + postMs;
}
