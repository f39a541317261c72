import assert from "node:assert";
import { type HistoryRule, reachOf } from "./history-rule.ts";

/*
 * Merging the history of one attribute. Merged, it is a function of the set of its observations, not of their order:
 *
 * 1. Observations of equal values that overlap or touch are one piece, whatever other values there are.
 * 2. The gap between a piece and the next one of the same value is bridged if it is at most pre + post validity long and, for
 *    an attribute with single values, no other value is in it. Pieces joined by bridges are a run.
 * 3. A run remembers its bridges, and count and confidences on either side, so that an observation that comes late splits it
 *    there as if it had come in time.
 * 4. A run bridges at most 64 gaps; the next piece begins a new one. Only in this the order of arrival shows.
 * 5. An observation changes only runs that are within pre + post of it: {@link mergeRuns} looks at no others, so whoever
 *    calls it need not know them.
 * 6. Confidences are summed as whole billionths, exactly: a sum does not depend on the order of its terms.
 */

/** A value's stay: observations of equal values without a break. Times are Unix ms. */
export interface Run {
  /** Canonical JSON text. */
  readonly value: string;
  readonly t1: number;
  readonly t2: number;
  /** How many observations it is made of. */
  readonly n: number;
  /** The sum of their confidences, in billionths. */
  readonly c: number;
  /** In order. */
  readonly gaps: readonly Gap[];
}

/** A bridged gap, and what the run has between the gap before it and this one. */
export interface Gap {
  readonly from: number;
  readonly until: number;
  readonly n: number;
  readonly c: number;
}

/** One observation, or several that became one piece. */
export type Piece = Omit<Run, "gaps">;

/** A run bridges no more gaps. */
export const gapsMax = 64;

const billion = 1e9;
const noGaps: Gap[] = [];

/** An observation. `c`: its confidence, 0 to 1. */
export function observe(value: string, t1: number, t2: number, c: number): Piece {
  return { value, t1, t2, n: 1, c: Math.round(c * billion) };
}

/** The mean confidence, 0 to 1. */
export function confidenceOf({ n, c }: Piece): number {
  return c / n / billion;
}

/** The order of histories: by end, beginning and value; of equal ones, which only an unmerged history has, by confidence. */
export function compareRuns(a: Piece, b: Piece): number {
  return a.t2 - b.t2 || a.t1 - b.t1 || compareText(a.value, b.value) || a.c - b.c;
}

