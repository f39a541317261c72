import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { RawRow } from "../../../actors/store/store.ts";
import { toEpoch, toSeq } from "../../../proto/ids.ts";
import { type ErrorCode, StarlingError } from "../../../proto/starling-error.ts";
import { a, b, c, createNet, eidIn, owned, PeerWorld, recordOf, row, s } from "./peer-world.ts";

let world: PeerWorld;

beforeEach(() => {
  world = new PeerWorld();
});

afterEach(() => expect(world.stop(), "timers that outlive their router").toBe(0));

describe("a read", () => {
  const eid = eidIn(1);

  it("comes from the owner, here and over the link, as the same record", async () => {
    const [one, two] = world.trio();
    two.local.records.set(eid, recordOf(eid, '{"seen":{"v":1152921504606846977,"t1":5.5,"t2":6,"c":0.5,"n":3}}'));
    const [there, here] = [
      await world.within(one.router.get("host", eid, null)),
      await two.router.get("host", eid, null),
    ];
    expect(there?.view.latest("seen")).toEqual({ v: 2n ** 60n + 1n, t1: 5.5, t2: 6, c: 0.5, count: 3 });
    expect(there?.view.latest("seen")).toEqual(here?.view.latest("seen"));
    expect(there?.view.attributes()).toEqual(["seen"]);
    expect(there).toMatchObject({
      createdAt: 11,
      place: here?.place,
      ttlTokens: { t: 9 },
      view: { type: "host", eid },
    });
    expect(await world.within(one.router.get("host", eidIn(1, 2), null))).toBeNull();
  });

  it("restores long texts and nested values", async () => {
    const [one, two] = world.trio();
    const note = `${"x".repeat(5_000)} "},\\ ü`;
    const state = `{"note":{"v":${JSON.stringify(note)},"t1":1,"t2":1,"c":1,"n":1},"free":{"v":{"k":[1,{"z":"}"}]},"t1":1,"t2":1,"c":1,"n":1}}`;
    two.local.records.set(eid, recordOf(eid, state));
    const record = await world.within(one.router.get("host", eid, null));
    expect(record?.view.value("note")).toBe(note);
    expect(record?.view.value("free")).toEqual({ k: [1, { z: "}" }] });
  });

  it("with a token says BEHIND when its owner does, and passes the token as it is", async () => {
    const [one, two] = world.trio();
    two.local.getProblem = new StarlingError("BEHIND", "not yet");
    const token = { shard: s(1), epoch: toEpoch(4), seq: toSeq(2 ** 35) };
    await expect(world.within(one.router.get("host", eid, token))).rejects.toMatchObject({
      code: "BEHIND",
      message: "not yet",
    });
    expect(two.local.tokens).toEqual([token]);
  });

  it("finds the shard at its new owner", async () => {
    const [one, two, three] = world.trio();
    two.local.lose(1);
    const reading = one.router.get("host", eid, null);
    await world.settle();
    three.local.take(1);
    three.local.records.set(eid, recordOf(eid, "{}"));
    two.owners.learn([{ shard: s(1), epoch: toEpoch(2), owner: c }]);
    expect(await world.within(reading)).toMatchObject({ createdAt: 11 });
  });

  it("ends with a code in its time when there is no owner, or none that answers", async () => {
    const [one, two] = world.trio();
    one.owners.learn([{ shard: s(1), epoch: toEpoch(9), owner: null }]);
    await expect(world.within(one.router.get("host", eid, null))).rejects.toMatchObject({ code: "UNAVAILABLE" });
    one.owners.learn([{ shard: s(1), epoch: toEpoch(10), owner: b }]);
    two.local.getProblem = "silence";
    await expect(world.within(one.router.get("host", eid, null))).rejects.toMatchObject({ code: "DEADLINE" });
    // At the owner's own node as well.
    await expect(world.within(two.router.get("host", eid, null))).rejects.toMatchObject({ code: "DEADLINE" });
  });

  it("of an unknown type is refused at once", async () => {
    const [one] = world.trio();
    await expect(one.router.get("nothing", eid, null)).rejects.toMatchObject({ code: "UNKNOWN_TYPE" });
  });
});

describe("a dead letter", () => {
  it("is replayed by the owner of its shard; what it was asked is not asked again when the link breaks", async () => {
    const [one, two] = world.trio();
    expect(await world.within(one.router.replayDeadLetter(`${s(1)}-5-0`))).toMatchObject({ id: `${s(1)}-5-0` });
    two.local.letterProblem = "silence";
    const lost = one.router.replayDeadLetter(`${s(1)}-6-0`);
    const ended = expect(world.within(lost)).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await world.settle();
    world.net.down(a, b);
    world.net.up(a, b);
    await ended;
    expect(two.local.letters).toEqual([`${s(1)}-5-0`, `${s(1)}-6-0`]);
    await expect(one.router.replayDeadLetter("nonsense")).rejects.toMatchObject({ code: "NOT_FOUND" });
  });
});

