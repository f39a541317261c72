import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Connection } from "../../actors/store/connection.ts";
import { type Client, connect } from "../../proto/client.ts";
import type { ClientDatapoint } from "../../proto/client-batch.ts";
import { dumpDatabase } from "../support/database-dump.ts";
import { startTypesNode, type TypesNode } from "../support/types-node.ts";
import { run } from "./cli/terminal.ts";

/** Bad datapoints through real gRPC: a code, the attribute and the rule in the message, and nothing changed. */
let node: TypesNode;
let client: Client;
let connection: Connection;

beforeAll(async () => {
  node = await startTypesNode();
  ({ client, connection } = node);
  // What is there must stay as it is.
  await client.send([{ type: "probe", eid: "good", attr: "int", v: 1 }]);
});

afterAll(() => node.close());

const of = (attr: string, v: unknown, rest: Partial<ClientDatapoint> = {}): ClientDatapoint => ({
  type: "probe",
  eid: "p",
  attr,
  v,
  ...rest,
});

/** Objects that are nested so deep. */
function nested(depth: number): unknown {
  let value: unknown = 1;
  for (let i = 0; i < depth; i++) value = [value];
  return value;
}

type Case = readonly [what: string, datapoint: ClientDatapoint, code: string, message: string];

const series = (attr: string, v: unknown, t1 = 0, t2?: number): ClientDatapoint => of(attr, v, { t1, t2 });
const twoDays = ["2026-01-01", "2026-01-02"];
const day1 = Date.UTC(2026, 0, 1);
const int = "int, a whole number within -2147483648 and 2147483647";
const bool = "true or false (or 1, 0, yes, no, on, off, t, f, y, n)";
const ipv4 = "an IPv4 address, four numbers of 0 to 255 without leading zeros, or a number of 32 bits";
const ipv6 = "an IPv6 address, hex digits in groups with colons, or a number of 128 bits";
const mac = "a MAC address, six pairs of hex digits, all with colons or all with dashes";
const times = "YYYY-MM-DD, YYYY-MM-DDTHH:MM[:SS[.f]][Z or ±HH:MM], or Unix time as a number";

/** Each message says which item, what was found, and the rule: what would have been taken. */
const names: readonly Case[] = [
  ["an unknown entity type", { ...of("int", 1), type: "prbe" }, "UNKNOWN_TYPE", 'no entity type "prbe"'],
  ["an unknown attribute", of("intt", 1), "UNKNOWN_ATTRIBUTE", 'entity type probe has no attribute "intt"'],
  ["a mirror", of("linked", [{ eid: "p" }]), "READ_ONLY", "probe.linked: a mirror is computed and takes no datapoints"],
];

/** Of each data type at least one; the attribute is named before what stands here. */
const values: readonly (readonly [attr: string, v: unknown, message: string])[] = [
  ["tag", 2, `expected ${bool}, found 2`],
  ["binary", "maybe", `expected ${bool}, found "maybe"`],
  ["string", 5, "expected text, found 5"],
  ["string", null, "expected text, found null"],
  ["int", 2 ** 31, `expected ${int}, found 2147483648`],
  ["int", 1.5, `expected ${int}, found 1.5`],
  ["int", "x", `expected ${int}, found "x"`],
  ["int64", "9223372036854775808", 'expected int64, a whole number of 64 bits, found "9223372036854775808"'],
  [
    "int64",
    2 ** 60 + 0.5,
    "expected int64, beyond 2^53 as decimal text so that nothing is rounded, found 1152921504606847000",
  ],
  ["float", Number.NaN, "expected float, a finite number, found NaN"],
  ["float", Number.POSITIVE_INFINITY, "expected float, a finite number, found Infinity"],
  ["ipv4", "10.0.0.01", `expected ${ipv4}, found "10.0.0.01"`],
  ["ipv4", 2 ** 32, `expected ${ipv4}, found 4294967296`],
  ["ipv6", "10.0.0.1", `expected ${ipv6}, found "10.0.0.1"`],
  ["mac", "aa:bb-cc:dd:ee:ff", `expected ${mac}, found "aa:bb-cc:dd:ee:ff"`],
  ["time", "2026-13-01", `expected time, found "2026-13-01"; allowed: ${times}`],
  ["json", "5", 'expected a JSON object or array, or JSON text of one (a scalar is refused), found "5"'],
  ["special", null, "expected any value but null, found null"],
  ["category", "sideways", 'expected one of up, down, found "sideways"'],
  ["level", 3, "expected one of 1, 2, found 3"],
  ["level", "1", 'expected one of 1, 2, found "1"'],
  ["array", [1, "x"], `position 1: expected ${int}, found "x"`],
  ["array", { 0: 1 }, "expected a list of type array<int>, found an object with the keys 0"],
  ["set", { a: 1 }, "expected a list of type set<int>, found an object with the keys a"],
  ["set", [1, 2, 0.5], `position 2: expected ${int}, found 0.5`],
  ["dict", [], "expected an object of type dict<a:int,b?:string>, found a list of 0"],
  ["dict", { b: "x" }, "expected an object with the key a, found an object with the keys b"],
  ["dict", { a: 1, b: 2 }, "key b: expected text, found 2"],
  ["link", "p", 'expected a link, an object with exactly {eid}, found "p"'],
  ["link", { eid: 5 }, "expected text, found 5"],
  ["rated", { eid: "p" }, "expected a link, an object with exactly {eid, data}, found an object with the keys eid"],
  ["rated", { eid: "p", data: "much" }, `expected ${int}, found "much"`],
  ["links", [{ eid: "x" }], 'position 0: expected a whole number of 64 bits, found "x"'],
  ["string", "a\u0000b", 'text holds U+0000 or a lone surrogate, which cannot be stored: found "a\\u0000b"'],
  ["json", { "\u0000": 1 }, 'text holds U+0000 or a lone surrogate, which cannot be stored: found "\\u0000"'],
  ["json", { a: "\ud800" }, 'text holds U+0000 or a lone surrogate, which cannot be stored: found "\\ud800"'],
];

