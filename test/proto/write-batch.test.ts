import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { type ClientDatapoint, encodeBatches, encodeBatchMessage, toWireValue } from "../../proto/client-batch.ts";
import { type Batch, BatchSchema, type Datapoint } from "../../proto/gen/starling_pb.ts";
import { createBatchWriter } from "../../proto/write-batch.ts";
import { createRandom, type Random, seedOfRun } from "../support/random.ts";

const seed = seedOfRun();
const maxBytes = 4 * 1024 * 1024;
/** One for all, so that what is left in its buffer is put to the test as well. */
const writer = createBatchWriter();

const withValue = (v: unknown): ClientDatapoint => ({ type: "t", eid: "e", attr: "a", v });

describe("the batch writer", () => {
  test("writes the bytes of protobuf-es for whole numbers of any size", () => {
    const near = Array.from({ length: 64 }, (_, bit) => [2n ** BigInt(bit) - 1n, 2n ** BigInt(bit)]).flat();
    const whole = [...near, ...near.map((value) => -value)].filter((value) => BigInt.asIntN(64, value) === value);
    const values = [...whole, -(2n ** 63n), ...whole.map(Number), -0, 0.5, Number.NaN, Number.NEGATIVE_INFINITY];
    for (const v of [...values, Number.MIN_VALUE, Number.MAX_VALUE]) expectSameBytes([withValue(v)]);
  });

  test("writes the bytes of protobuf-es for every character", () => {
    const units = Array.from({ length: 0x10000 }, (_, unit) => unit).filter((unit) => unit < 0xd800 || unit > 0xdfff);
    for (let start = 0; start < units.length; start += 32) {
      expectSameBytes([withValue(String.fromCharCode(...units.slice(start, start + 32)))]);
    }
    for (let point = 0x10000; point <= 0x10ffff; point += 257)
      expectSameBytes([withValue(String.fromCodePoint(point))]);
    for (const text of ["😀", "a😀", "😀a", "é😀", `${"a".repeat(125)}😀`, `${"a".repeat(200)}😀`]) {
      expectSameBytes([{ type: text, eid: text, attr: text, v: { [text]: text }, src: text }]);
    }
  });

  test("leaves halves of pairs to who refuses them", () => {
    for (const half of [
      "\ud83d",
      "\ude00",
      "\ud83d\ud83d\ude00",
      "\ude00\ud83d",
      "a\ude00",
      "é\ud83d",
      "a".repeat(200),
    ]) {
      const text = half.length === 200 ? `${half}\ud800` : half;
      for (const one of [{ type: text }, { eid: text }, { attr: text }, { v: text }, { src: text }]) {
        expect(writer.write([{ ...withValue(1), ...one }], false, maxBytes)).toEqual({ kind: "odd" });
      }
    }
  });

  test("writes the bytes of protobuf-es for texts and datapoints of every length", () => {
    for (const character of ["a", "é", "€", "😀"]) {
      for (const length of [
        0, 1, 41, 42, 43, 62, 63, 64, 126, 127, 128, 129, 5460, 5461, 5462, 16_383, 16_384, 300_000,
      ]) {
        const text = character.repeat(length);
        expectSameBytes([withValue(text), { type: text, eid: "", attr: "", v: "" }]);
      }
    }
    for (let length = 80; length < 130; length++) expectSameBytes([{ ...withValue("a".repeat(length)), src: "s" }]);
  });

  test(`writes the bytes of protobuf-es for any batch (seed ${seed})`, () => {
    const random = createRandom(seed);
    for (let i = 0; i < 600; i++) {
      const size = random.next() < 0.02 ? 2000 : random.between(1, 12);
      expectSameBytes(
        Array.from({ length: size }, () => anyDatapoint(random)),
        random.next() < 0.5,
      );
    }
  });

  test("gives bytes of their own: later batches do not change them", () => {
    const first = written([withValue("first")]);
    const before = Buffer.from(first).toString("hex");
    expect(written([withValue("other")])).not.toEqual(first);
    expect(Buffer.from(first).toString("hex")).toBe(before);
    expect(written([withValue("first")])).toEqual(first);
  });

  test("writes a batch while it writes another", () => {
    const nosy = { toJSON: () => Buffer.from(written([withValue("within")])).toString("hex") };
    const plain = { toJSON: () => Buffer.from(expectedBytes([withValue("within")], false)).toString("hex") };
    const around = (v: unknown) => [withValue("before"), withValue(v), withValue("after")];
    expect(written(around(nosy))).toEqual(written(around(plain)));
  });

  test("stops at the limit, and goes on with the next batch", () => {
    const heavy = Array.from({ length: 9 }, () => withValue("x".repeat(500_000)));
    expect(writer.write(heavy, false, maxBytes)).toEqual({ kind: "too-large" });
    expect(writer.write([withValue("x".repeat(20_000_000))], false, maxBytes)).toEqual({ kind: "too-large" });
    expectSameBytes(heavy.slice(0, 8));
    const { length } = written([withValue(1)], true);
    expect(writer.write([withValue(1)], true, length)).toMatchObject({ kind: "content" });
    expect(writer.write([withValue(1)], true, length - 1)).toEqual({ kind: "too-large" });
  });

  test("leaves what the wire does not know to protobuf-es", () => {
    const cycle: unknown[] = [];
    cycle.push(cycle);
    const bad = [undefined, () => 1, Symbol("x"), 2n ** 63n, -(2n ** 63n) - 1n, new Date(Number.NaN), cycle];
    for (const v of bad) expect(writer.write([withValue(v)], false, maxBytes)).toEqual({ kind: "odd" });
    const loose = [
      { ...withValue(1), type: 5 },
      { ...withValue(1), attr: undefined },
      { ...withValue(1), c: "0.5" },
      { ...withValue(1), src: 7 },
      { ...withValue({ toJSON: () => undefined }) },
    ] as unknown as ClientDatapoint[];
    for (const one of loose) {
      expect(writer.write([one], false, maxBytes)).toEqual({ kind: "odd" });
      expect(encodeBatches([one], false, writer)[0]?.content).toEqual(expectedBytes([one], false));
    }
    expectSameBytes([withValue("after all")]);
  });
});

