import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type PartEvent, type PartListener, taskFrom, wholePart } from "../../../actors/lane/part.ts";
import { checkTask } from "../../../modules/check-task.ts";
import { toEpoch, toSeq } from "../../../proto/ids.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { testModel } from "../../support/test-model.ts";
import { a, b, codes, model, owned, PeerWorld, part, s, task } from "./peer-world.ts";

let world: PeerWorld;

beforeEach(() => {
  world = new PeerWorld();
});

afterEach(() => expect(world.stop(), "timers that outlive their router").toBe(0));

describe("an offer", () => {
  it("of shards that are here reaches the local engine as it is, within the call", () => {
    const one = world.start(a, [0, 1]);
    const parts = [part(0, 1), part(1, 1)];
    one.router.offer(parts, () => {});
    expect(one.local.offers).toEqual([parts]);
  });

  it("is split among the owners, each gets its parts in order, and the news come back under the parts' positions", async () => {
    const [one, two, three] = world.trio();
    one.local.answers = two.local.answers = three.local.answers = "processed";
    const told: PartEvent[] = [];
    for (let number = 1; number <= 50; number++) {
      const parts = [0, 1, 2].map((shard, position) => part(shard, number, { position }));
      one.router.offer(parts, (news) => told.push(...news));
    }
    await world.settle();
    for (const [index, { local }] of [one, two, three].entries()) {
      const taken = local.offers.flat();
      expect(taken.map(({ number }) => number)).toEqual(Array.from({ length: 50 }, (_, i) => i + 1));
      expect(taken.every(({ shard }) => shard === s(index))).toBe(true);
    }
    for (const position of [0, 1, 2]) {
      const own = told.filter((event) => event.position === position);
      expect(own.filter(({ kind }) => kind === "durable")).toHaveLength(50);
      expect(own.filter(({ kind }) => kind === "processed")).toHaveLength(50);
      expect(own.find(({ kind }) => kind === "durable")).toMatchObject({ shard: s(position), epoch: 1 });
    }
    // One turn, one message for each of the two, though fifty offers were made.
    expect(world.net.sent.filter(({ from, to }) => from === a && to === b).length).toBeLessThan(6);
  });

  it("is sent also when it is of a part alone that is known to be durable, and has no tasks any more", async () => {
    const [one, two] = world.trio();
    two.local.answers = "processed";
    const told: PartEvent[] = [];
    one.router.offer([{ ...part(1, 4), tasks: [], bytes: 0, predecessor: null }], (news) => told.push(...news));
    await world.settle();
    expect(two.local.offers.flat()).toHaveLength(1);
    expect(told.map(({ kind }) => kind)).toEqual(["durable", "processed"]);
  });

  it("comes to the owner as it was made: tasks, causes, predecessor, hash and refusals", async () => {
    const [one, two] = world.trio();
    const cause = { shard: s(0), seq: toSeq(77), hook: "m/on_new_attr/host/seen/h", ordinal: 1, depth: 2 };
    const derived = { ...part(1, 9, { channel: "s:0", hash: "" }), tasks: [taskFrom(task("h1", 2n ** 60n), cause)] };
    const rejections = [{ index: 4, code: "INVALID_VALUE", message: "no" }];
    one.router.offer([{ ...part(1, 5, { position: 3 }), predecessor: 4, rejections }], () => {});
    one.router.offer([derived], () => {});
    await world.settle();
    const [first, second] = two.local.offers.flat();
    expect(first).toMatchObject({ number: 5, predecessor: 4, hash: "hash", rejections, channel: "c:x" });
    expect(second?.tasks[0]).toMatchObject({ cause, eid: "h1" });
    expect(second?.tasks[0]?.datapoints[0]?.v).toBe(2n ** 60n);
  });

  it("for a shard without a known or reachable owner is refused, never from within the call", async () => {
    const one = world.start(a, [0]);
    world.start(b, [1]);
    one.owners.learn([owned(1, b)]);
    const told: PartEvent[] = [];
    one.router.offer([part(1, 1, { position: 0 }), part(5, 1, { position: 1 })], (news) => told.push(...news));
    expect(told).toEqual([]);
    await world.settle();
    expect(codes(told)).toEqual([
      [0, "UNAVAILABLE"],
      [1, "MOVED"],
    ]);
  });

  it("that went to the wrong node is refused as MOVED, and the router has learned the owner by then", async () => {
    const [one, two, three] = world.trio();
    const moved = { shard: s(2), epoch: toEpoch(2), owner: b };
    three.local.lose(2);
    two.local.take(2);
    two.owners.learn([moved]);
    three.owners.learn([moved]);
    const told: PartEvent[] = [];
    one.router.offer([part(2, 1)], (news) => {
      expect(one.owners.ownerOf(s(2))).toBe(b);
      told.push(...news);
    });
    await world.settle();
    expect(codes(told)).toEqual([[0, "MOVED"]]);
    two.local.answers = "durable";
    one.router.offer([part(2, 1)], (news) => told.push(...news));
    await world.settle();
    expect(told.at(-1)).toMatchObject({ kind: "durable", repeat: false });
  });

  it("keeps every kind of news: repeats with their refusals, obligations, and final codes", async () => {
    const [one, two] = world.trio();
    const told: PartEvent[] = [];
    one.router.offer(
      [0, 1, 2].map((position) => part(1, 1, { position })),
      (news) => told.push(...news),
    );
    await world.settle();
    const [offer] = two.local.pending;
    const rejections = [{ index: wholePart, code: "STORE_REFUSED", message: "é" }];
    const [x = -1, y = -1, z = -1] = two.local.offers.flat().map(({ position }) => position);
    const durable = { kind: "durable", shard: s(1), epoch: toEpoch(3), seq: toSeq(2 ** 40) } as const;
    offer?.listener([
      { ...durable, position: x, repeat: true, rejections },
      { kind: "processed", position: x, obligations: 2 },
      { ...durable, position: y, repeat: false, rejections: [] },
      { kind: "processed", position: y, obligations: 0 },
      { kind: "refused", position: z, error: new StarlingError("BATCH_CHANGED", "other content") },
    ]);
    await world.settle();
    expect(told.filter(({ position }) => position === 0)).toEqual([
      { ...durable, position: 0, repeat: true, rejections },
      { kind: "processed", position: 0, obligations: 2 },
    ]);
    expect(told.filter(({ position }) => position === 1)).toEqual([
      { ...durable, position: 1, repeat: false, rejections: [] },
      { kind: "processed", position: 1, obligations: 0 },
    ]);
    expect(codes(told)).toEqual([[2, "BATCH_CHANGED"]]);
  });

  it("pending at a node whose link breaks is refused, durable or not, and what that node says later is ignored", async () => {
    const [one, two] = world.trio();
    const told: PartEvent[] = [];
    one.router.offer([part(1, 1, { position: 0 }), part(1, 2, { position: 1 }), part(1, 3, { position: 2 })], (news) =>
      told.push(...news),
    );
    await world.settle();
    two.local.tellDurable(0);
    two.local.tellDurable(2);
    two.local.tellProcessed(2);
    await world.settle();
    world.net.down(a, b);
    expect(codes(told)).toEqual([
      [0, "UNAVAILABLE"],
      [1, "UNAVAILABLE"],
    ]);
    world.net.up(a, b);
    const again: PartEvent[] = [];
    one.router.offer([part(1, 4, { position: 7 })], (news) => again.push(...news));
    await world.settle();
    // Of the former connection, whose slots the new one gives again.
    two.local.tellDurable(1);
    two.local.tellProcessed(0);
    await world.settle();
    expect(again).toEqual([]);
    expect(told.filter(({ kind }) => kind !== "refused")).toHaveLength(3);
    two.local.tellDurable(3);
    await world.settle();
    expect(again).toMatchObject([{ kind: "durable", position: 7 }]);
  });

  it("is ignored when it answers to a former connection, even if the link brings it late", async () => {
    const [one, two] = world.trio();
    one.router.offer([part(1, 1)], () => {});
    await world.settle();
    two.local.tellDurable(0);
    world.net.holdBack = true;
    await world.settle();
    world.net.down(a, b);
    world.net.up(a, b);
    const told: PartEvent[] = [];
    one.router.offer([part(1, 1)], (news) => told.push(...news));
    await world.settle();
    world.net.holdBack = false;
    world.net.releaseHeld();
    await world.settle();
    expect(told).toEqual([]);
    expect(one.counters.read()["peer/late_answers"]).toBeGreaterThan(0);
  });

  it("is refused as BUSY beyond the parts that may wait, and beyond what the link takes; nothing of it overtakes", async () => {
    const [one, two] = world.trio({ peerMaxParts: 2 });
    const told: PartEvent[] = [];
    const hear: PartListener = (news) => void told.push(...news);
    one.router.offer([part(1, 1, { position: 0 }), part(1, 2, { position: 1 })], hear);
    one.router.offer([part(1, 3, { position: 2 })], hear);
    await world.settle();
    expect(codes(told)).toEqual([[2, "BUSY"]]);
    two.local.tellDurable(0);
    two.local.tellProcessed(0);
    two.local.tellDurable(1);
    two.local.tellProcessed(1);
    await world.settle();
    world.net.credits = 0;
    one.router.offer([part(1, 4, { position: 3 })], hear);
    await world.settle();
    world.net.credits = Number.POSITIVE_INFINITY;
    expect(codes(told)).toEqual([
      [2, "BUSY"],
      [3, "BUSY"],
    ]);
    one.router.offer([part(1, 4, { position: 4 })], hear);
    await world.settle();
    expect(two.local.offers.flat().map(({ number }) => number)).toEqual([1, 2, 4]);
  });

  it("of many bytes goes in several messages, and when the link takes one of them not, none behind it goes", async () => {
    const [one, two] = world.trio();
    await world.settle();
    const told: PartEvent[] = [];
    const bytes = 700_000;
    const parts = [1, 2, 3].map((number, position) => part(1, number, { position, bytes }));
    for (const each of parts) one.router.offer([each], (news) => told.push(...news));
    world.net.refusals = [false, true, false];
    await world.settle();
    expect(two.local.offers.flat().map(({ number }) => number)).toEqual([1]);
    expect(codes(told)).toEqual([
      [1, "BUSY"],
      [2, "BUSY"],
    ]);
  });

  it("that is larger than what a link takes at once comes in pieces, goes on where it stopped, and is not overtaken", async () => {
    const [one, two] = world.trio();
    await world.settle();
    const told: PartEvent[] = [];
    const texts = Array.from({ length: 5 }, (_, index) => String(index).repeat(1_000_000));
    const datapoints = texts.map((v) => ({ attr: "note", v }));
    const tasks = [taskFrom(checkTask(model, { type: "host", eid: "h", datapoints }), null)];
    world.net.refusals = [false, true, true];
    one.router.offer([part(1, 1, { tasks })], (news) => told.push(...news));
    await world.settle();
    one.router.offer([part(1, 2, { position: 1 })], (news) => told.push(...news));
    await world.settle();
    expect(codes(told)).toEqual([[1, "BUSY"]]);
    expect(two.local.offers).toEqual([]);
    await world.clock.advance(5);
    await world.settle();
    expect(two.local.offers.flat().map(({ number }) => number)).toEqual([1]);
    expect(two.local.offers.flat()[0]?.tasks[0]?.datapoints.map(({ v }) => v)).toEqual(texts);
    expect(Math.max(...world.net.sent.map(({ bytes }) => bytes))).toBeLessThan(4_200_000);
  });

  it("hears its news although the link took none for a while", async () => {
    const [one, two] = world.trio();
    const told: PartEvent[] = [];
    one.router.offer([part(1, 1)], (news) => told.push(...news));
    await world.settle();
    world.net.credits = 0;
    two.local.tellDurable(0);
    await world.settle();
    two.local.tellProcessed(0);
    await world.settle();
    expect(told).toEqual([]);
    world.net.credits = Number.POSITIVE_INFINITY;
    await world.clock.advance(20);
    await world.settle();
    expect(told.map(({ kind }) => kind)).toEqual(["durable", "processed"]);
  });

  it("with a task that does not fit the owner's model becomes a refusal there; derived tasks wait at their sender", async () => {
    const narrow = testModel({ host: { note: { kind: "plain", type: "string" } } });
    const one = world.start(a, [0]);
    const two = world.start(b, [1], { model: narrow });
    world.net.up(a, b);
    one.owners.learn([owned(1, b)]);
    const told: PartEvent[] = [];
    one.router.offer([part(1, 1)], (news) => told.push(...news));
    one.router.offer([part(1, 1, { channel: "s:0", position: 1 })], (news) => told.push(...news));
    await world.settle();
    expect(two.local.offers.flat()).toMatchObject([
      { channel: "c:x", number: 1, tasks: [], rejections: [{ index: wholePart, code: "MODEL_CHANGED" }] },
    ]);
    expect(codes(told)).toEqual([[1, "UNAVAILABLE"]]);
  });
});
