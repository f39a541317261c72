import { describe, expect, it } from "vitest";
import { parseDataType } from "../../modules/data-type.ts";
import type { EidType } from "../../modules/model.ts";
import { StarlingError } from "../../proto/starling-error.ts";

const eidTypes: Record<string, EidType> = { e: "string", n: "int", host: "ipv4", card: "mac", "my-type": "string" };
const parse = (text: string) => parseDataType(text, { eidType: (etype) => eidTypes[etype] });

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    return error instanceof StarlingError ? error.code : String(error);
  }
  return "none";
}

const inf = Number.POSITIVE_INFINITY;

/** Reference 2.1: type, [input, canonical JSON] pairs, refused inputs. */
const table: readonly [string, readonly [unknown, string][], readonly unknown[]][] = [
  [
    "tag",
    [
      [true, "true"],
      [0, "false"],
      [1, "true"],
      ["Yes", "true"],
      ["off", "false"],
      ["N", "false"],
    ],
    [2, 0.5, null, "maybe", [], undefined],
  ],
  ["binary", [[false, "false"]], ["2"]],
  [
    "string",
    [
      ["", '""'],
      ['a"\n😀', '"a\\"\\n😀"'],
    ],
    [1, true, null, {}, [], "a\u0000b", "\ud800", "x\udc00y", undefined],
  ],
  [
    "int",
    [
      [7, "7"],
      [-0, "0"],
      [true, "1"],
      [12.0, "12"],
      ["+7", "7"],
      [" 12 ", "12"],
      ["1_000", "1000"],
      ["12.0", "12"],
      [2147483647, "2147483647"],
      [-2147483648n, "-2147483648"],
    ],
    [12.5, "1e3", "0x10", null, Number.NaN, inf, 2147483648, "-2147483649", "", "1__0", [], "9".repeat(100)],
  ],
  [
    "int64",
    [
      [2 ** 40, "1099511627776"],
      ["9223372036854775807", "9223372036854775807"],
      [-(2n ** 63n), "-9223372036854775808"],
      ["9007199254740991", "9007199254740991"],
    ],
    ["9223372036854775808", 2 ** 53, 1e300, 0.5, null, 2n ** 64n],
  ],
  [
    "float",
    [
      [1.5, "1.5"],
      [-0, "0"],
      [true, "1"],
      ["1e3", "1000"],
      [" .5 ", "0.5"],
      [10n, "10"],
    ],
    ["nan", "inf", Number.NaN, inf, -inf, "1e999", null, "x", "0x1"],
  ],
  [
    "ipv4",
    [
      ["10.0.0.1", '"10.0.0.1"'],
      [4294967295, '"255.255.255.255"'],
      [true, '"0.0.0.1"'],
    ],
    ["10.0.0.01", " 10.0.0.1", "10.0.0.1/8", "::1", 1.5, -1, 2 ** 32, null],
  ],
  [
    "ipv6",
    [
      ["2001:DB8::0001", '"2001:db8::1"'],
      ["::ffff:1.2.3.4", '"::ffff:102:304"'],
      ["FE80::1%eth0", '"fe80::1%eth0"'],
      [1, '"::1"'],
      [2n ** 128n - 1n, '"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"'],
    ],
    ["1.2.3.4", null, ":::", "fe80::1%", 2n ** 128n, -1],
  ],
  [
    "mac",
    [
      ["AA:bb:CC:00:11:22", '"aa:bb:cc:00:11:22"'],
      ["aa-bb-cc-00-11-22", '"aa:bb:cc:00:11:22"'],
    ],
    ["aa:bb-cc:00:11:22", "aabbcc001122", 1, null],
  ],
  [
    "time",
    [
      ["2020-01-01T12:00:00Z", '"2020-01-01T12:00:00Z"'],
      [1577880000, '"2020-01-01T12:00:00Z"'],
      [1577880000000, '"2020-01-01T12:00:00Z"'],
    ],
    ["20200101T120000", true, null, "soon", {}],
  ],
  [
    "json",
    [
      [{ b: 1, a: [null, "x"] }, '{"a":[null,"x"],"b":1}'],
      ['{"z":1,"y":2}', '{"y":2,"z":1}'],
      ["[1e20]", "[100000000000000000000]"],
      ['{"__proto__":1}', '{"__proto__":1}'],
    ],
    ["5", '"x"', "null", "nonsense", 5, true, null, [Number.NaN], ["\u0000"], { "\ud800": 1 }, new Date(), [undefined]],
  ],
  [
    "special",
    [
      ["x", '"x"'],
      [[1], "[1]"],
      [false, "false"],
    ],
    [null, undefined, inf, () => 1],
  ],
  ["category<string; red, green>", [["red", '"red"']], ["blue", " red", 1, null]],
  [
    "category<int;1,2>",
    [
      [1, "1"],
      [true, "1"],
    ],
    ["1", 3, 1.5, null],
  ],
  ["category<tag;yes>", [[1, "true"]], [false]],
  [
    "array<int>",
    [
      [[3, "1", 3], "[3,1,3]"],
      [[], "[]"],
    ],
    ["[1]", {}, null, [null], [1.5], new Array(2)],
  ],
  ["set<int>", [[[10, 9, "10", 9.0], "[9,10]"]], ["x"]],
  ["set<string>", [[["b", "a", "b"], '["a","b"]']], []],
  ["array<mac>", [[["AA-BB-CC-00-11-22"], '["aa:bb:cc:00:11:22"]']], [["x"]]],
  ["set< link<e> >", [[[{ eid: "b" }, { eid: "a" }, { eid: "b" }], '[{"eid":"a"},{"eid":"b"}]']], [["a"]]],
  [
    "dict< b : int , a? : string >",
    [
      [{ b: "1", a: "x", other: 1 }, '{"a":"x","b":1}'],
      [{ b: 1 }, '{"a":null,"b":1}'],
    ],
    [{ a: "x" }, { b: null }, '{"b":1}', null, []],
  ],
  [
    "link<e>",
    [[{ eid: "x" }, '{"eid":"x"}']],
    ["x", { id: "x" }, { eid: "x", data: 1 }, { eid: 5 }, null, { eid: "\u0000" }],
  ],
  ["link<n>", [[{ eid: "5.0" }, '{"eid":5}']], [{ eid: "x" }]],
  ["link<card>", [[{ eid: "AA-BB-CC-00-11-22" }, '{"eid":"aa:bb:cc:00:11:22"}']], [{ eid: "x" }]],
  [
    "link<e,int>",
    [[{ eid: "x", data: 1 }, '{"eid":"x","data":1}']],
    [{ eid: "x" }, { eid: "x", data: null }, { eid: "x", data: 1, c: 1 }],
  ],
  ["link<e, dict<a: int>>", [[{ eid: "x", data: { a: 1 } }, '{"eid":"x","data":{"a":1}}']], [{ eid: "x", data: 1 }]],
  ["link<my-type>", [[{ eid: "x" }, '{"eid":"x"}']], []],
];

