import { create, toBinary } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { type LooseBatch, type SplitOptions, splitBatch } from "../../../actors/sessions/batch.ts";
import { bytesOfField, hashFields } from "../../../actors/sessions/batch-hash.ts";
import { looseOf, type WireDatapoint } from "../../../actors/sessions/wire-datapoint.ts";
import { encodeBatches, encodeBatchMessage, toWireValue } from "../../../proto/client-batch.ts";
import { AckSchema, BatchSchema } from "../../../proto/gen/starling_pb.ts";
import { hashOf, shardOf } from "../../../proto/shard-of.ts";
import { testModel } from "../../support/test-model.ts";

const model = testModel({
  thing: {
    name: { kind: "plain", type: "string" },
    size: { kind: "plain", type: "int" },
    any: { kind: "plain", type: "json" },
  },
  other: { name: { kind: "plain", type: "string" } },
});
const shards = 8;
const homeShard = shardOf("entity", "", "s1", shards);
const options: SplitOptions<WireDatapoint> = { model, entityShards: shards, channel: "c:s1", homeShard, read: looseOf };

function point(eid: string, attr = "name", v: unknown = "x", type = "thing"): WireDatapoint {
  return { type, eid, attr, v: toWireValue(v) };
}

function batch(datapoints: WireDatapoint[], rest: Partial<LooseBatch<WireDatapoint>> = {}): LooseBatch<WireDatapoint> {
  return { number: 3, atomic: false, hash: "0123456789abcdef", bytes: 100, datapoints, ...rest };
}

describe("splitBatch", () => {
  test("makes one task of an entity's datapoints and keeps their order", () => {
    const split = splitBatch(batch([point("a"), point("b"), point("a", "size", 7), point("a", "name", "y")]), options);
    const tasks = split.parts.flatMap((part) => part.tasks);
    expect(tasks.map((task) => task.eid)).toEqual(expect.arrayContaining(["a", "b"]));
    const own = tasks.find((task) => task.eid === "a")?.datapoints.map((one) => one.v);
    expect(own).toEqual(["x", 7, "y"]);
    expect(split.accepted).toBe(4);
    expect(split.rejections).toEqual([]);
  });

  test("says less of each refused datapoint when there are many, so that any client can take what it is told", () => {
    const odd = "€".repeat(400);
    const { rejections } = splitBatch(
      batch(Array.from({ length: 10_000 }, () => point("a", "name", "x", odd))),
      options,
    );
    expect(rejections).toHaveLength(10_000);
    expect(rejections[0]?.message).toContain(odd.slice(0, 79));
    expect(rejections[9_999]).toMatchObject({
      index: 9_999,
      code: rejections[0]?.code,
      message: expect.stringMatching(/^.{60}…$/),
    });
    const ack = create(AckSchema, { rejections: [{ number: 3n, rejections: [...rejections] }] });
    expect(toBinary(AckSchema, ack).length).toBeLessThan(4 * 1024 * 1024 - 100_000);
  });

  test("puts every task into the part of its entity's shard, in order of first appearance", () => {
    const eids = Array.from({ length: 50 }, (_, i) => `e${i}`);
    const split = splitBatch(batch(eids.map((eid) => point(eid))), options);
    for (const part of split.parts) {
      const positions = part.tasks.map((task) => eids.indexOf(task.eid));
      expect(positions).toEqual([...positions].sort((a, b) => a - b));
      for (const task of part.tasks) expect(shardOf("entity", "thing", task.eid, shards)).toBe(part.shard);
      expect(part).toMatchObject({ channel: "c:s1", number: 3, hash: "0123456789abcdef", predecessor: null });
    }
    eids.forEach((eid, index) => {
      const part = split.parts[split.partOf[index] ?? -1];
      expect(part?.tasks.some((task) => task.eid === eid)).toBe(true);
    });
  });

  test("groups entities whose hashes are alike", () => {
    const alike: string[] = [];
    for (let i = 0; alike.length < 200; i++) if ((hashOf("thing", `e${i}`) & 1023) === 1000) alike.push(`e${i}`);
    const eids = [...alike, ...alike.toReversed(), "a"];
    const split = splitBatch(batch(eids.map((eid, index) => point(eid, "name", String(index)))), options);
    const tasks = split.parts.flatMap((part) => part.tasks);
    expect(tasks.length).toBe(201);
    for (const { eid, datapoints } of tasks) {
      const expected = eids.flatMap((one, index) => (one === eid ? [String(index)] : []));
      expect(datapoints.map((one) => one.v)).toEqual(expected);
    }
    eids.forEach((eid, index) => {
      expect(split.parts[split.partOf[index] ?? -1]?.shard).toBe(shardOf("entity", "thing", eid, shards));
    });
  });

  test("gives back parts whose tasks stand without gaps", () => {
    const eids = Array.from({ length: 40 }, (_, i) => `e${i % 30}`);
    const split = splitBatch(batch([...eids.map((eid) => point(eid)), point("a", "nope")]), options);
    for (const part of split.parts) expect(part.tasks).toEqual(part.tasks.filter((task) => task !== undefined));
    expect(split.parts.reduce((sum, part) => sum + part.tasks.length, 0)).toBe(30);
  });

  test("keeps types with equal ids apart", () => {
    const split = splitBatch(batch([point("a"), point("a", "name", "x", "other")]), options);
    expect(split.parts.flatMap((part) => part.tasks).length).toBe(2);
  });

  test("refuses bad datapoints one by one, and the home part carries the refusals", () => {
    const malformed = {
      ...point("a", "any"),
      v: { $typeName: "starling.v1.Value" as const, kind: { case: "json" as const, value: "{" } },
    };
    const missing: WireDatapoint = { type: "thing", eid: "a", attr: "name", v: undefined };
    const items = [
      point("a"),
      point("a", "nope"),
      point("a", "size", "seven"),
      malformed,
      missing,
      point("x", "name", "x", "zzz"),
    ];
    const split = splitBatch(batch(items), options);
    const codes = split.rejections.map(({ index, code }) => [index, code]);
    expect(codes).toEqual([
      [1, "UNKNOWN_ATTRIBUTE"],
      [2, "INVALID_VALUE"],
      [3, "INVALID_VALUE"],
      [4, "INVALID_VALUE"],
      [5, "UNKNOWN_TYPE"],
    ]);
    expect(split.accepted).toBe(1);
    expect(split.parts.find((part) => part.shard === homeShard)?.rejections).toEqual(split.rejections);
    expect(split.parts.filter((part) => part.rejections.length > 0).length).toBe(1);
    expect([...split.partOf].slice(1)).toEqual([-1, -1, -1, -1, -1]);
  });

  test("refuses an atomic batch whole if one datapoint is refused", () => {
    const split = splitBatch(batch([point("a"), point("a", "nope"), point("b")], { atomic: true }), options);
    expect(split.rejections.map(({ code }) => code)).toEqual(["ATOMIC_REFUSED", "UNKNOWN_ATTRIBUTE", "ATOMIC_REFUSED"]);
    expect(split.accepted).toBe(0);
    expect(split.parts).toMatchObject([{ shard: homeShard, tasks: [], rejections: split.rejections }]);
  });

  test("an empty batch still takes its number, by a part without tasks", () => {
    const split = splitBatch(batch([]), options);
    expect(split.parts).toMatchObject([
      { shard: homeShard, number: 3, tasks: [], rejections: [{ code: "INVALID_ARGUMENT" }] },
    ]);
    expect(split.whole).toBe(true);
  });

  test("refuses more than 10,000 datapoints or 4 MiB as a whole", () => {
    const many = Array.from({ length: 10_001 }, () => point("a"));
    for (const big of [batch(many), batch([point("a")], { bytes: 4 * 1024 * 1024 + 1 })]) {
      const split = splitBatch(big, options);
      expect(split.rejections).toMatchObject([{ index: 0, code: "TOO_LARGE" }]);
      expect(split).toMatchObject({ accepted: 0, whole: true });
    }
    expect(splitBatch(batch(many.slice(1)), options).accepted).toBe(10_000);
  });

  test("reads every kind of value of the wire", () => {
    const values = ["t", 5, 2n ** 62n, true, { a: [1, null] }, 1.5, -(2 ** 53) - 2];
    const read = values.map((v) => looseOf(point("a", "any", v)).v);
    expect(read).toEqual(["t", 5, 2n ** 62n, true, { a: [1, null] }, 1.5, -(2 ** 53) - 2]);
  });
});

