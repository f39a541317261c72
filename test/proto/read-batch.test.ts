import { isDeepStrictEqual } from "node:util";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { describe, expect, test } from "vitest";
import { encodeBatches, encodeBatchMessage } from "../../proto/client-batch.ts";
import { type ClientMessage, ClientMessageSchema, type Datapoint, type Value } from "../../proto/gen/starling_pb.ts";
import { createBatchReader, JsonText, type PlainBatch, type PlainValue } from "../../proto/read-batch.ts";
import { createRandom, type Random, seedOfRun } from "../support/random.ts";

const seed = seedOfRun();
/** One for all, so that what it remembers is put to the test as well. */
const reader = createBatchReader();

describe("the batch reader", () => {
  test("reads by hand what the client writes", () => {
    const values = ["", "é", "x".repeat(300), 0, -1, 127, 128, 2 ** 31, 2 ** 53 - 1, -(2 ** 53) + 1, 2n ** 63n - 1n];
    const more = [-(2n ** 63n), 2n ** 53n, 1.5, -0, Number.NaN, true, false, null, { a: ["€"] }, [1]];
    const datapoints = [...values, ...more].map((v) => ({
      type: "t",
      eid: "e",
      attr: "a",
      v,
      t1: 1.5,
      c: 0.5,
      src: "s",
    }));
    const [batch] = encodeBatches([...datapoints, { type: "t", eid: 5, attr: "a", v: 1 }], true);
    if (batch === undefined) throw new Error("no batch");
    for (const [number, predecessor] of [[1, null] as const, [300, 299] as const, [2 ** 53 - 1, 2 ** 40] as const]) {
      const bytes = encodeBatchMessage(batch, number, predecessor);
      const read = reader.readPlain(bytes);
      expect(read?.kind.value).toEqual(plainBatch(fromBinary(ClientMessageSchema, bytes)));
      expect(read?.kind.value).toMatchObject({ number, predecessor: predecessor ?? undefined, atomic: true });
    }
  });

  test("leaves every other message to protobuf-es", () => {
    const hello = toBinary(ClientMessageSchema, {
      $typeName: "starling.v1.ClientMessage",
      kind: {
        case: "hello",
        value: {
          $typeName: "starling.v1.Hello",
          versionMin: 1,
          versionMax: 1,
          session: "s",
          named: false,
          level: 0,
          clusterId: "",
        },
      },
    });
    for (const bytes of [hello, Uint8Array.of(0x1a, 0), new Uint8Array(0), Uint8Array.of(0x12, 1, 0x48, 1)]) {
      expect(reader.readPlain(bytes)).toBeNull();
      expectAgreement(bytes);
    }
  });

  test("reads bytes that begin somewhere in a buffer", () => {
    const [batch] = encodeBatches([{ type: "t", eid: "e", attr: "a", v: 1.25, t1: 7 }], false);
    if (batch === undefined) throw new Error("no batch");
    const message = encodeBatchMessage(batch, 1, null);
    const bytes = Buffer.concat([Buffer.alloc(3, 0xff), message, Buffer.alloc(20, 0xff)]).subarray(
      3,
      3 + message.length,
    );
    expect(reader.readPlain(bytes)?.kind.value.datapoints).toMatchObject([{ v: 1.25, t1: 7 }]);
  });

  test("tells texts apart however many it remembers", () => {
    for (let round = 0; round < 2; round++) {
      for (let i = 0; i < 3000; i++) expectAgreement(nameMessage(Buffer.from(`name-${i}`)));
    }
    // What is remembered as é must not be found for the byte 0xe9, which is no UTF-8, not even at the same place.
    for (let i = 0; i < 4000; i++) {
      reader.readPlain(nameMessage(Buffer.from(`é${i}`)));
      expectAgreement(nameMessage(Buffer.from(`é${i}`, "latin1")));
    }
    for (const name of ["é", "\u00e9\u00e9", "\u0000", "", "\ufeffa", "\ufffd", "a".repeat(64), "a".repeat(65)]) {
      expect(reader.readPlain(nameMessage(Buffer.from(name)))?.kind.value.datapoints[0]?.type).toBe(name);
    }
    expect(reader.readPlain(nameMessage(Buffer.of(0xe9)))).toBeNull();
    expectAgreement(nameMessage(Buffer.of(0xe9)));
    expectAgreement(nameMessage(Buffer.of(0xe9, 0xe9)));
  });

  test("refuses text that is not UTF-8, as protobuf-es does", () => {
    const bad = [[0x80], [0xc0, 0x80], [0xc3], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xef, 0xbf, 0xbd, 0xff]];
    for (const bytes of bad) {
      for (const before of ["", "x".repeat(40)]) {
        const message = nameMessage(Buffer.concat([Buffer.from(before), Buffer.from(bytes)]));
        expect(() => reader.read(message)).toThrow();
        expectAgreement(message);
      }
    }
  });

  test(`agrees with protobuf-es on messages of any shape (seed ${seed})`, () => {
    const random = createRandom(seed);
    let byHand = 0;
    for (let i = 0; i < 4000; i++) {
      const bytes = anyMessage(random, random.next() < 0.5 ? 0 : 0.05);
      if (reader.readPlain(bytes) !== null) byHand += 1;
      expectAgreement(bytes);
    }
    expect(byHand).toBeGreaterThan(1000);
  });

  test(`agrees with protobuf-es on bytes that end early or are changed (seed ${seed})`, () => {
    const random = createRandom(seed);
    for (let i = 0; i < 300; i++) {
      const bytes = anyMessage(random, 0.01);
      for (let k = 0; k < 20; k++) expectAgreement(bytes.slice(0, random.between(0, bytes.length)));
      for (let k = 0; k < 40; k++) {
        const changed = bytes.slice();
        const times = random.between(1, 2);
        for (let n = 0; n < times; n++) changed[random.between(0, changed.length - 1)] = random.between(0, 255);
        expectAgreement(changed);
      }
    }
  });
});

