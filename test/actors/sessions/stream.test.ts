import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import type { PartEvent } from "../../../actors/lane/part.ts";
import {
  createStreamState,
  defaultCredits,
  type NodeMessageInit,
  type StreamEffect,
  type StreamMessage,
  stepStream,
} from "../../../actors/sessions/stream.ts";
import { toWireValue } from "../../../proto/client-batch.ts";
import { AckLevel, HelloSchema } from "../../../proto/gen/starling_pb.ts";
import { shardId, toEpoch, toSeq, toSessionId } from "../../../proto/ids.ts";
import { type ErrorCode, StarlingError } from "../../../proto/starling-error.ts";
import { testModel } from "../../support/test-model.ts";

const model = testModel({ thing: { name: { kind: "plain", type: "string" } } });
const limits = {
  ...defaultCredits,
  creditBatches: 3,
  unprocessedMax: 4,
  model,
  entityShards: 4,
  clusterId: "c1",
  node: "n1",
  addresses: () => ["127.0.0.1:1"],
};

const place = { position: 0, shard: shardId("entity", 0), epoch: toEpoch(1), seq: toSeq(5) };
const durable: PartEvent = { kind: "durable", ...place, repeat: false, rejections: [] };

function start(level: AckLevel = AckLevel.DURABLE, model = limits.model) {
  const state = createStreamState({ ...limits, model });
  const effects: StreamEffect[] = [];
  const step = (message: StreamMessage) => {
    effects.push(...stepStream(state, message));
  };
  const take = () => effects.splice(0);
  const offers = () => take().filter(({ kind }) => kind === "offer");
  const hello = (rest: object = {}) =>
    step({ kind: "hello", hello: create(HelloSchema, { versionMin: 1, versionMax: 1, level, ...rest }) });
  const open = () => {
    hello();
    step({
      kind: "session",
      stored: { session: toSessionId("s1"), named: false, closed: false, opening: 1, number: 1 },
    });
    take();
  };
  const batch = (number: number, predecessor: number | null, eid = "a", bytes = 10) => {
    const datapoints = [{ type: "thing", eid, attr: "name", v: toWireValue("x") }];
    step({ kind: "batch", batch: { number, predecessor, atomic: false, hash: "00", bytes, datapoints } });
  };
  /** Of the offer's first part. */
  const answer = (offer: StreamEffect | undefined, event: PartEvent) => {
    if (offer?.kind !== "offer") throw new Error("no offer");
    step({ kind: "tracks", message: { ...offer, kind: "news", news: [event] } });
  };
  return { state, step, take, offers, hello, open, batch, answer };
}

const sent = (effects: StreamEffect[]): NodeMessageInit["kind"][] =>
  effects.flatMap((effect) => (effect.kind === "send" ? [effect.message.kind] : []));
const problemOf = (effects: StreamEffect[]): ErrorCode | undefined => {
  const [kind] = sent(effects).filter((one) => one?.case === "problem");
  return kind?.case === "problem" ? (kind.value.code as ErrorCode) : undefined;
};
const acksOf = (effects: StreamEffect[]) =>
  sent(effects).flatMap((one) =>
    one?.case === "ack" ? [[one.value.level, Number(one.value.first), Number(one.value.last)]] : [],
  );

describe("the greeting", () => {
  test("T1: a batch before the welcome ends the stream", () => {
    const stream = start();
    stream.batch(1, null);
    expect(problemOf(stream.take())).toBe("INVALID_ARGUMENT");
    stream.hello();
    expect(stream.take()).toEqual([]);
  });

  test("refuses another version, another cluster, a closed session and impossible names", () => {
    for (const [rest, code] of [
      [{ versionMin: 2, versionMax: 3 }, "VERSION_MISMATCH"],
      [{ clusterId: "c2" }, "WRONG_CLUSTER"],
      [{ named: true, session: "" }, "INVALID_ARGUMENT"],
      [{ named: true, session: "a\tb" }, "INVALID_ARGUMENT"],
      [{ named: true, session: "key:x" }, "INVALID_ARGUMENT"],
      [{ named: true, session: "drawn:x" }, "INVALID_ARGUMENT"],
      [{ named: true, session: "x".repeat(201) }, "INVALID_ARGUMENT"],
    ] as const) {
      const stream = start();
      stream.hello(rest);
      expect(problemOf(stream.take())).toBe(code);
    }
    const stream = start();
    stream.hello({ session: "s1" });
    expect(stream.take()).toEqual([{ kind: "open", session: "s1", named: false }]);
    stream.step({
      kind: "session",
      stored: { session: toSessionId("s1"), named: false, closed: true, opening: 1, number: 1 },
    });
    expect(problemOf(stream.take())).toBe("SESSION_CLOSED");
  });

  test("welcomes with credits, session, cluster and addresses", () => {
    const stream = start();
    stream.hello();
    stream.take();
    stream.step({
      kind: "session",
      stored: { session: toSessionId("s1"), named: false, closed: false, opening: 1, number: 1 },
    });
    expect(sent(stream.take())).toMatchObject([
      { case: "welcome", value: { session: "s1", clusterId: "c1", creditBatches: 3, addresses: ["127.0.0.1:1"] } },
    ]);
  });

  test("welcomes with the hash of its model", () => {
    const stream = start(AckLevel.DURABLE, { ...limits.model, hash: "of this model" });
    stream.hello();
    stream.take();
    const stored = { session: toSessionId("s1"), named: false, closed: false, opening: 1, number: 1 };
    stream.step({ kind: "session", stored });
    expect(sent(stream.take())).toMatchObject([{ case: "welcome", value: { modelHash: "of this model" } }]);
  });
});

