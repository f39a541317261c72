import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createCounters } from "../../../actors/counters.ts";
import { planFold } from "../../../actors/history/history-fold.ts";
import { startHistoryKeeper } from "../../../actors/history/history-keeper.ts";
import { type HistoryPart, readHistories, windowOf } from "../../../actors/history/history-read.ts";
import { historyRuleOf } from "../../../actors/history/history-rule.ts";
import { mergeRuns, observe, type Piece } from "../../../actors/history/history-run.ts";
import { currentValues } from "../../../actors/history/history-value.ts";
import { openPostgresStore, type PostgresStore } from "../../../actors/store/postgres-store.ts";
import type { EntityKey, Fence, Histories } from "../../../actors/store/store.ts";
import type { EntitySpec, HistoryParams } from "../../../modules/model.ts";
import { toSeq } from "../../../proto/ids.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { testDatabase } from "../../support/postgres.ts";
import type { TestDatabase } from "../../support/postgres-server.ts";
import { createRandom, seedOfRun } from "../../support/random.ts";
import { testModel } from "../../support/test-model.ts";
import { entityOf, fencesOf, flushOf, nodeA, shard1 } from "../store/samples.ts";
import { pieceOf } from "./history-rules.ts";

/* Histories in PostgreSQL: what flushes add, folded into pages at any time, is what merging everything at once gives. */
const bare = testModel({
  ip: { one: { kind: "observations", type: "string" }, many: { kind: "observations", type: "string" } },
});
let database: TestDatabase;
let store: PostgresStore;
let fences: Fence[];
let now = 0;
let seq = 0;

beforeAll(async () => {
  database = await testDatabase();
  store = await openPostgresStore({ url: database.url, lanes: 1, shards: { entity: 4, system: 1 } });
  fences = fencesOf(await store.acquire(nodeA, [shard1]));
});
afterAll(async () => {
  await store?.close();
  await database?.close();
});
beforeEach(() => {
  now = 0;
});

/** The type `ip`, its attributes with other parameters. */
function specOf(params: Partial<HistoryParams>): EntitySpec {
  const history = { maxAgeMs: null, maxItems: null, expireTimeMs: null, preValidityMs: 0, postValidityMs: 0 };
  const ip = bare.entities.get("ip") as EntitySpec;
  const list = ip.attributeList.map((spec) => ({
    ...spec,
    multiValue: spec.id === "many",
    history: { ...history, aggregate: true, ...params },
  }));
  return { ...ip, attributeList: list, attributes: new Map(list.map((spec) => [spec.id, spec])) };
}

function keeperOf(spec: EntitySpec, histories: Histories = store) {
  const counters = createCounters();
  const log = { info: () => {}, warn: () => {} };
  const model = { entities: new Map([["ip", spec]]), hash: "test" };
  const clock = createManualClock();
  const schedule = { foldAt: null, cleanAt: null, clock, wall: () => now };
  const keeper = startHistoryKeeper({ histories, model, shards: () => [shard1], ...schedule, counters, log });
  return { ...keeper, counters };
}

const keyOf = (eid: string): EntityKey => ({ shard: shard1, type: "ip", eid });

/** Adds what one flush would. */
async function add(eid: string, observations: readonly { attr: string; piece: Piece }[]): Promise<void> {
  seq += observations.length;
  const line = ({ attr, piece }: { attr: string; piece: Piece }) =>
    `${attr}\t\t${piece.t1}\t${piece.t2}\t${piece.c / 1e9}\t${piece.value}`;
  const history = [{ ...keyOf(eid), seq: toSeq(seq), body: observations.map(line).join("\n") }];
  await store.flush(nodeA, flushOf(fences, { entities: [entityOf(eid, seq)], history }));
}

async function read(spec: EntitySpec, eid: string, part: HistoryPart) {
  const [histories] = await readHistories(store, spec, [keyOf(eid)], part);
  return histories;
}

const one = (value: string, t1: number, t2: number, c = 1) => ({ attr: "one", piece: observe(value, t1, t2, c) });
const everything = { newest: 2 ** 31 - 1 };

const seed = seedOfRun();

