import { setImmediate } from "node:timers/promises";
import { expect, test } from "vitest";
import type { News } from "../../../actors/lane/part.ts";
import type { Fence } from "../../../actors/store/store.ts";
import { type ShardId, toNodeId, toSeq } from "../../../proto/ids.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { startSimulatedNode } from "../../support/simulated-node.ts";
import {
  all,
  createHeldHook,
  derived,
  eids,
  eidsAtHome,
  expectQuiet,
  home,
  hooksOfA,
  isSealedAt,
  noHooks,
  orders,
  split,
  startWorld,
  until,
  untilSettled,
} from "./hand-off-world.ts";
import { model, shards, task } from "./protocol-script.ts";

test("what was dirty at the beginning is written before the seal; the last flush has only what changed since", async () => {
  const many = eidsAtHome(12);
  let flushes = 0;
  let before = 0;
  const world = await startWorld({
    hooks: noHooks,
    limits: { flushMaxEntities: 5 },
    onEffect: ({ flushes: all, send }) => {
      if (all.length === flushes || leaving === null || flushes >= before + 3) return;
      flushes = all.length;
      // One more change while each of them is on its way.
      send([task("src", many[0] ?? "", "a", 100 + flushes)], 100 + flushes);
    },
  });
  let leaving: Promise<unknown> | null = null;
  world.send(
    many.map((eid, v) => task("src", eid, "a", v)),
    1,
  );
  // The append, and not the timer of a flush.
  await until(world.nodes[0], () => world.nodes[0]?.lane.dirtyEntities === 12);
  before = world.flushes.length;
  flushes = before;
  leaving = world.move([home], 0);
  await world.rest();
  await leaving;
  const counts = world.flushes.slice(before, before + 4).map(({ entities }) => entities.length);
  expect(counts).toEqual([5, 5, 2, 1]);
  expect(world.flushes[before + 3]?.fences).toEqual([{ shard: home, epoch: 1 }]);
  expectQuiet(world);
});

test("parts that wait for the next append are given back, and are new to the next owner, not repeats", async () => {
  const world = await startWorld({ hooks: noHooks });
  world.send([task("src", eids[0] ?? "", "a", 1)], 1);
  for (let i = 0; i < 10 && world.nodes[0]?.lane.commit === null; i++) await world.nodes[0]?.next();
  world.send([task("src", eids[0] ?? "", "a", 2)], 2);
  world.send([task("src", eids[0] ?? "", "a", 3)], 3);
  await world.nodes[0]?.next();
  await world.nodes[0]?.next();
  expect(world.nodes[0]?.lane.shards.get(home)?.blocks.length).toBe(2);
  const former = world.nodes[0]?.lane.shards.get(home);
  const moved = world.move([home], 0);
  await world.rest();
  expect(await moved).toEqual([{ shard: home, epoch: 1 }]);
  expect(former?.lastSeq).toBe(1);
  expect(world.processed).toEqual([1, 2, 3]);
  expect(world.nodes[1]?.lane.world.counters.read().repeats ?? 0).toBeLessThanOrEqual(1);
  expect(await orders(world.store)).toBe(`order ${eids[0]} 1,2,3`);
  expectQuiet(world);
});

test("a hook that ends within its grace is recorded and does not run again", async () => {
  const held = createHeldHook();
  const world = await startWorld({ hooks: hooksOfA, runHook: held.runHook });
  world.send([task("src", eids[0] ?? "", "a", 1)], 1);
  await world.rest();
  const node = world.nodes[0];
  const moved = world.move([home], 0);
  await until(node, () => isSealedAt(node));
  held.letGo();
  await setImmediate();
  await world.rest();
  expect(await moved).toEqual([{ shard: home, epoch: 1 }]);
  expect([held.calls(), world.aborted]).toEqual([1, []]);
  expect(await derived(world.store)).toEqual([`src ${eids[0]} own 1001 × 1`]);
  expectQuiet(world);
});