/** Both accept with the same content, or both refuse. */
function expectAgreement(bytes: Uint8Array): void {
  const expected = outcome(() => plainBatch(fromBinary(ClientMessageSchema, bytes)));
  const byHand = reader.readPlain(bytes);
  const found = outcome(() => (byHand === null ? plainBatch(reader.read(bytes) as ClientMessage) : byHand.kind.value));
  if (!isDeepStrictEqual(found, expected)) {
    expect({ bytes: Buffer.from(bytes).toString("hex"), found }).toEqual({ bytes: "", found: expected });
  }
}

function outcome(read: () => unknown): { ok: unknown } | { error: string } {
  try {
    return { ok: read() };
  } catch (error) {
    return { error: (error as Error).message };
  }
}

/** What protobuf-es read, as the reader gives it. */
function plainBatch({ kind }: ClientMessage): PlainBatch | string {
  if (kind.case !== "batch") return kind.case ?? "nothing";
  const { number, predecessor, atomic, datapoints } = kind.value;
  return {
    number: Number(number),
    predecessor: predecessor === undefined ? undefined : Number(predecessor),
    atomic,
    datapoints: datapoints.map(({ type, eid, attr, v, t1, t2, c, src }: Datapoint) => {
      return { type, eid, attr, v: plainValue(v), t1, t2, c, src };
    }),
  };
}

function plainValue(value: Value | undefined): PlainValue | undefined {
  const kind = value?.kind;
  if (kind?.case === "json") return new JsonText(kind.value);
  if (kind?.case !== "int64") return kind?.value;
  const number = BigInt(kind.value);
  return Number.isSafeInteger(Number(number)) ? Number(number) : number;
}

/** A message with one datapoint of this type. */
function nameMessage(name: Uint8Array): Uint8Array {
  const datapoint = new BinaryWriter().tag(1, WireType.LengthDelimited).bytes(name).finish();
  const batch = new BinaryWriter().tag(4, WireType.LengthDelimited).bytes(datapoint).finish();
  return new BinaryWriter().tag(2, WireType.LengthDelimited).bytes(batch).finish();
}

type WriteField = (writer: BinaryWriter, random: Random) => void;