describe("credits and acknowledgements", () => {
  test("T2: a client beyond its credits is cut with BUSY", () => {
    const stream = start();
    stream.open();
    for (const number of [1, 2, 3]) stream.batch(number, number === 1 ? null : number - 1);
    expect(problemOf(stream.take())).toBeUndefined();
    stream.batch(4, 3);
    expect(problemOf(stream.take())).toBe("BUSY");
  });

  test("T2: bytes count as well, but one batch is always allowed", () => {
    const stream = start();
    stream.open();
    stream.batch(1, null, "a", limits.creditBytes + 1);
    expect(problemOf(stream.take())).toBeUndefined();
    stream.batch(2, 1);
    expect(problemOf(stream.take())).toBe("BUSY");
  });

  test("T3: acknowledgements leave once a turn, as a range in order", () => {
    const stream = start();
    stream.open();
    stream.batch(1, null, "a");
    stream.batch(2, 1, "b");
    stream.batch(3, 2, "c");
    const [first, second, third] = stream.offers();
    stream.answer(third, durable);
    stream.answer(second, durable);
    expect(stream.take()).toEqual([{ kind: "turn" }]);
    stream.step({ kind: "turn" });
    expect(acksOf(stream.take())).toEqual([]);
    stream.answer(first, durable);
    stream.take();
    stream.step({ kind: "turn" });
    expect(acksOf(stream.take())).toEqual([[AckLevel.DURABLE, 1, 3]]);
    expect(stream.state).toMatchObject({ usedBatches: 0, usedBytes: 0 });
  });

  test("T3: batches of which much was refused are not told of in one message", () => {
    const stream = start();
    stream.open();
    for (const number of [1, 2, 3]) {
      const many = Array.from({ length: 5_000 }, () => ({ type: "thing", eid: "a", attr: "n", v: toWireValue("x") }));
      const batch = { number, predecessor: number - 1, atomic: false, hash: "00", bytes: 10, datapoints: many };
      stream.step({ kind: "batch", batch });
    }
    const rejections = Array.from({ length: 5_000 }, (_, index) => ({ index, code: "C", message: "x".repeat(20) }));
    for (const offer of stream.offers()) stream.answer(offer, { ...durable, rejections });
    stream.step({ kind: "turn" });
    const acks = stream.take();
    expect(acksOf(acks)).toEqual([
      [AckLevel.DURABLE, 1, 2],
      [AckLevel.DURABLE, 3, 3],
    ]);
    const counts = sent(acks).map((one) =>
      one?.case === "ack" ? one.value.rejections?.map((of) => of.rejections?.length) : [],
    );
    expect(counts).toEqual([[5_000, 5_000], [5_000]]);
  });

  test("processed follows durable, each in order", () => {
    const stream = start(AckLevel.PROCESSED);
    stream.open();
    stream.batch(1, null, "a");
    const [first] = stream.offers();
    stream.answer(first, durable);
    stream.step({ kind: "turn" });
    stream.answer(first, { kind: "processed", position: 0, obligations: 2 });
    stream.step({ kind: "turn" });
    const acks = sent(stream.take()).filter((one) => one?.case === "ack");
    expect(acks).toMatchObject([
      { value: { level: AckLevel.DURABLE, tokens: [] } },
      { value: { level: AckLevel.PROCESSED, obligations: 2, tokens: [{ seq: 5n }] } },
    ]);
  });

  test("a batch is told as opened once, and once as acknowledged at each level", () => {
    const stream = start(AckLevel.PROCESSED);
    stream.open();
    stream.batch(1, null, "a");
    stream.batch(2, 1, "b");
    const effects = stream.take();
    for (const offer of effects.filter(({ kind }) => kind === "offer")) {
      stream.answer(offer, durable);
      stream.answer(offer, { kind: "processed", position: 0, obligations: 0 });
    }
    stream.step({ kind: "turn" });
    stream.step({ kind: "turn" });
    const told = [...effects, ...stream.take()].flatMap((effect) => {
      if (effect.kind === "opened") return [`opened ${effect.batch.number}`];
      if (effect.kind !== "acked") return [];
      const level = effect.level === AckLevel.DURABLE ? "durable" : "processed";
      return effect.batches.map(({ number }) => `${level} ${number}`);
    });
    expect(told).toEqual(["opened 1", "opened 2", "durable 1", "durable 2", "processed 1", "processed 2"]);
  });

  test("T7: what an earlier connection made durable is settled once, before anything else is processed", () => {
    const stream = start(AckLevel.PROCESSED);
    stream.open();
    stream.step({ kind: "settle", through: 7 });
    expect(stream.take()).toEqual([{ kind: "settle", channel: "c:s1", through: 7 }]);
    stream.batch(8, null, "a");
    const [first] = stream.offers();
    stream.answer(first, durable);
    stream.answer(first, { kind: "processed", position: 0, obligations: 0 });
    stream.step({ kind: "turn" });
    expect(acksOf(stream.take())).toEqual([[AckLevel.DURABLE, 8, 8]]);
    stream.step({ kind: "ended" });
    expect(stream.state.status).toBe("finishing");
    const { shard, epoch, seq } = place;
    stream.step({ kind: "settled", settled: { watermarks: [{ shard, epoch, seq }], owing: 2 } });
    stream.step({ kind: "settled", settled: { watermarks: [], owing: 0 } });
    stream.step({ kind: "turn" });
    const effects = stream.take();
    expect(acksOf(effects)).toEqual([
      [AckLevel.PROCESSED, 0, 7],
      [AckLevel.PROCESSED, 8, 8],
    ]);
    expect(sent(effects)[0]).toMatchObject({ value: { obligations: 2, tokens: [{ seq: 5n }] } });
    expect(stream.state.status).toBe("ended");
  });

  test("T7: settling is for a session that waits for it, once, and comes first", () => {
    const refusals: ((stream: ReturnType<typeof start>) => void)[] = [
      (stream) => stream.batch(8, null),
      (stream) => stream.step({ kind: "settle", through: 7 }),
    ];
    for (const before of refusals) {
      const stream = start(AckLevel.PROCESSED);
      stream.open();
      before(stream);
      stream.step({ kind: "settle", through: 7 });
      expect(problemOf(stream.take())).toBe("INVALID_ARGUMENT");
    }
    for (const [level, through] of [
      [AckLevel.DURABLE, 7],
      [AckLevel.PROCESSED, 0],
      [AckLevel.PROCESSED, 2 ** 53],
    ] as const) {
      const stream = start(level);
      stream.open();
      stream.step({ kind: "settle", through });
      expect(problemOf(stream.take())).toBe("INVALID_ARGUMENT");
    }
  });

  test("T4: when too many batches wait to be processed, no durable acknowledgement leaves", () => {
    const stream = start(AckLevel.PROCESSED);
    stream.open();
    const offers: StreamEffect[] = [];
    const acks: StreamEffect[] = [];
    for (let number = 1; number <= 6; number++) {
      stream.batch(number, number === 1 ? null : number - 1, "a");
      const effects = stream.take();
      const offer = effects.find((effect) => effect.kind === "offer");
      if (offer !== undefined) offers.push(offer);
      stream.answer(offer, durable);
      stream.step({ kind: "turn" });
      acks.push(...stream.take());
    }
    expect(acksOf(acks).map(([, first]) => first)).toEqual([1, 2, 3, 4]);
    expect(stream.state.usedBatches).toBe(2);
    stream.answer(offers[0], { kind: "processed", position: 0, obligations: 0 });
    stream.step({ kind: "turn" });
    stream.step({ kind: "turn" });
    expect(acksOf(stream.take())).toEqual([
      [AckLevel.PROCESSED, 1, 1],
      [AckLevel.DURABLE, 5, 5],
    ]);
  });

  test("a batch that does not follow the one before it is a gap", () => {
    const stream = start();
    stream.open();
    stream.batch(5, 4);
    stream.batch(7, 6);
    expect(problemOf(stream.take())).toBe("GAP");
  });
});

