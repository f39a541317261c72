import { type Seq, toSeq } from "../../proto/ids.ts";
import type { AttemptMark } from "../store/store.ts";
import { type Entry, isSettled } from "./entry.ts";
import type { Shard } from "./shard.ts";

/**
 * A shard whose hooks may end a process, and what is known of where (R17), as long as nobody has passed it:
 *
 *      from ---------- diedTo ------------- until ---------------------
 *        its owner died       or one before,      as every other range
 *                             somewhere up to
 *                             here
 */
export interface Suspect {
  readonly shard: Shard;
  /** Replayed, in log order; those before `first` are through. */
  readonly entries: readonly Entry[];
  first: number;
  /** Hooks of the seqs before passed in the life before. */
  readonly from: Seq;
  readonly diedTo: Seq;
  readonly until: Seq;
  /** Of processes, of the datapoint at `from` alone. */
  readonly deaths: number;
  /** Whether it has a mark in the store. */
  isMarked: boolean;
}

/** Seqs in a window of which nothing is known. */
const windowMaxSeqs = 8192;
const nothing = toSeq(0);

/** What its mark says of a shard. */
export function suspectOf(shard: Shard, entries: readonly Entry[]): Suspect {
  const { attempt } = shard;
  const { from, to, until, deaths } = attempt ?? { from: nothing, to: nothing, until: nothing, deaths: 0 };
  const diedTo = to < from ? nothing : to;
  return { shard, entries, first: 0, from, diedTo, until, deaths, isMarked: attempt !== null };
}

/** The seqs of some shards whose hooks may run, as their marks say. Empty: there is nothing left to run. */
export interface Window {
  readonly marks: ReadonlyMap<Shard, AttemptMark>;
  /** If it is of one seq: how many processes died of that. */
  readonly deaths: number;
}

/**
 * The next window. What a process died of alone is tried alone; of the seqs in whose window one died, over all shards, one half
 * is, and then half of what is left of them; then comes what was behind a window before, and then all others.
 */
export function planWindow(suspects: readonly Suspect[]): Window {
  const known = suspects.find((suspect) => suspect.deaths > 0 && firstLeft(suspect) === suspect.from);
  if (known !== undefined) return take([known], 1, ({ from }) => from, known.deaths);
  const left = suspects.reduce((sum, suspect) => sum + countLeft(suspect, suspect.diedTo), 0);
  if (left > 0) return take(suspects, Math.ceil(left / 2), ({ diedTo }) => diedTo);
  const behind = take(suspects, windowMaxSeqs, ({ until }) => until);
  return behind.marks.size > 0 ? behind : take(suspects, windowMaxSeqs, () => Number.POSITIVE_INFINITY);
}

/** The next `size` seqs, shard by shard, none above a shard's limit. */
function take(suspects: readonly Suspect[], size: number, limitOf: (suspect: Suspect) => number, deaths = 0): Window {
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
  const marks = [...ranges].map(([suspect, { from, to }]): [Shard, AttemptMark] => {
    const { shard, diedTo, until } = suspect;
    // Above the last range in which somebody died, who died before did not: that is forgotten.
    const known = Math.min(limitOf(suspect), Math.max(diedTo, until));
    return [
      shard,
      { from: toSeq(from), to: toSeq(to), until: toSeq(Math.max(to, known)), deaths: isOne ? deaths + 1 : 0 },
    ];
  });
  return { marks: new Map(marks), deaths: isOne ? deaths : 0 };
}

/**
 * The mark that a shard leaves to its next owner, though it was given up: what is left of a gated range has still not shown
 * that a process lives through it. Null: nothing is left.
 */
export function lastMark({ entries, from, diedTo, until, deaths }: Suspect): AttemptMark | null {
  const left = entries.filter((entry) => !isSettled(entry));
  const [first, last] = [left[0], left.at(-1)];
  if (first === undefined || last === undefined) return null;
  const begin = toSeq(Math.max(first.seq, from));
  const to = toSeq(Math.max(diedTo, begin - 1));
  const known = Math.max(to, until);
  return { from: begin, to, until: toSeq(known < begin ? last.lastSeq : known), deaths: begin === from ? deaths : 0 };
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

/** Ranges of seqs above the last window, and up to the limit, whose hooks have not ended. */
function* leftOf({ shard, entries, first, from }: Suspect, limit: number): Generator<[from: number, to: number]> {
  for (let index = first; index < entries.length; index++) {
    const entry = entries[index];
    if (entry === undefined || entry.seq > limit) return;
    const begin = Math.max(entry.seq, shard.openTo + 1, from);
    const end = Math.min(entry.lastSeq, limit);
    if (entry.phase !== "ended" && begin <= end) yield [begin, end];
  }
}
