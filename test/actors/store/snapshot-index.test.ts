import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseGenericFilter } from "../../../actors/filters/parse-filter.ts";
import { parseSort } from "../../../actors/filters/parse-sort.ts";
import { createConnection } from "../../../actors/store/connection.ts";
import { openPostgresStore, type PostgresStore } from "../../../actors/store/postgres-store.ts";
import { listStatement } from "../../../actors/store/snapshot-query.ts";
import { findEntity } from "../../../modules/check-datapoint.ts";
import { configModel } from "../../support/config-model.ts";
import { testDatabase } from "../../support/postgres.ts";
import type { TestDatabase } from "../../support/postgres-server.ts";
import { openSnapshotRows, type SnapshotRows } from "../../support/snapshot-rows.ts";

const model = configModel({
  coach: {
    label: "plain string",
    seats: "plain int",
    weight: "plain float",
    ready: "plain tag",
    ip: "plain ipv4",
    seen: "plain time",
    line: "plain link<line>",
    tags: "plain array<string>",
  },
  line: { "#": "id_data_type: int", name: "plain string" },
});

const coach = findEntity(model, "coach");
let database: TestDatabase;
let store: PostgresStore;
let rows: SnapshotRows;

beforeAll(async () => {
  database = await testDatabase();
  store = await openPostgresStore({ url: database.url, lanes: 1, shards: { entity: 8, system: 2 } });
  rows = openSnapshotRows(database.url);
  await store.indexSnapshots(model);
  await rows.run(1);
});

afterAll(async () => {
  await rows.close();
  await store.close();
  await database.close();
});

describe("the indexes of snapshots", () => {
  it("follow the model, and a value of a hook that does not fit its attribute harms none", async () => {
    const names = async () => {
      const found = await rows.connection.query<{ name: string }>(
        "select relname as name from pg_class where relname like 'snapshot/%' order by 1",
      );
      return found.map(({ name }) => name);
    };
    const before = await names();
    expect(before).toHaveLength(11);
    expect(await store.indexSnapshots(model)).toBe(0);
    const { seats: _, ...rest } = Object.fromEntries(coach.attributes);
    const attributeList = Object.values(rest);
    const smaller = { ...coach, attributes: new Map(Object.entries(rest)), attributeList };
    const changed = { ...model, entities: new Map([...model.entities, ["coach", smaller]]) };
    expect(await store.indexSnapshots(changed)).toBe(1);
    expect(await names()).toHaveLength(10);
    expect(await store.indexSnapshots(model)).toBe(1);
    expect(await names()).toEqual(before);
    const odd = Object.fromEntries([...coach.attributes.keys()].map((attr) => [attr, { [attr]: ["odd", null] }]));
    await rows.row("coach", "zodd", odd);
    await rows.row("coach", "zlong", { label: "é".repeat(100_000), ip: "x".repeat(10_000), seen: "y".repeat(10_000) });
    const filter = parseGenericFilter(model, coach, '{"seats": {"$gt": 0}}');
    expect(await store.snapshotQueries.countSnapshots({ type: "coach", tick: 1, filter })).toBe(0);
    await rows.connection.query("delete from starling.snapshot where eid like 'z%'");
  });

  it("answers equalities, prefixes, ranges and orders from indexes", async () => {
    await rows.connection.query(`insert into starling.snapshot (shard, type, eid, from_tick, body)
      select 1, 'coach', 'c' || i, 1, jsonb_build_object('label', 'label ' || i, 'seats', i, 'weight', i * 7919 % 20000,
        'ready', i % 2 = 0, 'ip', '10.' || i / 65536 || '.' || i / 256 % 256 || '.' || i % 256,
        'seen', '2026-01-01T' || to_char(i * interval '1 s', 'HH24:MI:SS') || 'Z',
        'line', jsonb_build_object('eid', i % 1000), 'tags', jsonb_build_array('t' || i % 1000, 'u'))
      from generate_series(1, 20000) i`);
    await rows.connection.query("analyze starling.snapshot");
    const planOf = async (filter: unknown, sort: readonly string[]) => {
      const { text, parameters } = listStatement("{0,1}", {
        ...{ type: "coach", tick: 1, filter: parseGenericFilter(model, coach, JSON.stringify(filter)) },
        ...{ sort: sort.map((one) => parseSort(coach, one)), skip: 0, limit: 20 },
      });
      const connection = createConnection({
        ...{ url: database.url, application: "test", statementTimeoutMs: 10_000, connectTimeoutMs: 5_000 },
        prepare: false,
      });
      const plan = await connection.query<{ "QUERY PLAN": string }>(`explain ${text}`, parameters);
      await connection.close();
      return plan.map((row) => row["QUERY PLAN"]).join("\n");
    };
    for (const [filter, sort] of [
      [{ seats: 123 }, []],
      [{ line: 123 }, ["weight"]],
      [{ label: { $regex: "^label 77" } }, ["weight:-1"]],
      [{ ip: "$$IPv4Prefix{10.0.1.0/24}" }, []],
      [{ seen: "2026-01-01T05:33:00Z" }, []],
      [{ tags: "t7" }, ["seats"]],
      [{ ready: true }, ["weight:-1"]],
    ] as const) {
      expect(await planOf(filter, sort), JSON.stringify(filter)).toMatch(/(?:on|using) "snapshot\/[0-9a-f]{16}"/);
    }
    for (const sort of ["eid", "eid:-1"]) {
      const plan = await planOf({ label: { $regex: "^label" } }, [sort]);
      expect(plan, sort).toMatch(/using snapshot_by_type/);
      expect(plan, sort).not.toMatch(/Seq Scan/);
    }
  });
});
