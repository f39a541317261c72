import { beforeAll, describe, expect, it } from "vitest";
import { type Connection, createConnection } from "../../actors/store/connection.ts";
import { openPostgresStore } from "../../actors/store/postgres-store.ts";
import { shardOf } from "../../proto/shard-of.ts";
import { testDatabase } from "../support/postgres.ts";
import { type Expectation, expectThings, type Sent } from "./expectation.ts";
import { expectMirrors } from "./fanout-targets.ts";
import { createPlan, createPlanOrder } from "./plan.ts";
import { thingAttributes, thingDatapoint } from "./things.ts";
import { verify } from "./verify.ts";

const entities = 40;
/** Two whole passes, and the better part of a third. */
const sent: readonly Sent[] = [
  { plan: createPlan(entities, { attributes: [4, 5], generation: 0 }), sent: 80 },
  { plan: createPlan(entities, { passes: 100, blockEntities: 10 }), sent: 650 },
];
let url: string;

beforeAll(async () => {
  const database = await testDatabase();
  url = database.url;
  await (await openPostgresStore({ url, lanes: 1, shards: { entity: 256, system: 16 } })).close();
});

/** Runs with a database that holds what was expected, and `plant` done to it. Returns the words of the differences. */
async function planted(plant: string, expectation: Expectation = expectThings(sent)): Promise<readonly string[]> {
  const connection = createConnection({
    url,
    application: "test",
    statementTimeoutMs: 30_000,
    connectTimeoutMs: 10_000,
  });
  try {
    await connection.script("truncate starling.entity, starling.large_value, starling.history, starling.dead_letter");
    for (let number = 0; number < expectation.entities; number++) await storeEntity(connection, expectation, number);
    if (plant !== "") await connection.script(plant);
    const verdict = await verify(connection, expectation);
    expect(verdict.differences).toBe(verdict.first.length);
    return verdict.first;
  } finally {
    await connection.close();
  }
}

async function storeEntity(connection: Connection, expectation: Expectation, number: number): Promise<void> {
  const { type } = expectation;
  const eid = expectation.eidOf(number);
  const shard = shardOf("entity", type, eid, 256);
  const attributes = expectation.attributesOf(number).map(({ attr, json, t1, t2, count }) => {
    return `"${attr}":{"v":${json},"t1":${t1 ?? 5},"t2":${t2 ?? 5},"c":1,"n":${count}}`;
  });
  await connection.query(
    `insert into starling.entity (shard, type, eid, created, created_at, applied, tombstone, state)
      values ($1, $2, $3, 1, now(), 100, false, $4)`,
    [shard, type, eid, `{${attributes.join(",")}}`],
  );
  const lines = type === "thing" ? thingHistory(number) : [];
  const insert = "insert into starling.history (shard, type, eid, seq, body) values ($1, $2, $3, $4, $5)";
  if (lines.length === 0) return;
  await connection.query(insert, [shard, type, eid, 10, lines.slice(0, 3).join("\n")]);
  if (lines.length > 3) await connection.query(insert, [shard, type, eid, 20, lines.slice(3).join("\n")]);
}

/** From the plans' order, not from the expectation: what a sender really sends. */
function thingHistory(number: number): string[] {
  return sent.flatMap(({ plan, sent: count }) => {
    const order = createPlanOrder(plan);
    const places = Array.from({ length: count }, (_, position) => order.at(position));
    return places.flatMap(({ entity, attribute, generation }) => {
      const { attr, v, t1, t2 } = thingDatapoint(entity, attribute, generation, entities);
      if (entity !== number || t1 === undefined) return [];
      const json = JSON.stringify(v, (key, value) => (key === "time" ? undefined : value));
      return [`${attr}\tbench\t${t1}\t${t2}\t1\t${attr === "load" ? loadJson(v, json) : json}`];
    });
  });
}

function loadJson(v: unknown, withoutTime: string): string {
  const times = (v as { readonly time: readonly string[] }).time.map((time) =>
    time.endsWith(".000Z") ? time.replace(".000Z", "Z") : time.replace("Z", "000Z"),
  );
  return `{"time":${JSON.stringify(times)},${withoutTime.slice(1)}`;
}