describe("a batch that cannot be encoded", () => {
  test("is refused with the words for its first bad datapoint", () => {
    const points = [withValue(1), withValue(2n ** 63n), withValue(undefined)];
    const error = { code: "INVALID_VALUE", message: "9223372036854775808 does not fit 64 bits" };
    expect(() => encodeBatches(points, false, writer)).toThrow(expect.objectContaining(error));
  });
});

describe("a batch's numbers", () => {
  const content = written([withValue(1)]);

  test("are the bytes of protobuf-es", () => {
    const numbers = [0, 1, 127, 128, 2 ** 31, 2 ** 32, 2 ** 40, 2 ** 53 - 1];
    for (const number of numbers) {
      for (const predecessor of [null, ...numbers]) {
        const batch = batchOf([], false);
        batch.number = BigInt(number);
        if (predecessor !== null) batch.predecessor = BigInt(predecessor);
        const body = Buffer.concat([toBinary(BatchSchema, batch), content]);
        const message = encodeBatchMessage({ content, count: 1 }, number, predecessor);
        expect(message.subarray(message.length - body.length)).toEqual(body);
        expect([...message.subarray(0, message.length - body.length)]).toEqual([0x12, body.length]);
      }
    }
  });

  test("are refused when they are none", () => {
    for (const number of [-1, 1.5, Number.NaN]) {
      expect(() => encodeBatchMessage({ content, count: 1 }, number, null)).toThrow();
    }
  });
});

/** The same bytes as protobuf-es, which reads back what was given. */
function expectSameBytes(datapoints: readonly ClientDatapoint[], atomic = false): void {
  const found = written(datapoints, atomic);
  const expected = expectedBytes(datapoints, atomic);
  // Compared as bytes: a failing `toEqual` of long arrays takes minutes to print.
  if (Buffer.compare(found, expected) !== 0) {
    expect({ datapoints, hex: Buffer.from(found).toString("hex") }).toEqual({
      datapoints,
      hex: Buffer.from(expected).toString("hex"),
    });
  }
  const read = fromBinary(BatchSchema, found);
  expect(read.atomic).toBe(atomic);
  expect(read.datapoints.length).toBe(datapoints.length);
  expect(read.datapoints[0]?.eid).toBe(Buffer.from(String(datapoints[0]?.eid)).toString());
}

