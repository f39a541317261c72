import { expect } from "vitest";
import type { Effect } from "../../../actors/lane/lane.ts";
import { copyDurable, createMemoryDurable, type MemoryDurable, writeDurable } from "../../support/memory-durable.ts";
import { createMemoryStore } from "../../support/memory-store.ts";
import { startSimulatedNode } from "../../support/simulated-node.ts";
import { createClient } from "./protocol-client.ts";
import type { DeathScript } from "./protocol-deaths.ts";
import { batches, type Found, hooks, inspect, model, removalAt, runHook, shards } from "./protocol-script.ts";

const phases: readonly (readonly [number, number])[] = [
  [0, 5],
  [5, removalAt],
  [removalAt, removalAt + 1],
  [removalAt + 1, batches.length],
];

interface World {
  readonly durable: MemoryDurable;
  /** What the client has seen acknowledged. */
  readonly acked: Set<number>;
  phase: number;
}

/** The thirty batches of `protocol-script.ts`, sent in phases by one client; effects of the kind `slow` come last. */
export const createProtocolScript = (slow: Effect["kind"] | null): DeathScript<World, Found> => ({
  begin: () => ({ durable: createMemoryDurable(), acked: new Set(), phase: 0 }),
  copy: ({ durable, acked, phase }) => ({ durable: copyDurable(durable), acked: new Set(acked), phase }),
  write: ({ durable, acked, phase }) => `${phase} ${[...acked].sort()} ${writeDurable(durable)}`,
  live: async (world, life, onEffect) => {
    const store = createMemoryStore(world.durable);
    const client = createClient(batches, world.acked);
    const dies = (): boolean => {
      onEffect();
      return false;
    };
    const node = await startSimulatedNode({ store, model, hooks, runHook, shards, name: `node-${life}`, slow, dies });
    if (life > 0) client.reconnect();
    await node.run();
    // What an earlier phase sent and did not see acknowledged comes first.
    if (world.phase > 0) {
      client.offer(node, 0, phases[world.phase - 1]?.[1] ?? 0);
      await node.run();
    }
    for (; world.phase < phases.length; world.phase++) {
      const [from, to] = phases[world.phase] ?? [0, 0];
      client.offer(node, from, to);
      await node.run();
    }
    for (const shard of node.lane.shards.values()) {
      expect(shard.watermark, `watermark of shard ${shard.id}`).toBe(shard.durableSeq);
      expect(shard.backlog.tasks, "tasks above the watermark").toBe(0);
    }
    expect(client.acked.size).toBe(batches.length);
    return inspect(store);
  },
});
