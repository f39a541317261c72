import { expect, test } from "vitest";
import { type News, type Part, type PartEvent, type PartRejection, wholePart } from "../../../actors/lane/part.ts";
import { PartNews } from "../../../actors/lane/part-news.ts";
import type { SplitBatch } from "../../../actors/sessions/batch.ts";
import { awayRestMaxMs, restMaxMs } from "../../../actors/sessions/rest.ts";
import {
  acceptedOf,
  createSessionState,
  type OpenBatch,
  type SessionEffect,
  type SessionMessage,
  stepSession,
  tokensOf,
} from "../../../actors/sessions/session.ts";
import { shardId, toEpoch, toSeq } from "../../../proto/ids.ts";
import { type ErrorCode, StarlingError } from "../../../proto/starling-error.ts";

/** One offered part. */
interface Offer {
  readonly part: Part;
  readonly effect: Extract<SessionEffect, { kind: "offer" }>;
}

/** What is said of a part, whichever it is. */
type Said = PartEvent extends infer E ? (E extends PartEvent ? Omit<E, "position"> : never) : never;

const a = shardId("entity", 1);
const b = shardId("entity", 2);

function part(shard: typeof a, number: number, position: number): Part {
  const hash = "0".repeat(16);
  return {
    kind: "part",
    position,
    shard,
    channel: "c:s",
    number,
    predecessor: null,
    hash,
    tasks: [],
    rejections: [],
    bytes: 1,
  };
}

function batch(number: number, shards: (typeof a)[], items = shards.length): SplitBatch {
  const parts = shards.map((shard, position) => part(shard, number, position));
  const partOf = Int32Array.from({ length: items }, (_, i) => i % shards.length);
  return { number, bytes: 10, items, accepted: items, parts, rejections: [], partOf, whole: false };
}

const durable = (seq = 1, rejections: PartRejection[] = [], repeat = false): Said => ({
  kind: "durable",
  shard: a,
  epoch: toEpoch(1),
  seq: toSeq(seq),
  repeat,
  rejections,
});
const refused = (code: ErrorCode): Said => ({ kind: "refused", error: new StarlingError(code, "no") });

/** A session whose offers a test answers by hand. */
function start(awaitsProcessed = false) {
  const state = createSessionState(awaitsProcessed);
  const offers: Offer[] = [];
  const done: string[] = [];
  const rests: number[] = [];
  let last: OpenBatch | null = null;
  const step = (message: SessionMessage) => {
    for (const effect of stepSession(state, message)) {
      if (effect.kind === "offer") offers.push(...effect.parts.map((part) => ({ part: { ...part }, effect })));
      else if (effect.kind === "rest") rests.push(effect.ms);
      else if (effect.kind === "opened") last = effect.batch;
      else done.push(`${effect.kind} ${effect.batch.number}`);
    }
  };
  return {
    offers,
    done,
    rests,
    send: (...batches: SplitBatch[]) => {
      for (const one of batches) step({ kind: "batch", batch: one });
      return last as unknown as OpenBatch;
    },
    answer: (offer: Offer | undefined, said: Said) => {
      if (offer === undefined) throw new Error("no such offer");
      const news = [{ ...said, position: offer.part.position }];
      step({ kind: "news", batch: offer.effect.batch, offer: offer.effect.offer, news });
    },
    tell: ({ effect }: Offer, offer: number, news: News) => step({ kind: "news", batch: effect.batch, offer, news }),
    rested: (shard = a) => step({ kind: "rested", shard }),
    numbers: () => offers.splice(0).map(({ part }) => [part.number, part.predecessor]),
  };
}

test("S2: a part names the previous part of the same shard, the first one none", () => {
  const session = start();
  session.send(batch(4, [a]), batch(5, [b]), batch(6, [a, b]));
  expect(session.offers.map(({ part }) => [part.shard, part.number, part.predecessor])).toEqual([
    [a, 4, null],
    [b, 5, null],
    [a, 6, 4],
    [b, 6, 5],
  ]);
});

test("S3: a batch is durable when all its parts are, and never twice", () => {
  const session = start();
  session.send(batch(1, [a, b]));
  const [first, second] = session.offers;
  session.answer(first, durable());
  expect(session.done).toEqual([]);
  session.answer(first, durable());
  expect(session.done).toEqual([]);
  session.answer(second, durable());
  expect(session.done).toEqual(["durable 1"]);
});

test("S3: a batch is processed when all its parts are, with their obligations", () => {
  const session = start(true);
  const open = session.send(batch(1, [a, b]));
  const [first, second] = session.offers;
  session.answer(first, durable());
  session.answer(first, { kind: "processed", obligations: 2 });
  session.answer(second, durable());
  session.answer(second, { kind: "processed", obligations: 1 });
  expect(session.done).toEqual(["durable 1", "processed 1"]);
  expect(open.obligations).toBe(3);
});

