import { expect, it } from "vitest";
import type { Queries, Store } from "../../../actors/store/store.ts";
import { type NodeId, type ShardId, toSeq } from "../../../proto/ids.ts";
import { fencesOf, flushOf, letterOf, nodeA, nodeB, segmentOf, shard1, shard2, shard3 } from "./samples.ts";

/** Where an append is held: before it writes its rows, or, as far as the store writes them earlier, before it commits. */
export type HoldPlace = "before its rows" | "before its commit";

/** A store whose transactions can be held, and whose time passes. */
export interface LockHarness {
  readonly store: Store & Pick<Queries, "deadLetter">;
  /** Holds the next append behind its fence; default: before its rows. */
  holdAppend(place?: HoldPlace): Promise<HeldAppend>;
  /** Claims shards for a node that goes no further. */
  claim(shards: readonly ShardId[], node: NodeId): Promise<void>;
  /** Claims that stand lapse now, if nobody has made use of them. */
  lapse(): Promise<void>;
  /** From now on all shards were last acquired in another world. */
  promote(): Promise<void>;
}

export interface HeldAppend {
  /** Resolves when there is an append that is held. */
  begun(): Promise<void>;
  /** Resolves when an acquiring waits for it. */
  awaited(): Promise<void>;
  /** Resolves when a repeat that was sent is as far as it comes beside it. */
  repeated(): Promise<void>;
  /** A time passes in which an acquiring loses its patience. */
  patience(): Promise<void>;
  /** It writes its rows and commits. */
  letGo(): Promise<void>;
  /** Its connection is ended: nothing of it stands. */
  kill(): Promise<void>;
}

/** The part of the contract that is about transactions that wait for one another, and about claims (R5, R22). */
export function describeLocks(current: () => LockHarness): void {
  it("lets an acquiring wait for an append that has passed its fence, and shows what that wrote", async () => {
    const { store, holdAppend } = current();
    const fences = fencesOf(await store.acquire(nodeA, [shard1, shard2, shard3]));
    const held = await holdAppend();
    const writing = store.append(nodeA, { fences: fences.slice(0, 1), segments: [segmentOf(1, ["a"])] });
    await held.begun();
    const taking = store.acquire(nodeB, [shard1, shard2]);
    await held.awaited();
    // Who comes now finds the claims, and waits for nobody: its group is refused, and it is told of those shards alone.
    const group = { fences, segments: [segmentOf(1, ["b"], { shard: shard3 })] };
    expect(await store.append(nodeA, group)).toEqual({ lost: [shard1, shard2] });
    expect(await store.acquire(nodeA, [shard1])).toEqual([]);
    await held.letGo();
    expect(await writing).toEqual({ lost: [] });
    expect(await taking).toMatchObject([
      { shard: shard1, epoch: 2, lastSeq: 1 },
      { shard: shard2, epoch: 2, lastSeq: 0 },
    ]);
    expect(await store.append(nodeA, group)).toEqual({ lost: [shard1, shard2] });
  });

  it("ends an append that keeps an acquiring waiting for a second: nothing of it stands", async () => {
    const { store, holdAppend } = current();
    const fences = fencesOf(await store.acquire(nodeA, [shard1, shard2]));
    const held = await holdAppend();
    const segments = [segmentOf(1, ["a"]), segmentOf(1, ["b"], { shard: shard2 })];
    const writing = expect(store.append(nodeA, { fences, segments })).rejects.toMatchObject({ code: "STORE" });
    await held.begun();
    const taking = store.acquire(nodeB, [shard1]);
    await held.awaited();
    await held.patience();
    await writing;
    expect(await taking).toMatchObject([{ shard: shard1, epoch: 2, lastSeq: 0 }]);
    await held.letGo();
    // The other shard is still its owner's, who may try again.
    const again = { fences: fences.slice(1), segments: segments.slice(1) };
    expect(await store.append(nodeA, again)).toEqual({ lost: [] });
  });

  const places: readonly HoldPlace[] = ["before its rows", "before its commit"];
  const ends = ["letGo", "kill"] as const;
  for (const [place, end] of places.flatMap((one) => ends.map((other) => [one, other] as const))) {
    const fate = end === "letGo" ? "which then commits" : "which then is rolled back";
    it(`takes a repeat of an append that is held ${place}, ${fate}: what it writes stands once (R3)`, async () => {
      const { store, holdAppend } = current();
      const fences = fencesOf(await store.acquire(nodeA, [shard1, shard2]));
      await store.flush(nodeA, flushOf(fences, { deadLetters: [letterOf(1)] }));
      const segments = [segmentOf(2, ["a", "b"]), segmentOf(1, ["c"], { shard: shard2 })];
      const request = { fences, segments, closings: [{ shard: shard1, id: "1-1-1", status: "replayed" as const }] };
      const held = await holdAppend(place);
      const first = store.append(nodeA, request);
      const firstEnds = end === "letGo" ? expect(first).resolves : expect(first).rejects;
      const outcome = firstEnds.toMatchObject(end === "letGo" ? { lost: [] } : { code: "STORE" });
      await held.begun();
      const repeat = store.append(nodeA, request);
      await held.repeated();
      await held[end]();
      await outcome;
      expect(await repeat).toEqual({ lost: [] });
      const rows = [await store.readLog(shard1, toSeq(0), 9), await store.readLog(shard2, toSeq(0), 9)];
      expect(rows).toEqual(segments.map((segment) => [segment]));
      expect((await store.deadLetter("1-1-1"))?.status).toBe("replayed");
      // And once more, now that it stands.
      expect(await store.append(nodeA, request)).toEqual({ lost: [] });
      expect(await store.acquire(nodeB, [shard1, shard2])).toMatchObject([{ lastSeq: 3 }, { lastSeq: 1 }]);
    });
  }

  it("keeps owner and acquirers out of a shard that is claimed, until the claim lapses", async () => {
    const { store, claim, lapse } = current();
    const fences = fencesOf(await store.acquire(nodeA, [shard1]));
    const request = { fences, segments: [segmentOf(1, ["a"])] };
    await claim([shard1], nodeB);
    expect(await store.append(nodeA, request)).toEqual({ lost: [shard1] });
    expect(await store.acquire(nodeA, [shard1])).toEqual([]);
    await lapse();
    // The owner was not replaced.
    expect(await store.append(nodeA, request)).toEqual({ lost: [] });
    expect(await store.acquire(nodeA, [shard1])).toMatchObject([{ epoch: 2, lastSeq: 1 }]);
  });

  it("lets epochs and seqs jump, once, where the database is of another world than at the last acquiring", async () => {
    const { store, promote } = current();
    const fences = fencesOf(await store.acquire(nodeA, [shard1, shard2]));
    await store.append(nodeA, { fences, segments: [segmentOf(1, ["a", "b"])] });
    await promote();
    const lost = { below: 2, above: 100_000_002 };
    const [jumped, ...others] = await store.acquire(nodeB, [shard1]);
    expect(others).toEqual([]);
    expect(jumped).toMatchObject({ shard: shard1, epoch: 1001, lastSeq: 100_000_002, lost, jumped: true });
    const [next] = await store.acquire(nodeA, [shard1]);
    expect(next).toMatchObject({ shard: shard1, epoch: 1002, lastSeq: 100_000_002, lost });
    expect(next).not.toHaveProperty("jumped");
    expect(fencesOf(await store.acquire(nodeB, [shard2, shard3]))).toEqual([
      { shard: shard2, epoch: 1001 },
      { shard: shard3, epoch: 1 },
    ]);
  });
}
