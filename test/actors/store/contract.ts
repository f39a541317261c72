import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Lifetimes, Queries, Store } from "../../../actors/store/store.ts";
import type { Obituaries } from "../../../actors/store/stored-link.ts";
import { type ShardId, toEpoch, toSeq } from "../../../proto/ids.ts";
import type { RunStore } from "../../support/memory-runs.ts";
import { describeLarge } from "./contract-large.ts";
import { describeLinks } from "./contract-links.ts";
import { describeLocks, type LockHarness } from "./contract-locks.ts";
import { describeObligations } from "./contract-obligations.ts";
import { describeQueries } from "./contract-queries.ts";
import { describeRuns } from "./contract-runs.ts";
import { describeTicks } from "./contract-ticks.ts";
import {
  entityOf,
  fencesOf,
  flushOf,
  letterOf,
  newestRows,
  nodeA,
  nodeB,
  progressOf,
  segmentOf,
  shard1,
  shard2,
  shard3,
} from "./samples.ts";

/** A store under test. */
export interface StoreHarness extends LockHarness {
  readonly store: Store & Queries & Obituaries & Lifetimes;
  readonly runs: RunStore;
  close(): Promise<void>;
}

/** What every store holds: `open` makes an empty one. */
export function describeStore(open: () => Promise<StoreHarness>): void {
  let harness: StoreHarness;
  let store: Store & Queries & Obituaries & Lifetimes;
  beforeEach(async () => {
    harness = await open();
    store = harness.store;
  });
  afterEach(() => harness.close());
  const own = async (...shards: ShardId[]) => fencesOf(await store.acquire(nodeA, shards));

  describe("ownership", () => {
    it("grows the epoch by one whenever a shard is taken", async () => {
      expect(fencesOf(await store.acquire(nodeA, [shard2, shard1]))).toEqual([
        { shard: shard1, epoch: 1 },
        { shard: shard2, epoch: 1 },
      ]);
      expect(fencesOf(await store.acquire(nodeB, [shard1]))).toEqual([{ shard: shard1, epoch: 2 }]);
      expect(fencesOf(await store.acquire(nodeB, [shard1]))).toEqual([{ shard: shard1, epoch: 3 }]);
    });

    it("names all lost shards and writes nothing of the group", async () => {
      const fences = await own(shard1, shard2, shard3);
      await store.acquire(nodeB, [shard1, shard3]);
      const segments = [shard1, shard2, shard3].map((shard) => segmentOf(1, ["a"], { shard }));
      expect(await store.append(nodeA, { fences, segments })).toEqual({ lost: [shard1, shard3] });
      expect(await store.readLog(shard2, toSeq(0), 10)).toEqual([]);
    });

    it("refuses the flush of an old epoch as a whole", async () => {
      const fences = await own(shard1, shard2);
      await store.acquire(nodeA, [shard1]);
      const request = flushOf(fences, {
        entities: [entityOf("a", 1, { shard: shard2 })],
        progress: [progressOf(1, { shard: shard2 })],
      });
      expect(await store.flush(nodeA, request)).toEqual({ lost: [shard1] });
      expect(await store.load([{ shard: shard2, type: "ip", eid: "a" }])).toEqual([]);
      expect((await store.acquire(nodeA, [shard2]))[0]?.watermark).toBe(0);
    });

    it("lets nobody write for another node", async () => {
      const fences = await own(shard1);
      expect(await store.append(nodeB, { fences, segments: [segmentOf(1, ["a"])] })).toEqual({ lost: [shard1] });
    });

    it("leaves out a shard that somebody else claims", async () => {
      const fences = await own(shard1, shard2);
      await harness.claim([shard2], nodeB);
      const request = { fences, segments: [segmentOf(1, ["a"])] };
      expect(await store.append(nodeA, request)).toEqual({ lost: [shard2] });
      expect((await store.acquire(nodeA, [shard1, shard2])).map(({ shard }) => shard)).toEqual([shard1]);
    });

    it("are not taken from an owner that the acquirer has not heard of", async () => {
      await store.acquire(nodeA, [shard1]);
      expect(
        fencesOf(await store.acquire(nodeB, [shard1, shard2], { epochOf: () => toEpoch(0), revision: null })),
      ).toEqual([{ shard: shard2, epoch: 1 }]);
      expect(fencesOf(await store.acquire(nodeB, [shard1], { epochOf: () => toEpoch(1), revision: null }))).toEqual([
        { shard: shard1, epoch: 2 },
      ]);
      expect(await store.append(nodeB, { fences: [{ shard: shard1, epoch: toEpoch(2) }], segments: [] })).toEqual({
        lost: [],
      });
    });

    it("are not taken by an older membership than somebody took one by before", async () => {
      const by = (revision: number) => ({ epochOf: () => toEpoch(0), revision });
      expect(fencesOf(await store.acquire(nodeA, [shard1], by(7)))).toHaveLength(1);
      expect(fencesOf(await store.acquire(nodeB, [shard2], by(6)))).toEqual([]);
      expect(fencesOf(await store.acquire(nodeB, [shard2], by(7)))).toHaveLength(1);
      expect(fencesOf(await store.acquire(nodeA, [shard3], by(9)))).toHaveLength(1);
    });

    it("and their owners are told, given up ones included", async () => {
      const [held] = await store.acquire(nodeA, [shard1, shard2]);
      if (held === undefined) throw new Error("the shard was not acquired");
      await store.release([held], nodeA);
      expect((await store.readOwners()).owners).toEqual([
        { shard: shard1, epoch: 1, owner: null },
        { shard: shard2, epoch: 1, owner: nodeA },
      ]);
    });

    it("gives a shard up only under its epoch", async () => {
      const [fence] = await own(shard1);
      const [newer] = await own(shard1);
      if (fence === undefined || newer === undefined) throw new Error("the shard was not acquired");
      await store.release([fence], nodeA);
      expect(await store.append(nodeA, { fences: [newer], segments: [] })).toEqual({ lost: [] });
      await store.release([newer], nodeA);
      expect(await store.append(nodeA, { fences: [newer], segments: [] })).toEqual({ lost: [shard1] });
    });
  });

  describe("transactions that wait", () => describeLocks(() => harness));

  describe("the log", () => {
    it("accepts a repeat of rows that are there", async () => {
      const fences = await own(shard1);
      const first = segmentOf(1, ["a", "b"]);
      const second = segmentOf(3, ["c"]);
      await store.append(nodeA, { fences, segments: [first] });
      expect(await store.append(nodeA, { fences, segments: [first, second] })).toEqual({ lost: [] });
      expect(await store.readLog(shard1, toSeq(0), 10)).toEqual([first, second]);
    });

    it("is read from the segment that holds the seq after the given one", async () => {
      const fences = await own(shard1);
      const segments = [segmentOf(1, ["a", "b", "c"]), segmentOf(4, []), segmentOf(5, ["d", "e"])];
      await store.append(nodeA, { fences, segments });
      const seqsFrom = async (after: number, limit: number) =>
        (await store.readLog(shard1, toSeq(after), limit)).map(({ seq }) => seq);
      expect(await seqsFrom(0, 10)).toEqual([1, 4, 5]);
      expect(await seqsFrom(2, 10)).toEqual([1, 4, 5]);
      expect(await seqsFrom(3, 1)).toEqual([4]);
      expect(await seqsFrom(6, 10)).toEqual([]);
    });

    it("tells the next owner its last seq and time, also above the watermark", async () => {
      const fences = await own(shard1);
      await store.append(nodeA, { fences, segments: [segmentOf(1, ["a", "b"], { at: segmentOf(1, []).at + 5 })] });
      const [acquired] = await store.acquire(nodeB, [shard1]);
      expect(acquired).toMatchObject({ lastSeq: 2, watermark: 0, lastAt: segmentOf(1, []).at + 5 });
    });

    it("does not give seqs back when the watermark outlives the log", async () => {
      const fences = await own(shard1);
      await store.flush(nodeA, flushOf(fences, { progress: [progressOf(70, { delivered: toSeq(60) })] }));
      const [acquired] = await store.acquire(nodeB, [shard1]);
      expect(acquired).toMatchObject({ lastSeq: 70, watermark: 70, delivered: 60 });
    });

    it("finds the parts of channels, whatever is asked together, and from wherever they are looked for", async () => {
      const fences = await own(shard1, shard2);
      const head = (number: number) => `{"p":[["c:a\\"b",${number},null,"00ff",0,1]],"a":[],"c":[]}`;
      const other = '{"p":[["c:other",2,null,"00ff",0,1],["c:other",3,null,"00ff",0,1]],"a":[],"c":[]}';
      const heads = [head(1), head(2), other, head(12), head(14)];
      const segments = heads.map((text, i) => segmentOf(i + 1, ["a"], { head: text }));
      const elsewhere = { ...segmentOf(1, ["a"], { head: head(2) }), shard: shard2 };
      await store.append(nodeA, { fences, segments: [...segments, elsewhere] });
      const seqs = async (...asked: [ShardId, string, number, number?][]) => {
        const parts = asked.map(([shard, channel, number, from = 0]) => ({
          shard,
          channel,
          number,
          from: toSeq(from),
        }));
        return (await store.findParts(parts)).map((found) => found && [found.shard, found.seq, found.head]);
      };
      const name = 'c:a"b';
      expect(await seqs()).toEqual([]);
      expect(await seqs([shard1, name, 2])).toEqual([[shard1, 2, head(2)]]);
      expect(await seqs([shard1, name, 3], [shard1, "c:a", 2], [shard1, name, 1])).toEqual([
        null,
        null,
        [shard1, 1, head(1)],
      ]);
      // Several of two channels and shards, not in order, the first and the last of a run not there.
      const many: [ShardId, string, number][] = [13, 12, 0, 2, 14, 15, 2].map((number) => [shard1, name, number]);
      const found = await seqs(...many, [shard1, "c:other", 3], [shard2, name, 2], [shard2, name, 12]);
      expect(found.map((one) => one?.[1])).toEqual([undefined, 4, undefined, 2, 5, undefined, 2, 3, 1, undefined]);
      // A place to begin at, below and above what is asked for.
      const places = await seqs([shard1, name, 12, 2], [shard1, "c:other", 2, 3], [shard1, "c:other", 3, 4]);
      expect(places.map((one) => one?.[1])).toEqual([4, 3, 3]);
    });

    it("tells what of some channels no watermark has passed, and where the watermarks are", async () => {
      const fences = await own(shard1, shard2, shard3);
      const head = (channel: string, number: number) =>
        `{"p":[["${channel}",${number},null,"00ff",0,2]],"a":[],"c":[]}`;
      const segment = (shard: ShardId, seq: number, channel: string, number: number) => ({
        ...segmentOf(seq, ["a", "b"], { head: head(channel, number) }),
        shard,
      });
      expect(await store.readUnpassed(["c:a"])).toEqual({ heads: [], watermarks: [], owing: 0 });
      const segments = [
        ...[segment(shard1, 1, "c:a", 1), segment(shard1, 3, "c:a", 2), segment(shard1, 5, "c:a", 3)],
        ...[segment(shard1, 7, "c:ab", 1), segment(shard2, 1, "c:a", 2), segment(shard3, 1, "c:b", 1)],
      ];
      await store.append(nodeA, { fences, segments });
      const seen = async (...channels: string[]) =>
        (await store.readUnpassed(channels)).heads.map(({ shard, seq }) => [shard, seq]);
      expect(await seen("c:a")).toEqual([...[1, 3, 5].map((seq) => [shard1, seq]), [shard2, 1]]);
      // The watermark stands within the second segment of the first shard, and at the end of the third shard.
      const progress = [progressOf(3), progressOf(2, { shard: shard3 })];
      await store.flush(nodeA, flushOf(fences, { progress }));
      const { heads, watermarks, owing } = await store.readUnpassed(["c:a", "c:b"]);
      expect(heads.map((one) => [one.shard, one.seq, one.head])).toEqual([
        [shard1, 3, head("c:a", 2)],
        [shard1, 5, head("c:a", 3)],
        [shard2, 1, head("c:a", 2)],
      ]);
      expect(watermarks).toEqual([
        { shard: shard1, epoch: 1, seq: 3 },
        { shard: shard3, epoch: 1, seq: 2 },
      ]);
      expect(owing).toBe(0);
      expect(await seen("c:b")).toEqual([]);
      expect(await seen()).toEqual([]);
    });

    it("keeps odd characters", async () => {
      const fences = await own(shard1);
      const odd = "tab\tline\nback\\slash \x1c\x1d\x1e\x1fe\x1df 'quote' \"$1\" 😀 é {NULL}";
      const segment = segmentOf(1, ["a"], { head: JSON.stringify({ odd }), body: odd });
      await store.append(nodeA, { fences, segments: [segment] });
      expect(await store.readLog(shard1, toSeq(0), 1)).toEqual([segment]);
      const entity = entityOf(`e${odd}`, 1, { state: odd });
      const history = [{ shard: shard1, type: "ip", eid: entity.eid, seq: toSeq(1), body: odd }];
      const channels = [{ channel: `c:${odd}`, number: 4 }];
      await store.flush(
        nodeA,
        flushOf(fences, { entities: [entity], history, progress: [progressOf(1, { channels })] }),
      );
      expect(await store.load([entity])).toEqual([entity]);
      expect(await newestRows(store, entity, 1)).toEqual(history);
      expect(await store.readChannel(shard1, `c:${odd}`)).toBe(4);
    });

    it("keeps texts of a mebibyte", async () => {
      const fences = await own(shard1);
      const state = `"${"é".repeat(1 << 20)}"`;
      await store.append(nodeA, { fences, segments: [segmentOf(1, ["a"], { body: state })] });
      await store.flush(nodeA, flushOf(fences, { entities: [entityOf("a", 1, { state })] }));
      expect((await store.readLog(shard1, toSeq(0), 1))[0]?.body).toBe(state);
      expect((await store.load([entityOf("a", 1)]))[0]?.state).toBe(state);
    });

    it("refuses U+0000 by code, and keeps nothing of the group", async () => {
      const fences = await own(shard1);
      const segments = [segmentOf(1, ["a"]), segmentOf(2, ["b"], { body: "a\0b" })];
      await expect(store.append(nodeA, { fences, segments })).rejects.toMatchObject({ code: "STORE_REFUSED" });
      expect(await store.readLog(shard1, toSeq(0), 10)).toEqual([]);
      const entities = [entityOf("a", 1, { state: "\0" })];
      await expect(store.flush(nodeA, flushOf(fences, { entities }))).rejects.toMatchObject({ code: "STORE_REFUSED" });
    });
  });

  describe("the flush", () => {
    it("changes an entity only upwards", async () => {
      const fences = await own(shard1);
      for (const [i, applied] of [5, 4, 5].entries()) {
        await store.flush(nodeA, flushOf(fences, { entities: [entityOf("a", applied, { state: `"${i}"` })] }));
      }
      expect(await store.load([entityOf("a", 0), entityOf("b", 0)])).toEqual([entityOf("a", 5, { state: '"0"' })]);
    });

    it("accepts a repeat, also beside new rows", async () => {
      const fences = await own(shard1);
      const entities = [entityOf("a", 2), entityOf("b", 2)];
      const history = [1, 2].map((seq) => ({ shard: shard1, type: "ip", eid: "a", seq: toSeq(seq), body: `h${seq}` }));
      await store.flush(nodeA, flushOf(fences, { entities: entities.slice(1), history: history.slice(1) }));
      for (let i = 0; i < 2; i++) {
        expect(await store.flush(nodeA, flushOf(fences, { entities, history }))).toEqual({ lost: [] });
        expect(await store.load(entities)).toEqual(entities);
        expect(await newestRows(store, entityOf("a", 0), 10)).toEqual([...history].reverse());
      }
    });

    it("keeps empty texts, alone, among others and beside escaped ones", async () => {
      const fences = await own(shard1);
      for (const [i, eids] of [["a"], ["b", "c"], ["\x1e", "d"]].entries()) {
        const entities = eids.map((eid) => entityOf(eid, i + 1, { state: "" }));
        const history = entities.map((entity) => ({
          shard: shard1,
          type: "ip",
          eid: entity.eid,
          seq: toSeq(1),
          body: "",
        }));
        await store.flush(nodeA, flushOf(fences, { entities, history }));
        expect(await store.load(entities)).toEqual(entities);
        for (const segment of history) expect(await newestRows(store, segment, 9)).toEqual([segment]);
      }
    });

    it("moves watermarks, outbox and channels only forward", async () => {
      const fences = await own(shard1);
      for (const n of [9, 8]) {
        const progress = [progressOf(n, { channels: [{ channel: "c:x", number: n }] })];
        await store.flush(nodeA, flushOf(fences, { progress }));
      }
      expect(await store.readChannel(shard1, "c:x")).toBe(9);
      expect(await store.readChannel(shard1, "c:y")).toBe(0);
      const [acquired] = await store.acquire(nodeA, [shard1]);
      expect(acquired).toMatchObject({ watermark: 9, delivered: 9 });
      expect([...(acquired?.channels ?? [])]).toEqual([["c:x", 9]]);
    });

    it("writes nothing when it comes after a later one of its lane: what that has deleted stays deleted", async () => {
      const fences = await own(shard1);
      const order = (number: number) => ({ lane: 0, number });
      const line = { shard: shard1, type: "ip", eid: "a", seq: toSeq(5), body: "port\t\t\t\t1\t1" };
      const late = flushOf(fences, { order: order(1), entities: [entityOf("a", 5)], history: [line] });
      expect(await store.flush(nodeA, late)).toEqual({ lost: [] });
      const gone = entityOf("a", 6, { tombstone: true, state: "" });
      await store.flush(nodeA, flushOf(fences, { order: order(2), entities: [gone] }));
      await store.flush(nodeA, flushOf(fences, { order: order(3), progress: [progressOf(9)] }));
      expect(await store.flush(nodeA, late)).toEqual({ lost: [] });
      expect(await store.load([entityOf("a", 0)])).toEqual([]);
      expect(await newestRows(store, entityOf("a", 0), 10)).toEqual([]);
      // Another lane counts for itself, and who was replaced hears of it.
      await store.flush(nodeA, flushOf(fences, { order: { lane: 1, number: 1 }, entities: [entityOf("b", 7)] }));
      expect(await store.load([entityOf("b", 0)])).toHaveLength(1);
      await store.acquire(nodeB, [shard1]);
      expect(await store.flush(nodeA, late)).toEqual({ lost: [shard1] });
    });

    it("takes the history of a deleted entity along, and its tombstone when the watermark has passed", async () => {
      const fences = await own(shard1);
      const history = [3, 4].map((seq) => ({ ...entityOf("a", 0), seq: toSeq(seq), body: "h" }));
      const entities = [entityOf("a", 4), entityOf("b", 4)];
      await store.flush(nodeA, flushOf(fences, { entities, history }));
      await store.flush(nodeA, flushOf(fences, { entities: [entityOf("a", 6, { tombstone: true, state: "" })] }));
      expect(await newestRows(store, entityOf("a", 0), 10)).toEqual([]);
      expect((await store.load([entityOf("a", 0)]))[0]?.tombstone).toBe(true);
      expect((await store.list({ type: "ip", after: "", limit: 10 })).map(({ eid }) => eid)).toEqual(["b"]);
      expect(await store.count(null)).toEqual(new Map([["ip", 1]]));
      await store.flush(nodeA, flushOf(fences, { progress: [progressOf(5)] }));
      expect(await store.load([entityOf("a", 0)])).toHaveLength(1);
      await store.flush(nodeA, flushOf(fences, { progress: [progressOf(6)] }));
      expect(await store.load([entityOf("a", 0)])).toEqual([]);
    });

    it("tells the next owner what was refused and which answers are dead letters, above the watermark", async () => {
      const fences = await own(shard1);
      const refused = [4, 6].map((seq) => ({ shard: shard1, type: "ip", eid: "a", seq: toSeq(seq) }));
      const deadLetters = [
        letterOf(5, { hook: "old" }),
        letterOf(7, { hook: "h" }),
        letterOf(8, { kind: "unapplied", hook: "" }),
      ];
      await store.flush(nodeA, flushOf(fences, { refused, deadLetters, progress: [progressOf(5)] }));
      const [acquired] = await store.acquire(nodeB, [shard1]);
      expect(acquired?.refused).toEqual([6]);
      expect(acquired?.deadAnswers).toEqual([{ seq: 7, hook: "h" }]);
    });
  });

  describe("large values", () => describeLarge(() => store));

  describe("links", () => describeLinks(() => store));

  describe("a page of a tick", () => describeTicks(() => store));

  describe("snapshot runs", () => describeRuns(() => harness));
  describeQueries(() => store);
  describe("obligations and attempts", () => describeObligations(() => store));
}