describe.each(table)("%s", (text, accepted, refused) => {
  it.each(accepted)("accepts %s as %s, and reads back what it wrote", (input, json) => {
    const type = parse(text);
    const value = type.check(input);
    expect(type.write(value)).toBe(json);
    expect(type.read(json)).toEqual(value);
    expect(type.write(type.check(value))).toBe(json);
  });
  it.each(refused.map((input) => [input] as [unknown]))("refuses %s", (input) => {
    expect(codeOf(() => parse(text).check(input))).toMatch(/^INVALID_(VALUE|EID)$/);
  });
});

describe("the grammar", () => {
  it("knows the mirror of a link in every spelling", () => {
    for (const text of [
      "link<e,int;mirror=x>",
      "link<e, int; mirror=x>",
      "link<e;mirror=x>",
      "array<link<e;mirror=x>>",
    ]) {
      expect(parse(text).link).toEqual({ target: "e", mirror: "x" });
    }
    expect(parse("link<e, category<int;1,2>;mirror=x>").link).toEqual({ target: "e", mirror: "x" });
    expect(parse("set<link<e>>").link).toEqual({ target: "e", mirror: null });
    expect(parse("dict<a:int>").link).toBeNull();
  });
  it.each([
    "integer",
    "array<array<int>>",
    "array<dict<a:int>>",
    "array<category<int;1>>",
    "set<>",
    "link<>",
    "link<e,nope>",
    "dict<>",
    "dict<a>",
    "dict<a:int,a:int>",
    "dict<a:array<int>>",
    "category<int;x>",
    "category<string;a-b>",
    "category<;a>",
    "link<e, link<e;mirror=x>>",
    "link<e;mirror=1x>",
    "",
    "array<int",
    `link<e,${"link<e,".repeat(50)}int${">".repeat(51)}`,
  ])("refuses %s with what is allowed", (text) => {
    expect(() => parse(text)).toThrow(/not a data type: found .*; allowed: |not a value of/s);
    expect(codeOf(() => parse(text))).toBe("CONFIG");
  });
  it("gives int and int64, array and set the same fingerprint, and dicts one that their order does not change", () => {
    expect(parse("int").fingerprint).toBe(parse("int64").fingerprint);
    expect(parse("array<link<e>>").fingerprint).toBe(parse("set<link<e>>").fingerprint);
    expect(parse("dict<a:int,b?:tag>").fingerprint).toBe(parse("dict<b?:tag, a:int>").fingerprint);
    expect(parse("link<e,int>").fingerprint).not.toBe(parse("link<e,string>").fingerprint);
  });
});

describe("limits", () => {
  const nested = (depth: number) => `${"[".repeat(depth)}${"]".repeat(depth)}`;
  it("takes JSON of depth 100 and no deeper, wherever it stands", () => {
    expect(parse("json").write(parse("json").check(nested(100)))).toBe(nested(100));
    expect(codeOf(() => parse("json").check(nested(101)))).toBe("TOO_LARGE");
    expect(codeOf(() => parse("json").check(nested(50_000)))).toBe("TOO_LARGE");
    expect(codeOf(() => parse("array<json>").check([nested(99)]))).toBe("none");
    expect(codeOf(() => parse("array<json>").check([nested(100)]))).toBe("TOO_LARGE");
  });
  it("keeps whole numbers beyond 2^53 exact within containers", () => {
    const type = parse("array<int64>");
    const value = type.check(["9223372036854775807", 1]);
    expect(value).toEqual([9223372036854775807n, 1]);
    expect(type.read(type.write(value))).toEqual(value);
    const link = parse("link<n,float>");
    const held = link.check({ eid: "9223372036854775807", data: 1e20 });
    expect(link.read(link.write(held))).toEqual({ eid: 9223372036854775807n, data: 1e20 });
  });
});
