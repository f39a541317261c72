import { type Seq, toSeq } from "../../proto/ids.ts";
import type { AttemptMark } from "../store/store.ts";
import { type Entry, isSettled } from "./entry.ts";

/**
 * What of a shard may end a process, and what is known of where (R17), as long as nobody has passed it:
 *
 *      from ---------- diedTo ------------- until ---------------------
 *        its owner died       or one before,      as every other range
 *                             somewhere up to
 *                             here
 *
 * It stays with the shard until all of it has passed: no shard is given up without `lastMark`.
 */
export interface Suspect {
  /** Replayed, in log order; those before `first` are through. */
  readonly entries: readonly Entry[];
  first: number;
  /** Hooks of the seqs up to here are through, or run for so long that nothing waits for them. */
  passedTo: Seq;
  /** Behind such a hook, of the same entity, when their window passed: each gets one of its own. */
  late: Entry[];
  /** Hooks of the seqs before passed in the life before. */
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

/** What the mark that its owner before has left says of a shard. */
export function suspectOf(attempt: AttemptMark | null, entries: readonly Entry[]): Suspect {
  const { from, to, until, deaths } = attempt ?? { from: nothing, to: nothing, until: nothing, deaths: 0 };
  const known = { from, diedTo: to < from ? nothing : to, until, deaths };
  return { entries, first: 0, passedTo: nothing, late: [], ...known, isMarked: attempt !== null };
}

/** Seqs whose hooks may run, as the marks of their shards say. Empty: there is nothing that could. */
export interface Window {
  readonly marks: ReadonlyMap<Suspect, AttemptMark>;
  /** Whether it is one datapoint that is not to be run. */
  readonly isGivenUp: boolean;
}

/**
 * The next window. What a process died of alone is tried alone; of the seqs in whose window one died, over all shards, one half
 * is, and then half of what is left of them; then comes what was behind a window before, then all others, and what was late.
 */
export function planWindow(suspects: readonly Suspect[]): Window {
  const known = suspects.find((suspect) => suspect.deaths > 0 && firstLeft(suspect) === suspect.from);
  if (known !== undefined) return take([known], 1, ({ from }) => from);
  const left = suspects.reduce((sum, suspect) => sum + countLeft(suspect, suspect.diedTo), 0);
  if (left > 0) return take(suspects, Math.ceil(left / 2), ({ diedTo }) => diedTo);
  const behind = take(suspects, windowMaxSeqs, ({ until }) => until);
  if (behind.marks.size > 0) return behind;
  const others = take(suspects, windowMaxSeqs, () => Number.POSITIVE_INFINITY);
  return others.marks.size > 0 ? others : takeLate(suspects);
}

/** The next `size` seqs, shard by shard, none above a shard's limit. */
function take(suspects: readonly Suspect[], size: number, limitOf: (suspect: Suspect) => number): Window {
  const ranges = new Map<Suspect, { from: number; to: number }>();
  let left = size;
  for (const suspect of suspects) {
    for (const [from, to] of leftOf(suspect, limitOf(suspect))) {
      if (left === 0) break;
      const end = Math.min(to, from + left - 1);
      left -= end - from + 1;
      ranges.set(suspect, { from: ranges.get(suspect)?.from ?? from, to: end });
    }
  }
  const isOne = size - left === 1;
  const marks = [...ranges].map(([suspect, { from, to }]): [Suspect, AttemptMark] => {
    // Above the last range in which somebody died, who died before did not: that is forgotten.
    const known = Math.min(limitOf(suspect), knownTo(suspect));
    const deaths = isOne ? deathsAt(suspect, from) + 1 : 0;
    return [suspect, { from: toSeq(from), to: toSeq(to), until: toSeq(Math.max(to, known)), deaths }];
  });
  return windowOf(marks);
}

/** An entry that was late and whose turn it is now, alone. */
function takeLate(suspects: readonly Suspect[]): Window {
  for (const suspect of suspects) {
    const entry = suspect.late.find((one) => one.phase !== "ended" && one.entity?.mailbox?.[0] === one);
    if (entry === undefined) continue;
    const { seq, lastSeq } = entry;
    const from = suspect.deaths > 0 && seq <= suspect.from && suspect.from <= lastSeq ? suspect.from : seq;
    const to = from === seq ? lastSeq : from;
    const deaths = from === to ? deathsAt(suspect, from) + 1 : 0;
    return windowOf([[suspect, { from, to, until: to, deaths }]]);
  }
  return windowOf([]);
}

function windowOf(marks: readonly [Suspect, AttemptMark][]): Window {
  return { marks: new Map(marks), isGivenUp: marks.some(([, { deaths }]) => deaths > deathsMax) };
}

/** The entries of a window, which are late no longer. */
export function openEntries(suspect: Suspect, { from, to }: AttemptMark): Entry[] {
  const isInside = ({ seq, lastSeq, phase }: Entry): boolean => seq <= to && lastSeq >= from && phase !== "ended";
  const late = suspect.late.filter(isInside);
  for (const entry of late) entry.isLate = false;
  suspect.late = suspect.late.filter(({ isLate }) => isLate);
  const opened = new Set(late);
  for (let index = suspect.first; index < suspect.entries.length; index++) {
    const entry = suspect.entries[index];
    if (entry === undefined || entry.seq > to) break;
    if (isInside(entry)) opened.add(entry);
  }
  return [...opened];
}

/** The window up to `to` has passed. */
export function passTo(suspect: Suspect, to: Seq): void {
  suspect.passedTo = toSeq(Math.max(suspect.passedTo, to));
  while ((suspect.entries[suspect.first]?.lastSeq ?? Number.POSITIVE_INFINITY) <= suspect.passedTo) suspect.first++;
}

/** Whether processes died of a datapoint alone that has not passed yet: its mark stays while others are tried. */
export function isKnown(suspect: Suspect): boolean {
  const { deaths, from, late } = suspect;
  if (deaths === 0) return false;
  return (
    firstLeft(suspect) === from ||
    late.some(({ seq, lastSeq, phase }) => seq <= from && from <= lastSeq && phase !== "ended")
  );
}

/** Whether nothing is left that has not passed. */
export function isOver(suspect: Suspect): boolean {
  return firstLeft(suspect) === null && suspect.late.every(({ phase }) => phase === "ended");
}

/**
 * The mark that a shard leaves to its next owner, though it is given up: what is left of a gated range has still not shown that
 * a process lives through it, and nobody died of the window at hand. Null: nothing is left.
 */
export function lastMark({ entries, first, passedTo, late, from, diedTo, until, deaths }: Suspect): AttemptMark | null {
  const left = [...late, ...entries.slice(first).filter(({ lastSeq }) => lastSeq > passedTo)];
  const open = left.filter((entry) => !isSettled(entry));
  if (open.length === 0) return null;
  const begin = toSeq(Math.max(Math.min(...open.map(({ seq }) => seq)), from));
  const to = toSeq(Math.max(diedTo, begin - 1));
  const known = Math.max(to, until);
  const last = known < begin ? Math.max(...open.map(({ lastSeq }) => lastSeq)) : known;
  return { from: begin, to, until: toSeq(last), deaths: begin === from ? deaths : 0 };
}

function knownTo({ diedTo, until }: Suspect): number {
  return Math.max(diedTo, until);
}

function deathsAt({ from, deaths }: Suspect, seq: number): number {
  return seq === from ? deaths : 0;
}

/** The first seq whose hooks have not ended. */
function firstLeft(suspect: Suspect): number | null {
  for (const [from] of leftOf(suspect, Number.POSITIVE_INFINITY)) return from;
  return null;
}

function countLeft(suspect: Suspect, limit: number): number {
  let count = 0;
  for (const [from, to] of leftOf(suspect, limit)) count += to - from + 1;
  return count;
}

/** Ranges of seqs that have not passed, up to the limit. */
function* leftOf({ entries, first, passedTo, from }: Suspect, limit: number): Generator<[from: number, to: number]> {
  for (let index = first; index < entries.length; index++) {
    const entry = entries[index];
    if (entry === undefined || entry.seq > limit) return;
    const begin = Math.max(entry.seq, passedTo + 1, from);
    const end = Math.min(entry.lastSeq, limit);
    if (entry.phase !== "ended" && begin <= end) yield [begin, end];
  }
}
