import { createCounters } from "../../actors/counters.ts";
import { createHookRunner, hookRunnerLimits } from "../../actors/hooks/hook-runner.ts";
import { createHookPatience } from "../../actors/snapshots/hook-patience.ts";
import { computeSnapshots, computeValues, type SnapshotScope } from "../../actors/snapshots/snapshot-hooks.ts";
import { planSnapshotLinks } from "../../actors/snapshots/snapshot-link.ts";
import type { RecordAt } from "../../actors/snapshots/snapshot-values.ts";
import type { LooseDatapoint } from "../../modules/datapoint.ts";
import { type CallbackRegistrar, createRegistrar } from "../../modules/registrar.ts";
import type { CorrelationHook, LinkedValue } from "../../modules/snapshot-hook.ts";
import { systemClock } from "../../proto/clock.ts";
import { shardId } from "../../proto/ids.ts";
import { configModel } from "../support/config-model.ts";
import { recordAt, specOf } from "../support/record-at.ts";
import type { Bed } from "./bed.ts";
import type { Benchmark, BenchmarkOptions, Outcome } from "./benchmark.ts";
import { epochMs, thingAttributes, thingDatapoint } from "./things.ts";

/** What one snapshot costs the processor: from what is stored to the body's text, without reading and writing. */
export const computing: Benchmark = {
  name: "computing",
  summary: "snapshots of 20,000 entities of 10 attributes, without PostgreSQL: no hooks, hooks, linked in fives",
  fields: [
    { key: "us_per_entity", unit: "µs", what: "no hooks" },
    { key: "us_with_hooks", unit: "µs", what: "two hooks, the second one on what the first one made" },
    { key: "us_linked", unit: "µs", what: "the same over links, in components of five" },
  ],
  bounds: () => [],
  run,
};

const page = 500;
const linkedTogether = 5;
const laterMs = 3_600_000 + 30_000;

const post = "history_params: {post_validity: 10m}";
const model = configModel({
  thing: {
    ...{ p_text: "plain string", p_int: "plain int", p_float: "plain float", p_flag: "plain tag" },
    ...{ o_level: `observations float; ${post}`, o_state: `observations string; ${post}` },
    ...{ o_count: `observations int; ${post}`, o_temp: `observations float; ${post}`, peer: "plain link<thing>" },
    ...{ load: "timeseries", sum: "plain float", note: "plain string" },
  },
});

async function run(_bed: Bed, options: BenchmarkOptions): Promise<Outcome> {
  const entities = options.entities ?? 20_000;
  options.note("entities as they are stored");
  const records = Array.from({ length: entities }, (_, number) => recordOf(number, entities));
  const kinds = [[], [sum, noteOf(false)], [sum, noteOf(true)]] as const;
  const figures: number[] = [];
  let differences = 0;
  for (const [kind, hooks] of kinds.entries()) {
    options.note(["no hooks", "two hooks", "two hooks over links"][kind] ?? "");
    const scope = scopeOf(hooks);
    await compute(scope, records.slice(0, 4 * page));
    const started = performance.now();
    const bodies = await compute(scope, records);
    figures.push(((performance.now() - started) * 1000) / entities);
    if (bodies.size !== entities) differences += entities - bodies.size;
    if (kind > 0 && ![...bodies.values()].every((body) => body.includes('"note":"'))) differences++;
  }
  const [us_per_entity = 0, us_with_hooks = 0, us_linked = 0] = figures;
  return {
    values: { us_per_entity, us_with_hooks, us_linked },
    remarks: [],
    verdicts: [{ entities, history: 0, lost: 0, duplicated: 0, differences, first: [] }],
  };
}

async function compute(scope: SnapshotScope, records: readonly RecordAt[]): Promise<Map<string, string>> {
  const bodies = new Map<string, string>();
  for (let from = 0; from < records.length; from += page) {
    const { entities } = await computeValues(scope, specOf(model, "thing"), records.slice(from, from + page));
    // A page is made of whole components.
    const computed = await computeSnapshots(scope, entities);
    for (const [key, { body }] of computed.bodies) bodies.set(key, body);
  }
  return bodies;
}

/** Each links to the next one, the last of five to the first. */
function recordOf(number: number, entities: number): RecordAt {
  const datapoints = thingAttributes.flatMap((attr, index): LooseDatapoint[] => {
    if (attr === "load") return [];
    const datapoint = thingDatapoint(number, index, 1, entities);
    const first = number - (number % linkedTogether);
    const next = `thing-${first + ((number + 1) % linkedTogether)}`;
    return [attr === "peer" ? { ...datapoint, v: { eid: next } } : datapoint];
  });
  return recordAt(specOf(model, "thing"), `thing-${number}`, datapoints, epochMs);
}

type Registration = (door: CallbackRegistrar) => void;

const sum: Registration = (door) => {
  const hook: CorrelationHook = (_, values) => {
    values.sum = Number(values.o_level ?? 0) + Number(values.o_temp ?? 0);
    return null;
  };
  const paths = { dependsOn: [["o_level"], ["o_temp"]], mayChange: [["sum"]] };
  door.registerCorrelationHook(hook, "thing", { name: "sum", ...paths });
};

const noteOf = (isLinked: boolean): Registration => {
  const hook: CorrelationHook = (_, values) => {
    const other = isLinked ? (values.peer as LinkedValue).record : values;
    values.note = `the sum is ${String(other?.sum)}`;
    return null;
  };
  const dependsOn = isLinked ? [["peer", "sum"]] : [["sum"]];
  return (door) => door.registerCorrelationHook(hook, "thing", { name: "note", dependsOn, mayChange: [["note"]] });
};

function scopeOf(hooks: readonly Registration[]): SnapshotScope {
  const registrar = createRegistrar(model, { concurrency: 8, timeoutMs: 1000, retries: 0 });
  const door = registrar.forModule("bench", silent, () => ({}));
  for (const register of hooks) register(door);
  const table = registrar.hookTable();
  const snapshot = table.snapshot ?? { timeseries: new Map(), correlation: [], init: [], finalize: [] };
  const runner = createHookRunner({
    ...{ hooks: table, model, limits: hookRunnerLimits, clock: systemClock, random: Math.random },
    ...{ counters: createCounters(), log: () => silent, getRecord: async () => null },
  });
  return {
    ...{ model, runner, hooks: snapshot, links: planSnapshotLinks(model, snapshot), patience: createHookPatience() },
    ...{
      tick: 1,
      atMs: epochMs + laterMs,
      shard: shardId("entity", 0),
      keepEmpty: true,
      clock: systemClock,
      guard: null,
    },
    signal: new AbortController().signal,
  };
}

const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