const timeseries: readonly Case[] = (
  [
    ["no object", series("series", 5), "expected an object with the series time, value, found 5"],
    ["a series left out", series("series", { time: twoDays }), "expected a list as series value, found nothing"],
    [
      "a wrong element",
      series("series", { value: [1, "x"], time: twoDays }),
      'series value: position 1: expected float, a finite number, found "x"',
    ],
    [
      "a wrong time",
      series("series", { value: [1, 2], time: ["2026-01-01", "soon"] }),
      `series time: position 1: expected time, found "soon"; allowed: ${times}`,
    ],
    [
      "unequal lengths",
      series("series", { value: [1, 2], time: ["2026-01-01"] }),
      "the series must all have the same length: found time 1, value 2",
    ],
    [
      "intervals of unequal lengths",
      series("spans", { value: [1], time_first: twoDays, time_last: twoDays }),
      "the series must all have the same length: found time_first 2, time_last 2, value 1",
    ],
    [
      "times that go backwards",
      series("series", { value: [1, 2], time: twoDays.toReversed() }),
      "time must not go backwards: found it at position 1",
    ],
    [
      "an interval that ends before it begins",
      series("spans", { value: [1], time_first: ["2026-01-02"], time_last: ["2026-01-01"] }),
      "time_first must not be after time_last: found it at position 0",
    ],
    [
      "no values at all",
      series("spans", { value: [], time_first: [], time_last: [] }),
      "irregular_intervals series need at least one value, found none",
    ],
  ] as const
).map(([what, datapoint, message]) => [
  `a timeseries with ${what}`,
  datapoint,
  "INVALID_VALUE",
  `probe.${datapoint.attr}: ${message}`,
]);

const validities: readonly Case[] = (
  [
    ["t2 before t1", of("observed", 1, { t1: 2000, t2: 1000 }), "t2 is before t1: found t1 2000 and t2 1000"],
    ["an observation without t1", of("observed", 1), `observations need t1: found nothing; allowed: ${times}`],
    ["a t1 that is no number", of("observed", 1, { t1: Number.NaN }), `t1 is not a time: found NaN; allowed: ${times}`],
    [
      "a t2 after the year 9999",
      of("observed", 1, { t1: 1, t2: 1e15 }),
      `t2 is not a time: found 1000000000000000; allowed: ${times}`,
    ],
    [
      "t2 before t1 of a timeseries",
      series("series", { value: [1], time: ["2026-01-01"] }, day1, day1 - 1),
      `t2 is before t1: found t1 ${day1} and t2 ${day1 - 1}`,
    ],
    [
      "t2 before the last time of a timeseries",
      series("series", { value: [1, 2], time: twoDays }, day1, day1 + 1),
      `t2 is before the last time of the series: found t2 ${day1 + 1} and ${day1 + 86_400_000}`,
    ],
    [
      "t1 after the first time of a timeseries",
      series("series", { value: [1], time: ["2026-01-01"] }, day1 + 1),
      `t1 is after the first time of the series: found t1 ${day1 + 1} and ${day1}`,
    ],
    [
      "a t2 that does not fit the steps",
      series("steps", { value: [1, 2] }, 1000, 2000),
      "t2 must be t1 + 2 · 1000 ms, which is 3000: found t1 1000 and t2 2000",
    ],
  ] as const
).map(([what, datapoint, message]) => [what, datapoint, "INVALID_TIME", `probe.${datapoint.attr}: ${message}`]);

