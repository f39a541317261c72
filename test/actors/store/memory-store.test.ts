import { describe, expect, it } from "vitest";
import { createMemoryStore } from "../../support/memory-store.ts";
import { describeStore } from "./contract.ts";
import { fencesOf, nodeA, nodeB, segmentOf, shard1 } from "./samples.ts";

describe("the store in memory", () => {
  describeStore(async () => {
    const store = createMemoryStore();
    return { store, claim: async (shards, node) => store.claim(shards, node), close: async () => undefined };
  });

  it("keeps its durable part when whoever used it is gone", async () => {
    const before = createMemoryStore();
    const fences = fencesOf(await before.acquire(nodeA, [shard1]));
    await before.append(nodeA, { fences, segments: [segmentOf(1, ["a"])] });
    const after = createMemoryStore(before.durable);
    expect((await after.acquire(nodeB, [shard1]))[0]).toMatchObject({ epoch: 2, lastSeq: 1 });
  });
});