test("one that runs on is aborted, its late answer is not taken, and it runs again at the next owner", async () => {
  const held = createHeldHook();
  const world = await startWorld({ hooks: hooksOfA, runHook: held.runHook });
  world.send([task("src", eids[0] ?? "", "a", 1), task("src", eids[1] ?? "", "a", 2)], 1);
  await world.rest();
  const moved = world.move([home], 0);
  await world.rest();
  expect(await moved).toEqual([{ shard: home, epoch: 1 }]);
  expect([held.calls(), world.aborted, world.acquired[0]?.clean]).toEqual([3, [home], true]);
  expect(world.nodes[0]?.lane.world.counters.read().hand_off_pause_max_ms).toBe(50);
  held.letGo();
  await world.rest();
  expect((await derived(world.store)).sort()).toEqual([`src ${eids[0]} own 1001 × 1`, `src ${eids[1]} own 1002 × 1`]);
  expect(world.processed).toEqual([1]);
  expectQuiet(world);
});

test("no hook begins after the seal: what the append at hand brings runs at the next owner", async () => {
  const held = createHeldHook();
  const world = await startWorld({ hooks: hooksOfA, runHook: held.runHook });
  const [node] = world.nodes;
  world.send([task("src", eids[0] ?? "", "a", 1)], 1);
  await world.rest();
  held.letGo();
  await world.rest();
  world.send([task("src", eids[0] ?? "", "a", 2)], 2);
  await until(node, () => node?.lane.commit !== null);
  const moved = world.move([home], 0);
  expect(await untilSettled(node, moved)).toEqual([{ shard: home, epoch: 1 }]);
  expect([held.calls(), node?.lane.world.counters.read().hooks_given_up]).toEqual([1, undefined]);
  await world.rest();
  expect(held.calls()).toBe(2);
  held.letGo();
  await world.rest();
  expect(await derived(world.store)).toEqual([`src ${eids[0]} own 1001 × 1`, `src ${eids[0]} own 1002 × 1`]);
  expectQuiet(world);
});

test("an obligation goes with its shard, there and back, and is answered once (R16)", async () => {
  const held = createHeldHook();
  const world = await startWorld({ hooks: hooksOfA, runHook: held.runHook });
  world.send([task("src", eids[0] ?? "", "a", 1)], 1);
  world.send([task("src", eids[0] ?? "", "a", 2)], 2);
  await world.rest();
  world.nodes[0]?.elapse(6000);
  await world.rest();
  expect(world.store.shards.get(home)?.obligations.size).toBe(1);
  expect(world.processed).toEqual([1, 2]);
  for (const from of [0, 1, 0]) {
    const moved = world.move([home], from);
    await world.rest();
    expect((await moved)[0]?.shard).toBe(home);
    expect(world.store.shards.get(home)?.obligations.size).toBe(1);
  }
  for (let i = 0; i < 2; i++) {
    held.letGo();
    await world.rest();
    for (const node of world.nodes) node.elapse(6000);
    await world.rest();
  }
  expect(await derived(world.store)).toEqual([`src ${eids[0]} own 1001 × 1`, `src ${eids[0]} own 1002 × 1`]);
  expectQuiet(world);
});

test("a shard that is lost while it is given up is in no result, the others are", async () => {
  const world = await startWorld({ hooks: noHooks, slow: "flush" });
  world.send(
    eidsAtHome(4).map((eid, v) => task("src", eid, "a", v)),
    1,
  );
  await until(world.nodes[0], () => world.nodes[0]?.lane.dirtyEntities === 4);
  const moved = world.move(all, 0);
  await world.nodes[0]?.next();
  await world.store.acquire(toNodeId("three"), [home]);
  const fences = await untilSettled(world.nodes[0], moved);
  expect(fences.filter((fence) => fence === null)).toEqual([null]);
  expect(fences.flatMap((fence) => fence?.shard ?? []).sort()).toEqual(all.filter((id) => id !== home));
});

