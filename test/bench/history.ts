import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { createCounters } from "../../actors/counters.ts";
import { observedAt } from "../../actors/history/history-at.ts";
import { startHistoryKeeper } from "../../actors/history/history-keeper.ts";
import { readHistories } from "../../actors/history/history-read.ts";
import { historyRuleOf } from "../../actors/history/history-rule.ts";
import { mergeRuns, type Piece, type Run } from "../../actors/history/history-run.ts";
import type { Connection } from "../../actors/store/connection.ts";
import { openPostgresStore, type PostgresStore } from "../../actors/store/postgres-store.ts";
import type { EntityKey, Fence } from "../../actors/store/store.ts";
import type { EntitySpec, Model } from "../../modules/model.ts";
import { loadConfig } from "../../node/config/load-config.ts";
import { systemClock } from "../../proto/clock.ts";
import { toNodeId, toSeq, toShardId } from "../../proto/ids.ts";
import { repository } from "../support/repository.ts";
import type { Bed } from "./bed.ts";
import type { Benchmark, BenchmarkOptions, Outcome } from "./benchmark.ts";
import { hostKey, hostObservations, hostRuns, hostShards, lineOf, stepMs } from "./host-histories.ts";
import { epochMs, shuffled } from "./things.ts";
import type { Verdict } from "./verify.ts";

/**
 * Current values at a time out of histories in PostgreSQL, all of them merged but for what the last flush added to a tenth of
 * the entities, beside plain SQL that reads the same rows by the same keys; and merging in memory, in portions of observations
 * that come in random order, as folds do it.
 */
export const history: Benchmark = {
  name: "history",
  summary: "current values of 100,000 entities at a time, and merging of 1,000,000 observations in random order",
  fields: [
    {
      key: "entities_per_s",
      unit: "entities/s",
      what: "current values at a time, two attributes, one with many values",
    },
    { key: "sql_ratio", unit: "", what: "that over plain SQL reading the same rows" },
    { key: "merged_per_s", unit: "observations/s", what: "merged in memory, in random order" },
    { key: "folded_per_s", unit: "observations/s", what: "from rows to pages in PostgreSQL" },
  ],
  bounds: () => [
    { key: "sql_ratio", sense: "at least", limit: 0.3 },
    { key: "merged_per_s", sense: "at least", limit: 60_000 },
  ],
  run,
};

const attributes = ["state", "port"] as const;
const storedEach = 30;
const freshEach = 3;
const freshOf = 10;
const keysPerCall = 500;
const workers = 2;
const histories = 1_000;
const observationsEach = 1_000;
const portion = 100;
const firstMax = 10;
const at = epochMs + 20.4 * stepMs;

async function run(bed: Bed, options: BenchmarkOptions): Promise<Outcome> {
  const { model } = await loadConfig(join(repository, "test/bench/history-config"), { env: {}, flags: {} });
  const spec = model.entities.get("host");
  if (spec === undefined) throw new Error("the benchmark's model has no hosts");
  const entities = options.entities ?? 100_000;
  options.note(`merging ${histories * observationsEach} observations`);
  const merging = mergeAll(spec);
  const database = await bed.createDatabase();
  const shards = { entity: hostShards, system: 1 };
  const store = await openPostgresStore({ url: database.url, lanes: 2, shards, statementTimeoutMs: 600_000 });
  try {
    options.note(`storing histories of ${entities} entities`);
    const foldS = await fill(store, model, entities);
    await bed.withConnection(database.url, async (connection) => {
      await connection.script("vacuum (analyze) starling.history");
      await connection.script("vacuum (analyze) starling.history_page");
    });
    await bed.checkpoint();
    options.note("plain SQL");
    const sqlS = await timed(() => readPlainly(bed, database.url, entities));
    options.note("current values");
    const differing: string[] = [];
    const valuesS = await timed(() => readValues(store, spec, entities, differing));
    const verdict: Verdict = {
      ...{ entities, history: entities * attributes.length * storedEach, lost: 0, duplicated: 0 },
      differences: differing.length + merging.differences,
      first: differing.slice(0, firstMax),
    };
    return {
      values: {
        entities_per_s: entities / valuesS,
        sql_ratio: sqlS / valuesS,
        merged_per_s: (histories * observationsEach) / merging.seconds,
        folded_per_s: (entities * attributes.length * storedEach) / foldS,
      },
      remarks: [`plain SQL: ${Math.round(entities / sqlS)} entities/s`],
      verdicts: [verdict],
    };
  } finally {
    await store.close();
    await database.close();
  }
}

/** Merges in random order, portion by portion, history by history in turn, and compares with merging in order. */
function mergeAll(spec: EntitySpec): { seconds: number; differences: number } {
  const rule = historyRuleOf(spec.attributes.get("state"));
  const arrivals = Array.from({ length: histories }, (_, number) => {
    const sorted = hostObservations(number, "state", 0, observationsEach);
    const order = shuffled(observationsEach, number + 1);
    return Array.from(order, (i) => sorted[i] as Piece);
  });
  const merged: Run[][] = arrivals.map(() => []);
  const started = performance.now();
  for (let from = 0; from < observationsEach; from += portion) {
    for (const [number, all] of arrivals.entries()) {
      merged[number] = mergeRuns(rule, merged[number] ?? [], all.slice(from, from + portion));
    }
  }
  const seconds = (performance.now() - started) / 1000;
  const sorted = merged.map((_, number) => hostRuns(spec, number, "state", observationsEach));
  return { seconds, differences: merged.filter((runs, i) => !isDeepStrictEqual(runs, sorted[i])).length };
}