describe("the hash of a batch", () => {
  const [encoded] = encodeBatches([{ type: "thing", eid: "a", attr: "name", v: "x" }], false);
  const [changed] = encodeBatches([{ type: "thing", eid: "a", attr: "name", v: "y" }], false);
  const body = (number: number, predecessor: number | null, content = encoded) =>
    bytesOfField(encodeBatchMessage(content ?? { content: new Uint8Array(0), count: 0 }, number, predecessor), 2) ??
    new Uint8Array(0);

  test("does not change with number and predecessor, and changes with the content", () => {
    const hash = hashFields(body(7, null), 3, 4);
    expect(hash).toMatch(/^[0-9a-f]{16}$/);
    expect(hashFields(body(7, 6), 3, 4)).toBe(hash);
    expect(hashFields(body(2 ** 40, 2 ** 40 - 1), 3, 4)).toBe(hash);
    expect(hashFields(body(7, 6, changed), 3, 4)).not.toBe(hash);
  });

  test("is the same for a client that encodes with any protobuf library", () => {
    const datapoints = [{ type: "thing", eid: "a", attr: "name", v: toWireValue("x") }];
    const bytes = toBinary(BatchSchema, create(BatchSchema, { number: 7n, predecessor: 6n, datapoints }));
    expect(hashFields(bytes, 3, 4)).toBe(hashFields(body(9, 8), 3, 4));
  });

  test("refuses bytes that are not protobuf", () => {
    expect(() => hashFields(new Uint8Array([0x22, 0x7f, 1]), 3, 4)).toThrow(/not protobuf/);
    expect(() => hashFields(new Uint8Array([0x23]), 3, 4)).toThrow(/not protobuf/);
  });

  test("what could be hashed as something else than it is read is refused", () => {
    const content = Uint8Array.of(0x22, 0x00);
    const twice = Uint8Array.of(0x12, content.length, ...content, 0x12, content.length, ...content);
    expect(() => bytesOfField(twice, 2)).toThrow(/twice/);
    // Field 4 with a tag of two bytes: protobuf takes it, and a reader of first bytes would not see that it is field 4.
    expect(() => hashFields(Uint8Array.of(0xa2, 0x00, 0x00), 3, 4)).toThrow(/not protobuf/);
  });
});
