import { setImmediate } from "node:timers/promises";
import { expect, test } from "vitest";
import type { HookTable } from "../../../modules/hook.ts";
import { shardId } from "../../../proto/ids.ts";
import { createMemoryDurable } from "../../support/memory-durable.ts";
import { createMemoryStore } from "../../support/memory-store.ts";
import { createRandom, seedOfRun } from "../../support/random.ts";
import { type SimulatedNode, startSimulatedNode } from "../../support/simulated-node.ts";
import { fieldsOf } from "../../support/state-fields.ts";
import { all, failing, play, startWorld } from "../lane/hand-off-world.ts";
import { createClient } from "../lane/protocol-client.ts";
import { hook, model, removal, shards, task } from "../lane/protocol-script.ts";
import { comparePage, expectOrder, type Pages, unvisited, visit } from "./ticks-script.ts";

const seed = seedOfRun();

test(`shards that change their owner around a mark keep it, and what is of before it (C1–C4, seed ${seed})`, async () => {
  const random = createRandom(seed);
  const calm = await startWorld({ runHook: failing, onEffect: () => void count++ });
  let count = 0;
  const expected = await play(calm);
  const pages: Pages = new Map();
  for (let round = 0; round < 60; round++) {
    const at = Array.from({ length: 5 }, () => random.between(1, count));
    const [first = 0, second = 0, away = 0, back = 0, pass = 0] = at;
    const set = random.between(0, 1) === 0 ? all : random.shuffled(all).slice(2);
    const world = await startWorld({
      runHook: failing,
      slow: random.shuffled([null, "append", "flush", "deliver"] as const)[0] ?? null,
      onCutOpen: (cut, store) => comparePage(store, cut, pages),
      onEffect: ({ nodes, move, store }, now) => {
        // One node hears of the tick before the other one does.
        if (now === first) nodes[round % 2]?.tell({ kind: "learn-tick", tick: 1 });
        if (now === second) nodes[1 - (round % 2)]?.tell({ kind: "learn-tick", tick: 1 });
        if (now === away) void move(set, 0);
        if (now === away + back) void move(set, 1);
        if (now !== pass) return;
        for (const cut of unvisited(store.durable)) void visit({ store, node: toBoth(nodes), pages }, cut, 1);
      },
    });
    expect(await play(world), `at ${at}`).toBe(expected);
    for (const node of world.nodes) node.tell({ kind: "learn-tick", tick: 1 });
    await world.rest();
    const cuts = unvisited(world.store.durable);
    for (const cut of cuts) await visit({ store: world.store, node: toBoth(world.nodes), pages }, cut, 100);
    const marks = all.map((id) => world.store.shards.get(id)?.marks.map(({ tick, visited }) => [tick, visited]));
    expect(marks, `at ${at}`).toEqual(all.map(() => [[1, true]]));
    expectOrder(world.store.durable);
  }
  expect(pages.get(1)).toBeGreaterThan(300);
});

const toBoth = (nodes: readonly SimulatedNode[]): Pick<SimulatedNode, "tell"> => ({
  tell: (message) => {
    for (const node of nodes) node.tell(message);
  },
});