const seven = "where eid = 'thing-7'";
/** As if the value were large. */
const apart = `
  insert into starling.large_value select shard, eid, type, 'p_text', (state::json->'p_text'->'v')::text
    from starling.entity ${seven};
  update starling.entity set
    state = regexp_replace(state, '^\\{("p_text":\\{)"v":[^,]*,([^}]*\\})', '{"#large":{\\1\\2}') ${seven};`;
const firstSegment = `${seven} and seq = 10`;

describe("the verification of the benchmarks", () => {
  it("finds nothing where nothing is wrong", async () => {
    expect(await planted("")).toEqual([]);
    expect(await planted(apart)).toEqual([]);
  });

  it.each([
    ["a lost entity", `delete from starling.entity ${seven}; delete from starling.history ${seven}`, "is missing"],
    ["a stray entity", `update starling.entity set eid = 'thing-07' ${seven}`, "was never sent"],
    [
      "a wrong value",
      `update starling.entity set state = regexp_replace(state, '"p_int":{"v":', '"p_int":{"v":1') ${seven}`,
      "p_int",
    ],
    ["a wrong large value", `${apart} update starling.large_value set body = '"x"'`, "p_text"],
    ["a wrong count", `update starling.entity set state = replace(state, '"n":3', '"n":4') ${seven}`, "in all"],
    [
      "a wrong time",
      `update starling.entity set state = regexp_replace(state, '("o_count".*?"t1":)', '\\11') ${seven}`,
      "o_count",
    ],
    ["a lost attribute", `update starling.entity set state = replace(state, 'p_flag', 'p_flog') ${seven}`, "nothing"],
    ["a deleted entity", `update starling.entity set tombstone = true ${seven}`, "is deleted"],
    ["a lost segment", `delete from starling.history ${firstSegment}`, "lacks 3 datapoints"],
    ["a lost line", `update starling.history set body = split_part(body, e'\\n', 1) ${firstSegment}`, "lacks 2"],
    [
      "a doubled segment",
      `insert into starling.history select shard, type, eid, 30, body from starling.history ${firstSegment}`,
      "has twice",
    ],
    [
      "swapped values",
      `update starling.history set body = regexp_replace(body, '\\t[^\\t]*$', e'\\t1.5') ${firstSegment}`,
      "expected",
    ],
    [
      "another entity's line",
      "update starling.history set body = (select body from starling.history where eid = 'thing-8' and seq = 10) " +
        firstSegment,
      "never sent",
    ],
    ["a history without a record", `delete from starling.entity ${seven}`, "no record"],
    ["a history ahead of its state", `update starling.entity set applied = 15 ${seven}`, "after its state"],
    [
      "a dead letter",
      `insert into starling.dead_letter (shard, seq, number, kind, hook, type, eid, code, error, at, task)
        values (1, 1, 1, 'hook', 'h', 'thing', 'thing-7', 'HOOK', 'e', now(), '{}')`,
      "dead_letter",
    ],
  ])("finds %s", async (_, plant, words) => {
    const found = await planted(plant);
    expect(found.join("\n")).toContain(words);
  });

  it("finds a derived datapoint at the wrong entity", async () => {
    const expectation = expectMirrors("other", 5);
    const lost = await planted("", expectation);
    expect(lost.join("\n")).toContain("lacks");
    const places = Array.from({ length: expectation.entities }, (_, place) => expectation.historyLength(place));
    expect(places.reduce((sum, length) => sum + length, 0)).toBe(5 * thingAttributes.length);
  });
});

describe("a plan's order", () => {
  it("counts what it enumerates", () => {
    const plan = createPlan(30, { firstEntity: 7, population: 50, blockEntities: 10, attributes: [1, 4, 9] });
    const order = createPlanOrder(plan);
    const counts = new Map<string, number>();
    for (let position = 0; position < 250; position++) {
      const { entity, attribute, generation } = order.at(position);
      const key = `${entity} ${attribute}`;
      expect(order.countBelow(entity, attribute, position)).toBe(counts.get(key) ?? 0);
      expect(generation).toBe(plan.generation + (counts.get(key) ?? 0));
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    expect(counts.size).toBe(90);
    expect(order.countBelow(6, 1, 250)).toBe(0);
    expect(order.countBelow(7, 2, 250)).toBe(0);
  });
});
