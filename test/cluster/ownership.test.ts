import { expect, test } from "vitest";
import { createRandom, seedOfRun } from "../support/random.ts";
import { createOwnershipWorld, type OwnershipWorld } from "./ownership-world.ts";

/** Shards by node, as the table says it; throws when a node has something else in memory. */
function ownedBy(world: OwnershipWorld, told = ""): Map<string, number> {
  const counts = new Map<string, number>();
  for (const [name, node] of world.nodes) {
    const inTable = [...world.rows.values()].filter(({ owner }) => owner === node.record.id);
    expect(new Set(node.owned.keys()), told).toEqual(new Set(inTable.map(({ shard }) => shard)));
    for (const { shard, epoch } of inTable) expect(node.owned.get(shard)?.epoch, told).toBe(epoch);
    counts.set(name, inTable.length);
  }
  return counts;
}

test("the first node takes every shard", async () => {
  const world = createOwnershipWorld(20, createRandom(1));
  const node = world.start("ada");
  await world.clock.advance(5_000);
  expect(ownedBy(world)).toEqual(new Map([["ada", 20]]));
  expect(node.keeper.fresh).toBe(true);
});

test("a node that joins gets its share, and nothing moves but that", async () => {
  const world = createOwnershipWorld(24, createRandom(2));
  world.start("ada");
  await world.clock.advance(5_000);
  world.moves.length = 0;
  world.start("bob");
  await world.clock.advance(10_000);
  const { ada = 0, bob = 0 } = Object.fromEntries(ownedBy(world));
  expect(ada + bob).toBe(24);
  expect(bob).toBeGreaterThanOrEqual(11);
  // Given up, and taken.
  expect(world.moves).toHaveLength(2 * bob);
});

test("what a dead node owned is taken over, and what others own stays where it is", async () => {
  const world = createOwnershipWorld(30, createRandom(3));
  for (const name of ["ada", "bob", "cyd"]) world.start(name);
  await world.clock.advance(20_000);
  const bobs = [...(world.nodes.get("bob")?.owned.keys() ?? [])];
  world.moves.length = 0;
  world.kill("bob");
  await world.clock.advance(5_000);
  expect(ownedBy(world)).toEqual(
    new Map([
      ["ada", 15],
      ["cyd", 15],
    ]),
  );
  expect(new Set(world.moves.map(({ shard }) => shard))).toEqual(new Set(bobs));
});

test("a node that leaves gives up all it has, if there is somebody to have it", async () => {
  const world = createOwnershipWorld(16, createRandom(4));
  const ada = world.start("ada");
  await world.clock.advance(5_000);
  world.setState("ada", "leaving");
  await world.clock.advance(5_000);
  expect(ownedBy(world)).toEqual(new Map([["ada", 16]]));
  world.start("bob");
  let over = false;
  void ada.keeper.handedOver().then(() => {
    over = true;
  });
  await world.clock.advance(10_000);
  expect(over).toBe(true);
  expect(ownedBy(world)).toEqual(
    new Map([
      ["ada", 0],
      ["bob", 16],
    ]),
  );
});

test("a node that finds its shards taken drops them, and does not answer from what it knew", async () => {
  const world = createOwnershipWorld(4, createRandom(5));
  const node = world.start("ada");
  await world.clock.advance(5_000);
  world.failing = 100;
  await world.clock.advance(3_500);
  expect(node.keeper.fresh).toBe(false);
  expect(node.owned.size).toBe(4);
  const other = world.start("bob");
  await world.clock.advance(100);
  for (const [shard, row] of world.rows) {
    world.rows.set(shard, { shard, epoch: (row.epoch + 1) as typeof row.epoch, owner: other.record.id });
  }
  world.failing = 0;
  await world.clock.advance(1_500);
  // What it has now it was given anew.
  for (const { epoch } of node.owned.values()) expect(epoch).toBeGreaterThan(2);
  expect(node.keeper.fresh).toBe(true);
});

test("a node that is ailing loses its shards after a while, unless all are", async () => {
  const world = createOwnershipWorld(12, createRandom(6));
  for (const name of ["ada", "bob", "cyd"]) world.start(name);
  await world.clock.advance(20_000);
  for (const name of ["ada", "bob", "cyd"]) world.setState(name, "ailing");
  world.moves.length = 0;
  await world.clock.advance(60_000);
  // Who is well first takes nothing from those that are well soon after.
  world.setState("ada", "serving");
  await world.clock.advance(2_000);
  for (const name of ["bob", "cyd"]) world.setState(name, "serving");
  await world.clock.advance(10_000);
  expect(world.moves).toEqual([]);
  world.setState("bob", "ailing");
  await world.clock.advance(2_500);
  expect(world.moves).toEqual([]);
  await world.clock.advance(5_000);
  expect([...world.rows.values()].some(({ owner }) => owner === world.nodes.get("bob")?.record.id)).toBe(false);
});

test("whatever fails on the way, all shards are owned once when it has passed, and every node has its share", async () => {
  const seed = seedOfRun();
  const random = createRandom(seed);
  for (let round = 0; round < 12; round++) {
    const world = createOwnershipWorld(24, random);
    const names = ["ada", "bob", "cyd", "dot", "eve"];
    world.start("ada");
    world.failing = 30;
    for (let step = 0; step < 12; step++) {
      const name = names[random.between(0, 4)] ?? "ada";
      if (!world.nodes.has(name)) world.start(name);
      else if (world.nodes.size > 1) {
        if (random.between(0, 2) > 0) world.kill(name);
        else world.setState(name, random.between(0, 1) === 0 ? "leaving" : "serving");
      }
      await world.clock.advance(random.between(10, 1_500));
    }
    world.failing = 0;
    for (const name of world.nodes.keys()) world.setState(name, "serving");
    await world.clock.advance(20_000);
    const told = `seed ${seed}, round ${round}`;
    const counts = [...ownedBy(world, told).values()];
    expect(
      counts.reduce((sum, count) => sum + count, 0),
      told,
    ).toBe(24);
    for (const count of counts) expect(Math.abs(count - 24 / counts.length), told).toBeLessThanOrEqual(1);
    for (const name of [...world.nodes.keys()]) world.kill(name);
  }
});
