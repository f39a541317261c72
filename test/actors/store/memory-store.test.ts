import { describe, expect, it } from "vitest";
import { createManualClock } from "../../support/manual-clock.ts";
import { createMemoryDurable } from "../../support/memory-durable.ts";
import { createMemoryRuns } from "../../support/memory-runs.ts";
import { createMemoryStore, type MemoryStoreWorld } from "../../support/memory-store.ts";
import { describeStore } from "./contract.ts";
import type { HeldAppend } from "./contract-locks.ts";
import { fencesOf, nodeA, nodeB, noon, segmentOf, shard1 } from "./samples.ts";

/** A store of which an append can be held, on a clock of its own. */
function openStore() {
  const clock = createManualClock();
  let held: { begun: () => void; readonly end: Promise<"commit"> } | null = null;
  const hold: MemoryStoreWorld["hold"] = async (call) => {
    if (call !== "append" || held === null) return "commit";
    const { begun, end } = held;
    held = null;
    begun();
    return await end;
  };
  const store = createMemoryStore(createMemoryDurable(), { clock, hold, onCommit: () => {} });
  const holdAppend = async (): Promise<HeldAppend> => {
    let [begun, letGo] = [() => {}, () => {}];
    const beginning = new Promise<void>((resolve) => {
      begun = resolve;
    });
    const end = new Promise<"commit">((resolve) => {
      letGo = () => resolve("commit");
    });
    held = { begun, end };
    return {
      begun: () => beginning,
      awaited: () => clock.advance(500),
      patience: () => clock.advance(1_100),
      letGo: async () => letGo(),
    };
  };
  return { store, clock, holdAppend };
}

describe("the store in memory", () => {
  describeStore(async () => {
    const { store, clock, holdAppend } = openStore();
    return {
      ...{ store, holdAppend, runs: createMemoryRuns(store, () => noon) },
      claim: async (shards, node) => store.claim(shards, node),
      lapse: () => clock.advance(2_000),
      promote: async () => store.promote(),
      close: async () => expect(clock.timers).toBe(0),
    };
  });

  it("keeps its durable part when whoever used it is gone", async () => {
    const before = createMemoryStore();
    const fences = fencesOf(await before.acquire(nodeA, [shard1]));
    await before.append(nodeA, { fences, segments: [segmentOf(1, ["a"])] });
    const after = createMemoryStore(before.durable);
    expect((await after.acquire(nodeB, [shard1]))[0]).toMatchObject({ epoch: 2, lastSeq: 1 });
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
