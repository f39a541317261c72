import { describe, expect, it } from "vitest";
import { createManualClock } from "../../support/manual-clock.ts";
import { createMemoryDurable } from "../../support/memory-durable.ts";
import { createMemoryRuns } from "../../support/memory-runs.ts";
import { createMemoryStore, type MemoryStoreWorld } from "../../support/memory-store.ts";
import { describeStore } from "./contract.ts";
import type { HeldAppend, HoldPlace } from "./contract-locks.ts";
import { fencesOf, nodeA, nodeB, noon, segmentOf, shard1 } from "./samples.ts";

interface Hold {
  readonly place: HoldPlace;
  readonly begun: () => void;
  readonly end: Promise<"commit" | "kill">;
}

/** A store of which an append can be held, on a clock of its own. */
function openStore() {
  const clock = createManualClock();
  let next: Hold | null = null;
  /** Rows of one that has not committed let a repeat of them wait. */
  let written: Promise<unknown> = Promise.resolve();
  const hold: MemoryStoreWorld["hold"] = async (call) => {
    if (call !== "append") return "commit";
    if (next === null) {
      await written;
      return "commit";
    }
    const { place, begun, end } = next;
    next = null;
    if (place === "before its commit") written = end;
    begun();
    return await end;
  };
  const store = createMemoryStore(createMemoryDurable(), { clock, hold, onCommit: () => {} });
  const holdAppend = async (place: HoldPlace = "before its rows"): Promise<HeldAppend> => {
    let begun = () => {};
    let finish: (end: "commit" | "kill") => void = () => {};
    const beginning = new Promise<void>((resolve) => {
      begun = resolve;
    });
    const end = new Promise<"commit" | "kill">((resolve) => {
      finish = resolve;
    });
    next = { place, begun, end };
    return {
      begun: () => beginning,
      awaited: () => clock.advance(500),
      repeated: () => clock.advance(0),
      patience: () => clock.advance(1_100),
      letGo: async () => finish("commit"),
      kill: async () => finish("kill"),
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
