import { expect, it } from "vitest";
import { linkSpansMax } from "../../../actors/store/link.ts";
import type { Fence, FlushRequest, Lifetimes, Queries, Store } from "../../../actors/store/store.ts";
import type { LinkRow, LinkSegment, LinksQuery, Obituaries } from "../../../actors/store/stored-link.ts";
import { toSeq } from "../../../proto/ids.ts";
import {
  entityOf,
  fencesOf,
  flushOf,
  nodeA,
  nodeB,
  noon,
  progressOf,
  segmentOf,
  shard1,
  shard2,
  shard3,
} from "./samples.ts";

const minute = 60_000;
const key = { shard: shard1, type: "ip", eid: "10.0.0.1" };

const plain = (eid: string): LinkRow => ({ attr: "net", type: "net", eid, kind: "plain" });
const gone = (eid: string): LinkRow => ({ attr: "net", type: "net", eid, kind: "gone" });
const seenAt = (at: number, eid: string, ...spans: readonly (readonly [number, number])[]): LinkRow => ({
  ...{ attr: "seen", type: "net", eid, kind: "seen", at },
  spans: spans.map(([from, to]) => ({ from, to })),
});
const seen = (eid: string, ...spans: readonly (readonly [number, number])[]) => seenAt(noon, eid, ...spans);
const forgotten = (eid: string, before: number | null): LinkRow => ({
  ...{ attr: "seen", type: "net", eid, kind: "forgotten", before },
});

