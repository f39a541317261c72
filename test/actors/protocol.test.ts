import { expect, test } from "vitest";
import type { Store } from "../../actors/store/store.ts";
import { createMemoryStore } from "../support/memory-store.ts";
import { startSimulatedNode } from "../support/simulated-node.ts";
import { createClient } from "./protocol-client.ts";
import { batches, type Found, hooks, inspect, model, removalAt, runHook, shards } from "./protocol-script.ts";

const phases: readonly (readonly [number, number])[] = [
  [0, 5],
  [5, removalAt],
  [removalAt, removalAt + 1],
  [removalAt + 1, batches.length],
];

interface Run {
  readonly found: Found;
  /** Effects performed by the last node. */
  readonly effects: number;
  readonly store: Store;
}

/** Runs the whole script; node k dies after `deaths[k]` effects. */
async function play(deaths: readonly number[]): Promise<Run> {
  const store = createMemoryStore();
  const client = createClient(batches);
  let phase = 0;
  for (let life = 0; ; life++) {
    let effects = 0;
    const dies = (): boolean => ++effects === deaths[life];
    const node = await startSimulatedNode({ store, model, hooks, runHook, shards, name: `node-${life}`, dies });
    if (life > 0) client.reconnect();
    await node.run();
    // What an earlier phase sent and did not see acknowledged comes first.
    if (node.status === "running" && phase > 0) {
      client.offer(node, 0, phases[phase - 1]?.[1] ?? 0);
      await node.run();
    }
    for (; phase < phases.length && node.status === "running"; phase++) {
      const [from, to] = phases[phase] ?? [0, 0];
      client.offer(node, from, to);
      await node.run();
      if (node.status !== "running") break;
    }
    if (node.status === "running") {
      for (const shard of node.lane.shards.values()) {
        expect(shard.watermark, `watermark of shard ${shard.id}`).toBe(shard.durableSeq);
        expect(shard.backlog.tasks, "tasks above the watermark").toBe(0);
      }
      expect(client.acked.size).toBe(batches.length);
      return { found: await inspect(store), effects, store };
    }
    expect(life, "deaths").toBeLessThan(deaths.length);
  }
}

function expectSame(found: Found, wanted: Found, deaths: readonly number[]): void {
  const label = `after deaths at ${deaths.join(", ")}`;
  expect([...found.logged].sort(), `log ${label}`).toEqual([...wanted.logged].sort());
  expect([...found.state].sort(), `state ${label}`).toEqual([...wanted.state].sort());
}

test("without a death every datapoint, sent or derived, is in the log once and in the state (P1, P3)", async () => {
  const { found } = await play([]);
  expect([...found.logged.values()].every((times) => times === 1)).toBe(true);
  // 29 batches of `a`, those of s5 refused; each other one derives one `own` and two `seen`.
  const sent = batches.flat().filter((task) => !task.delete);
  const kept = sent.filter((task) => task.eid !== "s5");
  const ofA = kept.filter((task) => task.datapoints[0]?.attr === "a").length;
  const ofO = kept.length - ofA;
  expect(found.logged.size).toBe(sent.length + 3 * ofA + ofO);
  expect([...found.state.keys()].some((key) => key.startsWith("src s5"))).toBe(false);
});

test("a node that dies after any single effect loses nothing and doubles nothing (P1–P3, I1–I5)", async () => {
  const wanted = await play([]);
  for (let death = 1; death <= wanted.effects; death++) {
    const { found } = await play([death]);
    expectSame(found, wanted.found, [death]);
  }
});

test("nor does one whose successor dies too, at any effect of its recovery (twice nested)", async () => {
  const wanted = await play([]);
  const stride = 7;
  for (let first = 1; first <= wanted.effects; first += stride) {
    for (let second = 1 + (first % stride); second <= wanted.effects; second += stride) {
      const { found } = await play([first, second]);
      expectSame(found, wanted.found, [first, second]);
    }
  }
}, 120_000);