it(`folded at any time, in any order, histories read as if merged at once (seed ${seed})`, async () => {
  const random = createRandom(seed);
  const spec = specOf({ preValidityMs: 2, postValidityMs: 3 });
  const keeper = keeperOf(spec);
  const eids = ["a\tb", "ä\x1e", "c"];
  const all = new Map(eids.map((eid): [string, { attr: string; piece: Piece }[]] => [eid, []]));
  for (let round = 0; round < 60; round++) {
    const eid = eids[random.between(0, 2)] ?? "";
    const observations = Array.from({ length: random.between(1, 12) }, () => {
      const t1 = random.between(0, 600);
      const value = ['"a"', '"b"', '"c\\t"'][random.between(0, 2)] ?? "";
      const attr = random.next() < 0.5 ? "one" : "many";
      return { attr, piece: observe(value, t1, t1 + random.between(0, 3), random.between(0, 10) / 10) };
    });
    await add(eid, observations);
    all.get(eid)?.push(...observations);
    if (random.next() < 0.3) await keeper.fold();
    const at = random.between(0, 600);
    const [whole, part] = [await read(spec, eid, everything), await read(spec, eid, { at })];
    for (const { id } of spec.attributeList) {
      const rule = historyRuleOf(spec.attributes.get(id));
      const pieces = (all.get(eid) ?? []).filter(({ attr }) => attr === id).map(({ piece }) => piece);
      const wanted = mergeRuns(rule, [], pieces);
      expect([round, id, whole?.get(id)?.runs ?? []]).toEqual([round, id, wanted]);
      const current = currentValues(rule, (part?.get(id)?.runs ?? []).map(pieceOf), at);
      expect([at, current]).toEqual([at, currentValues(rule, wanted.map(pieceOf), at)]);
    }
  }
  await keeper.fold();
  expect(await store.historyRows(eids.map(keyOf), null)).toEqual([]);
  const counts = keeper.counters.read();
  expect(counts["history/folded_rows"]).toBe(60);
});

describe("a fold", () => {
  it("takes a long history in portions, and reads only pages near to what is new", async () => {
    const spec = specOf({});
    const windows: number[] = [];
    const histories: Histories = {
      historyRows: store.historyRows,
      unfolded: store.unfolded,
      fold: store.fold,
      clean: store.clean,
      historyPages: async (wanted) => {
        const pages = await store.historyPages(wanted);
        windows.push(pages.length);
        return pages;
      },
    };
    const keeper = keeperOf(spec, histories);
    for (let i = 0; i < 450; i++) await add("long", [one(`${i}`, 10 * i, 10 * i + 5), one(`${i}`, 10 * i, 10 * i + 5)]);
    await keeper.fold();
    expect(keeper.counters.read()["history/folded_rows"]).toBe(450);
    expect((await read(spec, "long", everything))?.get("one")?.runs).toHaveLength(450);
    expect(
      (await read(spec, "long", { newest: 3 }))
        ?.get("one")
        ?.runs.slice(-3)
        .map(({ t1 }) => t1),
    ).toEqual([4470, 4480, 4490]);
    windows.length = 0;
    await add("long", [one('"late"', 2000, 2001)]);
    await keeper.fold();
    expect(windows).toEqual([expect.toSatisfy((pages: number) => pages <= 2)]);
  });

  it("of what was deleted meanwhile writes nothing", async () => {
    const spec = specOf({});
    await add("gone", [one("1", 0, 5)]);
    const rows = await store.historyRows([keyOf("gone")], null);
    const fold = planFold(spec, keyOf("gone"), rows, []);
    const tombstone = entityOf("gone", seq + 1, { tombstone: true });
    await store.flush(nodeA, flushOf(fences, { entities: [tombstone] }));
    expect(await store.fold(fold)).toBe(false);
    expect((await read(spec, "gone", everything))?.size).toBe(0);
  });

  it("goes with its entity, and what comes after is its own", async () => {
    const spec = specOf({});
    await add("again", [one("1", 0, 5)]);
    await keeperOf(spec).fold();
    const tombstone = entityOf("again", ++seq, { tombstone: true });
    await store.flush(nodeA, flushOf(fences, { entities: [tombstone] }));
    expect(await store.historyPages([windowOf(keyOf("again"), "one", {})])).toEqual([]);
    await add("again", [one("2", 0, 5)]);
    await store.flush(nodeA, flushOf(fences, { entities: [tombstone] }));
    expect((await read(spec, "again", everything))?.get("one")?.runs).toMatchObject([{ value: "2", n: 1 }]);
  });

  it("that another one overtook writes nothing, and what it took is counted once", async () => {
    const spec = specOf({});
    await add("twice", [one("1", 0, 5)]);
    const rows = await store.historyRows([keyOf("twice")], null);
    const fold = planFold(spec, keyOf("twice"), rows, []);
    await keeperOf(spec).fold();
    expect(await store.fold(fold)).toBe(false);
    // A row that comes again, after it was folded.
    await store.flush(nodeA, flushOf(fences, { history: rows }));
    expect((await read(spec, "twice", everything))?.get("one")?.runs).toMatchObject([{ n: 1 }]);
    await keeperOf(spec).fold();
    expect(await store.historyRows([keyOf("twice")], null)).toEqual([]);
    expect((await read(spec, "twice", everything))?.get("one")?.runs).toMatchObject([{ n: 1 }]);
  });

  it("that conflicts is tried again, entity by entity", async () => {
    const spec = specOf({});
    for (const eid of ["x1", "x2", "x3"]) await add(eid, [one("1", 0, 5)]);
    let refused = 2;
    const histories: Histories = { ...store, fold: async (fold) => refused-- <= 0 && (await store.fold(fold)) };
    const keeper = keeperOf(spec, histories);
    await keeper.fold();
    expect(keeper.counters.read()).toMatchObject({ "history/fold_conflicts": 2, "history/folded_rows": 3 });
  });

  it("keeps attributes that the model does not know as they stand", async () => {
    await add("u", [
      { attr: "unknown", piece: observe("1", 0, 5, 1) },
      { attr: "unknown", piece: observe("1", 5, 6, 1) },
    ]);
    await keeperOf(specOf({})).fold();
    const pages = await store.historyPages([windowOf(keyOf("u"), "unknown", {})]);
    expect(pages.map(({ body }) => body)).toEqual(["0\t5\t1\t\t\t1\n5\t6\t1\t\t\t1"]);
  });
});