test("dropped shards are forgotten at once and write nothing; back under a new epoch, late news of the former are ignored", async () => {
  const held = createHeldHook();
  const world = await startWorld({ hooks: hooksOfA, runHook: held.runHook, slow: "append" });
  const [node] = world.nodes;
  if (node === undefined) throw new Error("no node");
  world.send([task("src", eids[0] ?? "", "a", 1)], 1);
  await world.rest();
  world.send([task("src", eids[0] ?? "", "a", 3), task("src", eids[1] ?? "", "a", 2)], 2);
  for (let i = 0; i < 10 && node.lane.commit === null; i++) await node.next();
  const given = world.move([home], 0);
  const former = node.lane.shards.get(home);
  await node.next();
  node.tell({ kind: "drop", shards: [home] });
  // The append at hand of the former epoch is refused when the shard is here again.
  expect(node.lane.commit).not.toBe(null);
  await node.own([home]);
  expect(await untilSettled(node, given)).toEqual([null]);
  await world.rest();
  expect(world.aborted).toEqual([home]);
  expect(node.lane.shards.get(home)).not.toBe(former);
  expect(node.lane.shards.get(home)?.epoch).toBe(2);
  held.letGo();
  await world.rest();
  held.letGo();
  await world.rest();
  const counters = node.lane.world.counters.read();
  expect([counters.shards_dropped, counters.shards_given_up, counters.fenced_commits]).toEqual([1, undefined, 1]);
  expect((await derived(world.store)).sort()).toEqual([
    `src ${eids[0]} own 1001 × 1`,
    `src ${eids[0]} own 1003 × 1`,
    `src ${eids[1]} own 1002 × 1`,
  ]);
  expect(world.processed).toEqual([1, 2]);
  expectQuiet(world);
});

test.each([
  ["before its window", false],
  ["while a hook of its window runs", true],
])("a dead owner's range that is handed on %s keeps its mark, as no death (R17)", async (_, opened) => {
  const dead = await startWorld({ hooks: hooksOfA, runHook: () => new Promise(() => {}) });
  dead.send([task("src", eids[0] ?? "", "a", 1)], 1);
  await dead.rest();
  const held = createHeldHook();
  const make = (name: string) =>
    startSimulatedNode({
      ...{ store: dead.store, model, hooks: hooksOfA, shards, name, runHook: held.runHook, owns: [home] },
      dies: () => false,
    });
  const heir = await make("heir");
  if (opened) await heir.run();
  expect(held.calls()).toBe(opened ? 1 : 0);
  const fences: (Fence | null)[] = [];
  const reply = (_: ShardId, fence: Fence | null): void => void fences.push(fence);
  heir.tell({ kind: "give-up", shards: [home], hookGraceMs: 0, reply });
  await heir.run();
  heir.elapse(1);
  await heir.run();
  expect(fences).toEqual([{ shard: home, epoch: 2 }]);
  await dead.store.release([{ shard: home, epoch: fences[0]?.epoch as Fence["epoch"] }], toNodeId("heir"));
  const [next] = await dead.store.acquire(toNodeId("next"), [home]);
  expect(next).toMatchObject({ clean: true, attempt: { from: 1, to: 0, until: 1, deaths: 0 } });
});

test("reads, look-ups and replays of dead letters are refused as moved from the seal on", async () => {
  const world = await startWorld({ hooks: hooksOfA, runHook: () => new Promise(() => {}) });
  const [node] = world.nodes;
  if (node === undefined) throw new Error("no node");
  world.send([task("src", eids[0] ?? "", "a", 1)], 1);
  await world.rest();
  const moved = world.move([home], 0);
  await until(node, () => isSealedAt(node));
  const said: unknown[] = [];
  const key = { shard: home, type: "src", eid: eids[0] ?? "" };
  node.tell({ kind: "get", key, eidValue: key.eid, atLeast: null, reply: (record) => void said.push(record) });
  const letter = { id: "x", seq: toSeq(1), hook: "", ...key, code: "", error: "", at: 0, task: "{}" };
  const replay = { ...letter, kind: "unapplied", status: "open" } as const;
  node.tell({ kind: "replay-letter", letter: replay, tasks: [], reply: (error) => void said.push(error) });
  const [part] = split([task("src", key.eid, "a", 1)], 1).parts;
  if (part === undefined) throw new Error("no part");
  const listener = (news: News): void => {
    for (const event of news) said.push(event.kind === "refused" ? event.error : event);
  };
  const { shard, channel, number, hash, position } = part;
  const lookUp = { place: { shard, channel, number, from: toSeq(0) }, hash, position, listener };
  node.tell({ kind: "looked-up", asked: [lookUp], found: [null] });
  node.offer([part], listener);
  for (let i = 0; i < 10; i++) await node.next();
  expect(said.map((error) => (error instanceof StarlingError ? error.code : error))).toEqual(Array(4).fill("MOVED"));
  await world.rest();
  expect(await moved).toEqual([{ shard: home, epoch: 1 }]);
});