/** Fields in any order, some of them several times; `oddShare` of the fields are of another kind than the schema says. */
function anyMessage(random: Random, oddShare: number): Uint8Array {
  const { LengthDelimited, Varint, Bit64 } = WireType;
  const nested = (fields: readonly WriteField[], countMax: number) => () => fieldsOf(fields, countMax);
  const fieldsOf = (fields: readonly WriteField[], countMax: number): Uint8Array => {
    const writer = new BinaryWriter();
    for (let count = random.between(0, countMax); count > 0; count--) {
      if (random.next() < oddShare) anyField(writer, random);
      else fields[random.between(0, fields.length - 1)]?.(writer, random);
    }
    return writer.finish();
  };
  const text = (no: number) => (writer: BinaryWriter) => writer.tag(no, LengthDelimited).string(anyText(random));
  const double = (no: number) => (writer: BinaryWriter) => writer.tag(no, Bit64).double(anyDouble(random));
  const bool = (no: number) => (writer: BinaryWriter) => writer.tag(no, Varint).bool(random.next() < 0.5);
  const whole = (no: number) => (writer: BinaryWriter) => writer.tag(no, Varint).int64(anyInt64(random));
  const message = (no: number, body: () => Uint8Array) => (writer: BinaryWriter) =>
    writer.tag(no, LengthDelimited).bytes(body());
  const value = nested([text(1), whole(2), double(3), bool(4), text(5)], 2);
  const datapoint = nested(
    [text(1), text(2), text(3), message(4, value), message(4, value), double(5), double(6), double(7), text(8)],
    12,
  );
  const batch = nested([message(4, datapoint), message(4, datapoint), whole(1), whole(2), bool(3)], 12);
  const writer = new BinaryWriter();
  message(2, batch)(writer);
  if (random.next() < oddShare)
    message(random.between(1, 3), random.next() < 0.5 ? batch : () => new Uint8Array(0))(writer);
  if (random.next() < oddShare) anyField(writer, random);
  return writer.finish();
}

/** A field of any number and any wire type, groups included. */
function anyField(writer: BinaryWriter, random: Random): void {
  const no = random.next() < 0.7 ? random.between(1, 9) : random.between(10, 3000);
  switch (random.between(0, 5)) {
    case 0:
      return void writer.tag(no, WireType.Varint).int64(anyInt64(random));
    case 1:
      return void writer.tag(no, WireType.Bit64).double(anyDouble(random));
    case 2:
      return void writer.tag(no, WireType.LengthDelimited).string(anyText(random));
    case 3:
      return void writer.tag(no, WireType.Bit32).fixed32(random.between(0, 2 ** 32 - 1));
    case 4:
      return void writer.tag(no, WireType.StartGroup).tag(no, WireType.EndGroup);
    default:
      // A tag that is longer than it has to be.
      return void writer.raw(Uint8Array.of(((no & 15) << 3) | 0x80, 0)).raw(Uint8Array.of(random.between(0, 255)));
  }
}

function anyText(random: Random): string {
  const long = random.next() < 0.1 ? random.between(20, 400) : random.between(0, 30);
  const alphabet = random.next() < 0.7 ? ["a", "b", "-", "7"] : ["a", "é", "€", "😀", "\u0000", "\ufeff", "\ufffd"];
  let text = "";
  while (text.length < long) text += alphabet[random.between(0, alphabet.length - 1)];
  return text;
}

function anyInt64(random: Random): bigint {
  const magnitude = BigInt(random.between(0, 2 ** 32 - 1)) * 2n ** BigInt(random.between(0, 32));
  const near = [0n, 2n ** 7n, 2n ** 14n, 2n ** 28n, 2n ** 32n, 2n ** 53n, 2n ** 63n - 2n][random.between(0, 6)] ?? 0n;
  const value = random.next() < 0.5 ? magnitude : near + BigInt(random.between(-2, 1));
  return BigInt.asIntN(64, random.next() < 0.5 ? value : -value);
}

function anyDouble(random: Random): number {
  const edges = [0, -0, Number.NaN, Number.POSITIVE_INFINITY, Number.MIN_VALUE, Number.MAX_VALUE];
  return random.next() < 0.3 ? (edges[random.between(0, edges.length - 1)] ?? 0) : (random.next() - 0.5) * 1e13;
}
