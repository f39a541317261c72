import { expect, test } from "vitest";
import { createEntry, type Entry } from "../../../actors/lane/entry.ts";
import { isKnown, lastMark, type Piece, planWindow, type Suspect, suspectOf } from "../../../actors/lane/suspect.ts";
import type { AttemptMark } from "../../../actors/store/store.ts";
import { toSeq } from "../../../proto/ids.ts";
import { createRandom } from "../../support/random.ts";

interface WorldOptions {
  /** Of the shards: how many seqs each has. */
  readonly lengths: readonly number[];
  readonly poison: { readonly shard: number; readonly seq: number };
  readonly processes: number;
  /** A whole number below `max`. */
  readonly next: (max: number) => number;
}

/** Some processes that own shards, a datapoint that ends them, and what is durable of it: marks, and which hooks have ended. */
class World {
  readonly #options: WorldOptions;
  /** By process: its shards. */
  readonly #owned: Map<number, Suspect>[];
  readonly #marks = new Map<number, AttemptMark | null>();
  readonly #ended = new Map<number, Set<number>>();
  /** Of the datapoint. */
  deaths = 0;
  /** Windows that were not run. */
  readonly givenUp: string[] = [];

  constructor(options: WorldOptions) {
    this.#options = options;
    this.#owned = Array.from({ length: options.processes }, () => new Map());
    for (const shard of options.lengths.keys()) this.#acquire(shard, false);
  }

  /** A process takes its next window. */
  step(process: number): void {
    const { poison } = this.#options;
    const owned = this.#of(process);
    const { pieces, marks, isGivenUp } = planWindow([...owned.values()]);
    if (marks.size === 0) return;
    for (const [shard, suspect] of owned) {
      const mark = marks.get(suspect);
      if (isGivenUp && mark !== undefined) this.givenUp.push(`${shard}/${mark.from}-${mark.to}`);
      else if (!isGivenUp && (mark !== undefined || !isKnown(suspect))) this.#marks.set(shard, mark ?? null);
    }
    const met = owned.get(poison.shard);
    for (const { suspect, from, to } of pieces) {
      if (suspect !== met || this.givenUp.length > 0 || from > poison.seq || poison.seq > to) continue;
      this.deaths++;
      return this.die(process);
    }
    for (const [shard, suspect] of owned) {
      for (const piece of pieces) if (piece.suspect === suspect) this.#pass(shard, piece);
    }
  }

  /** Its shards go to others. */
  die(process: number): void {
    const shards = [...this.#of(process).keys()];
    this.#of(process).clear();
    for (const shard of shards) this.#acquire(shard, false);
  }

  /** One of its shards goes to another one, in order. */
  giveUp(process: number): void {
    const shards = [...this.#of(process).keys()];
    const shard = shards[this.#options.next(shards.length)];
    const suspect = this.#of(process).get(shard ?? -1);
    if (shard === undefined || suspect === undefined) return;
    this.#of(process).delete(shard);
    this.#marks.set(shard, lastMark(suspect));
    this.#acquire(shard, true);
  }

  get isOver(): boolean {
    return this.#owned.every((owned) => planWindow([...owned.values()]).marks.size === 0);
  }

  #of(process: number): Map<number, Suspect> {
    return this.#owned[process] ?? new Map();
  }

  #acquire(shard: number, clean: boolean): void {
    const { lengths, processes, next } = this.#options;
    const mark = this.#marks.get(shard) ?? null;
    if (clean && mark === null) return;
    const entries: Entry[] = [];
    const length = lengths[shard] ?? 0;
    // Tasks of one to four datapoints.
    for (let seq = 1; seq <= length; seq += 1 + ((seq * 7) % 4)) {
      const last = Math.min(length, seq + ((seq * 7) % 4));
      if (!this.#ended.get(shard)?.has(seq)) entries.push(createEntry(null, toSeq(seq), toSeq(last), 0, true));
    }
    this.#of(next(processes)).set(shard, suspectOf(mark, entries));
  }

  /** Some answers are in the log when the process dies, others are not. */
  #pass(shard: number, { entry, to }: Piece): void {
    const { poison, next } = this.#options;
    entry.heldAbove = toSeq(to);
    if (to < entry.lastSeq) return;
    entry.phase = "ended";
    const isPoison = shard === poison.shard && entry.seq <= poison.seq && poison.seq <= entry.lastSeq;
    const ended = this.#ended.get(shard) ?? new Set();
    if (next(3) > 0 || isPoison) ended.add(entry.seq);
    this.#ended.set(shard, ended);
  }
}

interface Played {
  readonly deaths: number;
  readonly givenUp: readonly string[];
  readonly lengths: readonly number[];
}

/** Plays until nothing is left to run. */
function play(seed: number, moves: number, deaths: number): Played {
  const random = createRandom(seed);
  const next = (max: number): number => Math.floor(random.next() * max);
  const processes = 1 + next(4);
  const lengths = Array.from({ length: 1 + next(8) }, () => 1 + next(100));
  const shard = next(lengths.length);
  const poison = { shard, seq: 1 + next(lengths[shard] ?? 1) };
  const world = new World({ lengths, poison, processes, next });
  let [movesLeft, deathsLeft] = [moves, deaths];
  for (let steps = 0; !world.isOver; steps++) {
    expect(steps, `seed ${seed}: steps`).toBeLessThan(10_000);
    const process = next(processes);
    const draw = random.next();
    if (draw < 0.1 && movesLeft-- > 0) world.giveUp(process);
    else if (draw < 0.2 && deathsLeft-- > 0) world.die(process);
    else world.step(process);
  }
  expect(world.givenUp, `seed ${seed}`).toContain(`${shard}/${poison.seq}-${poison.seq}`);
  return { deaths: world.deaths, givenUp: world.givenUp, lengths };
}

/** One without a mark, one for each halving of all seqs, and three of it alone. */
function deathsNeeded({ lengths }: Played): number {
  return 1 + Math.ceil(Math.log2(lengths.reduce((sum, length) => sum + length, 0))) + 3;
}

test("a datapoint that ends processes is found, and no other, however its shard moves meanwhile (R17)", () => {
  const worlds = Array.from({ length: 500 }, (_, index) => play(index + 1, 100, 0));
  expect(worlds.filter((world) => world.deaths > deathsNeeded(world))).toEqual([]);
  expect(Math.max(...worlds.map(({ givenUp }) => new Set(givenUp).size))).toBe(1);
});

test("what else processes die of costs a few deaths more", () => {
  const others = 3;
  const worlds = Array.from({ length: 1000 }, (_, index) => play(index + 1, 100, others));
  expect(worlds.filter((world) => world.deaths > deathsNeeded(world) + 5 * others)).toEqual([]);
});
