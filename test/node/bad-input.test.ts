import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createLog } from "../../node/log.ts";
import { type Node, startNode } from "../../node/node.ts";
import { type Client, connect } from "../../proto/client.ts";
import type { ClientDatapoint } from "../../proto/client-batch.ts";
import { dumpDatabase } from "../support/database-dump.ts";
import { testDatabase } from "../support/postgres.ts";
import type { TestDatabase } from "../support/postgres-server.ts";
import { repository } from "../support/repository.ts";

/** Bad datapoints through real gRPC: a code, the attribute and the rule in the message, and nothing changed. */
const dataDir = mkdtempSync(join(tmpdir(), "starling-bad-"));
let database: TestDatabase;
let node: Node;
let client: Client;

beforeAll(async () => {
  database = await testDatabase();
  node = await startNode({
    configDir: join(repository, "test/support/types-config"),
    env: {},
    flags: { dataDir, databaseUrl: database.url, listen: "127.0.0.1:0", logLevel: "error" },
    log: createLog({ level: "error" }),
  });
  client = await connect({ address: node.address, level: "processed" });
  // What is there must stay as it is.
  await client.send([{ type: "probe", eid: "good", attr: "int", v: 1 }]);
});

afterAll(async () => {
  await client.close();
  await node.close();
  await database.close();
  rmSync(dataDir, { recursive: true, force: true });
});

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

const cases: readonly (readonly [what: string, datapoint: ClientDatapoint, code: string, named: RegExp])[] = [
  ["an unknown entity type", { ...of("int", 1), type: "prbe" }, "UNKNOWN_TYPE", /prbe/],
  ["an unknown attribute", of("intt", 1), "UNKNOWN_ATTRIBUTE", /probe.*intt/],
  ["a mirror", of("linked", [{ eid: "p" }]), "READ_ONLY", /probe\.linked/],
  ["a tag that is 2", of("tag", 2), "INVALID_VALUE", /probe\.tag.*2/],
  ["a number as a string", of("string", 5), "INVALID_VALUE", /probe\.string.*5/],
  ["an int above 31 bits", of("int", 2 ** 31), "INVALID_VALUE", /probe\.int.*2147483648/],
  ["an int with a fraction", of("int", 1.5), "INVALID_VALUE", /probe\.int.*1\.5/],
  ["an int64 beyond 64 bits", of("int64", "9223372036854775808"), "INVALID_VALUE", /probe\.int64/],
  ["a float that is not a number", of("float", Number.NaN), "INVALID_VALUE", /probe\.float/],
  ["an infinite float", of("float", Number.POSITIVE_INFINITY), "INVALID_VALUE", /probe\.float/],
  ["an IPv4 address with a leading zero", of("ipv4", "10.0.0.01"), "INVALID_VALUE", /probe\.ipv4.*10\.0\.0\.01/],
  ["an IPv4 address as IPv6", of("ipv6", "10.0.0.1"), "INVALID_VALUE", /probe\.ipv6/],
  ["a MAC address with mixed separators", of("mac", "aa:bb-cc:dd:ee:ff"), "INVALID_VALUE", /probe\.mac/],
  ["a month 13", of("time", "2026-13-01"), "INVALID_VALUE", /probe\.time.*2026-13-01/],
  ["a scalar as json", of("json", "5"), "INVALID_VALUE", /probe\.json/],
  ["null as special", of("special", null), "INVALID_VALUE", /probe\.special/],
  ["a value outside the category", of("category", "sideways"), "INVALID_VALUE", /probe\.category.*sideways/],
  ["text in an array of numbers", of("array", [1, "x"]), "INVALID_VALUE", /probe\.array/],
  ["an object for a set", of("set", { a: 1 }), "INVALID_VALUE", /probe\.set/],
  ["a dict without its mandatory key", of("dict", { b: "x" }), "INVALID_VALUE", /probe\.dict.*a/],
  ["a link with a bare id", of("link", "p"), "INVALID_VALUE", /probe\.link/],
  ["t2 before t1", of("observed", 1, { t1: 2000, t2: 1000 }), "INVALID_TIME", /probe\.observed.*t2/],
  ["an observation without t1", of("observed", 1), "INVALID_TIME", /probe\.observed.*t1/],
  ["a confidence of 1.5", of("observed", 1, { t1: 1, c: 1.5 }), "INVALID_CONFIDENCE", /probe\.observed.*1\.5/],
  [
    "series of unequal lengths",
    of("series", { value: [1, 2], time: ["2026-01-01"] }, { t1: 0, t2: 2e12 }),
    "INVALID_VALUE",
    /probe\.series.*length/,
  ],
  ["an eid above 1,024 bytes", { ...of("int", 1), eid: "é".repeat(513) }, "TOO_LARGE", /1,?024/],
  ["a value above 1 MiB", of("string", "x".repeat(1024 * 1024 + 1)), "TOO_LARGE", /probe\.string/],
  ["json nested 101 deep", of("json", nested(101)), "TOO_LARGE", /probe\.json.*100/],
  ["U+0000 in a string", of("string", "a\u0000b"), "INVALID_VALUE", /probe\.string/],
  ["U+0000 in an eid", { ...of("int", 1), eid: "a\u0000b" }, "INVALID_EID", /U\+0000|eid/],
  ["a lone surrogate in json", of("json", { a: "\ud800" }), "INVALID_VALUE", /probe\.json/],
];

describe("a bad datapoint is refused by code, item and rule, and changes nothing (P8, R4)", () => {
  test.each(cases)("%s", async (_, datapoint, code, named) => {
    const before = await dumpDatabase(database.url);
    const outcome = await client.send([datapoint], { atomic: true });
    expect(outcome.accepted).toBe(0);
    expect(outcome.rejections).toMatchObject([{ index: 0, code }]);
    expect(outcome.rejections[0]?.message).toMatch(named);
    expect(await dumpDatabase(database.url)).toBe(before);
    expect(before).toMatch(/^raw: [1-9]/);
  });
});

test("batch-mates of a bad datapoint are accepted, and a repeat is told the same", async () => {
  const { accepted, rejections } = await client.send([of("int", 1), of("int", "x"), of("string", "y")]);
  expect(accepted).toBe(2);
  expect(rejections).toMatchObject([{ index: 1, code: "INVALID_VALUE" }]);
  const { attributes } = await client.entities.get({ type: "probe", eid: "p" });
  expect(Object.keys(attributes).sort()).toEqual(["int", "string"]);
});

test("an atomic batch with one bad datapoint is refused whole", async () => {
  const { accepted, rejections } = await client.send([of("float", 1), of("int", "x")], { atomic: true });
  expect(accepted).toBe(0);
  expect(rejections.map(({ code }) => code)).toEqual(["ATOMIC_REFUSED", "INVALID_VALUE"]);
  expect((await client.entities.get({ type: "probe", eid: "p" })).attributes.float).toBeUndefined();
});