describe("a follow", () => {
  const filter = { type: "host", eid: null, attr: null };

  it("brings the rows of all nodes, and ends with its signal", async () => {
    const { all, stop, rows, ended } = followAll();
    await world.settle();
    for (const [index, { local }] of all.entries()) local.publish([row(index, 1), row(index, 2)]);
    await world.settle();
    expect(rows.map(({ shard, seq }) => `${shard}/${seq}`).sort()).toEqual(["0/1", "0/2", "1/1", "1/2", "2/1", "2/2"]);
    stop.abort();
    await world.settle();
    expect(await ended).toBe("end");
    expect(all.map(({ local }) => local.followers)).toEqual([0, 0, 0]);
  });

  it("says that a shard moved, or that a link broke, instead of losing rows", async () => {
    const first = followAll();
    await world.settle();
    first.one.owners.learn([{ shard: s(2), epoch: toEpoch(2), owner: b }]);
    expect(await world.within(first.ended)).toBe("UNAVAILABLE");
    await world.settle();
    expect(first.all.map(({ local }) => local.followers)).toEqual([0, 0, 0]);
    for (const { router } of first.all) router.stop();
    world.net = createNet(world.clock);
    const second = followAll();
    await world.settle();
    world.net.down(a, b);
    expect(await world.within(second.ended)).toBe("UNAVAILABLE");
    await world.settle();
    expect(second.all[1].local.followers).toBe(0);
  });

  it("ends also when only the serving node knows that its shard went", async () => {
    const { ended, all } = followAll();
    await world.settle();
    all[1].local.lose(1);
    expect(await world.within(ended)).toBe("UNAVAILABLE");
  });

  it("of a reader that does not read is cut with BUSY", async () => {
    const [one, two] = world.trio({}, "all");
    const rows = one.router.follow(filter, new AbortController().signal)[Symbol.asyncIterator]();
    const first = rows.next();
    await world.settle();
    two.local.publish([row(1, 1)]);
    await world.settle();
    await first;
    two.local.publish(Array.from({ length: 10_002 }, (_, index) => row(1, index + 2)));
    await world.clock.advance(50);
    await expect(world.within(rows.next())).rejects.toMatchObject({ code: "BUSY" });
  });

  function followAll() {
    const all = world.trio(undefined, "all");
    const [one] = all;
    const rows: RawRow[] = [];
    const stop = new AbortController();
    const read = async (): Promise<ErrorCode | "end"> => {
      try {
        for await (const each of one.router.follow(filter, stop.signal)) rows.push(each);
        return "end";
      } catch (error) {
        return (error as StarlingError).code;
      }
    };
    return { all, one, rows, stop, ended: read() };
  }
});

describe("what nodes tell one another", () => {
  it("owners are announced, and told to a node that comes up", async () => {
    const one = world.start(a, [0]);
    const two = world.start(b, [1]);
    one.owners.learn([owned(0, a)]);
    world.net.up(a, b);
    await world.settle();
    expect(two.owners.ownerOf(s(0))).toBe(a);
    one.router.announce([{ shard: s(0), epoch: toEpoch(1), owner: null }]);
    await world.settle();
    expect(two.owners.get(s(0))).toEqual({ shard: s(0), epoch: 1, owner: null });
  });

  it("a session that is opened anew is known to have been taken everywhere else", async () => {
    const [one, two] = world.trio();
    const taken: string[] = [];
    two.router.onSessionTaken((session, opening, by) => taken.push(`${session} ${opening} by ${by}`));
    const { session, opening } = await one.router.openSession("mine", { named: true, holder: null });
    await world.settle();
    expect(taken, "whoever opened it may be gone").toEqual([]);
    one.router.tellSession(session, opening);
    await world.settle();
    expect(taken).toEqual(["mine 3 by a"]);
  });

  it("what is flushed everywhere is the least of what was said lately", async () => {
    const [one, two, three] = world.trio();
    one.local.flushed = 300;
    two.local.flushed = 100;
    three.local.flushed = 200;
    await world.clock.advance(2_100);
    await world.settle();
    expect(one.router.flushedUpTo()).toBe(100);
    world.net.down(a, b);
    expect(one.router.flushedUpTo()).toBe(100);
    await world.clock.advance(5_100);
    expect(one.router.flushedUpTo()).toBe(200);
    // That its link is down was said when it went down.
    const silent = "another node has not said for a while up to when its changes are written";
    expect(one.warnings).not.toContain(silent);
    world.net.holdBack = true;
    await world.clock.advance(5_100);
    expect(one.router.flushedUpTo()).toBe(300);
    expect(one.warnings).toContain(silent);
  });

  it("a node that processes says within half a second up to when its changes are written, an idle one within two", async () => {
    const [one, two, three] = world.trio();
    one.local.flushed = 900;
    two.local.flushed = 100;
    three.local.flushed = 800;
    await world.clock.advance(2_100);
    expect(one.router.flushedUpTo()).toBe(100);
    const saidAfter = async (flushed: number): Promise<number> => {
      two.local.flushed = flushed;
      for (let ms = 0; ; ms += 100) {
        if (one.router.flushedUpTo() === flushed) return ms;
        await world.clock.advance(100);
      }
    };
    two.counters.add("task_processed");
    expect(await saidAfter(300)).toBeLessThanOrEqual(2_000);
    expect(await saidAfter(400)).toBeLessThanOrEqual(500);
    expect(await saidAfter(500)).toBeLessThanOrEqual(500);
    await world.clock.advance(4_100);
    expect(await saidAfter(600)).toBeGreaterThan(500);
  });

  it("bytes that are no message are counted, and nothing else happens", async () => {
    const [one] = world.trio();
    world.net.deliver(b, a, new Uint8Array([255, 255, 255]));
    expect(one.counters.read()["peer/unreadable"]).toBe(1);
  });
});
