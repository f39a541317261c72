import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { type Cause, type Part, type PartTask, taskFrom, wholePart } from "../../../actors/lane/part.ts";
import { groupOffers, readOffer, writeOffer } from "../../../actors/peers/peer-parts.ts";
import { checkTask } from "../../../modules/check-task.ts";
import type { AttributeKind } from "../../../modules/model.ts";
import { OfferSchema } from "../../../proto/gen/peer_pb.ts";
import { shardId, toSeq } from "../../../proto/ids.ts";
import { createRandom, type Random, seedOfRun } from "../../support/random.ts";
import { testModel } from "../../support/test-model.ts";

const samples: Readonly<Record<string, readonly unknown[]>> = {
  tag: [true],
  binary: [true, false],
  string: ["", "plain", "tab\t line\n \\ \u0001 \u001c", "Пекин 😀", 'say "it"', "x".repeat(3_000)],
  int: [0, -5, 2 ** 31 - 1],
  int64: [1, 2n ** 62n, -(2n ** 63n)],
  float: [0.1, -1e-9, 1e300, 3],
  ipv4: ["10.0.0.1"],
  ipv6: ["2001:db8::1"],
  mac: ["00:11:22:33:44:55"],
  time: ["2026-01-01T00:00:00.123Z"],
  json: [{ a: [1, { b: "\n" }], c: null }, []],
  special: [{ x: 1 }],
  "array<int>": [[], [1, 2, 3]],
  "set<string>": [["b", "a\t"]],
  "dict<k:int,l?:string>": [{ k: 1 }, { k: 2, l: "ü" }],
  "category<string; red, green>": ["red"],
  "link<dst>": [{ eid: "d\t1" }],
  "link<dst, int>": [{ eid: "d1", data: 7 }],
};

const kinds: readonly AttributeKind[] = ["plain", "observations"];
const attributes = Object.keys(samples).flatMap((type, at) =>
  kinds.map((kind) => [`${kind}${at}`, { kind, type }] as const),
);
const model = testModel({ src: Object.fromEntries(attributes), dst: { seen: { kind: "plain", type: "int" } } });
const eids = ["e", "with space", "tab\tline\n\\", "Zürich", "😀", "2001:db8:0:1:2:3:4:5", "x".repeat(900)];

test("parts come back as they were, whatever they hold, over the bytes of a link", () => {
  const seed = seedOfRun();
  const random = createRandom(seed);
  for (let run = 0; run < 200; run++) {
    const parts = randomParts(random);
    const slots = parts.map((_, index) => index * 3 + 7);
    const bytes = toBinary(OfferSchema, writeOffer(parts, slots));
    const read = readOffer(fromBinary(OfferSchema, new Uint8Array(bytes)), model);
    expect(read.misfits, `seed ${seed}`).toEqual([]);
    const expected = parts.map((part, index) => ({ ...part, position: slots[index] }));
    expect(withoutLines(read.parts), `seed ${seed}`).toEqual(withoutLines(expected as Part[]));
  }
});

test("a part with a task that does not fit the model stands apart, and its neighbours come whole", () => {
  const parts = [1, 2, 3].map((value, position) => ({
    ...emptyPart(position),
    shard: shardId("entity", position),
    tasks: [taskOf("dst", `d${value}`, [{ attr: "seen", v: value }])],
  }));
  const [first, second, third] = parts;
  if (first === undefined || second === undefined || third === undefined) throw new Error("no parts");
  const strange = { ...second, tasks: [taskOf("src", "e", [{ attr: "plain3", v: 1 }]), ...second.tasks] };
  const narrow = testModel({ src: {}, dst: { seen: { kind: "plain", type: "int" } } });
  const read = readOffer(writeOffer([first, strange, third], [0, 1, 2]), narrow);
  expect(read.parts.map(({ position, tasks }) => [position, tasks.map(({ eid }) => eid)])).toEqual([
    [0, ["d1"]],
    [2, ["d3"]],
  ]);
  expect(read.misfits.map(({ part, error }) => [part.position, part.tasks.length, error.code])).toEqual([
    [1, 0, "MODEL_CHANGED"],
  ]);
});

