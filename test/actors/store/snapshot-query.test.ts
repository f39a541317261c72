import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseFulltextFilter, parseGenericFilter } from "../../../actors/filters/parse-filter.ts";
import { parseDistinct, parseSort } from "../../../actors/filters/parse-sort.ts";
import { everything } from "../../../actors/filters/snapshot-filter.ts";
import { readSnapshotHistory } from "../../../actors/snapshots/snapshot-history.ts";
import { openPostgresStore, type PostgresStore } from "../../../actors/store/postgres-store.ts";
import { listStatement } from "../../../actors/store/snapshot-query.ts";
import { findEntity } from "../../../modules/check-datapoint.ts";
import { toShardId } from "../../../proto/ids.ts";
import { configModel } from "../../support/config-model.ts";
import { testDatabase } from "../../support/postgres.ts";
import type { TestDatabase } from "../../support/postgres-server.ts";
import { instantOf, openSnapshotRows, type SnapshotRows } from "../../support/snapshot-rows.ts";

const model = configModel({
  bus: {
    "#": "id_data_type: string",
    label: "plain string",
    color: "plain category<string; red, blue>",
    seats: "plain int",
    weight: "plain float",
    big: "plain int64",
    ready: "plain tag",
    ip: "plain ipv4",
    ip6: "plain ipv6",
    mac: "plain mac",
    seen: "plain time",
    line: "plain link<line>",
    stops: "plain set<link<line>>",
    tags: "plain array<string>",
    speed: "observations float",
    routes: "observations string; multi_value: true",
    info: "plain dict<a:int, b?:string>",
    extra: "plain json",
    delays: "timeseries",
  },
  line: { "#": "id_data_type: int", name: "plain string" },
});
const bus = findEntity(model, "bus");

const bodies: Record<string, Record<string, unknown>> = {
  a: {
    ...{ label: "alpha", color: "red", seats: 40, weight: 1.5, big: 1, ready: true, ip: "10.0.0.9", ip6: "fe80::1" },
    ...{ mac: "00:00:00:00:00:0a", seen: "2026-01-01T10:00:00Z", line: { eid: 7 }, stops: [{ eid: 1 }, { eid: 2 }] },
    ...{ tags: ["x", "yy"], speed: 10, "speed#c": 0.5, routes: ["n1", "n2"], "routes#c": [1, 0.2] },
    ...{ info: { a: 1, b: "one" }, extra: { deep: [{ n: 1 }, { n: 2 }] } },
  },
  b: {
    ...{ label: "alpine", color: "blue", seats: 9, weight: 2, ready: false, ip: "10.0.0.100", ip6: "2001:db8::1" },
    ...{ mac: "00:00:00:00:00:0b", seen: "2026-01-01T10:00:00.500000Z", line: { eid: 70 }, stops: [], tags: ["x"] },
    ...{ speed: 20, "speed#c": 0.9, info: { a: 2, b: null }, extra: [1, 2, 3] },
  },
  c: { label: "Beta 50% (old)", seats: 100, ip: "9.0.0.1", seen: "2026-01-02T00:00:00Z", line: null, tags: [] },
  d: { label: `${"long ".repeat(40)}end`, big: 0 },
};

let database: TestDatabase;
let store: PostgresStore;
let rows: SnapshotRows;

beforeAll(async () => {
  database = await testDatabase();
  store = await openPostgresStore({ url: database.url, lanes: 1, shards: { entity: 8, system: 2 } });
  rows = openSnapshotRows(database.url);
  await store.indexSnapshots(model);
  await rows.run(1);
  for (const [eid, body] of Object.entries(bodies)) await rows.row("bus", eid, { eid, ...body });
  // JavaScript would round it.
  await rows.connection.query(
    `update starling.snapshot set body = jsonb_set(body, '{big}', '9007199254740993') where eid = 'b'`,
  );
  // As rows of steps before were.
  await rows.connection.query(
    `update starling.snapshot set body = body || confidences, confidences = null where eid = 'b'`,
  );
  await rows.row("line", "7", { name: "seven" });
});

afterAll(async () => {
  await rows.close();
  await store.close();
  await database.close();
});