/** What every store holds of links: asked from both ends, at any instant. */
export function describeLinks(current: () => Store & Queries & Obituaries & Lifetimes): void {
  const own = async () => fencesOf(await current().acquire(nodeA, [shard1]));
  let number = 0;
  const write = (fences: readonly Fence[], ...links: LinkSegment[]) =>
    current().flush(nodeA, flushOf(fences, { order: { lane: 18, number: ++number }, links }));
  const rows = (...all: LinkRow[]): LinkSegment => ({ ...key, cleared: false, rows: all });
  const find = (change: Partial<LinksQuery> = {}) =>
    current().links({ ...key, reverse: false, at: 0, attributes: attributes(), after: null, limit: 99, ...change });
  const eidsAt = async (at: number, pre = 0, post = 0) =>
    (await find({ at, attributes: attributes(pre, post) })).map(({ eid }) => eid);

  it("tells what an entity links to, by attribute, type and eid", async () => {
    const fences = await own();
    await write(fences, rows(plain("b"), seen("c", [5, 9]), plain("a")));
    expect(await find({ at: 7 })).toEqual([
      { attr: "net", type: "net", eid: "a", span: null },
      { attr: "net", type: "net", eid: "b", span: null },
      { attr: "seen", type: "net", eid: "c", span: { from: 5, to: 9 } },
    ]);
    expect((await find({ at: 7, limit: 1 })).map(({ eid }) => eid)).toEqual(["a"]);
    expect((await find({ at: 7, after: { attr: "net", type: "net", eid: "a" } })).map(({ eid }) => eid)).toEqual([
      "b",
      "c",
    ]);
    expect(await find({ at: 7, attributes: [] })).toEqual([]);
  });

  it("tells who links to an entity, whatever shard they are in", async () => {
    const shards = [shard1, shard2, shard3];
    const fences = fencesOf(await current().acquire(nodeA, shards));
    const from = (eid: string, index: number, ...all: LinkRow[]): LinkSegment => {
      return { shard: shards[index] ?? shard1, type: "ip", eid, cleared: false, rows: all };
    };
    await write(
      fences,
      from("c", 0, plain("x"), plain("y")),
      from("a", 1, seen("x", [5, 9])),
      from("b", 2, plain("x")),
    );
    const to = { type: "net", eid: "x" };
    const who = { ...to, reverse: true, at: 7 };
    expect(await find(who)).toEqual([
      { attr: "net", type: "ip", eid: "b", span: null },
      { attr: "net", type: "ip", eid: "c", span: null },
      { attr: "seen", type: "ip", eid: "a", span: { from: 5, to: 9 } },
    ]);
    expect((await find({ ...who, at: 3 })).map(({ eid }) => eid)).toEqual(["b", "c"]);
    const after = { attr: "net", type: "ip", eid: "b" };
    expect((await find({ ...who, after, limit: 1 })).map(({ eid }) => eid)).toEqual(["c"]);
    expect(await find({ ...who, eid: "z" })).toEqual([]);
    expect((await current().referrers(to, null, 2)).map(({ eid }) => eid)).toEqual(["b", "c"]);
    expect(await current().referrers(to, { attr: "net", type: "ip", eid: "c" }, 2)).toEqual([
      { attr: "seen", type: "ip", eid: "a" },
    ]);
    await write(fences, { ...from("b", 2), cleared: true });
    expect((await find(who)).map(({ eid }) => eid)).toEqual(["c", "a"]);
  });

  it("tells an observed link from before t1 to after t2, without the ends of its validity", async () => {
    const fences = await own();
    await write(fences, rows(seen("a", [10 * minute, 20 * minute]), seen("b", [minute, minute])));
    const [pre, post] = [4 * minute, 10 * minute];
    expect(await eidsAt(10 * minute)).toEqual(["a"]);
    expect(await eidsAt(20 * minute + 1)).toEqual([]);
    expect(await eidsAt(6 * minute, pre, post)).toEqual(["b"]);
    expect(await eidsAt(6 * minute + 1, pre, post)).toEqual(["a", "b"]);
    expect(await eidsAt(11 * minute, pre, post)).toEqual(["a"]);
    expect(await eidsAt(30 * minute - 1, pre, post)).toEqual(["a"]);
    expect(await eidsAt(30 * minute, pre, post)).toEqual([]);
  });

  it("joins the times of a link, whatever their order, and closes the shortest gaps when there are too many", async () => {
    const fences = await own();
    await write(fences, rows(seen("a", [30, 40], [10, 20])));
    await write(fences, rows(seen("a", [15, 25], [26, 27])));
    expect(await find({ at: 12 })).toMatchObject([{ span: { from: 10, to: 27 } }]);
    expect(await find({ at: 29 })).toEqual([]);
    const many = Array.from({ length: linkSpansMax + 2 }, (_, i): [number, number] => [1000 * i, 1000 * i + 10]);
    await write(fences, rows(seen("b", ...many, [2500, 2600], [2700, 2800])));
    expect((await find({ at: 2650 })).map(({ eid }) => eid)).toEqual(["b"]);
    const found = await Promise.all(many.map(([from]) => find({ at: from + 5 })));
    expect(found.filter((one) => one.length === 1)).toHaveLength(many.length);
    const between = await Promise.all(many.map(([from]) => find({ at: from + 900 })));
    expect(between.filter((one) => one.length === 1).length).toBeLessThan(5);
  });

  it("forgets links that are gone, observed ones unless they were seen later, and all of an entity", async () => {
    const fences = await own();
    await write(fences, rows(plain("a"), plain("b"), seen("c", [1, 2]), seen("d", [1, 2])));
    await write(fences, rows(gone("a"), forgotten("c", noon), forgotten("d", noon), seenAt(noon + 1, "d", [5, 6])));
    expect(await eidsAt(1)).toEqual(["b"]);
    expect(await eidsAt(5)).toEqual(["b", "d"]);
    await write(fences, rows(forgotten("d", noon)));
    expect(await eidsAt(5)).toEqual(["b", "d"]);
    await write(fences, rows(forgotten("d", null)));
    expect(await eidsAt(5)).toEqual(["b"]);
    await write(
      fences,
      { ...key, cleared: true, rows: [plain("e")] },
      { ...key, eid: "10.0.0.2", cleared: false, rows: [plain("z")] },
    );
    expect(await eidsAt(5)).toEqual(["e"]);
  });

  it("keeps what was observed once more, as it was before, later than what is to be forgotten", async () => {
    const fences = await own();
    await write(fences, rows(seen("a", [1, 9])));
    await write(fences, rows(seenAt(noon + 2, "a", [3, 4])));
    await write(fences, rows(forgotten("a", noon + 1)));
    expect(await eidsAt(5)).toEqual(["a"]);
    await write(fences, rows(forgotten("a", noon + 2)));
    expect(await eidsAt(5)).toEqual([]);
  });

  it("takes a plain link where one was observed, and the other way round", async () => {
    const fences = await own();
    const other: LinkRow = { attr: "seen", type: "net", eid: "a", kind: "plain" };
    await write(fences, rows(seen("a", [5, 6])));
    await write(fences, rows(other));
    expect(await find({ at: 99 })).toMatchObject([{ eid: "a", span: null }]);
    await write(fences, rows(seen("a", [7, 8])));
    expect(await eidsAt(99)).toEqual([]);
    expect(await eidsAt(7)).toEqual(["a"]);
  });

  it("writes links of a flush that comes again once, of one that comes late not at all, of a lost shard none", async () => {
    const fences = await own();
    const flush = (order: number, eid: string, ...links: LinkRow[]) =>
      current().flush(nodeA, {
        ...flushOf(fences, { entities: [entityOf(eid, order)], links: [rows(...links)] }),
        order: { lane: 17, number: order },
      });
    await flush(1, "e", plain("a"));
    await flush(1, "e", plain("a"));
    await flush(2, "e", gone("a"), plain("b"));
    await flush(1, "e", plain("a"));
    expect(await eidsAt(0)).toEqual(["b"]);
    await current().acquire(nodeB, [shard1]);
    expect(await flush(3, "e", plain("c"))).toEqual({ lost: [shard1] });
    expect(await eidsAt(0)).toEqual(["b"]);
  });

  it("keeps an obituary with how far every log went, until it is buried", async () => {
    const fences = fencesOf(await current().acquire(nodeA, [shard1, shard2, shard3]));
    const append = (seq: number, shard: typeof shard1) =>
      current().append(nodeA, { fences, segments: [segmentOf(seq, ["a", "b"], { shard, at: noon + seq })] });
    await append(1, shard1);
    await append(1, shard2);
    const held = { seq: toSeq(2), lastSeq: toSeq(2), at: noon, hook: "h", place: "[]", task: "" };
    const flush = (change: Partial<FlushRequest>) =>
      current().flush(nodeA, flushOf(fences, { order: { lane: 18, number: ++number }, ...change }));
    const obituaries = [
      { shard: shard1, type: "ip", eid: "a", seq: toSeq(1) },
      { shard: shard1, type: "ip", eid: "b\u001e\u001f\u001d", seq: toSeq(2) },
      { shard: shard2, type: "net", eid: "c", seq: toSeq(1) },
    ];
    await flush({ obituaries, progress: [progressOf(2)] });
    await append(3, shard1);
    await flush({
      progress: [progressOf(2, { shard: shard2, delivered: toSeq(1) })],
      obligations: [{ shard: shard2, type: "ip", eid: "a", held, firstWaiting: null }],
    });
    const found = await current().obituaries([shard1, shard2, shard3], 9);
    expect(found.map(({ shard, seq, dead }) => ({ shard, seq, dead }))).toEqual([
      {
        ...{ shard: shard1, seq: 2 },
        dead: [
          { type: "ip", eid: "a" },
          { type: "ip", eid: "b\u001e\u001f\u001d" },
        ],
      },
      { shard: shard2, seq: 1, dead: [{ type: "net", eid: "c" }] },
    ]);
    for (const { places } of found) {
      expect([...places]).toContainEqual([shard1, { seq: 2, at: noon + 1 }]);
      expect([...places]).toContainEqual([shard2, { seq: 2, at: noon + 1 }]);
    }
    const places = await current().places();
    expect(places.find(({ shard }) => shard === shard1)).toMatchObject({
      seq: 4,
      at: noon + 3,
      settled: 2,
      delivered: 2,
    });
    // What an entity owes below the watermark is not settled.
    expect(places.find(({ shard }) => shard === shard2)).toMatchObject({ seq: 2, settled: 1, delivered: 1 });
    expect(places.find(({ shard }) => shard === shard3)).toMatchObject({ seq: 0, settled: 0, delivered: 0 });
    await current().bury({ shard: shard1, seq: toSeq(2) });
    expect((await current().obituaries([shard1, shard2], 9)).map(({ shard }) => shard)).toEqual([shard2]);
    expect(await current().obituaries([shard1], 9)).toEqual([]);
    await current().acquire(nodeB, [shard1]);
    expect(await flush({ obituaries })).toEqual({ lost: [shard1] });
    expect(await current().obituaries([shard1], 9)).toEqual([]);
  });

  it("names those whose lifetimes are to be looked at, in the order of their times", async () => {
    const fences = fencesOf(await current().acquire(nodeA, [shard1, shard2]));
    const flush = (looks: FlushRequest["looks"]) =>
      current().flush(nodeA, flushOf(fences, { order: { lane: 18, number: ++number }, ...(looks && { looks }) }));
    const look = (eid: string, at: number | null, shard = shard1) => ({ shard, type: "ip", eid, at });
    const odd = "b\u001e\u001f";
    await flush([look("c", 5), look(odd, 5.5), look("a", 5, shard2), look("late", 99), look("far", 1e300)]);
    const found = (by: number, shards = [shard1, shard2]) => current().toLookAt(shards, by, null, 9);
    const eids = (looks: readonly { readonly eid: string }[]) => looks.map(({ eid }) => eid);
    expect(eids(await found(5))).toEqual(["c", "a"]);
    expect(eids(await found(6))).toEqual(["c", "a", odd]);
    expect(eids(await found(6, [shard2]))).toEqual(["a"]);
    const [first] = await found(6);
    expect(eids(await current().toLookAt([shard1, shard2], 6, first ?? null, 1))).toEqual(["a"]);
    await flush([look("c", 7), look("a", null, shard2)]);
    expect(eids(await found(6))).toEqual([odd]);
    expect(eids(await found(99))).toEqual([odd, "c", "late"]);
  });

  it("names the entities of a type in shards, by eid, without those that are deleted", async () => {
    const fences = fencesOf(await current().acquire(nodeA, [shard1, shard2]));
    const entities = [
      ...[entityOf("b\u001e\u001f", 1), entityOf("C", 1), entityOf("gone", 1, { tombstone: true })],
      ...[entityOf("a", 1, { shard: shard2 }), entityOf("other", 1, { type: "net" })],
    ];
    await current().flush(nodeA, flushOf(fences, { order: { lane: 18, number: ++number }, entities }));
    const found = async (change: object = {}) =>
      current().inhabitants({ shards: [shard1, shard2, shard3], type: "ip", after: "", limit: 9, ...change });
    const eids = async (change?: object) => (await found(change)).map(({ eid }) => eid);
    expect(await found()).toEqual([
      { shard: shard1, type: "ip", eid: "C" },
      { shard: shard2, type: "ip", eid: "a" },
      { shard: shard1, type: "ip", eid: "b\u001e\u001f" },
    ]);
    expect(await eids({ after: "C", limit: 1 })).toEqual(["a"]);
    expect(await eids({ shards: [shard1] })).toEqual(["C", "b\u001e\u001f"]);
    expect(await eids({ shards: [] })).toEqual([]);
  });

  it("tells who is linked to, by links that hold or will, over the attributes that count", async () => {
    const fences = await own();
    const odd = "a\u001eb\u001f\u001d,{}\"'\\\t\n☃";
    await write(
      fences,
      rows(plain(odd), plain("p"), seen("s", [0, minute], [5 * minute, 6 * minute]), seen("late", [9, 9])),
    );
    await write(fences, { ...key, eid: "2", cleared: false, rows: [plain("p")] });
    const query = { type: "net", eids: [odd, "none", "p", "s", "late"], at: 16 * minute, attributes: attributes() };
    const referred = async (change: object = {}) => (await current().referred({ ...query, ...change })).sort();
    expect(await referred()).toEqual([odd, "p"]);
    expect(await referred({ attributes: attributes(0, 10 * minute + 1) })).toEqual([odd, "p", "s"]);
    expect(await referred({ attributes: attributes(0, 10 * minute) })).toEqual([odd, "p"]);
    expect(await referred({ at: 3 * minute })).toEqual([odd, "p", "s"]);
    expect(await referred({ eids: ["none", "p"] })).toEqual(["p"]);
    expect(await referred({ eids: [] })).toEqual([]);
    expect(await referred({ type: "ip" })).toEqual([]);
    expect(await referred({ at: 0, attributes: attributes().slice(1, 2) })).toEqual(["late", "s"]);
  });

  it("takes ids with any character", async () => {
    const fences = await own();
    const odd = "a\u001eb\u001f\u001d,{}\"'\\\t\n☃";
    await write(fences, { ...key, eid: odd, cleared: false, rows: [plain(odd)] });
    expect(await find({ eid: odd })).toMatchObject([{ eid: odd }]);
  });
}

function attributes(preValidityMs = 0, postValidityMs = 0) {
  const rule = { preValidityMs, postValidityMs };
  return [
    { type: "ip", attr: "net", ...rule },
    { type: "ip", attr: "seen", ...rule },
    { type: "net", attr: "net", ...rule },
  ];
}
