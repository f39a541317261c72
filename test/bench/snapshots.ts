import type { Connection } from "../../actors/store/connection.ts";
import type { CallbackRegistrar } from "../../modules/registrar.ts";
import type { LinkedValue } from "../../modules/snapshot-hook.ts";
import { configModel } from "../support/config-model.ts";
import type { Told } from "../support/record-at.ts";
import type { Bed } from "./bed.ts";
import type { Benchmark, BenchmarkOptions, Outcome } from "./benchmark.ts";
import { openSnapshotBed, type SnapshotBed } from "./snapshot-bed.ts";
import { measureLoad } from "./snapshot-load.ts";
import type { Verdict } from "./verify.ts";

/**
 * Snapshot runs of one node: of unlinked entities with ten attributes, all of them changed, then a hundredth changed and a tenth
 * in the decay of a validity, beside plain SQL that reads the same states and writes the same rows; and of components of five
 * with two hooks, of which one needs what the other has made.
 */
export const snapshots: Benchmark = {
  name: "snapshots",
  summary: "snapshot runs: 200,000 entities, all or some of them changed, and 50,000 in components of five",
  fields: [
    { key: "entities_per_s", unit: "entities/s", what: "a full run of unlinked entities, all changed" },
    { key: "copy_ratio", unit: "", what: "plain SQL reading the states and writing the rows, over that run's time" },
    {
      key: "changed_cost_ratio",
      unit: "",
      what: "cost of an entity in a run of what changed, over that in the full run",
    },
    { key: "recomputed", unit: "entities", what: "what that run computed: 11 % of all had to be" },
    { key: "linked_entities_per_s", unit: "entities/s", what: "a full run of linked entities" },
    { key: "ingest_p99_ms_before", unit: "ms", what: "durable acknowledgement at 30 % of the full rate" },
    { key: "ingest_p99_ms_during", unit: "ms", what: "the same while full runs follow one another" },
    { key: "bytes_per_entity", unit: "B", what: "of a snapshot in PostgreSQL, with its indexes" },
  ],
  bounds: ({ ingest_p99_ms_before = Number.NaN }) => [
    { key: "copy_ratio", sense: "at least", limit: 0.4 },
    { key: "changed_cost_ratio", sense: "at most", limit: 1.5 },
    { key: "ingest_p99_ms_during", sense: "at most", limit: Math.max(60, 2 * ingest_p99_ms_before) },
  ],
  run,
};

const texts = 5;
const numbers = 4;
export const model = configModel({
  host: {
    ...Object.fromEntries(Array.from({ length: texts }, (_, i) => [`text${i}`, "plain string"])),
    ...Object.fromEntries(Array.from({ length: numbers }, (_, i) => [`number${i}`, "plain int"])),
    level: "observations int; history_params: {post_validity: 1h}",
  },
});
const linkedModel = configModel({
  hub: { name: "plain string", load: "plain int" },
  leaf: { hub: "plain link<hub; mirror=leaves>", size: "plain int", share: "plain float" },
});
const minuteMs = 60_000;
const start = Date.UTC(2026, 0, 1);
const firstMax = 10;

/** The level of every tenth entity is in its decay from the first run on; that of the others has ended long before. */
export function host(number: number, version: number): { eid: string; datapoints: Told[] } {
  const datapoints: Told[] = [];
  for (let i = 0; i < texts; i++) datapoints.push({ attr: `text${i}`, v: `text ${i} of host ${number}, ${version}` });
  for (let i = 0; i < numbers; i++) datapoints.push({ attr: `number${i}`, v: number * 10 + i + version });
  const t2 = number % 10 === 0 ? start : start - 1_000 * minuteMs;
  datapoints.push({ attr: "level", v: number % 100, t1: t2 - minuteMs, t2 });
  return { eid: `host-${number}`, datapoints };
}

async function run(bed: Bed, options: BenchmarkOptions): Promise<Outcome> {
  const entities = options.entities ?? 200_000;
  const alone = await measureUnlinked(bed, entities, options);
  const linked = await measureLinked(bed, Math.floor(entities / 4), options);
  const load = await measureLoad(bed, Math.floor(entities / 4), options);
  return {
    values: {
      ...alone.values,
      ...linked.values,
      ...{ ingest_p99_ms_before: load.beforeMs, ingest_p99_ms_during: load.duringMs },
    },
    remarks: [...alone.remarks, `${load.runs} runs at ${load.rate} datapoints/s`],
    verdicts: [...alone.verdicts, ...linked.verdicts],
  };
}

async function measureUnlinked(bed: Bed, entities: number, options: BenchmarkOptions): Promise<Outcome> {
  const own = await openSnapshotBed(bed, model, () => {});
  try {
    options.note(`writing ${entities} records`);
    await own.fill("host", entities, (number) => host(number, 1));
    await own.run(true, start + minuteMs);
    const [size] = await own.query<{ bytes: number }>(
      "select pg_total_relation_size('starling.snapshot')::float8 as bytes",
    );
    await own.fill("host", entities, (number) => host(number, 2));
    await settle(bed, own);
    options.note("a full run, all changed");
    const full = await own.run(true, start + 2 * minuteMs);
    options.note("plain SQL");
    const copyS = await copyPlainly(bed, own, entities);
    await own.fill("host", entities, (number) => (number % 100 === 1 ? host(number, 3) : null));
    await settle(bed, own);
    options.note("a run of what changed");
    const changed = await own.run(false, start + 3 * minuteMs);
    options.note("a full run of the same instant");
    const again = await own.run(true, start + 3 * minuteMs);
    const recomputed = changed.run.counts.entities ?? 0;
    const share = 0.11;
    return {
      values: {
        entities_per_s: entities / full.seconds,
        copy_ratio: copyS / full.seconds,
        changed_cost_ratio: changed.seconds / full.seconds / share,
        recomputed,
        bytes_per_entity: (size?.bytes ?? 0) / entities,
      },
      remarks: [
        `full ${full.seconds.toFixed(2)} s, changed ${changed.seconds.toFixed(2)} s, plain SQL ${copyS.toFixed(2)} s`,
      ],
      verdicts: [
        verdictOf(entities, [
          [full.run.counts.written, entities],
          [recomputed, Math.ceil(entities / 10) + Math.floor((entities + 98) / 100)],
          [again.run.counts.written, 0],
        ]),
      ],
    };
  } finally {
    await own.close();
  }
}

