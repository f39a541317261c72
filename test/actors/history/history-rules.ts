import type { HistoryRule } from "../../../actors/history/history-rule.ts";
import { confidenceOf, type Piece, type Run } from "../../../actors/history/history-run.ts";

/** A rule of single values that merges; times in the tests are small numbers, so milliseconds stand for anything. */
export function ruleOf(parts: Partial<HistoryRule> = {}): HistoryRule {
  const none = { preMs: 0, postMs: 0, expireMs: null, maxAgeMs: null, maxItems: null };
  return { ...none, multiValue: false, merges: true, ...parts };
}

/** A run as the reference writes it, `[t1, t2, v, c]`, with its count if that is not 1. */
export function shortOf(run: Run): (string | number)[] {
  const short = [run.t1, run.t2, run.value, Math.round(confidenceOf(run) * 1e6) / 1e6];
  return run.n === 1 ? short : [...short, run.n];
}

/** A run as a part of a history has it, without its gaps. */
export function pieceOf({ value, t1, t2, n, c }: Piece): Piece {
  return { value, t1, t2, n, c };
}

/** What {@link mergeRuns} promises, word for word and without regard for time: see the head of `history-run.ts`. */
export function mergeNaively(rule: HistoryRule, observed: readonly Piece[]): Piece[][] {
  if (!rule.merges) return observed.map((piece) => [piece]);
  const pieces = fixpoint([...observed], (a, b) => {
    if (a.value !== b.value || a.t1 > b.t2 || b.t1 > a.t2) return null;
    return { value: a.value, t1: Math.min(a.t1, b.t1), t2: Math.max(a.t2, b.t2), n: a.n + b.n, c: a.c + b.c };
  });
  const inGap = (from: number, until: number, value: string): boolean =>
    pieces.some((other) => other.value !== value && other.t1 < until && other.t2 > from);
  return fixpoint(
    pieces.map((piece) => [piece]),
    (a, b) => {
      const [left, right] = [a.at(-1) as Piece, b[0] as Piece];
      if (left.value !== right.value || left.t2 >= right.t1) return null;
      if (right.t1 - left.t2 > rule.preMs + rule.postMs) return null;
      if (pieces.some(({ value, t1 }) => value === left.value && t1 > left.t2 && t1 < right.t1)) return null;
      if (!rule.multiValue && inGap(left.t2, right.t1, left.value)) return null;
      return [...a, ...b];
    },
  );
}

/** Joins any two items that can be joined until there are none. */
function fixpoint<T>(items: T[], join: (a: T, b: T) => T | null): T[] {
  const left = [...items];
  for (let again = true; again; ) {
    again = false;
    for (let i = 0; i < left.length && !again; i++) {
      for (let j = 0; j < left.length && !again; j++) {
        const joined = i === j ? null : join(left[i] as T, left[j] as T);
        if (joined === null) continue;
        left[i] = joined;
        left.splice(j, 1);
        again = true;
      }
    }
  }
  return left;
}