for (const code of ["BUSY", "MOVED", "FENCED", "STORE", "UNAVAILABLE"] as const) {
  test(`S1: after ${code} the part is offered again, and when it is taken all later ones of the shard in order`, () => {
    const session = start();
    session.send(batch(1, [a]), batch(2, [a]));
    const [first, second] = session.offers.splice(0);
    session.answer(first, refused(code));
    session.send(batch(3, [a]));
    expect(session.numbers()).toEqual([]);
    expect(session.rests).toEqual([]);
    session.answer(second, refused("GAP"));
    expect(session.rests).toEqual([20]);
    session.rested();
    const [probe] = session.offers;
    expect(session.numbers()).toEqual([[1, null]]);
    session.send(batch(4, [a]));
    expect(session.numbers()).toEqual([]);
    session.answer(probe, durable());
    expect(session.numbers()).toEqual([
      [2, 1],
      [3, 2],
      [4, 3],
    ]);
  });
}

test("S1: other shards go on meanwhile", () => {
  const session = start();
  session.send(batch(1, [a]));
  session.answer(session.offers[0], refused("BUSY"));
  session.numbers();
  session.send(batch(2, [a, b]));
  expect(session.numbers()).toEqual([[2, null]]);
});

test("S2: after a gap at the head the predecessor is unknown", () => {
  const session = start();
  session.send(batch(1, [a]), batch(2, [a]));
  const [first, second] = session.offers.splice(0);
  session.answer(first, durable());
  session.answer(second, refused("GAP"));
  session.rested();
  expect(session.numbers()).toEqual([[2, null]]);
});

test("S1: a shard that refuses every seventh offer is got through, however many parts wait", () => {
  const session = start();
  let offers = 0;
  let last = 0;
  session.send(...[1, 2, 3, 4, 5, 6, 7].map((number) => batch(number, [a])));
  // The first part is refused, so that all seven wait.
  offers = 6;
  for (let turn = 0; turn < 100 && last < 7; turn++) {
    for (const offer of session.offers.splice(0)) {
      const { number, predecessor } = offer.part;
      offers += 1;
      if (offers % 7 === 0) session.answer(offer, refused("BUSY"));
      else if (predecessor !== null && predecessor !== last) session.answer(offer, refused("GAP"));
      else {
        last = number;
        session.answer(offer, durable());
      }
    }
    session.rested();
  }
  expect(session.done).toEqual([1, 2, 3, 4, 5, 6, 7].map((number) => `durable ${number}`));
});

test("rests grow to half a second and start anew after a success", () => {
  const session = start();
  session.send(batch(1, [a]));
  for (let i = 0; i < 8; i++) {
    session.answer(session.offers.at(-1), refused("BUSY"));
    session.rested();
  }
  expect(session.rests).toEqual([20, 40, 80, 160, 320, restMaxMs, restMaxMs, restMaxMs]);
  session.answer(session.offers.at(-1), durable());
  session.send(batch(2, [a]));
  session.answer(session.offers.at(-1), refused("BUSY"));
  expect(session.rests.at(-1)).toBe(20);
});

test("a shard that has no owner is asked for again soon, however long that lasts", () => {
  const session = start();
  session.send(batch(1, [a]));
  for (let i = 0; i < 20; i++) {
    session.answer(session.offers.at(-1), refused(i % 2 === 0 ? "MOVED" : "UNAVAILABLE"));
    session.rested();
  }
  expect(session.rests.slice(0, 6)).toEqual([10, 13, 16, 20, 24, 31]);
  expect(session.rests.slice(14)).toEqual(Array(6).fill(awayRestMaxMs));
  session.answer(session.offers.at(-1), refused("BUSY"));
  expect(session.rests.at(-1)).toBe(restMaxMs);
});

test("S4: what the store refuses becomes rejections of the part's datapoints, and the number goes on", () => {
  const session = start(true);
  const open = session.send(batch(1, [a, b], 5));
  const [first, second] = session.offers;
  const whole = [{ index: wholePart, code: "STORE_REFUSED", message: "22P05" }];
  session.answer(first, durable(1, whole));
  session.answer(first, { kind: "processed", obligations: 0 });
  session.answer(second, durable());
  session.answer(second, { kind: "processed", obligations: 0 });
  expect(session.done).toEqual(["durable 1", "processed 1"]);
  expect(open.rejections.map(({ index, code }) => [index, code])).toEqual([
    [0, "STORE_REFUSED"],
    [2, "STORE_REFUSED"],
    [4, "STORE_REFUSED"],
  ]);
  expect(acceptedOf(open)).toBe(2);
});