async function settle(bed: Bed, { url }: SnapshotBed): Promise<void> {
  await bed.withConnection(url, async (connection: Connection) => {
    for (const table of ["entity", "snapshot", "history"])
      await connection.script(`vacuum (analyze) starling.${table}`);
  });
  await bed.checkpoint();
}

/** Each differing pair is a difference. */
function verdictOf(entities: number, pairs: readonly (readonly [number | undefined, number])[]): Verdict {
  const different = pairs.filter(([found, wanted]) => found !== wanted);
  return {
    ...{ entities, history: 0, lost: 0, duplicated: 0, differences: different.length },
    first: different.slice(0, firstMax).map(([found, wanted]) => `found ${found}, wanted ${wanted}`),
  };
}

/** Two clients that read the states in pages, and write the rows of the finished run into a table of the same shape. */
async function copyPlainly(bed: Bed, own: SnapshotBed, entities: number): Promise<number> {
  const shards = await own.query<{ shard: number }>("select distinct shard from starling.entity order by 1");
  const bodies = new Map<string, string>();
  const confidences = new Map<string, string>();
  for (const { eid, body, apart } of await own.query<{ eid: string; body: string; apart: string }>(
    `select eid, body::text as body, coalesce(confidences::text, '') as apart from starling.snapshot where to_tick is null`,
  )) {
    bodies.set(eid, body);
    confidences.set(eid, apart);
  }
  if (bodies.size !== entities) throw new Error(`${bodies.size} snapshots of ${entities}`);
  await own.query("create table starling.copy (like starling.snapshot including all)");
  const begun = performance.now();
  const work = () =>
    bed.withConnection(own.url, async (connection: Connection) => {
      for (let next = shards.shift(); next !== undefined; next = shards.shift()) {
        for (let after = ""; ; ) {
          const text = `select eid, type, state from starling.entity where shard = $1 and (eid, type) > ($2, 'host')
            order by eid, type limit 500`;
          const rows = await connection.query<{ eid: string }>(text, [next.shard, after]);
          if (rows.length === 0) break;
          after = rows.at(-1)?.eid ?? "";
          const eids = rows.map(({ eid }) => eid);
          const values = eids.map((eid) => bodies.get(eid) ?? "null");
          const apart = eids.map((eid) => confidences.get(eid) ?? "");
          await connection.query(
            `insert into starling.copy (shard, type, eid, from_tick, body, confidences)
              select $1, 'host', e, 1, b::jsonb, nullif(c, '')::jsonb
                from unnest(string_to_array($2, e'\\x1e'), string_to_array($3, e'\\x1e'),
                  string_to_array($4, e'\\x1e')) t(e, b, c)`,
            [next.shard, eids.join("\x1e"), values.join("\x1e"), apart.join("\x1e")],
          );
        }
      }
    });
  await Promise.all([work(), work()]);
  return (performance.now() - begun) / 1000;
}

function registerHooks(door: CallbackRegistrar): void {
  door.registerCorrelationHook(
    function load(_, values) {
      const leaves = (values.leaves ?? []) as readonly LinkedValue[];
      values.load = leaves.reduce((sum, { record }) => sum + Number(record?.size ?? 0), 0);
      return null;
    },
    "hub",
    { dependsOn: [["leaves", "size"]], mayChange: [["load"]], pure: true },
  );
  door.registerCorrelationHook(
    function share(_, values) {
      const load = Number((values.hub as LinkedValue | undefined)?.record?.load ?? 0);
      values.share = load === 0 ? 0 : Number(values.size ?? 0) / load;
      return null;
    },
    "leaf",
    { dependsOn: [["size"], ["hub", "load"]], mayChange: [["share"]], pure: true },
  );
}

async function measureLinked(bed: Bed, entities: number, options: BenchmarkOptions): Promise<Outcome> {
  const own = await openSnapshotBed(bed, linkedModel, registerHooks);
  try {
    const hubs = Math.floor(entities / 5);
    options.note(`writing ${hubs} components`);
    await own.fill("hub", hubs, (i) => ({ eid: `hub-${i}`, datapoints: [{ attr: "name", v: `Hub ${i}` }] }));
    const leaf = (i: number, version: number) => ({
      eid: `leaf-${i}`,
      datapoints: [
        { attr: "hub", v: { eid: `hub-${Math.floor(i / 4)}` } },
        { attr: "size", v: i + version },
      ],
    });
    await own.fill("leaf", hubs * 4, (i) => leaf(i, 1));
    await own.run(true, start);
    await own.fill("leaf", hubs * 4, (i) => leaf(i, 2));
    options.note("a full run of components");
    const full = await own.run(true, start + minuteMs);
    const again = await own.run(false, start + 2 * minuteMs);
    const { counts } = full.run;
    return {
      values: { linked_entities_per_s: (hubs * 5) / full.seconds },
      remarks: [],
      verdicts: [
        verdictOf(hubs * 5, [
          [counts.written, hubs * 5],
          [counts.components, hubs],
          [counts.componentMax, 5],
          [again.run.counts.entities, 0],
        ]),
      ],
    };
  } finally {
    await own.close();
  }
}