const confidences: readonly Case[] = [1.5, -0.1, Number.NaN].map((c) => [
  `a confidence of ${c}`,
  of("observed", 1, { t1: 1, c }),
  "INVALID_CONFIDENCE",
  `probe.observed: the confidence must be within 0 and 1: found ${c}`,
]);

const eids: readonly Case[] = (
  [
    ["int", "12x", "a whole number of 64 bits"],
    ["int", "9223372036854775808", "a whole number of 64 bits"],
    ["ipv4", "10.0.0.256", ipv4],
    ["ipv6", "10.0.0.1", ipv6],
    ["mac", "aa:bb:cc:dd:ee", mac],
  ] as const
).map(([type, eid, rule]) => [
  `the eid ${eid} of a type with ids of type ${type}`,
  { type: `by_${type}`, eid, attr: "n", v: 1 },
  "INVALID_EID",
  `eid of by_${type}: expected ${rule}, found "${eid}"`,
]);

const limits: readonly Case[] = [
  [
    "an eid above 1,024 bytes",
    { ...of("int", 1), eid: "é".repeat(513) },
    "TOO_LARGE",
    "eid of probe: an eid takes at most 1024 bytes, found 1026",
  ],
  ["an empty eid", { ...of("int", 1), eid: "" }, "INVALID_EID", "eid of probe: an eid has at least one character"],
  [
    "U+0000 in an eid",
    { ...of("int", 1), eid: "a\u0000b" },
    "INVALID_EID",
    'eid of probe: an eid holds no U+0000 and no lone surrogate: found "a\\u0000b"',
  ],
  [
    "a value above 1 MiB",
    of("string", "x".repeat(1024 * 1024 - 1)),
    "TOO_LARGE",
    "probe.string: a value takes at most 1048576 bytes of JSON: found 1048577",
  ],
  ["json nested 101 deep", of("json", nested(101)), "TOO_LARGE", "probe.json: JSON is nested more than 100 deep"],
  [
    "a source above 1,024 bytes",
    of("int", 1, { src: "é".repeat(513) }),
    "TOO_LARGE",
    `probe.int: src takes at most 1024 bytes: found "${"é".repeat(79)}…`,
  ],
  [
    "U+0000 in a source",
    of("int", 1, { src: "a\u0000b" }),
    "INVALID_ARGUMENT",
    "probe.int: src holds U+0000 or a lone surrogate",
  ],
];

const cases: readonly Case[] = [
  ...names,
  ...values.map(([attr, v, message]): Case => {
    const found = v !== null && typeof v === "object" ? JSON.stringify(v) : String(v);
    return [`${attr}: ${found}`, of(attr, v), "INVALID_VALUE", `probe.${attr}: ${message}`];
  }),
  ...timeseries,
  ...validities,
  ...confidences,
  ...eids,
  ...limits,
];

describe("a bad datapoint is refused by code, item and rule, and changes nothing (P8, R4)", () => {
  /** What the case before left. */
  let last = "";
  beforeAll(async () => {
    last = await dumpDatabase(connection);
    expect(last).toMatch(/^raw: 1\n/);
  });

  test.each(cases)("%s", async (_, datapoint, code, message) => {
    const sent = await Promise.all([true, false].map((atomic) => client.send([datapoint], { atomic })));
    const before = last;
    last = await dumpDatabase(connection);
    for (const outcome of sent) {
      expect(outcome).toMatchObject({ accepted: 0, rejections: [{ index: 0, code, message }] });
    }
    expect(last).toBe(before);
  });

  test("its batch-mates land and are all that changes", async () => {
    const mixed = (attr: string, v: unknown) => ({ ...of(attr, v), eid: "mixed" });
    const batch = [
      mixed("int", 1),
      mixed("ipv4", "10.0.0.256"),
      mixed("string", "y"),
      { ...of("int", 1), eid: "\u0000" },
    ];
    expect(await client.send(batch)).toMatchObject({
      accepted: 2,
      rejections: [
        { index: 1, code: "INVALID_VALUE", message: `probe.ipv4: expected ${ipv4}, found "10.0.0.256"` },
        {
          index: 3,
          code: "INVALID_EID",
          message: 'eid of probe: an eid holds no U+0000 and no lone surrogate: found "\\u0000"',
        },
      ],
    });
    const known = new Set(last.split("\n"));
    const added = (await dumpDatabase(connection)).split("\n").filter((line) => !known.has(line));
    expect(added).toEqual([
      "raw: 3",
      expect.stringContaining("probe,mixed,int,,,,1,1)"),
      expect.stringMatching(/probe,mixed,string,,,,1,.*y/),
      "entity: 2",
      expect.stringMatching(/probe,mixed,.*string.*int/),
    ]);
  });
});

