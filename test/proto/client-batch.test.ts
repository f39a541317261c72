import { fromBinary } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { encodeBatches, encodeBatchMessage, toWireValue } from "../../proto/client-batch.ts";
import { ClientMessageSchema } from "../../proto/gen/starling_pb.ts";

const kindOf = (v: unknown) => {
  const { kind } = toWireValue(v);
  return [kind.case, kind.value];
};

describe("a value on the wire", () => {
  test("keeps its JavaScript type", () => {
    expect(kindOf("a")).toEqual(["string", "a"]);
    expect(kindOf(7)).toEqual(["int64", "7"]);
    expect(kindOf(1.5)).toEqual(["double", 1.5]);
    expect(kindOf(-0)).toEqual(["double", -0]);
    expect(kindOf(2 ** 60)).toEqual(["double", 2 ** 60]);
    expect(kindOf(true)).toEqual(["bool", true]);
    expect(kindOf(-(2n ** 63n))).toEqual(["int64", "-9223372036854775808"]);
    expect(kindOf(new Date(0))).toEqual(["string", "1970-01-01T00:00:00.000Z"]);
    expect(kindOf([1, { a: "b" }])).toEqual(["json", '[1,{"a":"b"}]']);
    expect(kindOf(null)).toEqual(["json", "null"]);
    expect(kindOf({ big: [2n ** 62n], none: undefined })).toEqual(["json", '{"big":[4611686018427387904]}']);
  });

  test("is refused when it cannot be kept", () => {
    const cycle: unknown[] = [];
    cycle.push(cycle);
    const notInJson = [[Number.NaN], { a: [null, { b: Number.NEGATIVE_INFINITY }] }];
    for (const v of [undefined, () => 1, Symbol("x"), 2n ** 63n, new Date(Number.NaN), cycle, ...notInJson]) {
      expect(() => toWireValue(v)).toThrow(expect.objectContaining({ code: "INVALID_VALUE" }));
    }
  });
});

describe("a text with half of a surrogate pair", () => {
  const halves = ["\ud83d", "a\ude00", "é\ud83db", `${"x".repeat(200)}\ud800`, "\ude00\ud83d"];
  const whole = { type: "t", eid: "e", attr: "a", v: "v", src: "s" };

  test("is refused wherever a datapoint has one, and named", () => {
    const codes = { type: "INVALID_ARGUMENT", eid: "INVALID_EID", attr: "INVALID_ARGUMENT", v: "INVALID_VALUE" };
    for (const [key, code] of Object.entries({ ...codes, src: "INVALID_ARGUMENT" })) {
      for (const half of halves) {
        const message = expect.stringMatching(new RegExp(`^${key}: expected text without a lone surrogate, found "`));
        const refused = expect.objectContaining({ code, message });
        expect(() => encodeBatches([whole, { ...whole, [key]: half }], false)).toThrow(refused);
      }
    }
    expect(encodeBatches([{ ...whole, v: "😀", eid: "é😀" }], false)).toHaveLength(1);
  });

  test("travels escaped within JSON, for the node to judge", () => {
    expect(kindOf({ "\ud800": ["\udfff"] })).toEqual(["json", '{"\\ud800":["\\udfff"]}']);
  });
});

describe("an encoded batch", () => {
  test("decodes to what was given, with any number and predecessor", () => {
    const points = [
      { type: "t", eid: 5n, attr: "a", v: 1, t1: new Date(5), t2: 6.5, c: 0.5, src: "me" },
      { type: "t", eid: "x", attr: "b", v: "y", t1: null, c: undefined },
    ];
    const [batch] = encodeBatches(points, true);
    if (batch === undefined) throw new Error("no batch");
    for (const [number, predecessor] of [
      [1, null],
      [2 ** 40, 2 ** 40 - 1],
    ] as const) {
      const { kind } = fromBinary(ClientMessageSchema, new Uint8Array(encodeBatchMessage(batch, number, predecessor)));
      if (kind.case !== "batch") throw new Error("no batch");
      expect(kind.value).toMatchObject({ number: BigInt(number), atomic: true });
      expect(kind.value.predecessor).toBe(predecessor === null ? undefined : BigInt(predecessor));
      expect(kind.value.datapoints).toMatchObject([
        { type: "t", eid: "5", attr: "a", t1: 5, t2: 6.5, c: 0.5, src: "me" },
        { type: "t", eid: "x", attr: "b" },
      ]);
      expect(kind.value.datapoints[1]?.t1).toBeUndefined();
      expect(kind.value.datapoints[1]?.c).toBeUndefined();
    }
  });

  test("stays within 10,000 datapoints and 4 MiB, in order", () => {
    const many = Array.from({ length: 20_001 }, (_, i) => ({ type: "t", eid: `${i}`, attr: "a", v: i }));
    expect(encodeBatches(many, false).map(({ count }) => count)).toEqual([10_000, 10_000, 1]);
    const heavy = Array.from({ length: 10 }, (_, i) => ({
      type: "t",
      eid: `${i}`,
      attr: "a",
      v: "x".repeat(1_000_000),
    }));
    const batches = encodeBatches(heavy, false);
    expect(batches.reduce((sum, { count }) => sum + count, 0)).toBe(10);
    for (const { content } of batches) expect(content.length).toBeLessThan(4 * 1024 * 1024);
    expect(() => encodeBatches([{ type: "t", eid: "1", attr: "a", v: "x".repeat(5_000_000) }], false)).toThrow(/4 MiB/);
  });
});