it("a page that several windows show is told once", async () => {
  for (const eid of ["w", "x"]) await add(eid, [one("1", 0, 5), { attr: "many", piece: observe("1", 0, 5, 1) }]);
  await keeperOf(specOf({})).fold();
  const windows = ["one", "many", "one"].flatMap((attr) => ["w", "x"].map((eid) => windowOf(keyOf(eid), attr, {})));
  const pages = await store.historyPages(windows);
  expect(pages.map(({ eid, attr }) => `${eid} ${attr}`).sort()).toEqual(["w many", "w one", "x many", "x one"]);
});

describe("retention", () => {
  it("max_items keeps so many runs, and remembers up to where they were taken", async () => {
    const spec = specOf({ maxItems: 2 });
    for (let i = 0; i < 5; i++) await add("few", [one(`${i}`, 10 * i, 10 * i + 5)]);
    await keeperOf(spec).fold();
    await add("few", [one("5", 50, 55)]);
    await keeperOf(spec).fold();
    const history = (await read(spec, "few", { at: 0 }))?.get("one");
    expect([history?.runs.map(({ value }) => value), history?.cut]).toEqual([["4", "5"], 35]);
  });

  it("max_age drops pages that are too old as a whole, and tells the horizon also where a longer age is allowed later", async () => {
    const spec = specOf({ maxAgeMs: 1_000 });
    const keeper = keeperOf(spec);
    for (let i = 0; i < 300; i++) await add("aged", [one(`${i}`, 10 * i, 10 * i + 5)]);
    await keeper.fold();
    now = 2_500;
    await keeper.clean();
    const left = await store.historyPages([windowOf(keyOf("aged"), "one", {})]);
    expect(left.every(({ t2 }) => t2 >= 1_500)).toBe(true);
    expect(keeper.counters.read()["history/cleaned_pages"]).toBeGreaterThan(0);
    const longer = specOf({ maxAgeMs: 5_000 });
    expect((await read(longer, "aged", { at: 1_000 }))?.get("one")?.cut).toBe(1_500);
    const runs = (await read(spec, "aged", everything))?.get("one")?.runs ?? [];
    expect(runs.slice(-150).map(({ value }) => value)).toEqual(Array.from({ length: 150 }, (_, i) => `${150 + i}`));
  });
});
