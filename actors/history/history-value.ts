import type { HistoryRule } from "./history-rule.ts";
import { compareStarts, confidenceOf, type Piece } from "./history-run.ts";

/** A value that is current at an instant. */
export interface CurrentValue {
  readonly run: Piece;
  /** Its confidence at that instant, above 0 and at most 1. */
  readonly c: number;
}

/**
 * The values that are current at `at` (Unix ms), in the order of their beginnings; of single values the most confident one, and of
 * equally confident ones the first (reference 6.1). `runs` may be any part of a history that holds all within {@link relevance}.
 */
export function currentValues(rule: HistoryRule, runs: readonly Piece[], at: number): CurrentValue[] {
  const [only] = runs;
  if (runs.length === 1 && only !== undefined) {
    const c = confidenceAt(rule, only, at, only.t1 <= at);
    return c > 0 ? [{ run: only, c }] : [];
  }
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
export function confidenceAt(rule: HistoryRule, run: Piece, at: number, isLast: boolean): number {
  const { preMs, postMs, expireMs } = rule;
  if (at < run.t1) return at <= run.t1 - preMs ? 0 : confidenceOf(run) * (1 - (run.t1 - at) / preMs);
  if (at <= run.t2) return confidenceOf(run);
  if (expireMs !== null) {
    if (at > run.t2 + expireMs) return 0;
    if (isLast) return confidenceOf(run);
  }
  return at >= run.t2 + postMs ? 0 : confidenceOf(run) * (1 - (at - run.t2) / postMs);
}

/**
 * The instant (Unix ms) from which on time alone may change what is current at `at`: until then all stays as it is. `at` itself:
 * a confidence is just rising or falling; null: nothing will ever change. `runs` must hold all that begin later, too.
 */
export function nextChange(
  rule: HistoryRule,
  runs: readonly Piece[],
  at: number,
  current = currentValues(rule, runs, at),
): number | null {
  const shown = new Map<string, CurrentValue>();
  for (const one of current) shown.set(rule.multiValue ? one.run.value : "", one);
  const last = rule.expireMs === null ? null : lastBegun(rule, runs, at);
  let next = Number.POSITIVE_INFINITY;
  for (const run of runs) {
    const key = rule.multiValue ? run.value : "";
    const best = shown.get(key);
    // What is steadily shown is not overtaken by what is never more confident; but where values expire, it is last no longer.
    const steady = best !== undefined && best.run !== run && best.c === confidenceOf(best.run);
    const most = steady ? best.c : 0;
    if (confidenceOf(run) <= most && (rule.expireMs === null || run.t1 <= at)) continue;
    next = Math.min(next, nextChangeOf(rule, run, at, last?.get(key) === run));
    if (best?.run === run && rule.maxAgeMs !== null) next = Math.min(next, run.t2 + rule.maxAgeMs);
  }
  return next === Number.POSITIVE_INFINITY ? null : next;
}

/** The next instant at which a run's own confidence changes; infinity: it never does. */
function nextChangeOf(
  { preMs, postMs, expireMs }: HistoryRule,
  { t1, t2 }: Piece,
  at: number,
  isLast: boolean,
): number {
  if (at < t1) return Math.max(at, t1 - preMs);
  if (at <= t2) return t2;
  if (expireMs !== null && at > t2 + expireMs) return Number.POSITIVE_INFINITY;
  if (expireMs !== null && isLast) return t2 + expireMs;
  return at < t2 + postMs ? at : Number.POSITIVE_INFINITY;
}

/** Of the runs that have begun, the one that ends last: of each value, or of all. */
function lastBegun(rule: HistoryRule, runs: readonly Piece[], at: number): Map<string, Piece> {
  const last = new Map<string, Piece>();
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
export interface Kept<R extends Piece> {
  readonly runs: readonly R[];
  /** Runs that ended up to here may be gone; minus infinity: none are. */
  readonly cut: number;
}

/** Takes off what is too old, or too much. `cut`: as it was. */
export function keepNewest<R extends Piece>(rule: HistoryRule, runs: readonly R[], now: number, cut: number): Kept<R> {
  const { maxAgeMs, maxItems } = rule;
  const horizon = maxAgeMs === null ? Number.NEGATIVE_INFINITY : now - maxAgeMs;
  let gone = 0;
  if (maxItems !== null) gone = Math.max(0, runs.length - maxItems);
  while (gone < runs.length && (runs[gone] as R).t2 < horizon) gone++;
  const lost = runs[gone - 1]?.t2 ?? Number.NEGATIVE_INFINITY;
  return { runs: gone === 0 ? runs : runs.slice(gone), cut: Math.max(cut, lost, horizon) };
}

/** Whether nothing that retention took could change what is current at `at`; `runs`: what is kept. */
export function isComplete(rule: HistoryRule, { runs, cut }: Kept<Piece>, at: number): boolean {
  const { postMs, expireMs, multiValue } = rule;
  if (expireMs === null) return at > cut && at >= cut + postMs;
  if (at > cut + expireMs) return true;
  const overtaken = !multiValue && runs.some(({ t1 }) => t1 <= at);
  return overtaken && at > cut && at >= cut + postMs;
}
