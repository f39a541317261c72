import { expect, test } from "vitest";
import { createEntry, type Entry } from "../../../actors/lane/entry.ts";
import { deathsMax } from "../../../actors/lane/gate.ts";
import { createShard } from "../../../actors/lane/shard.ts";
import { lastMark, planWindow, type Suspect, suspectOf } from "../../../actors/lane/suspect.ts";
import type { AttemptMark } from "../../../actors/store/store.ts";
import { toEpoch, toSeq, toShardId } from "../../../proto/ids.ts";
import { createRandom } from "../../support/random.ts";
import { testModel } from "../../support/test-model.ts";

const model = testModel({ thing: {} });

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
  readonly lengths: readonly number[];
  readonly #processes = new Map<number, Suspect[]>();
  readonly #marks = new Map<number, AttemptMark | null>();
  readonly #ended = new Map<number, Set<number>>();
  /** Of the datapoint. */
  deaths = 0;
  /** Windows that were not run. */
  readonly givenUp: string[] = [];

  constructor(options: WorldOptions) {
    this.#options = options;
    this.lengths = options.lengths;
    for (let process = 0; process < options.processes; process++) this.#processes.set(process, []);
    for (const shard of options.lengths.keys()) this.#acquire(shard, options.next(options.processes), false);
  }

  /** A process takes its next window. */
  step(process: number): void {
    const { poison } = this.#options;
    const suspects = this.#processes.get(process) ?? [];
    const { marks, deaths } = planWindow(suspects);
    if (marks.size === 0) return;
    if (deaths < deathsMax) {
      for (const suspect of suspects) {
        const { id } = suspect.shard;
        this.#marks.set(id, marks.get(suspect.shard) ?? null);
      }
    }
    for (const [{ id }, { from, to }] of marks) {
      if (deaths >= deathsMax) {
        this.givenUp.push(`${id}/${from}-${to}`);
      } else if (id === poison.shard && from <= poison.seq && poison.seq <= to && this.givenUp.length === 0) {
        this.deaths++;
        return this.die(process);
      }
    }
    for (const [shard, { to }] of marks) {
      shard.openTo = to;
      const suspect = suspects.find((one) => one.shard === shard);
      for (const entry of suspect?.entries ?? []) if (entry.seq <= to) this.#end(shard.id, entry);
    }
  }

  /** Its shards go to others. */
  die(process: number): void {
    for (const { shard } of this.#processes.get(process)?.splice(0) ?? []) {
      this.#acquire(shard.id, this.#options.next(this.#processes.size), false);
    }
  }

  /** One of its shards goes to another one, in order. */
  giveUp(process: number): void {
    const suspects = this.#processes.get(process) ?? [];
    const [suspect] = suspects.splice(this.#options.next(suspects.length), 1);
    if (suspect === undefined) return;
    this.#marks.set(suspect.shard.id, lastMark(suspect));
    this.#acquire(suspect.shard.id, this.#options.next(this.#processes.size), true);
  }

  get isOver(): boolean {
    return [...this.#processes.values()].every((suspects) => planWindow(suspects).marks.size === 0);
  }

  #acquire(id: number, process: number, clean: boolean): void {
    const at = { shard: toShardId(id), epoch: toEpoch(1), watermark: toSeq(0), lastSeq: toSeq(0), delivered: toSeq(0) };
    const attempt = this.#marks.get(id) ?? null;
    if (clean && attempt === null) return;
    const none = { channels: new Map(), refused: [], deadAnswers: [], obligations: [], mark: null };
    const shard = createShard({ ...at, ...none, lastAt: 0, clean, attempt }, model);
    const entries: Entry[] = [];
    for (let seq = 1; seq <= (this.#options.lengths[id] ?? 0); seq++) {
      if (!this.#ended.get(id)?.has(seq)) entries.push(createEntry(null, toSeq(seq), toSeq(seq), 0, true));
    }
    this.#processes.get(process)?.push(suspectOf(shard, entries));
  }

  /** Some answers are in the log when the process dies, others are not. */
  #end(shard: number, entry: Entry): void {
    entry.phase = "ended";
    const ended = this.#ended.get(shard) ?? new Set();
    if (this.#options.next(3) > 0 || entry.seq === this.#options.poison.seq) ended.add(entry.seq);
    this.#ended.set(shard, ended);
  }
}

/** Plays until nothing is left to run. */
function play(seed: number, moves: number, deaths: number): World {
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
  return world;
}

/** One without a mark, one for each halving of all seqs, and three of it alone. */
function deathsNeeded({ lengths }: World): number {
  return 1 + Math.ceil(Math.log2(lengths.reduce((sum, length) => sum + length, 0))) + 3;
}

test("a datapoint that ends processes is found, and no other, however its shard moves meanwhile (R17)", () => {
  const worlds = Array.from({ length: 500 }, (_, index) => play(index + 1, 100, 0));
  expect(worlds.filter((world) => world.deaths > deathsNeeded(world))).toEqual([]);
  expect(Math.max(...worlds.map(({ givenUp }) => givenUp.length))).toBe(1);
});

test("what else processes die of costs at most one death more", () => {
  const others = 3;
  const worlds = Array.from({ length: 1000 }, (_, index) => play(index + 1, 100, others));
  expect(worlds.filter((world) => world.deaths > deathsNeeded(world) + others)).toEqual([]);
});
