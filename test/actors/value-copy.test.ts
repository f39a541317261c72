import { expect, it } from "vitest";
import { applyDatapoint, createEntity } from "../../actors/lane/entity.ts";
import { viewOf } from "../../actors/lane/entity-view.ts";
import { copyValue } from "../../actors/value-copy.ts";
import { checkDatapoint } from "../../modules/check-datapoint.ts";
import { parseDataType } from "../../modules/data-type.ts";
import type { CheckedDatapoint, Value } from "../../modules/datapoint.ts";
import { toSeq } from "../../proto/ids.ts";
import { testModel } from "../support/test-model.ts";

/** Values as they come from the wire, by type: what is odd about each of them is what a text would tidy up. */
const samples: Readonly<Record<string, readonly unknown[]>> = {
  string: ["", 'a "quoted" \\ text', "line\u2028end 🐦", "__proto__"],
  int: [0, -0, "17"],
  int64: [1, "9007199254740993", -(2n ** 63n)],
  float: [-0, 1e21, 5e-324, "0.1"],
  binary: [true],
  ipv4: ["192.0.2.1"],
  ipv6: ["2001:DB8:0::1"],
  mac: ["AA-BB-CC-DD-EE-FF"],
  time: ["2026-01-01T00:00:00Z"],
  json: [
    [],
    {},
    [-0, [1, { b: [null, -0], a: "x" }]],
    { 10: 1, 9: 2, b: { c: {} } },
    JSON.parse('{"__proto__":{"a":[1]}}'),
  ],
  "array<int64>": [[], [1, "9007199254740993"]],
  "set<string>": [["b", "a", "b"]],
  "array<float>": [[-0, 1, 0.5]],
  "link<thing>": [{ eid: "other" }],
  "link<thing, int64>": [{ eid: "other", data: "9007199254740993" }],
  "dict<b: int64, a?: string>": [{ b: "9007199254740993" }, { b: 1, a: "x" }],
  "category<string; one, two>": ["two"],
};

/** Tells -0 from 0, and shows the order of keys. */
function shown(value: Value): string {
  return JSON.stringify(value, (_, one: unknown) =>
    typeof one === "bigint" ? `${one}n` : Object.is(one, -0) ? "-0" : one,
  );
}

it.each(Object.entries(samples))("a copy of a %s is what its text gives", (text, inputs) => {
  const type = parseDataType(text);
  for (const input of inputs) {
    const value = type.check(input);
    const read = type.read(type.write(value));
    const copy = copyValue(value, false);
    expect(copy).toStrictEqual(read);
    expect(shown(copy)).toBe(shown(read));
    if (typeof copy === "object" && copy !== null) expect(copy).not.toBe(value);
  }
});

it("a rounding copy is what JSON.parse gives", () => {
  const exact = { a: [2n ** 53n + 1n, 1.5], b: ["text", -(2n ** 63n)] };
  const text = '{"a":[9007199254740993,1.5],"b":["text",-9223372036854775808]}';
  expect(copyValue(exact, true)).toStrictEqual(JSON.parse(text));
});

const model = testModel({ thing: { list: { kind: "observations", type: "json" } } });

function listAt(t1: number, v: unknown): CheckedDatapoint {
  return checkDatapoint(model, { type: "thing", eid: "e", attr: "list", v, t1, t2: t1 });
}

function applyTo(datapoints: readonly CheckedDatapoint[]) {
  const spec = model.entities.get("thing");
  if (spec === undefined) throw new Error("no such type");
  const entity = createEntity(spec, "e", "e");
  for (const datapoint of datapoints) applyDatapoint(entity, datapoint, toSeq(1), 7);
  return entity;
}

it("a record gives every reader a value of its own", () => {
  const datapoint = listAt(5, [{ deep: [1] }]);
  const view = viewOf(applyTo([datapoint]), datapoint);
  const [first, second] = [view.value("list"), view.value("list")] as { deep: number[] }[][];
  first?.[0]?.deep.push(2);
  expect(second).toEqual([{ deep: [1] }]);
  expect(view.latest("list")?.v).toEqual([{ deep: [1] }]);
  expect(datapoint.v).toEqual([{ deep: [1] }]);
});

it("a record gives its own value where the hook's datapoint is not the newest, and later on", () => {
  const [newer, older] = [listAt(6, ["newer"]), listAt(5, ["older"])];
  const entity = applyTo([newer, older]);
  const view = viewOf(entity, older);
  expect(view.value("list")).toEqual(["newer"]);
  applyDatapoint(entity, listAt(8, ["newest"]), toSeq(2), 8);
  expect(view.value("list")).toEqual(["newest"]);
});
