import { expect } from "vitest";
import type { Effect } from "../../../actors/lane/lane.ts";
import { markShard, type OpenCut } from "../../../actors/snapshots/tick-mark.ts";
import type { CheckedTask } from "../../../modules/datapoint.ts";
import { createMemoryDurable } from "../../support/memory-durable.ts";
import { createMemoryStore } from "../../support/memory-store.ts";
import type { Random } from "../../support/random.ts";
import { type SimulatedNode, startSimulatedNode } from "../../support/simulated-node.ts";
import { createClient } from "../lane/protocol-client.ts";
import { hooks, model, removal, runHook, shards, task } from "../lane/protocol-script.ts";
import { comparePage, expectOrder, type Pages, unvisited, visit } from "./ticks-script.ts";

const slows: readonly (Effect["kind"] | null)[] = [null, "append", "flush", "deliver", "load", "flush-timer"];
const batchCount = 60;

/** One run at random: batches, deletions, ticks, visits and deaths between any two effects; pages are compared throughout. */
export async function playAtRandom(random: Random, pages: Pages): Promise<void> {
  const durable = createMemoryDurable();
  const store = createMemoryStore(durable);
  const batches = Array.from({ length: batchCount }, (_, i) => randomBatch(random, i));
  const client = createClient(batches);
  let lives = 0;
  let sent = 0;
  let ticks = 0;
  const start = async (): Promise<SimulatedNode> => {
    const slow = slows[random.between(0, slows.length - 1)] ?? null;
    const name = `node-${++lives}`;
    const onCutOpen = (cut: OpenCut) => comparePage(store, cut, pages);
    const node = await startSimulatedNode({
      store,
      model,
      hooks,
      runHook,
      shards,
      name,
      slow,
      onCutOpen,
      dies: () => false,
    });
    if (lives > 1) {
      client.reconnect();
      client.offer(node, 0, sent);
    }
    return node;
  };
  let node = await start();
  const act = async (): Promise<void> => {
    const dice = random.between(0, 99);
    if (dice < 40 && sent < batchCount) {
      client.offer(node, sent, ++sent);
    } else if (dice < 48 && durable.tick === 0) {
      durable.tick = ++ticks;
    } else if (dice < 60 && durable.tick > 0) {
      if (dice < 45) node.tell({ kind: "learn-tick", tick: durable.tick });
      else markOne(node, random, durable.tick);
    } else if (dice < 85) {
      for (const cut of unvisited(durable)) if (random.between(0, 1) === 0) await visit({ store, node, pages }, cut, 1);
      const marks = [...durable.shards.values()].map((shard) => shard.marks.at(-1));
      if (durable.tick > 0 && marks.every((mark) => mark?.tick === durable.tick && mark.visited)) durable.tick = 0;
    } else if (dice < 88) {
      node.kill();
      node = await start();
    }
  };
  while (sent < batchCount) {
    await act();
    for (let steps = random.between(0, 50); steps > 0; steps--) if (!(await node.next())) break;
  }
  await node.run();
  if (durable.tick > 0) node.tell({ kind: "learn-tick", tick: durable.tick });
  await node.run();
  for (const cut of unvisited(durable)) await visit({ store, node, pages }, cut, 100);
  expect(unvisited(durable)).toEqual([]);
  expect(client.acked.size).toBe(batchCount);
  expectOrder(durable);
}

/** As on a node that has heard of the tick before others. */
function markOne({ lane, tell }: SimulatedNode, random: Random, tick: number): void {
  const shard = random.shuffled([...lane.shards.values()])[0];
  if (shard !== undefined) markShard(lane, shard, tick);
  tell({ kind: "sweep" });
}

/** Few entities, so that one is changed before and after a mark, and between flushes. */
function randomBatch(random: Random, index: number): CheckedTask[] {
  return Array.from({ length: random.between(1, 3) }, (_, i) => {
    const eid = `s${random.between(0, 4)}`;
    const v = 1000 + 10 * index + i;
    const dice = random.between(0, 9);
    if (dice === 0) return removal("src", eid);
    return dice < 5 ? task("src", eid, "a", v) : task("src", eid, "o", v, 1_000_000 + v);
  });
}