describe("endings", () => {
  test("T5: a final failure names the batch and ends the stream", () => {
    const stream = start();
    stream.open();
    stream.batch(1, null);
    const [offer] = stream.offers();
    stream.answer(offer, { kind: "refused", position: 0, error: new StarlingError("BATCH_CHANGED", "no") });
    const effects = stream.take();
    expect(sent(effects)).toMatchObject([{ case: "problem", value: { code: "BATCH_CHANGED", number: 1n } }]);
    expect(effects.at(-1)).toEqual({ kind: "end" });
  });

  test("T6: close waits for what is in flight, then closes the session, then ends", () => {
    const stream = start();
    stream.open();
    stream.batch(1, null);
    const [offer] = stream.offers();
    stream.step({ kind: "close" });
    stream.step({ kind: "ended" });
    expect(stream.take()).toEqual([]);
    stream.answer(offer, durable);
    stream.step({ kind: "turn" });
    expect(stream.take().at(-1)).toEqual({ kind: "close-session", session: "s1" });
    stream.step({ kind: "session-closed" });
    expect(stream.take()).toEqual([{ kind: "end" }]);
  });

  test("T6: a half-close without close leaves the session open", () => {
    const stream = start();
    stream.open();
    stream.step({ kind: "ended" });
    expect(stream.take()).toEqual([{ kind: "end" }]);
  });
});