/** Tasks of the entity `e`, one by one, through one node after another; its hook at the start of tasks is slow. */
async function startLife(hooks: HookTable) {
  const durable = createMemoryDurable();
  const store = createMemoryStore(durable);
  const waiting: (() => void)[] = [];
  const answer = { kind: "answer", tasks: [] } as const;
  let lives = 0;
  const start = (): Promise<SimulatedNode> =>
    startSimulatedNode({
      ...{ store, model, hooks, shards, name: `node-${++lives}`, dies: () => false },
      runHook: (_, { task: { datapoints } }) =>
        datapoints[0]?.v === 11 ? new Promise((resolve) => waiting.push(() => resolve(answer))) : answer,
    });
  const batches = [10, 11, 12, 13].map((v) => [task("src", "e", "a", v)]);
  const client = createClient([...batches, [removal("src", "e")]]);
  let sent = 0;
  const life = {
    ...{ durable, store, node: await start() },
    send: async () => {
      client.offer(life.node, sent, ++sent);
      await life.node.run();
    },
    restart: async () => {
      life.node.kill();
      life.node = await start();
      client.reconnect();
      client.offer(life.node, 0, sent);
      await life.node.run();
    },
    letGo: async () => {
      for (const go of waiting.splice(0)) go();
      await setImmediate();
      await life.node.run();
    },
    learn: async (tick: number) => {
      life.node.tell({ kind: "learn-tick", tick });
      await life.node.run();
    },
    /** The newest `a` of the entity, in the page of a tick and in its row. */
    look: async (tick: number) => {
      const states: unknown[] = [];
      for (const shard of all) {
        const page = await store.readTickPage({ shard, tick, after: null, limit: 10, maxBytes: 1e9 }, () => []);
        states.push(...page.records.map(({ state }) => fieldsOf(state).a?.v));
      }
      const rows = all.flatMap((shard) => [...(durable.shards.get(shard)?.entities.values() ?? [])]);
      return [states[0] ?? null, rows[0]?.tombstone === false ? fieldsOf(rows[0].state).a?.v : null];
    },
    /** How often the log has the mark of a tick. */
    marksInLog: (tick: number) => {
      const lines = all.flatMap(
        (shard) => durable.shards.get(shard)?.log.flatMap(({ body }) => body.split("\n")) ?? [],
      );
      return lines.filter((line) => line === `m\t${tick}`).length;
    },
    images: () => all.flatMap((shard) => [...(durable.shards.get(shard)?.images.values() ?? [])]).length,
  };
  return life;
}

const slowStart: HookTable = {
  onTaskStart: [hook("on_task_start", "src", null, "slow")],
  allowEntityCreation: new Map(),
  onEntityCreation: new Map(),
  onNewAttr: new Map(),
};

test.each([
  ["goes on", false],
  ["dies", true],
])("what an obligation holds below the mark counts as behind it, also if the node %s (C1)", async (_, dies) => {
  const life = await startLife(slowStart);
  await life.send();
  await life.send();
  await life.send();
  life.node.elapse(6000);
  await life.node.run();
  await life.learn(1);
  expect(await life.look(1)).toEqual([10, 10]);
  if (dies) await life.restart();
  await life.letGo();
  expect(await life.look(1)).toEqual([10, 12]);
  if (dies) await life.restart();
  await life.send();
  expect(await life.look(1)).toEqual([10, 13]);
  // The next tick shows it.
  await life.learn(2);
  await life.send();
  expect(await life.look(2)).toEqual([13, null]);
  expect(await life.look(1)).toEqual([10, null]);
});

test("a hook that is slow, and no obligation yet, keeps the cut of its shard closed", async () => {
  const life = await startLife(slowStart);
  await life.send();
  await life.send();
  await life.learn(1);
  const marks = (): number => all.filter((shard) => life.durable.shards.get(shard)?.marks.length === 1).length;
  expect(marks()).toBe(shards - 1);
  await life.letGo();
  expect(marks()).toBe(shards);
  expect(await life.look(1)).toEqual([11, 11]);
});

test("a mark that waits while its tick ends is passed with its row, so that no owner sets it again (C3, C4)", async () => {
  const life = await startLife(slowStart);
  await life.send();
  await life.send();
  await life.learn(1);
  expect(life.marksInLog(1)).toBe(shards);
  life.node.tell({ kind: "end-ticks", tick: 1 });
  await life.send();
  await life.letGo();
  // An owner who has heard that the tick runs, and not yet that it is over.
  await life.restart();
  await life.learn(1);
  expect(life.marksInLog(1)).toBe(shards);
  expect(life.images(), "of a tick that is over").toBe(0);
});

test("what the visit has passed, and what a tick that is over would have wanted, keeps no image", async () => {
  const life = await startLife({ ...slowStart, onTaskStart: [] });
  await life.send();
  await life.learn(1);
  for (const shard of all)
    life.node.tell({ kind: "pass-tick", pass: { shard, tick: 1, to: { eid: "e", type: "src" } } });
  await life.send();
  expect([await life.look(1), life.images()]).toEqual([[11, 11], 0]);
  await life.learn(2);
  life.node.tell({ kind: "end-ticks", tick: 2 });
  await life.send();
  expect([await life.look(2), life.images()]).toEqual([[12, 12], 0]);
  expect(life.node.lane.shards.get(shardId("entity", 0))?.cut).toBeNull();
  await life.learn(3);
  await life.send();
  expect([await life.look(3), life.images()]).toEqual([[12, 13], 1]);
});