/** Flushes histories and folds them; then flushes some more to a tenth. Returns the seconds of the fold. */
async function fill(store: PostgresStore, model: Model, entities: number): Promise<number> {
  const node = toNodeId("bench");
  const ids = Array.from({ length: hostShards }, (_, i) => toShardId(i));
  const fences = await store.acquire(node, ids);
  await flushAll(store, fences, { entities, step: 1, from: 0, until: storedEach });
  const keeper = startHistoryKeeper({
    ...{ histories: store, model, shards: () => ids, foldAt: null, cleanAt: null },
    ...{ clock: systemClock, wall: Date.now, counters: createCounters(), log: { info: () => {}, warn: () => {} } },
  });
  const seconds = await timed(() => keeper.fold());
  await keeper.close();
  await flushAll(store, fences, { entities, step: freshOf, from: storedEach, until: storedEach + freshEach });
  return seconds;
}

interface Filling {
  readonly entities: number;
  /** Every so many-th entity. */
  readonly step: number;
  readonly from: number;
  readonly until: number;
}

async function flushAll(store: PostgresStore, fences: readonly Fence[], filling: Filling): Promise<void> {
  const { entities, step, from, until } = filling;
  const none = { entities: [], progress: [], refused: [], deadLetters: [] };
  for (let first = 0; first < entities; first += 1000 * step) {
    const rows: Parameters<PostgresStore["flush"]>[1]["history"][number][] = [];
    for (let number = first; number < Math.min(entities, first + 1000 * step); number += step) {
      const lines = attributes.flatMap((attr) =>
        hostObservations(number, attr, from, until).map((piece) => lineOf(attr, piece)),
      );
      rows.push({ ...hostKey(number), seq: toSeq(1 + until), body: lines.join("\n") });
    }
    const { lost } = await store.flush(toNodeId("bench"), { fences, history: rows, ...none });
    if (lost.length > 0) throw new Error("the benchmark lost its shards");
  }
}

/** The same rows by the same keys, as plain SQL would read them. */
async function readPlainly(bed: Bed, url: string, entities: number): Promise<void> {
  const text = (table: string) => `select t.* from
    (select string_to_array(k, e'\\x1f') from string_to_table($1, e'\\x1e') k offset 0) w(f)
      join starling.${table} t on t.shard = f[1]::int and t.type = 'host' and t.eid = f[2]`;
  const batches = batchesOf(entities);
  await Promise.all(
    Array.from({ length: workers }, () =>
      bed.withConnection(url, async (connection: Connection) => {
        for (let keys = batches.shift(); keys !== undefined; keys = batches.shift()) {
          const wanted = keys.map(({ shard, eid }) => `${shard}\x1f${eid}`).join("\x1e");
          await connection.query(text("history"), [wanted]);
          const pages = await connection.query(text("history_page"), [wanted]);
          if (pages.length < keys.length) throw new Error("plain SQL found too few pages");
        }
      }),
    ),
  );
}

async function readValues(
  store: PostgresStore,
  spec: EntitySpec,
  entities: number,
  differing: string[],
): Promise<void> {
  const batches = batchesOf(entities);
  let first = 0;
  const work = async (): Promise<void> => {
    for (let keys = batches.shift(); keys !== undefined; keys = batches.shift()) {
      const number = first;
      first += keys.length;
      const found = await readHistories(store, spec, keys, { at });
      const values = found.map((one) => observedAt(spec, one, { at, now: at }));
      // Every hundredth is compared; to reckon them all would be most of the time.
      for (let i = 0; i < keys.length; i += 100) {
        const wanted = wantedValues(spec, number + i);
        if (!isDeepStrictEqual(values[i], wanted)) {
          differing.push(`${keys[i]?.eid}: ${JSON.stringify(values[i])}, expected ${JSON.stringify(wanted)}`);
        }
      }
    }
  };
  await Promise.all(Array.from({ length: workers }, work));
}

function wantedValues(spec: EntitySpec, number: number) {
  const count = storedEach + (number % freshOf === 0 ? freshEach : 0);
  const all = attributes.map((attr) => ({ attr, runs: hostRuns(spec, number, attr, count) }));
  const none = Number.NEGATIVE_INFINITY;
  return observedAt(spec, new Map(all.map(({ attr, runs }) => [attr, { runs, cut: none }])), { at, now: at });
}

function batchesOf(entities: number): EntityKey[][] {
  return Array.from({ length: Math.ceil(entities / keysPerCall) }, (_, batch) => {
    const size = Math.min(keysPerCall, entities - batch * keysPerCall);
    return Array.from({ length: size }, (_key, i) => hostKey(batch * keysPerCall + i));
  });
}

/** Seconds. */
async function timed(run: () => Promise<void>): Promise<number> {
  const started = performance.now();
  await run();
  return (performance.now() - started) / 1000;
}