async function eids(filter: string, { fulltext = "", sort = [] as string[], skip = 0, limit = 100, tick = 1 } = {}) {
  const parsed = [parseGenericFilter(model, bus, filter), parseFulltextFilter(bus, fulltext)];
  const found = await store.snapshotQueries.listSnapshots({
    ...{ type: "bus", tick, skip, limit, filter: { kind: "and", of: parsed } },
    sort: sort.map((one) => parseSort(bus, one)),
  });
  return found.map(({ eid }) => eid).join("");
}

describe("a filter finds", () => {
  const cases: readonly (readonly [filter: unknown, found: string])[] = [
    [{}, "abcd"],
    [{ "last.label": "alpha" }, "a"],
    [{ label: "alpha" }, "a"],
    [{ label: bodies.d?.label }, "d"],
    [{ label: { $ne: "alpha" } }, "bcd"],
    [{ "last.eid": { $in: ["a", "c", "z"] } }, "ac"],
    [{ color: { $nin: ["red"] } }, "bcd"],
    [{ color: { $exists: false } }, "cd"],
    [{ line: { $exists: true } }, "abc"],
    [{ line: null }, "cd"],
    [{ line: { $ne: null } }, "ab"],
    [{ seats: { $gt: 9, $lte: 100 } }, "ac"],
    [{ seats: "$$int{9}" }, "b"],
    [{ seats: { $in: ["$$int{9}", 40] } }, "ab"],
    [{ big: "9007199254740993" }, "b"],
    [{ big: { $lt: "9007199254740993" } }, "ad"],
    [{ ready: true }, "a"],
    [{ ip: { $gt: "10.0.0.9" } }, "b"],
    [{ ip: "$$IPv4Prefix{10.0.0.0/8}" }, "ab"],
    [{ ip: { $not: "$$IPv4Prefix{10.0.0.0/8}" } }, "cd"],
    [{ ip6: "$$IPv6Prefix{fe80::/10}" }, "a"],
    [{ ip6: "FE80:0::1" }, "a"],
    [{ mac: "00-00-00-00-00-0B" }, "b"],
    [{ seen: { $gt: "$$Date{2026-01-01T10:00:00Z}" } }, "bc"],
    [{ seen: "$$DateTs{1767261600.5}" }, "b"],
    [{ line: 7 }, "a"],
    [{ "last.line.eid": "$$int{70}" }, "b"],
    [{ line: { eid: 7 } }, "a"],
    [{ stops: 2 }, "a"],
    [{ "stops.eid": { $gte: 1 } }, "a"],
    [{ stops: { $size: 0 } }, "b"],
    [{ tags: "x" }, "ab"],
    [{ tags: { $all: ["x", "yy"] } }, "a"],
    [{ tags: { $regex: "^y" } }, "a"],
    [{ tags: { $elemMatch: { $gt: "x", $lt: "z" } } }, "a"],
    [{ tags: { $size: 1 } }, "b"],
    [{ "speed#c": { $lt: 0.8 } }, "a"],
    [{ "routes#c": { $lt: 0.3 } }, "a"],
    [{ routes: "n2" }, "a"],
    [{ "info.a": 2 }, "b"],
    [{ "info.b": { $regex: "n" } }, "a"],
    [{ info: { a: 1, b: "one" } }, "a"],
    [{ "extra.deep": { $exists: true } }, "a"],
    [{ $or: [{ seats: 9 }, { label: { $regex: "^Beta" } }] }, "bc"],
    [{ $nor: [{ seats: 9 }, { color: "red" }] }, "cd"],
    [{ $and: [{ weight: { $gte: 1.5 } }, { weight: { $not: { $gt: 1.9 } } }] }, "a"],
    [{ label: { $regex: "50% \\(OLD\\)$", $options: "i" } }, "c"],
    [{ label: { $regex: "^al" } }, "ab"],
    [{ label: { $regex: "^alp.*e$" } }, "b"],
    [{ label: { $regex: "\\bold\\b" } }, "c"],
    [{ label: { $regex: `^${"long ".repeat(39)}` } }, "d"],
    [{ label: { $in: ["$$unknown{x}", "alpine"] } }, "b"],
  ];
  it.each(cases)("%j: %s", async (filter, found) => {
    expect(await eids(JSON.stringify(filter))).toBe(found);
  });

  it("by full text: anywhere, whatever the case, in lists and links as well", async () => {
    expect(await eids("", { fulltext: '{"label": "LPHA"}' })).toBe("a");
    expect(await eids("", { fulltext: '{"last.tags": "Y", "color": "ed"}' })).toBe("a");
    expect(await eids("", { fulltext: '{"eid": "^[bc]$"}' })).toBe("bc");
    expect(await eids('{"seats": 9}', { fulltext: '{"line": "7"}' })).toBe("b");
  });

  it("nothing that a text could make of SQL", async () => {
    const evil = "x' or true --";
    expect(await eids(JSON.stringify({ label: evil }))).toBe("");
    expect(await eids(JSON.stringify({ [`extra.${evil}`]: evil }))).toBe("");
    expect(await eids("", { fulltext: JSON.stringify({ label: evil }) })).toBe("");
  });
});