/** The order in which equally confident values come: by beginning, end and value; and confidence, as above. */
export function compareStarts(a: Piece, b: Piece): number {
  return a.t1 - b.t1 || a.t2 - b.t2 || compareText(a.value, b.value) || a.c - b.c;
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Adds observations, in any order, to a history; both histories in the order of {@link compareRuns}. */
export function mergeRuns(rule: HistoryRule, runs: readonly Run[], added: readonly Piece[]): Run[] {
  if (added.length === 0) return [...runs];
  if (!rule.merges) {
    const all = added.map((piece) => ({ ...piece, gaps: noGaps }));
    return [...runs, ...all].sort(compareRuns);
  }
  const [first] = added;
  // As most histories are: one observation of late, and nothing before it.
  if (runs.length === 0 && added.length === 1 && first !== undefined) return [{ ...first, gaps: noGaps }];
  const { from, until } = surroundings(rule, added);
  const before = countBefore(runs, from);
  const far: Run[] = [];
  const near: Piece[] = [...added];
  for (let i = before; i < runs.length; i++) {
    const run = runs[i] as Run;
    if (run.t1 > until) far.push(run);
    else pushPieces(near, run);
  }
  const merged = bridge(rule, joinPieces(near));
  if (far.length > 0) merged.push(...far);
  merged.sort(compareRuns);
  return before === 0 ? merged : runs.slice(0, before).concat(merged);
}

/** The runs of a history that was read as a whole. */
export function wholeRuns(runs: readonly Piece[]): readonly Run[] {
  assert(runs.every(isRun), "runs without their gaps cannot be merged");
  return runs;
}

function isRun(piece: Piece): piece is Run {
  return "gaps" in piece;
}

/** The time in which runs may change when observations are added. */
export function surroundings(rule: HistoryRule, added: readonly Piece[]): { from: number; until: number } {
  let from = Number.POSITIVE_INFINITY;
  let until = Number.NEGATIVE_INFINITY;
  for (const { t1, t2 } of added) {
    if (t1 < from) from = t1;
    if (t2 > until) until = t2;
  }
  const reach = rule.merges ? reachOf(rule) : 0;
  return { from: from - reach, until: until + reach };
}

/** How many runs ended before an instant. */
export function countBefore(runs: readonly Run[], at: number): number {
  let low = 0;
  let high = runs.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((runs[middle] as Run).t2 < at) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** What a run was made of before its gaps were bridged. */
function pushPieces(pieces: Piece[], run: Run): void {
  if (run.gaps.length === 0) {
    pieces.push(run);
    return;
  }
  const { value, t2 } = run;
  let { t1, n, c } = run;
  for (const gap of run.gaps) {
    pieces.push({ value, t1, t2: gap.from, n: gap.n, c: gap.c });
    t1 = gap.until;
    n -= gap.n;
    c -= gap.c;
  }
  pieces.push({ value, t1, t2, n, c });
}

/** Joins pieces of equal values that overlap or touch. The answer is in the order of beginnings. */
function joinPieces(pieces: Piece[]): Piece[] {
  pieces.sort((a, b) => a.t1 - b.t1);
  const places = new Map<string, number>();
  const joined: Piece[] = [];
  for (const piece of pieces) {
    const place = places.get(piece.value);
    const last = place === undefined ? undefined : joined[place];
    if (place !== undefined && last !== undefined && piece.t1 <= last.t2) {
      const { value, t1, t2, n, c } = last;
      joined[place] = { value, t1, t2: Math.max(t2, piece.t2), n: n + piece.n, c: c + piece.c };
    } else {
      places.set(piece.value, joined.length);
      joined.push(piece);
    }
  }
  return joined;
}

/** Joins pieces, in the order of their beginnings, to runs. */
function bridge(rule: HistoryRule, pieces: readonly Piece[]): Run[] {
  const chains: Piece[][] = [];
  const open = new Map<string, Piece[]>();
  const reach = reachOf(rule);
  const ends = createEnds();
  // Pieces that begin at the end of a gap are not in it: up to `noted` all began earlier.
  let noted = 0;
  for (const [i, piece] of pieces.entries()) {
    const { value, t1 } = piece;
    for (; noted < i && (pieces[noted] as Piece).t1 < t1; noted++) ends.note(pieces[noted] as Piece);
    const chain = open.get(value);
    const end = chain?.at(-1)?.t2 ?? Number.NEGATIVE_INFINITY;
    const free = rule.multiValue || ends.besides(value) <= end;
    if (chain !== undefined && free && t1 - end <= reach && chain.length <= gapsMax) chain.push(piece);
    else {
      const begun = [piece];
      chains.push(begun);
      open.set(value, begun);
    }
  }
  return chains.map(toRun);
}

function toRun(chain: readonly Piece[]): Run {
  const gaps = chain.length === 1 ? noGaps : [];
  const [first] = chain as [Piece];
  let { t2, n, c } = first;
  let before = first;
  for (let i = 1; i < chain.length; i++) {
    const piece = chain[i] as Piece;
    gaps.push({ from: before.t2, until: piece.t1, n: before.n, c: before.c });
    t2 = piece.t2;
    n += piece.n;
    c += piece.c;
    before = piece;
  }
  return { value: first.value, t1: first.t1, t2, n, c, gaps };
}

/** Knows how far pieces of values other than a given one reach. */
function createEnds() {
  let value = "";
  let furthest = Number.NEGATIVE_INFINITY;
  let others = Number.NEGATIVE_INFINITY;
  return {
    note: (piece: Piece): void => {
      if (piece.value === value) furthest = Math.max(furthest, piece.t2);
      else if (piece.t2 > furthest) {
        others = furthest;
        furthest = piece.t2;
        value = piece.value;
      } else others = Math.max(others, piece.t2);
    },
    besides: (wanted: string): number => (wanted === value ? others : furthest),
  };
}
