import { expect, it } from "vitest";
import type { Fence, FlushRequest, HistorySegment, Queries, Store, StoredEntity } from "../../../actors/store/store.ts";
import type { StoredImage, TickPageRequest, TickPlace } from "../../../actors/store/tick.ts";
import { toSeq } from "../../../proto/ids.ts";
import { entityOf, fencesOf, flushOf, nodeA, nodeB, noon, progressOf, shard1, shard2 } from "./samples.ts";

function imageOf(eid: string, applied: number, change: Partial<StoredImage> = {}): StoredImage {
  const { state, ...rest } = entityOf(eid, applied);
  const { shard, type, created, createdAt } = rest;
  return { shard, type, eid, created, createdAt, applied: toSeq(applied), tick: 1, state, ...change };
}

function rowOf(eid: string, seq: number): HistorySegment {
  return { shard: shard1, type: "ip", eid, seq: toSeq(seq), body: `one\t\t${seq}\t${seq}\t1\t"${eid}"` };
}

const gone = (eid: string, applied: number): StoredEntity => entityOf(eid, applied, { tombstone: true, state: "{}" });
const everything: TickPageRequest = { shard: shard1, tick: 1, after: null, limit: 100, maxBytes: 1e9 };

/** What every store holds of ticks: a page gives entities as they were at the mark of their shard. */
export function describeTicks(current: () => Store & Queries): void {
  const own = async () => fencesOf(await current().acquire(nodeA, [shard1, shard2]));
  const flush = (fences: readonly Fence[], change: Partial<FlushRequest>) =>
    current().flush(nodeA, flushOf(fences, change));
  const read = async (change: Partial<TickPageRequest> = {}) =>
    current().readTickPage({ ...everything, ...change }, () => []);
  const brief = async (change: Partial<TickPageRequest> = {}) => {
    const { records, last } = await read(change);
    const texts = records.map(({ eid, state, rows }) => `${eid} ${state} ${rows.map(({ seq }) => seq).join()}`);
    return [...texts, last === null ? "end" : `to ${last.eid}`];
  };

  it("shows an entity without image as it stands, and with one as it was", async () => {
    const fences = await own();
    const entities = ["a", "b", "c"].map((eid) => entityOf(eid, 3));
    await flush(fences, { entities, history: [rowOf("a", 2), rowOf("b", 3)] });
    const marks = [{ shard: shard1, tick: 1, seq: toSeq(5) }];
    await flush(fences, {
      ...{ entities: [entityOf("b", 7), entityOf("new", 8)], history: [rowOf("b", 7), rowOf("new", 8)], marks },
      images: [imageOf("b", 3), imageOf("new", 0, { state: null, created: toSeq(0), createdAt: 0 })],
    });
    expect(await brief()).toEqual(['a {"applied":3} 2', 'b {"applied":3} 3', 'c {"applied":3} ', "end"]);
    const { records } = await read();
    expect(records[1]).toEqual({
      ...{ shard: shard1, type: "ip", eid: "b", created: 1, createdAt: noon, applied: 3, state: '{"applied":3}' },
      ...{ rows: [rowOf("b", 3)], pages: [] },
    });
    expect(await brief({ after: { eid: "new", type: "ip" } })).toEqual(["end"]);
  });

  it("shows what was deleted since with the history that it had, and its next life as absent", async () => {
    const fences = await own();
    await flush(fences, { entities: [entityOf("a", 3), entityOf("old", 2)], history: [rowOf("a", 3)] });
    await flush(fences, { entities: [gone("old", 4)], progress: [progressOf(4)] });
    await flush(fences, { entities: [gone("a", 7)], images: [imageOf("a", 3)], progress: [progressOf(7)] });
    expect(await brief()).toEqual(['a {"applied":3} 3', "end"]);
    const born = { entities: [entityOf("a", 9), entityOf("old", 9)], history: [rowOf("a", 9)] };
    await flush(fences, { ...born, images: [imageOf("a", 7, { state: null }), imageOf("old", 4, { state: null })] });
    await flush(fences, { entities: [gone("a", 11)], progress: [progressOf(11)] });
    expect(await brief()).toEqual(['a {"applied":3} 3', "end"]);
  });

  it("keeps the first image of a tick, whoever writes another one, and those of other ticks apart", async () => {
    const fences = await own();
    await flush(fences, { entities: [entityOf("a", 5)], images: [imageOf("a", 3)] });
    await flush(fences, { entities: [entityOf("a", 6)], images: [imageOf("a", 5)] });
    await flush(fences, { entities: [entityOf("a", 9)], images: [imageOf("a", 6, { tick: 2 })] });
    expect(await brief()).toEqual(['a {"applied":3} ', "end"]);
    expect(await brief({ tick: 2 })).toEqual(['a {"applied":6} ', "end"]);
    expect(await brief({ tick: 3 })).toEqual(['a {"applied":9} ', "end"]);
  });

  it("puts large values in their places", async () => {
    const fences = await own();
    const state = '{"#large":{"b":{"t1":1}},"a":{"v":1}}';
    const body = JSON.stringify("\u001elong".repeat(1000));
    await flush(fences, { entities: [entityOf("e", 2, { state, large: [{ attr: "b", body }] }), entityOf("f", 2)] });
    const { records } = await read();
    expect(records.map((record) => record.state)).toEqual([`{"b":{"v":${body},"t1":1},"a":{"v":1}}`, '{"applied":2}']);
  });

  it("comes page by page in the order of UTF-8, within a number and within bytes", async () => {
    const fences = await own();
    // In UTF-16 the last two stand the other way round.
    const eids = ["", "A\u001fb", "a", "ä", "\uffee", "😀"];
    const [first = "", ...others] = eids;
    const entities = others.map((eid) => entityOf(eid, 1));
    const twin = entityOf("a", 1, { type: "host" });
    await flush(fences, { entities: [...entities.reverse(), entityOf(first, 1), twin], images: [imageOf("a", 1)] });
    const places: string[] = [];
    for (let after: TickPlace | null = null; ; ) {
      const { records, last }: Awaited<ReturnType<typeof read>> = await read({ after, limit: 2 });
      places.push(...records.map(({ eid, type }) => `${eid} ${type}`));
      if (last === null) break;
      after = last;
    }
    const wanted = eids.flatMap((eid) => (eid === "a" ? ["a host", "a ip"] : [`${eid} ip`]));
    expect(places).toEqual(wanted);
    // 13 bytes each.
    const some = await read({ maxBytes: 30 });
    expect(some.records).toHaveLength(2);
    expect(some.last).toEqual({ eid: "A\u001fb", type: "ip" });
    expect((await read({ maxBytes: 1 })).records).toHaveLength(1);
  });

  it("shows of a list what is on it, and says what of it was not there", async () => {
    const fences = await own();
    const entities = ["a", "b", "c", "d", "since"].map((eid) => entityOf(eid, 3));
    await flush(fences, { entities: [...entities, gone("e", 3)], history: [rowOf("b", 2)] });
    const images = [imageOf("d", 2), imageOf("since", 0, { state: null })];
    await flush(fences, { entities: [entityOf("d", 5), entityOf("since", 5)], images });
    const listed = ["b", "d", "e", "nobody", "since"].map((eid) => ({ eid, type: "ip" }));
    expect(await brief({ listed })).toEqual(['b {"applied":3} 2', 'd {"applied":2} ', "end"]);
    const { absent } = await read({ listed });
    expect(absent.map(({ eid }) => eid)).toEqual(["e", "nobody", "since"]);
    expect(await brief({ listed: listed.slice(0, 2), limit: 2 })).toEqual([
      'b {"applied":3} 2',
      'd {"applied":2} ',
      "to d",
    ]);
    expect(await brief({ listed, maxBytes: 1 })).toEqual(['b {"applied":3} 2', "to b"]);
    expect(await brief({ listed: [] })).toEqual(["end"]);
  });

  it("tells pages of several shards apart that are asked for at once", async () => {
    const fences = await own();
    const there = (eid: string) => ({ ...entityOf(eid, 1), shard: shard2 });
    await flush(fences, { entities: [...["a", "b", "c"].map((eid) => entityOf(eid, 1)), ...["a", "z"].map(there)] });
    const found = await Promise.all([
      ...[brief({ limit: 2 }), brief({ shard: shard2 }), brief({ shard: shard2, after: { eid: "a", type: "ip" } })],
      ...Array.from({ length: 20 }, () => brief({ tick: 2, after: { eid: "b", type: "ip" } })),
    ]);
    const one = (eid: string) => `${eid} {"applied":1} `;
    expect(found.slice(0, 3)).toEqual([
      [one("a"), one("b"), "to b"],
      [one("a"), one("z"), "end"],
      [one("z"), "end"],
    ]);
    for (const page of found.slice(3)) expect(page).toEqual([one("c"), "end"]);
  });

  it("tells the next owner the newest mark, which is written once", async () => {
    const fences = await own();
    const mark = (tick: number, seq: number) => [{ shard: shard1, tick, seq: toSeq(seq) }];
    await flush(fences, { marks: mark(1, 5) });
    await flush(fences, { marks: mark(1, 6) });
    const [first, other] = await current().acquire(nodeA, [shard1, shard2]);
    expect([first?.mark, other?.mark]).toEqual([{ tick: 1, seq: 5, passed: null, visited: false }, null]);
    await flush(fencesOf(first ? [first] : []), { marks: mark(2, 9) });
    const [next] = await current().acquire(nodeB, [shard1]);
    expect(next?.mark).toEqual({ tick: 2, seq: 9, passed: null, visited: false });
  });

  it("writes nothing of a shard that is lost", async () => {
    const fences = await own();
    await flush(fences, { entities: [entityOf("a", 3)] });
    await current().acquire(nodeB, [shard1]);
    const marks = [{ shard: shard1, tick: 1, seq: toSeq(4) }];
    const late = { entities: [entityOf("a", 5)], images: [imageOf("a", 4)], marks };
    expect(await flush(fences, late)).toEqual({ lost: [shard1] });
    expect(await brief()).toEqual(['a {"applied":3} ', "end"]);
    const [next] = await current().acquire(nodeA, [shard1]);
    expect(next?.mark).toBeNull();
  });

  it("writes nothing of a flush that comes after a later one of its lane", async () => {
    const fences = await own();
    const late = { order: { lane: 7, number: 1 }, images: [imageOf("a", 3)], entities: [entityOf("a", 5)] };
    await flush(fences, { order: { lane: 7, number: 2 }, entities: [entityOf("a", 9)], images: [imageOf("a", 4)] });
    await flush(fences, late);
    expect(await brief()).toEqual(['a {"applied":4} ', "end"]);
  });
}