describe("a list", () => {
  it("is by eid, or by attributes: numbers by value, addresses by number, what is missing first", async () => {
    expect(await eids("")).toBe("abcd");
    expect(await eids("", { sort: ["eid:-1"] })).toBe("dcba");
    expect(await eids("", { sort: ["seats"] })).toBe("dbac");
    expect(await eids("", { sort: ["seats:-1"] })).toBe("cabd");
    expect(await eids("", { sort: ["ip"] })).toBe("dcab");
    expect(await eids("", { sort: ["seen"] })).toBe("dabc");
    expect(await eids("", { sort: ["ready", "label:-1"] })).toBe("dcba");
    expect(await eids("", { sort: ["big:-1"] })).toBe("badc");
  });

  it("is told in pages", async () => {
    expect(await eids("", { sort: ["seats"], skip: 1, limit: 2 })).toBe("ba");
    expect(await eids("", { skip: 4 })).toBe("");
  });
});

describe("a tick", () => {
  it("is what it was, while the next one is written and after", async () => {
    const own = await testDatabase();
    const other = await openPostgresStore({ url: own.url, lanes: 1, shards: { entity: 8, system: 2 } });
    const table = openSnapshotRows(own.url);
    try {
      const seen = async (at: Parameters<typeof other.snapshotQueries.finishedRun>[0] = null) => {
        const run = await other.snapshotQueries.finishedRun(at);
        const tick = run?.tick ?? 0;
        const found = await other.snapshotQueries.listSnapshots({
          ...{ type: "bus", tick, filter: everything, sort: [], skip: 0, limit: 9 },
        });
        const counted = await other.snapshotQueries.countSnapshots({ type: "bus", tick, filter: everything });
        expect(counted).toBe(found.length);
        return `${tick}:${found.map(({ eid, from }) => eid + from).join(" ")}`;
      };
      expect(await seen()).toBe("0:");
      await table.run(1);
      await table.row("bus", "same", { v: 1 }, [1, null]);
      await table.row("bus", "old", { v: 1 }, [1, 2]);
      await table.run(2, "running");
      await table.row("bus", "old", { v: 2 }, [2, null]);
      await table.row("bus", "new", { v: 1 }, [2, null]);
      expect(await seen()).toBe("1:old1 same1");
      await table.run(2);
      expect(await seen()).toBe("2:new2 old2 same1");
      expect(await seen({ tick: 1 })).toBe("1:old1 same1");
      expect(await seen({ at: instantOf(2) - 1 })).toBe("1:old1 same1");
      expect(await seen({ at: instantOf(2) })).toBe("2:new2 old2 same1");
      await table.run(3, "failed");
      await table.run(4);
      const key = { shard: toShardId(0), type: "bus", eid: "old" };
      const history = (before: number | null, limit = 9) =>
        readSnapshotHistory(other.snapshotQueries, key, { before, limit });
      expect(await history(null)).toEqual([
        { tick: 4, at: instantOf(4), body: '{"v": 2}' },
        { tick: 2, at: instantOf(2), body: null },
        { tick: 1, at: instantOf(1), body: '{"v": 1}' },
      ]);
      expect((await history(4, 1)).map(({ tick, body }) => [tick, body])).toEqual([[2, '{"v": 2}']]);
      const page = await other.snapshotQueries.snapshotPage({
        ...{ shard: toShardId(0), type: null, tick: 1, after: { eid: "", type: "" }, limit: 9 },
      });
      expect(page.map(({ eid, from }) => [eid, from])).toEqual([
        ["old", 1],
        ["same", 1],
      ]);
    } finally {
      await table.close();
      await other.close();
      await own.close();
    }
  });

  it("tells large bodies a few at a time, and what retention took as gone", async () => {
    const body = (eid: string) => ({ text: Array.from({ length: 30_000 }, (_, i) => `${eid}${i * 7919}`).join(" ") });
    for (const eid of ["x1", "x2", "x3", "x4", "x5", "x6", "x7"]) await rows.row("large", eid, body(eid));
    await rows.connection.query("alter table starling.snapshot alter body set storage external");
    await rows.row("large", "x0", { text: "y".repeat(3_000_000) });
    const place = (eid: string) => ({ shard: toShardId(0), type: "large", eid, from: 1 });
    const bodies = await store.snapshotQueries.snapshotBodies(["x0", "x1"].map(place));
    expect(bodies.map((one) => one?.length ?? null)).toEqual([3_000_012, null]);
    const gone = await store.snapshotQueries.snapshotBodies(["gone", "x1", "x2"].map(place));
    expect(gone.map((one) => typeof one)).toEqual(["undefined", "string", "string"]);
  });
});

