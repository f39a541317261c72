import { expect, it } from "vitest";
import type { Queries, Store } from "../../../actors/store/store.ts";
import { type SessionId, type ShardId, toSeq, toSessionId } from "../../../proto/ids.ts";
import { entityOf, fencesOf, flushOf, letterOf, newestRows, nodeA, segmentOf, shard1, shard2 } from "./samples.ts";

/** The part of the contract that is about sessions and questions. */
export function describeQueries(current: () => Store & Queries): void {
  const own = async (...shards: ShardId[]) => fencesOf(await current().acquire(nodeA, shards));

  it("opens a session once, counts its openings, and keeps it closed", async () => {
    const store = current();
    const session = toSessionId("s-1");
    const open = (id: SessionId, named: boolean) => store.openSession(id, { named, holder: null, begins: named });
    const stored = { session, named: true, number: 1 };
    expect(await open(session, true)).toEqual({ ...stored, closed: false, opening: 1 });
    expect(await open(session, false)).toEqual({ ...stored, closed: false, opening: 2 });
    await store.useSession(session);
    await store.closeSession(session);
    expect(await open(session, true)).toEqual({ ...stored, closed: true, opening: 3 });
    await store.closeSession(toSessionId("never opened"));
    expect((await open(toSessionId("never opened"), false)).closed).toBe(true);
    await open(toSessionId("s-2, s-3"), true);
    const ids = ["s-2, s-3", "s-1", "unknown", "never opened"].map(toSessionId);
    expect((await store.findClosed(ids)).toSorted()).toEqual(["never opened", "s-1"]);
    expect(await store.findClosed([])).toEqual([]);
  });

  it("knows no session that did not begin", async () => {
    const open = (begins: boolean) =>
      current().openSession(toSessionId("drawn:1"), { named: false, holder: null, begins });
    await expect(open(false)).rejects.toMatchObject({
      code: "SESSION_CLOSED",
      message: "session drawn:1 was closed, or nobody used it for a week: begin another one",
    });
    expect((await open(true)).opening).toBe(1);
    expect((await open(false)).opening).toBe(2);
  });

  it("keeps the hash of an idempotency key's batch, and its number", async () => {
    const open = (key: string, hash?: string) =>
      current().openSession(toSessionId(key), { named: true, holder: null, begins: true, ...(hash && { hash }) });
    const first = await open("key:k", "h1");
    expect(await open("key:k", "h1")).toEqual({ ...first, opening: 2 });
    await expect(open("key:k", "h2")).rejects.toMatchObject({
      code: "BATCH_CHANGED",
      message: "the idempotency key k came back with other content",
    });
    // Nothing of it was changed.
    expect(await open("key:k", "h1")).toEqual({ ...first, opening: 3 });
    // One that an older node began.
    await open("key:old");
    expect(await open("key:old", "h1")).toMatchObject({ number: 1 });
    expect(await open("key:old", "h2")).toMatchObject({ number: 1 });
  });

  it("keeps a session for who began it, and lets anybody in where there are no holders", async () => {
    const store = current();
    const session = toSessionId("s-held");
    const open = async (holder: string | null) =>
      (await store.openSession(session, { named: true, holder, begins: true })).opening;
    expect(await open(null)).toBe(1);
    expect(await open("sensors")).toBe(2);
    await expect(open("others")).rejects.toMatchObject({
      code: "PERMISSION_DENIED",
      message: "session s-held was begun under another token: use that one, or another name",
    });
    expect(await open(null)).toBe(3);
    expect(await open("sensors")).toBe(4);
  });

  it("lists entities in pages, by eid", async () => {
    const store = current();
    const fences = await own(shard1, shard2);
    const entities = ["b", "a", "ä", "Z"].map((eid, i) => entityOf(eid, 1, { shard: i % 2 === 0 ? shard1 : shard2 }));
    await store.flush(nodeA, flushOf(fences, { entities: [...entities, entityOf("x", 1, { type: "other" })] }));
    const page = async (after: string) => (await store.list({ type: "ip", after, limit: 2 })).map(({ eid }) => eid);
    expect(await page("")).toEqual(["Z", "a"]);
    expect(await page("a")).toEqual(["b", "ä"]);
    expect(await store.count(null)).toEqual(
      new Map([
        ["ip", 4],
        ["other", 1],
      ]),
    );
    expect(await store.count("other")).toEqual(new Map([["other", 1]]));
  });

  it("shows raw datapoints newest first, without refused tasks, foreign entities and other lines", async () => {
    const store = current();
    const fences = await own(shard1);
    const body = [
      "d\tip\ta\\tb\tport\tsrc \\\\n\\n\\x1f\t1000\t2000\t0.5\t[1]",
      '+\tip\ta\\tb\tname\t\\e\t\t\t1\t"x\\ty"',
      "x\tip\ta\\tb",
      'd\tip\ta\\tb\tport\t\t\t\t1\t"refused"',
      '+\tip\ta\\tb\tport\t\t\t\t1\t"refused too"',
      "t\tip\ta\\tb\t{}",
      "+\tip\ta\\tb\tport\t\t\t\t1\t3",
      "n",
      "d\tip\tother\tport\t\t\t\t1\t4",
    ].join("\n");
    const keys = segmentOf(1, ["a\tb", "other"]).keys;
    const large =
      segmentOf(
        1,
        Array.from({ length: 40 }, (_, i) => `other ${i}`),
      ).keys + segmentOf(1, ["a\tb"]).keys;
    const segments = [
      segmentOf(1, [], { lastSeq: toSeq(9), body, keys }),
      segmentOf(10, [], { body: "d\tip\ta\\tb\tport\t\t\t\t1\t5", keys: large }),
      segmentOf(11, ["other"]),
    ];
    await store.append(nodeA, { fences, segments });
    await store.flush(nodeA, flushOf(fences, { refused: [{ shard: shard1, type: "ip", eid: "a\tb", seq: toSeq(4) }] }));
    const raw = (attr: string | null, limit: number) =>
      store.raw({ shard: shard1, type: "ip", eid: "a\tb", attr, limit });
    const rows = await raw(null, 10);
    expect(rows.map(({ seq, json }) => [seq, json])).toEqual([
      [10, "5"],
      [7, "3"],
      [2, '"x\\ty"'],
      [1, "[1]"],
    ]);
    expect(rows[3]).toMatchObject({
      eid: "a\tb",
      src: "src \\n\n\x1f",
      t1: 1000,
      t2: 2000,
      c: 0.5,
      at: segments[0]?.at,
    });
    expect(rows[2]).toMatchObject({ src: "", t1: null, t2: null, c: 1, attr: "name" });
    expect(rows[0]).toMatchObject({ src: null });
    expect((await raw("port", 2)).map(({ seq }) => seq)).toEqual([10, 7]);
  });

  it("keeps history, newest first", async () => {
    const store = current();
    const fences = await own(shard1);
    const history = [3, 9, 5].map((seq) => ({ shard: shard1, type: "ip", eid: "a", seq: toSeq(seq), body: `${seq}` }));
    await store.flush(nodeA, flushOf(fences, { history }));
    await store.flush(nodeA, flushOf(fences, { history }));
    expect((await newestRows(store, entityOf("a", 0), 2)).map(({ seq }) => seq)).toEqual([9, 5]);
  });

  it("keeps a dead letter once, lists, discards and replays it", async () => {
    const store = current();
    const fences = await own(shard1);
    const deadLetters = [letterOf(5), letterOf(5, { hook: "other" }), letterOf(6)];
    await store.flush(nodeA, flushOf(fences, { deadLetters }));
    await store.flush(nodeA, flushOf(fences, { deadLetters: [letterOf(5, { error: "again" })] }));
    const ids = async (after: string, status: "open" | null) =>
      (await store.deadLetters({ after, limit: 2, status })).map(({ id }) => id);
    expect(await ids("", null)).toEqual(["1-5-1", "1-5-2"]);
    expect(await ids("1-5-2", null)).toEqual(["1-6-1"]);
    expect(await store.deadLetter("1-5-1")).toEqual({ ...letterOf(5), id: "1-5-1", status: "open" });
    expect(await store.deadLetter("1-9-1")).toBeNull();
    expect([...(await store.countDeadLetters())]).toEqual([[shard1, 3]]);
    expect((await store.discardDeadLetter("1-5-1"))?.status).toBe("discarded");
    expect(await ids("", "open")).toEqual(["1-5-2", "1-6-1"]);
    const closings = [{ shard: shard1, id: "1-6-1", status: "replayed" as const }];
    const request = { fences, segments: [segmentOf(7, ["a"])], closings };
    await store.append(nodeA, request);
    expect((await store.deadLetter("1-6-1"))?.status).toBe("replayed");
    expect((await store.discardDeadLetter("1-6-1"))?.status).toBe("replayed");
    expect(await store.append(nodeA, request)).toEqual({ lost: [] });
    const twice = store.append(nodeA, { ...request, segments: [segmentOf(8, ["a"])] });
    await expect(twice).rejects.toMatchObject({ code: "STORE_REFUSED" });
    expect(await store.readLog(shard1, toSeq(7), 10)).toEqual([]);
    expect([...(await store.countDeadLetters())]).toEqual([[shard1, 1]]);
  });
}
