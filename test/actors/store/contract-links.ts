import { expect, it } from "vitest";
import { linkSpansMax } from "../../../actors/store/link.ts";
import type { Fence, LinkRow, LinkSegment, LinksQuery, Queries, Store } from "../../../actors/store/store.ts";
import { entityOf, fencesOf, flushOf, nodeA, nodeB, progressOf, shard1 } from "./samples.ts";

const minute = 60_000;
const key = { shard: shard1, type: "ip", eid: "10.0.0.1" };

const plain = (eid: string, reverse = false): LinkRow => ({ reverse, attr: "net", type: "net", eid, kind: "plain" });
const gone = (eid: string, attr = "net"): LinkRow => ({ reverse: false, attr, type: "net", eid, kind: "gone" });
const seen = (eid: string, ...spans: readonly (readonly [number, number])[]): LinkRow => ({
  ...{ reverse: false, attr: "seen", type: "net", eid, kind: "observed", fresh: false },
  spans: spans.map(([from, to]) => ({ from, to })),
});

/** What every store holds of links: both ends, at any instant. */
export function describeLinks(current: () => Store & Queries): void {
  const own = async () => fencesOf(await current().acquire(nodeA, [shard1]));
  let number = 0;
  const write = (fences: readonly Fence[], ...links: LinkSegment[]) =>
    current().flush(nodeA, flushOf(fences, { order: { lane: 18, number: ++number }, links }));
  const rows = (...all: LinkRow[]): LinkSegment => ({ ...key, cleared: false, rows: all });
  const find = (change: Partial<LinksQuery> = {}) =>
    current().links({ ...key, reverse: false, at: 0, attributes: attributes(), after: null, limit: 99, ...change });
  const eidsAt = async (at: number, pre = 0, post = 0) =>
    (await find({ at, attributes: attributes(pre, post) })).map(({ eid }) => eid);

  it("tells what an entity links to and who links to it, by attribute, type and eid", async () => {
    const fences = await own();
    await write(fences, rows(plain("b"), seen("c", [5, 9]), plain("a"), { ...plain("x", true), type: "ip" }));
    expect(await find({ at: 7 })).toEqual([
      { reverse: false, attr: "net", type: "net", eid: "a", span: null },
      { reverse: false, attr: "net", type: "net", eid: "b", span: null },
      { reverse: false, attr: "seen", type: "net", eid: "c", span: { from: 5, to: 9 } },
    ]);
    expect((await find({ reverse: true })).map(({ eid }) => eid)).toEqual(["x"]);
    expect((await find({ at: 7, limit: 1 })).map(({ eid }) => eid)).toEqual(["a"]);
    expect((await find({ at: 7, after: { attr: "net", type: "net", eid: "a" } })).map(({ eid }) => eid)).toEqual([
      "b",
      "c",
    ]);
    expect(await find({ at: 7, attributes: [] })).toEqual([]);
    expect((await current().readLinks(key, 1, 2)).map(({ eid }) => eid)).toEqual(["b", "c"]);
    expect((await current().readLinks(key, 3, 9)).map(({ eid }) => eid)).toEqual(["x"]);
    expect(await current().readLinks({ ...key, eid: "10.0.0.2" }, 0, 9)).toEqual([]);
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

  it("forgets links that are gone, the times before a fresh one, and all of an entity", async () => {
    const fences = await own();
    await write(fences, rows(plain("a"), plain("b"), seen("c", [1, 2]), seen("d", [1, 2])));
    await write(fences, rows(gone("a"), gone("c", "seen"), { ...seen("d", [5, 6]), fresh: true } as LinkRow));
    expect(await eidsAt(1)).toEqual(["b"]);
    expect(await eidsAt(5)).toEqual(["b", "d"]);
    await write(
      fences,
      { ...key, cleared: true, rows: [plain("e")] },
      { ...key, eid: "10.0.0.2", cleared: false, rows: [plain("z")] },
    );
    expect(await eidsAt(5)).toEqual(["e"]);
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

  it("keeps the links to an entity that does not exist, also when nothing else is left of it", async () => {
    const fences = await own();
    const stub = entityOf("10.0.0.1", 4, { state: "{}", tombstone: true });
    const progress = [progressOf(4)];
    await current().flush(nodeA, flushOf(fences, { entities: [stub], progress, links: [rows(plain("a", true))] }));
    expect(await current().load([stub])).toEqual([]);
    expect((await find({ reverse: true })).map(({ eid }) => eid)).toEqual(["a"]);
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