describe("values of an attribute", () => {
  const distinct = async (attr: string, filter = "", limit = 10) => {
    const path = parseDistinct(bus, attr);
    const values = await store.snapshotQueries.distinctValues({
      ...{ type: "bus", tick: 1, filter: parseGenericFilter(model, bus, filter), path, limit },
    });
    return values.map(({ value, count }) => `${value} ${count}`);
  };

  it("are counted, elements of lists each, links by their eids, the most frequent first", async () => {
    expect(await distinct("color")).toEqual(['"red" 1', '"blue" 1'].sort());
    expect(await distinct("tags")).toEqual(['"x" 2', '"yy" 1']);
    expect(await distinct("line")).toEqual(["7 1", "70 1"]);
    expect(await distinct("stops")).toEqual(["1 1", "2 1"]);
    expect(await distinct("routes")).toEqual(['"n1" 1', '"n2" 1']);
    expect(await distinct("tags", '{"seats": 9}')).toEqual(['"x" 1']);
    expect(await distinct("tags", "", 1)).toEqual(['"x" 2']);
    expect(await distinct("eid", '{"seats": 9}')).toEqual(['"b" 1']);
  });

  it.each(["delays", "info", "extra", "nope"])("are refused of %s", (attr) => {
    expect(() => parseDistinct(bus, attr)).toThrow(expect.objectContaining({ code: "INVALID_FILTER" }));
  });
});

describe("PostgreSQL", () => {
  it("gives a question up after two seconds, with a code of its own", async () => {
    await rows.connection.query(`insert into starling.snapshot (shard, type, eid, from_tick, body)
      select 1, 'slow', 'e' || i, 1, jsonb_build_object('label', repeat('ab', 20000) || 'c') from generate_series(1, 9) i`);
    // What was found once is looked for again: PostgreSQL has to try everything.
    const pattern = "^(.*)(.*)(.*)\\1\\2\\3$";
    const filter = parseGenericFilter(model, bus, JSON.stringify({ label: { $regex: pattern } }));
    await expect(store.snapshotQueries.countSnapshots({ type: "slow", tick: 1, filter })).rejects.toMatchObject({
      code: "TOO_SLOW",
      message: "PostgreSQL gave the question up after 2 s",
    });
  }, 30_000);

  it("says what it does not understand of a regular expression", async () => {
    await expect(eids('{"label": {"$regex": "("}}')).rejects.toMatchObject({
      code: "INVALID_FILTER",
      message: expect.stringContaining("parentheses () not balanced"),
    });
  });

  it("gets what a person wrote as parameters alone", () => {
    const secret = "s3cret";
    const written = {
      $or: [
        ...[{ label: secret }, { label: { $regex: `^${secret}` } }, { label: { $regex: secret } }, { tags: secret }],
        ...[{ [`extra.${secret}`]: { $gt: secret } }, { [`extra.${secret}`]: { $exists: true } }],
        ...[{ line: { $in: [123456] } }, { tags: { $elemMatch: { $gt: secret } } }, { seats: { $lt: 123456 } }],
      ],
    };
    const { text, parameters } = listStatement("{0,1}", {
      ...{ type: secret, tick: 1, filter: parseGenericFilter(model, bus, JSON.stringify(written)) },
      ...{ sort: [parseSort(bus, "label:-1"), parseSort(bus, "ip")], skip: 0, limit: 20 },
    });
    expect(text).not.toMatch(/s3cret|123456|label|extra|seats/);
    expect(parameters).toContain(secret);
  });
});