test("S4: another final refusal fails the batch", () => {
  const session = start();
  session.send(batch(1, [a]));
  session.answer(session.offers[0], refused("BATCH_CHANGED"));
  expect(session.done).toEqual(["failed 1"]);
});

test("R10: of a repeat, the rejections stored the first time are told", () => {
  const session = start();
  const open = session.send(batch(1, [a], 3));
  session.answer(session.offers[0], durable(9, [{ index: 1, code: "INVALID_VALUE", message: "stored" }], true));
  expect(open.rejections).toEqual([{ index: 1, code: "INVALID_VALUE", message: "stored" }]);
  expect(acceptedOf(open)).toBe(2);
});

test("S5: a durable part whose owner went away is offered again and counts once", () => {
  const session = start(true);
  session.send(batch(1, [a]), batch(2, [a]));
  const [first, second] = session.offers.splice(0);
  session.answer(first, durable());
  session.answer(second, durable());
  session.answer(first, refused("MOVED"));
  session.rested();
  const [again] = session.offers.splice(0);
  expect(again?.part.number).toBe(1);
  session.answer(again, durable(1, [], true));
  session.answer(first, { kind: "processed", obligations: 9 });
  expect(session.done).toEqual(["durable 1", "durable 2"]);
  session.answer(again, { kind: "processed", obligations: 0 });
  session.answer(second, { kind: "processed", obligations: 0 });
  expect(session.done).toEqual(["durable 1", "durable 2", "processed 1", "processed 2"]);
});

test("S5: durable parts whose owner went away are offered again in their order, before what is not durable", () => {
  const session = start(true);
  session.send(batch(1, [a]), batch(2, [a]), batch(3, [a]), batch(4, [a]));
  const [first, second, third, fourth] = session.offers.splice(0);
  for (const one of [first, second, third]) session.answer(one, durable());
  for (const one of [fourth, second, first, third]) session.answer(one, refused("MOVED"));
  session.rested();
  const [probe] = session.offers.splice(0);
  expect(probe?.part.number).toBe(1);
  session.answer(probe, durable(1, [], true));
  expect(session.numbers()).toEqual([
    [2, null],
    [3, null],
    [4, 3],
  ]);
});

test("S5: a durable part that is refused twice is offered a third time, also when its batch became durable meanwhile", () => {
  const session = start(true);
  session.send(batch(1, [a, b]));
  const [first, second] = session.offers.splice(0);
  session.answer(first, durable());
  session.answer(first, refused("MOVED"));
  session.rested();
  const [again] = session.offers.splice(0);
  session.answer(second, durable());
  expect(session.done).toEqual(["durable 1"]);
  session.answer(again, refused("MOVED"));
  session.send(batch(2, [a]));
  session.rested();
  const [third] = session.offers;
  expect(session.numbers()).toEqual([[1, null]]);
  session.answer(third, durable(1, [], true));
  expect(session.numbers()).toEqual([[2, 1]]);
  session.answer(third, { kind: "processed", obligations: 0 });
  session.answer(second, { kind: "processed", obligations: 0 });
  expect(session.done).toEqual(["durable 1", "processed 1"]);
});

test("S1: what was offered before a hold-back and is unanswered is not offered anew until it is refused itself", () => {
  const session = start();
  session.send(batch(1, [a]), batch(2, [a]), batch(3, [a]));
  const [first, second, third] = session.offers.splice(0);
  session.answer(first, durable());
  session.answer(third, refused("BUSY"));
  expect(session.rests).toEqual([]);
  session.answer(second, refused("BUSY"));
  session.rested();
  const [probe] = session.offers;
  expect(session.numbers()).toEqual([[2, 1]]);
  session.answer(probe, durable());
  expect(session.numbers()).toEqual([[3, 2]]);
});

test("what is told as columns counts as what is told as events, and of older offers not at all", () => {
  const session = start(true);
  const open = session.send(batch(1, [a, b]));
  const [first] = session.offers;
  if (first === undefined) throw new Error("no offer");
  const owner = { id: a, epoch: toEpoch(4) };
  const news = new PartNews(4);
  news.addAppended(0, owner, toSeq(8));
  news.addAppended(1, { ...owner, id: b }, toSeq(9));
  news.addPassed(1);
  news.add({ kind: "processed", position: 0, obligations: 3 });
  session.tell(first, 2, news);
  expect(session.done).toEqual([]);
  session.tell(first, 1, news);
  expect(session.done).toEqual(["durable 1", "processed 1"]);
  expect(open.obligations).toBe(3);
  expect(tokensOf(open)).toEqual([
    { shard: a, epoch: 4, seq: 8 },
    { shard: b, epoch: 4, seq: 9 },
  ]);
});
