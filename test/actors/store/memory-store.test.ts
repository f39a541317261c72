import { describe, expect, it } from "vitest";
import { createManualClock, type ManualClock } from "../../support/manual-clock.ts";
import { createMemoryDurable } from "../../support/memory-durable.ts";
import { createMemoryRuns } from "../../support/memory-runs.ts";
import { createMemoryStore, type MemoryStore, type MemoryStoreWorld } from "../../support/memory-store.ts";
import { describeStore } from "./contract.ts";
import { fencesOf, nodeA, nodeB, noon, segmentOf, shard1, shard2 } from "./samples.ts";

/** A store whose writes last until they are let go. */
function openSlowStore(): { store: MemoryStore; clock: ManualClock; open: (() => void)[] } {
  const clock = createManualClock();
  const open: (() => void)[] = [];
  const hold: MemoryStoreWorld["hold"] = (call) =>
    call === "append" ? new Promise((resolve) => void open.push(() => resolve("commit"))) : Promise.resolve("commit");
  return { store: createMemoryStore(createMemoryDurable(), { clock, hold, onCommit: () => {} }), clock, open };
}

describe("the store in memory", () => {
  describeStore(async () => {
    const store = createMemoryStore();
    const runs = createMemoryRuns(store, () => noon);
    return { store, runs, claim: async (shards, node) => store.claim(shards, node), close: async () => undefined };
  });

  it("keeps its durable part when whoever used it is gone", async () => {
    const before = createMemoryStore();
    const fences = fencesOf(await before.acquire(nodeA, [shard1]));
    await before.append(nodeA, { fences, segments: [segmentOf(1, ["a"])] });
    const after = createMemoryStore(before.durable);
    expect((await after.acquire(nodeB, [shard1]))[0]).toMatchObject({ epoch: 2, lastSeq: 1 });
  });

  it("lets an acquiring wait for a transaction under way, and then shows what that wrote", async () => {
    const { store, clock, open } = openSlowStore();
    const fences = fencesOf(await store.acquire(nodeA, [shard1, shard2]));
    const writing = store.append(nodeA, { fences, segments: [segmentOf(1, ["a"])] });
    const taking = store.acquire(nodeB, [shard1]);
    await clock.advance(500);
    expect(store.shards.get(shard1)).toMatchObject({ epoch: 1, owner: nodeA });
    // Who comes now finds the claim, and is told of that shard alone.
    expect(await Promise.race([taking.then(() => "taken"), clock.advance(0).then(() => "waits")])).toBe("waits");
    open[0]?.();
    expect(await writing).toEqual({ lost: [] });
    expect((await taking)[0]).toMatchObject({ epoch: 2, lastSeq: 1 });
    expect(clock.timers).toBe(0);
  });

  it("ends a transaction that keeps an acquiring waiting for a second; nothing of it stands", async () => {
    const { store, clock } = openSlowStore();
    const fences = fencesOf(await store.acquire(nodeA, [shard1]));
    const writing = store.append(nodeA, { fences, segments: [segmentOf(1, ["a"])] });
    const failed = expect(writing).rejects.toMatchObject({ code: "STORE" });
    const taking = store.acquire(nodeB, [shard1]);
    await clock.advance(1100);
    await failed;
    expect((await taking)[0]).toMatchObject({ epoch: 2, lastSeq: 0 });
  });

  it("forgets a claim that nobody made use of after two seconds", async () => {
    const clock = createManualClock();
    const dies: MemoryStoreWorld["hold"] = (_, node) => Promise.resolve(node === nodeB ? "kill" : "commit");
    const store = createMemoryStore(createMemoryDurable(), { clock, hold: dies, onCommit: () => {} });
    await expect(store.acquire(nodeB, [shard1])).rejects.toMatchObject({ code: "STORE" });
    expect(await store.acquire(nodeA, [shard1])).toEqual([]);
    await clock.advance(2000);
    expect((await store.acquire(nodeA, [shard1]))[0]).toMatchObject({ epoch: 1 });
  });
});
