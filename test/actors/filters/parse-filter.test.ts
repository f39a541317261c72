import { describe, expect, it } from "vitest";
import {
  filterJunctions,
  filterOperators,
  parseFulltextFilter,
  parseGenericFilter,
} from "../../../actors/filters/parse-filter.ts";
import { parseSort } from "../../../actors/filters/parse-sort.ts";
import { everything, type SnapshotFilter } from "../../../actors/filters/snapshot-filter.ts";
import { findEntity } from "../../../modules/check-datapoint.ts";
import { configModel } from "../../support/config-model.ts";

const model = configModel({
  bus: {
    label: "plain string",
    seats: "plain int",
    color: "plain category<string; red, blue>",
    ip: "plain ipv4",
    line: "plain link<line>",
    tags: "plain set<string>",
    info: "plain dict<a:int>",
    routes: "observations string; multi_value: true",
    delays: "timeseries",
  },
  line: { "#": "id_data_type: int", name: "plain string" },
});
const bus = findEntity(model, "bus");
const generic = (filter: unknown) => parseGenericFilter(model, bus, JSON.stringify(filter));
const fulltext = (filter: unknown) => parseFulltextFilter(bus, JSON.stringify(filter));

/** The tests of a filter, in a notation for people. */
function brief(filter: SnapshotFilter): string {
  switch (filter.kind) {
    case "and":
    case "or":
      return `(${filter.of.map(brief).join(` ${filter.kind} `)})`;
    case "not":
      return `not ${brief(filter.of)}`;
    default: {
      const { path, test } = filter;
      const place = [path.attr ?? "<eid>", ...path.steps].join(".");
      if (test.kind === "compare") return `${place}${test.op}${test.json}`;
      if (test.kind === "prefix") return `${place}^${test.text}`;
      return test.kind === "match" ? `${place}~${test.pattern}` : `${place}:${test.kind}`;
    }
  }
}

