import { type Seq, toSeq } from "../../proto/ids.ts";
import type { AttemptMark } from "../store/store.ts";
import { type Entry, isSettled } from "./entry.ts";

/**
 * What of a shard may end a process, and what is known of where (R17), as long as nobody has passed it:
 *
 *      ------------ from ---------- diedTo ------------- until -----------------
 *      passed once,   its owner died       or one before,      as every other
 *      or it waited                        somewhere up to     range
 *                                          here
 *
 * It stays with the shard until all of it has ended: no shard is given up without `lastMark`.
 */
export interface Suspect {
  /** Replayed, in log order; of each hooks run up to `heldAbove`. Those that have ended go with the next window. */
  entries: readonly Entry[];
  readonly from: Seq;
  readonly diedTo: Seq;
  readonly until: Seq;
  /** Of processes, of the datapoint at `from` alone. */
  readonly deaths: number;
  /** Whether it has a mark in the store. */
  isMarked: boolean;
}

/** How often a process dies on one datapoint before its hooks are given up. */
export const deathsMax = 3;
/** Seqs in a window of which nothing is known. */
const windowMaxSeqs = 8192;
const nothing = toSeq(0);

/** Holds the entries, and reads what the owner before has left. */
export function suspectOf(attempt: AttemptMark | null, entries: readonly Entry[]): Suspect {
  for (const entry of entries) entry.heldAbove = toSeq(entry.seq - 1);
  const { from, to, until, deaths } = attempt ?? { from: nothing, to: nothing, until: nothing, deaths: 0 };
  return { entries, from, diedTo: to < from ? nothing : to, until, deaths, isMarked: attempt !== null };
}

/** Seqs whose hooks may run, by entry and as the marks of their shards say. Empty: there is nothing that could. */
export interface Window {
  readonly pieces: readonly Piece[];
  readonly marks: ReadonlyMap<Suspect, AttemptMark>;
  /** Whether it is one datapoint that is not to be run. */
  readonly isGivenUp: boolean;
}

/** Hooks of the entry may run up to this seq. */
export interface Piece {
  readonly suspect: Suspect;
  readonly entry: Entry;
  readonly from: number;
  readonly to: number;
}

/**
 * The next window. First come those before a mark, which passed in the life before, or waited. What a process died of alone is
 * tried alone; of the seqs in whose window one died, over all shards, one half is, and then half of what is left of them; then
 * comes what was behind a window before, and then all others.
 */
export function planWindow(suspects: readonly Suspect[]): Window {
  for (const suspect of suspects) suspect.entries = suspect.entries.filter(({ phase }) => phase !== "ended");
  const beforeMark = piecesOf(suspects, ({ from }) => from - 1);
  const before = take(beforeMark, windowMaxSeqs);
  if (before.length > 0) return windowOf(before);
  for (const suspect of suspects) {
    if (suspect.deaths === 0) continue;
    const next = take(piecesOf([suspect], everySeq), 1);
    if (next[0]?.from === suspect.from) return windowOf(next);
  }
  const died = [...piecesOf(suspects, ({ diedTo }) => diedTo)];
  if (died.length > 0) return windowOf(take(died, Math.ceil(countSeqs(died) / 2)));
  const behindWindow = piecesOf(suspects, ({ until }) => until);
  const behind = take(behindWindow, windowMaxSeqs);
  return windowOf(behind.length > 0 ? behind : take(piecesOf(suspects, everySeq), windowMaxSeqs));
}

const everySeq = (): number => Number.POSITIVE_INFINITY;

/** What is still to come, shard by shard, up to the shard's limit; but for what waits until something that runs has ended. */
function* piecesOf(suspects: readonly Suspect[], limitOf: (suspect: Suspect) => number): Generator<Piece> {
  for (const suspect of suspects) {
    const limit = limitOf(suspect);
    for (const entry of suspect.entries) {
      if (entry.seq > limit) break;
      const from = (entry.heldAbove ?? entry.lastSeq) + 1;
      const to = Math.min(entry.lastSeq, limit);
      const isBlocked = (entry.entity?.mailbox?.[0]?.running ?? null) !== null;
      if (from <= to && !isBlocked) yield { suspect, entry, from, to };
    }
  }
}

/** The first `size` seqs. */
function take(pieces: Iterable<Piece>, size: number): Piece[] {
  const taken: Piece[] = [];
  let left = size;
  for (const piece of pieces) {
    const to = Math.min(piece.to, piece.from + left - 1);
    taken.push(to < piece.to ? { ...piece, to } : piece);
    left -= to - piece.from + 1;
    if (left === 0) break;
  }
  return taken;
}

function countSeqs(pieces: readonly Piece[]): number {
  return pieces.reduce((sum, { from, to }) => sum + to - from + 1, 0);
}

function windowOf(pieces: readonly Piece[]): Window {
  const isOne = countSeqs(pieces) === 1;
  const marks = new Map<Suspect, AttemptMark>();
  for (const { suspect, from, to } of pieces) {
    const { diedTo, until } = suspect;
    const first = marks.get(suspect)?.from ?? toSeq(from);
    // Above the last range in which somebody died, who died before did not: that is forgotten.
    const known = first <= diedTo ? diedTo : until;
    const deaths = isOne ? deathsAt(suspect, from) + 1 : 0;
    marks.set(suspect, { from: first, to: toSeq(to), until: toSeq(Math.max(to, known)), deaths });
  }
  return { pieces, marks, isGivenUp: [...marks.values()].some(({ deaths }) => deaths > deathsMax) };
}

function deathsAt({ from, deaths }: Suspect, seq: number): number {
  return seq === from ? deaths : 0;
}

/** Whether processes died of a datapoint alone that has not passed yet: its mark stays while others are tried. */
export function isKnown({ deaths, from, entries }: Suspect): boolean {
  return deaths > 0 && entries.some((entry) => covers(entry, from) && (entry.heldAbove ?? from) < from);
}

function covers({ seq, lastSeq, phase }: Entry, at: number): boolean {
  return phase !== "ended" && seq <= at && at <= lastSeq;
}

/** Whether nothing is left that has not ended. */
export function isOver({ entries }: Suspect): boolean {
  return entries.every(({ phase }) => phase === "ended");
}

/**
 * The mark that a shard leaves to its next owner, though it is given up: what is left of a gated range has still not shown that
 * a process lives through it, and nobody died of the window at hand. Null: nothing is left.
 */
export function lastMark({ entries, from, diedTo, until, deaths }: Suspect): AttemptMark | null {
  const open = entries.filter((entry) => !isSettled(entry));
  const [first, last] = [open[0], open.at(-1)];
  if (first === undefined || last === undefined) return null;
  const known = Math.max(diedTo, until);
  if (open.some(({ seq, lastSeq }) => seq <= known && lastSeq >= from))
    return { from, to: toSeq(Math.max(diedTo, from - 1)), until: toSeq(known), deaths };
  return { from: first.seq, to: toSeq(first.seq - 1), until: last.lastSeq, deaths: 0 };
}
