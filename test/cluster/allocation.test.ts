import { expect, test } from "vitest";
import { allocation, type Member } from "../../cluster/allocation.ts";
import { type ShardId, shardId } from "../../proto/ids.ts";
import { createRandom, type Random } from "../support/random.ts";

interface Case {
  readonly members: readonly Member[];
  readonly pins: ReadonlyMap<ShardId, string>;
  readonly current: ReadonlyMap<ShardId, string | null>;
}

const names = ["ada", "bob", "cyd", "dot", "eve"];

function below(random: Random, end: number): number {
  return random.between(0, end - 1);
}

/** Few shards, so that the fewest moves can be found by trying every count; owners and pins may name nodes that are gone. */
function draw(random: Random): Case {
  const shards = Array.from({ length: below(random, 13) }, (_, index) => shardId("entity", index));
  const weights = [0, 1, 1, 1, 2, 0.5, 3];
  const members = names
    .filter(() => below(random, 3) > 0)
    .map((name) => ({ name, weight: weights[below(random, weights.length)] ?? 1 }));
  const someone = (): string | null => names[below(random, names.length + 1)] ?? null;
  const pins = new Map<ShardId, string>();
  for (const shard of shards) if (below(random, 6) === 0) pins.set(shard, someone() ?? "gone");
  return { members, pins, current: new Map(shards.map((shard) => [shard, someone()])) };
}

function countsOf(owners: ReadonlyMap<ShardId, string | null>): Map<string, number> {
  const counts = new Map<string, number>();
  for (const owner of owners.values()) if (owner !== null) counts.set(owner, (counts.get(owner) ?? 0) + 1);
  return counts;
}

/** Pins of nodes that are there, by node. */
function pinnedTo({ members, pins }: Case): Map<string, number> {
  const there = new Set(members.map(({ name }) => name));
  return countsOf(new Map([...pins].filter(([, name]) => there.has(name))));
}

/** Shares by bisection over the price of a unit of weight: another way than the code's. */
function sharesOf(one: Case): Map<string, number> {
  const pinned = pinnedTo(one);
  const at = (price: number) =>
    new Map(one.members.map(({ name, weight }) => [name, Math.max(pinned.get(name) ?? 0, price * weight)]));
  const sum = (shares: Map<string, number>): number => [...shares.values()].reduce((all, share) => all + share, 0);
  let [low, high] = [0, one.current.size * 4 + 1];
  for (let i = 0; i < 80; i++) {
    const middle = (low + high) / 2;
    if (sum(at(middle)) < one.current.size) low = middle;
    else high = middle;
  }
  return at(high);
}

function movesOf({ current }: Case, next: ReadonlyMap<ShardId, string | null>): number {
  return [...next].filter(([shard, owner]) => owner !== (current.get(shard) ?? null)).length;
}

/** The fewest moves of all counts within the bounds, each tried. */
function fewestMoves(one: Case): number {
  const { members, pins, current } = one;
  const pinned = pinnedTo(one);
  const shares = sharesOf(one);
  const there = new Set(members.map(({ name }) => name));
  const isPinned = (shard: ShardId): boolean => there.has(pins.get(shard) ?? "");
  const owned = countsOf(new Map([...current].filter(([shard]) => !isPinned(shard))));
  const forced = [...pins].filter(([shard, name]) => there.has(name) && current.get(shard) !== name).length;
  const unpinned = [...current.keys()].filter((shard) => !isPinned(shard)).length;
  let kept = -1;
  const walk = (index: number, left: number, keeps: number): void => {
    const member = members[index];
    if (member === undefined) {
      if (left === 0) kept = Math.max(kept, keeps);
      return;
    }
    const base = pinned.get(member.name) ?? 0;
    const share = shares.get(member.name) ?? 0;
    for (let own = 0; own <= left; own++) {
      if (member.weight === 0 && own > 0) break;
      if (Math.abs(base + own - share) > 1 + 1e-6) continue;
      walk(index + 1, left - own, keeps + Math.min(own, owned.get(member.name) ?? 0));
    }
  };
  walk(0, unpinned, 0);
  return forced + unpinned - kept;
}

test("whatever the members, pins and owners: nothing unowned, pins kept, shares within one, the fewest moves", () => {
  const random = createRandom(7);
  for (let round = 0; round < 5000; round++) {
    const one = draw(random);
    const { members, pins, current } = one;
    const next = allocation(members, pins, current);
    const told = JSON.stringify({ members, pins: [...pins], current: [...current], next: [...next] });
    const there = new Set(members.map(({ name }) => name));
    expect([...next.keys()], told).toEqual([...current.keys()]);
    for (const [shard, name] of pins) if (there.has(name)) expect(next.get(shard), told).toBe(name);
    if (!members.some(({ weight }) => weight > 0)) continue;
    const counts = countsOf(next);
    for (const [name, share] of sharesOf(one)) {
      expect(Math.abs((counts.get(name) ?? 0) - share), told).toBeLessThanOrEqual(1 + 1e-6);
    }
    for (const owner of next.values()) expect(owner === null || !there.has(owner), told).toBe(false);
    expect(movesOf(one, next), told).toBe(fewestMoves(one));
    expect(allocation(members, pins, next), told).toEqual(next);
  }
});

test("a node that joins takes its share and nothing else moves", () => {
  const shards = Array.from({ length: 256 }, (_, index) => shardId("entity", index));
  const two = allocation(
    ["a", "b"].map((name) => ({ name, weight: 1 })),
    new Map(),
    new Map(shards.map((shard) => [shard, null])),
  );
  expect(countsOf(two)).toEqual(
    new Map([
      ["a", 128],
      ["b", 128],
    ]),
  );
  const three = allocation(
    ["a", "b", "c"].map((name) => ({ name, weight: 1 })),
    new Map(),
    two,
  );
  const moved = shards.filter((shard) => two.get(shard) !== three.get(shard));
  expect(moved).toHaveLength(85);
  expect(moved.every((shard) => three.get(shard) === "c")).toBe(true);
});

test("what is pinned to a node counts in its share", () => {
  const shards = Array.from({ length: 8 }, (_, index) => shardId("entity", index));
  const pins = new Map(shards.slice(0, 6).map((shard) => [shard, "a"]));
  const members = ["a", "b"].map((name) => ({ name, weight: 1 }));
  const next = allocation(members, pins, new Map(shards.map((shard) => [shard, null])));
  expect(countsOf(next)).toEqual(
    new Map([
      ["a", 6],
      ["b", 2],
    ]),
  );
});

test("without a member of positive weight only pinned shards have an owner", () => {
  const [one, two] = [shardId("entity", 0), shardId("entity", 1)];
  const current = new Map([
    [one, "gone"],
    [two, "gone"],
  ]);
  const next = allocation([{ name: "a", weight: 0 }], new Map([[two, "a"]]), current);
  expect([...next]).toEqual([
    [one, null],
    [two, "a"],
  ]);
  expect([...allocation([], new Map(), current).values()]).toEqual([null, null]);
});