test("a repeat of a batch with a bad datapoint is told the same", async () => {
  const told: unknown[] = [];
  for (const from of ["the first", "the second"]) {
    await using named = await connect({ address: node.address, session: { name: "repeated" } });
    const { accepted, rejections } = await named.send([of("int", 1), of("int", "x"), of("string", "y")]);
    told.push({ accepted, rejections });
    expect(accepted, from).toBe(2);
  }
  const rejection = { index: 1, code: "INVALID_VALUE", message: `probe.int: expected ${int}, found "x"` };
  expect(told).toEqual([0, 1].map(() => ({ accepted: 2, rejections: [rejection] })));
  const { attributes } = await client.entities.get({ type: "probe", eid: "p" });
  expect(
    Object.entries(attributes)
      .map(([attr, { n }]) => `${attr} ${n}`)
      .sort(),
  ).toEqual(["int 1", "string 1"]);
});

test("an atomic batch with one bad datapoint is refused whole", async () => {
  const { accepted, rejections } = await client.send([of("float", 1), of("int", "x")], { atomic: true });
  expect(accepted).toBe(0);
  expect(rejections.map(({ code }) => code)).toEqual(["ATOMIC_REFUSED", "INVALID_VALUE"]);
  expect((await client.entities.get({ type: "probe", eid: "p" })).attributes.float).toBeUndefined();
});

describe("starling send", () => {
  const good = (eid: string) => JSON.stringify({ type: "probe", eid, attr: "int", v: 1 });
  const badLines = [
    ['{"type":"probe",', /:1: not JSON: /],
    ["[]", /:2: expected a datapoint object, found an array$/],
    ["5", /:3: expected a datapoint object, found a number$/],
  ] as const;

  /** But for the sessions: each command begins one. */
  async function dumpRest(): Promise<string> {
    const lines = (await dumpDatabase(connection)).split("\n");
    return lines.filter((line) => !/^session: |^\(drawn:/.test(line)).join("\n");
  }

  async function send(lines: readonly string[]) {
    return await run(["send", "-"], { stdin: lines.join("\n"), env: { STARLING_ADDRESS: node.address } });
  }

  test("tells malformed lines with their number and rule; where there are no others, nothing changes", async () => {
    await client.send([of("int", 1)]); // what came before it of this entity is written
    const before = await dumpRest();
    const { code, err, out } = await send(badLines.map(([line]) => line));
    expect(code).toBe(1);
    for (const [line, rule] of badLines) expect(err.split("\n"), line).toContainEqual(expect.stringMatching(rule));
    expect(out).toMatch(/^malformed 3$/m);
    expect(await dumpRest()).toBe(before);
  });

  test("sends the rest of a file with malformed lines, and with datapoints that the node refuses", async () => {
    const before = new Set((await dumpDatabase(connection)).split("\n"));
    const refused = JSON.stringify({ type: "probe", eid: "send", attr: "int", v: "x" });
    const { code, err, out } = await send([good("send-1"), '{"type":', refused, good("send-2")]);
    expect(code).toBe(1);
    expect(err).toMatch(/:2: not JSON: /);
    expect(out).toContain(`-:3: probe.int: expected ${int}, found "x"`);
    expect(out).toMatch(/^accepted {2}2$/m);
    const added = async () => {
      const lines = (await dumpDatabase(connection)).split("\n").filter((line) => !before.has(line));
      return lines.flatMap((line) => /send(-\d)?/.exec(line)?.[0] ?? []).sort();
    };
    // Raw datapoints and records.
    await expect.poll(added, { timeout: 10_000 }).toEqual(["send-1", "send-1", "send-2", "send-2"]);
  });
});