test("one offer holds parts of one batch and not too many bytes, in their order", () => {
  const part = (number: number, bytes: number, channel = "c:a") => ({ ...emptyPart(0), number, bytes, channel });
  const parts = [part(1, 400), part(1, 400), part(1, 400), part(2, 10), part(2, 10, "c:b"), part(2, 5_000, "c:b")];
  const groups = groupOffers(parts, 1_000);
  expect(groups.map((group) => group.map(({ bytes }) => bytes))).toEqual([[400, 400], [400], [10], [10], [5_000]]);
});

function randomParts(random: Random): Part[] {
  const channel = random.between(0, 1) === 0 ? "c:séssion" : "s:4097";
  const derived = channel.startsWith("s:");
  const number = random.between(1, 2 ** 52);
  const hash = derived ? "" : "00112233aabbccdd";
  const tick = random.between(0, 2 ** 40);
  return Array.from({ length: random.between(1, 6) }, (_, position) => {
    const tasks = Array.from({ length: random.between(0, 4) }, (__, ordinal) =>
      taskFrom(randomTask(random), derived ? randomCause(random, ordinal) : null),
    );
    const rejections = random.between(0, 3) > 0 ? [] : [{ index: 3, code: "INVALID_VALUE", message: "é" }, whole];
    const predecessor = pick(random, [null, 0, number - 1]);
    const shard = shardId("entity", random.between(0, 255));
    const bytes = random.between(0, 2 ** 31);
    return { kind: "part", position, shard, channel, number, predecessor, hash, tasks, rejections, bytes, tick };
  });
}

const whole = { index: wholePart, code: "STORE_REFUSED", message: "all" };

function randomTask(random: Random): PartTask {
  const eid = pick(random, eids);
  const form = random.between(0, 5);
  if (form === 0) return taskFrom(checkTask(model, { type: "src", eid, delete: true }), null);
  const ttlTokens = form === 1 ? { seen: 1_767_225_600_000, "t-k": 5 } : undefined;
  const datapoints = Array.from({ length: random.between(form === 1 ? 0 : 1, 4) }, () => {
    const [attr, { kind, type }] = pick(random, attributes);
    const v = pick(random, samples[type] ?? []);
    const t1 = 1_767_225_600_000 + random.between(0, 10) + pick(random, [0, 0.125]);
    const times = kind === "plain" ? {} : { t1, t2: t1 + random.between(0, 5_000) };
    return { attr, v: v as never, ...times, src: pick(random, [null, "", "probe 1", "ü\t"]) };
  });
  return taskFrom(checkTask(model, { type: "src", eid, datapoints, ...(ttlTokens && { ttlTokens }) }), null);
}

function randomCause(random: Random, ordinal: number): Cause {
  const seq = toSeq(pick(random, [1, 2 ** 40]));
  return { shard: shardId("system", 1), seq, hook: pick(random, ["m/on_new_attr/a/h", "ü\t"]), ordinal, depth: 2 };
}

function taskOf(type: string, eid: string, datapoints: readonly { attr: string; v: number }[]): PartTask {
  return taskFrom(checkTask(model, { type, eid, datapoints }), null);
}

function emptyPart(position: number): Part {
  const shard = shardId("entity", 0);
  const at = { kind: "part", position, shard, channel: "c:s", number: 9, predecessor: 8, hash: "h" } as const;
  return { ...at, tasks: [], rejections: [], bytes: 100 };
}

/** A datapoint's line is found again in the log's text. */
function withoutLines(parts: readonly Part[]): Part[] {
  return parts.map((part) => ({
    ...part,
    tasks: part.tasks.map((task) => ({
      ...task,
      datapoints: task.datapoints.map((datapoint) => ({ ...datapoint, line: null })),
    })),
  }));
}

function pick<T>(random: Random, from: readonly T[]): T {
  const found = from[random.between(0, from.length - 1)];
  if (found === undefined) throw new Error("nothing to pick from");
  return found;
}