function written(datapoints: readonly ClientDatapoint[], atomic = false): Uint8Array {
  const result = writer.write(datapoints, atomic, maxBytes);
  if (result.kind !== "content") throw new Error(`${result.kind}: nothing was written`);
  return result.content;
}

function expectedBytes(datapoints: readonly ClientDatapoint[], atomic: boolean): Uint8Array {
  return toBinary(BatchSchema, batchOf(datapoints, atomic));
}

/** The message that says the same. */
function batchOf(datapoints: readonly ClientDatapoint[], atomic: boolean): Batch {
  return { $typeName: "starling.v1.Batch", number: 0n, atomic, datapoints: datapoints.map(messageOf) };
}

function messageOf({ type, eid, attr, v, t1, t2, c, src }: ClientDatapoint): Datapoint {
  const message: Datapoint = { $typeName: "starling.v1.Datapoint", type, eid: `${eid}`, attr, v: toWireValue(v) };
  if (t1 != null) message.t1 = Number(t1);
  if (t2 != null) message.t2 = Number(t2);
  if (c != null) message.c = c;
  if (src != null) message.src = src;
  return message;
}

function anyDatapoint(random: Random): ClientDatapoint {
  const maybe = <T>(value: T): T | null | undefined => {
    return random.next() < 0.6 ? value : random.next() < 0.5 ? null : undefined;
  };
  const time = () => (random.next() < 0.2 ? new Date(random.between(-(2 ** 40), 2 ** 41)) : anyDouble(random));
  return {
    type: anyText(random),
    eid: [anyText(random), random.between(-5, 2 ** 40), 2n ** 70n][random.between(0, 2)] ?? "",
    attr: anyText(random),
    v: anyValue(random),
    t1: maybe(time()),
    t2: maybe(time()),
    c: maybe(random.next()),
    src: maybe(anyText(random)),
  };
}

function anyValue(random: Random): unknown {
  switch (random.between(0, 8)) {
    case 0:
      return anyDouble(random);
    case 1:
      return random.between(-(2 ** 31), 2 ** 31);
    case 2:
      return random.between(-(2 ** 52), 2 ** 52);
    case 3:
      return BigInt.asIntN(64, BigInt(random.between(0, 2 ** 32)) * BigInt(random.between(0, 2 ** 32)));
    case 4:
      return random.next() < 0.5;
    case 5:
      return new Date(random.between(-(2 ** 40), 2 ** 41));
    case 6:
      return random.next() < 0.3 ? null : [anyText(random), anyFinite(random), null, 2n ** 60n];
    case 7:
      return { value: [anyFinite(random)], [anyText(random)]: { deep: anyText(random), none: undefined } };
    default:
      return anyText(random);
  }
}

function anyText(random: Random): string {
  const length = random.next() < 0.1 ? random.between(20, 400) : random.between(0, 30);
  const plain = random.next() < 0.6;
  let text = "";
  while (text.length < length) {
    text += plain
      ? String.fromCharCode(random.between(32, 126))
      : String.fromCodePoint(random.between(0, anyPoint(random)));
  }
  return text.toWellFormed();
}

function anyPoint(random: Random): number {
  return [0x7f, 0x7ff, 0xffff, 0x10ffff][random.between(0, 3)] ?? 0;
}

function anyFinite(random: Random): number {
  const value = anyDouble(random);
  return Number.isFinite(value) ? value : 0.5;
}

function anyDouble(random: Random): number {
  const edges = [0, -0, Number.NaN, Number.POSITIVE_INFINITY, Number.MIN_VALUE, Number.MAX_VALUE];
  return random.next() < 0.3 ? (edges[random.between(0, edges.length - 1)] ?? 0) : (random.next() - 0.5) * 1e13;
}