describe("a filter", () => {
  it.each(["", " ", "{}", "[]", "null", "0", '""', "false"])("%j asks for everything", (text) => {
    expect(parseGenericFilter(model, bus, text)).toEqual(everything);
    expect(parseFulltextFilter(bus, text)).toEqual(everything);
  });

  it.each([
    [{ "last.seats": 5, label: "x" }, '(seats=5 and label="x")'],
    [{ seats: { $gte: "7", $lt: 9.0 } }, "(seats>=7 and seats<9)"],
    [{ $or: [{ seats: 1 }, { $nor: [{ seats: 2 }, { label: null }] }] }, "(seats=1 or not (seats=2 or label:absent))"],
    [{ eid: { $in: ["a", "$$int{5}"].slice(0, 1) } }, '(<eid>="a")'],
    [{ ip: "$$IPv4Prefix{10.0.0.0/30}" }, '(ip>="10.0.0.0" and ip<="10.0.0.3")'],
    [{ seats: { $in: ["$$int{5}", 6] } }, "(seats=5 or seats=6)"],
    [{ seats: { $not: { $gt: 3 } } }, "not seats>3"],
    [{ line: { $ne: 7 } }, "not line=7"],
    [{ "line.eid": "$$int{7}" }, "line=7"],
    [{ "info.a": 1 }, "info.a=1"],
    [{ label: { $regex: "^ab\\.c+d" } }, "(label^ab. and label~^ab\\.c+d)"],
    [{ label: { $regex: "^abc" } }, "label^abc"],
    [{ label: { $regex: "^abc|d" } }, "label~^abc|d"],
    [{ label: { $regex: "^abc", $options: "i" } }, "label~^abc"],
    [{ label: { $regex: "\\bx[\\b]" } }, "label~\\yx[\\b]"],
    [{ "routes#c": { $gt: 0.5 } }, "routes#c>0.5"],
    [{ _id: "x" }, '<eid>="x"'],
  ])("%j is %s", (filter, expected) => {
    expect(brief(generic(filter))).toBe(expected);
  });

  it.each([
    [{ seats: { $mod: [2, 0] } }, "seats.$mod: $mod is not among the operators here: $eq, $ne"],
    [{ $where: "1" }, "$where: $where is not among the operators here: $and, $or, $nor"],
    [{ $or: [{ seats: 1 }, { label: { $type: 2 } }] }, "$or.1.label.$type: $type is not among the operators"],
    [{ $or: [] }, "$or: a list that is not empty"],
    [{ $and: { seats: 1 } }, "$and: a list that is not empty"],
    [{ seats: "many" }, "seats: expected int, a whole number within"],
    [{ color: "green" }, 'color: expected one of red, blue, found "green"'],
    [{ seats: { $gt: 1, b: 2 } }, "seats: operators and names do not go together"],
    [{ wheels: 4 }, 'wheels: entity type bus has no attribute "wheels"'],
    [{ delays: 4 }, "delays: snapshots hold no values of a timeseries"],
    [{ "label.x": 4 }, 'label.x: string has no part "x"'],
    [{ "label#c": 1 }, "label#c: entity type bus has no attribute"],
    [{ ip: "$$IPv4{10.0.0.300}" }, 'ip: "$$IPv4{10.0.0.300}" does not hold what its name says'],
    [{ ip: "$$IPv4Prefix{10.0.0.1/8}" }, "ip: "],
    [{ label: { $elemMatch: { $gt: "a" } } }, "label.$elemMatch: the attribute holds one value, not a list"],
    [
      { label: { $regex: "x".repeat(201) } },
      "label.$regex: a regular expression has at most 200 characters: found 201",
    ],
    [{ label: { $regex: "x", $options: "g" } }, 'label.$regex: the options are of i, m, s and x: found "g"'],
    [{ label: { $options: "i" } }, "label: $options goes with $regex"],
    [{ label: { $exists: 1 } }, "label.$exists: true or false: found 1"],
    ["text", 'a filter is an object: found "text"'],
    [{ seats: { $in: Array.from({ length: 501 }, (_, i) => i) } }, "seats.$in: a filter has at most 500 comparisons"],
    [JSON.parse(`${'{"$and":['.repeat(25)}{}${"]}".repeat(25)}`), "nested more than 20 deep"],
  ])("%j is refused by its place", (filter, message) => {
    expect(() => generic(filter)).toThrow(
      expect.objectContaining({ code: "INVALID_FILTER", message: expect.stringContaining(message) }),
    );
  });

  it("that is no JSON, or too long, is refused", () => {
    expect(() => parseGenericFilter(model, bus, "{seats:1}")).toThrow("the generic filter is not JSON");
    expect(() => parseGenericFilter(model, bus, `{"label":"${"x".repeat(70_000)}"}`)).toThrow("more than 65536");
  });

  it("of full text matches anywhere, and takes texts alone", () => {
    expect(brief(fulltext({ "last.label": "ab", eid: "^c" }))).toBe("(label~ab and <eid>~^c)");
    expect(() => fulltext({ label: 5 })).toThrow("label: a text is needed: found 5");
    expect(() => fulltext({ nope: "x" })).toThrow('nope: entity type bus has no attribute "nope"');
  });

  it("knows the operators that the README lists", () => {
    expect([...filterJunctions, ...filterOperators].join(" ")).toBe(
      "$and $or $nor $eq $ne $gt $gte $lt $lte $in $nin $exists $regex $options $not $all $size $elemMatch",
    );
  });
});

describe("an order", () => {
  it("is by an attribute, up or down", () => {
    expect(parseSort(bus, "seats")).toMatchObject({ attr: "seats", descending: false });
    expect(parseSort(bus, "last.seats:-1")).toMatchObject({ attr: "seats", descending: true });
    expect(parseSort(bus, "eid:1")).toMatchObject({ attr: null, descending: false });
  });

  it.each([":2", "seats:2", "tags", "line", "info", "delays", "routes", "routes#c", "nope", ""])(
    "is not %j",
    (text) => {
      expect(() => parseSort(bus, text)).toThrow(expect.objectContaining({ code: "INVALID_FILTER" }));
    },
  );
});
