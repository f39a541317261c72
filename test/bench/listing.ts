import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Connection } from "../../actors/store/connection.ts";
import { type Calls, openCalls } from "../../proto/client-calls.ts";
import type { SnapshotValues } from "../../proto/snapshots-client.ts";
import { repository } from "../support/repository.ts";
import type { Bed } from "./bed.ts";
import { type Benchmark, type BenchmarkOptions, type Outcome, quantile } from "./benchmark.ts";
import { mulberry32 } from "./things.ts";
import type { Verdict } from "./verify.ts";

/**
 * Pages of 20 out of the snapshots of one type with ten attributes of many kinds, over gRPC, in the order of some attribute:
 * by equalities and prefixes of every attribute, frequent values among them, and by regular expressions, which look at all.
 * What the indexes for that cost is what the same rows take to be written with and without.
 */
export const listing: Benchmark = {
  name: "listing",
  summary: "20 of 200,000 snapshots by filter and order, and what the indexes for it cost",
  fields: [
    { key: "equality_p95_ms", unit: "ms", what: "from the call over gRPC to the answer" },
    { key: "prefix_p95_ms", unit: "ms", what: "" },
    { key: "regex_p95_ms", unit: "ms", what: "" },
    { key: "count_p95_ms", unit: "ms", what: "count of an equality" },
    { key: "indexed_us", unit: "us", what: "to write one snapshot, with all its indexes" },
    { key: "plain_us", unit: "us", what: "the same without the indexes of attributes" },
    { key: "index_bytes", unit: "B", what: "of one snapshot's attributes" },
  ],
  bounds: () => [
    { key: "equality_p95_ms", sense: "at most", limit: 50 },
    { key: "prefix_p95_ms", sense: "at most", limit: 50 },
    { key: "regex_p95_ms", sense: "at most", limit: 1_000 },
  ],
  run,
};

const asks = { equality: 400, prefix: 200, regex: 40, count: 40 } as const;
const limit = 20;
const attributes = 10;
const sorts = ["eid", "name", "state:-1", "open", "ports:-1", "load", "ip", "mac:-1", "seen:-1"];

interface Question {
  readonly filter: object;
  readonly sort: readonly string[];
  readonly holds: (values: SnapshotValues["values"]) => boolean;
}

async function run(bed: Bed, options: BenchmarkOptions): Promise<Outcome> {
  const entities = options.entities ?? 200_000;
  const database = await bed.createDatabase();
  try {
    const configDir = join(repository, "test/bench/listing-config");
    const node = await bed.startNode({ databaseUrl: database.url, configDir });
    const [indexed, plain] = await bed.withConnection(database.url, (connection) =>
      fill(connection, entities, options),
    );
    await bed.checkpoint();
    const calls = await openCalls({ address: node.address });
    const random = mulberry32(1);
    const differences: string[] = [];
    const times = new Map<string, number[]>();
    for (const [kind, count] of Object.entries(asks)) {
      options.note(`asking ${count} times: ${kind}`);
      const found: number[] = [];
      for (let i = 0; i < count; i++) {
        const question = questionOf(kind as keyof typeof asks, random, entities);
        found.push(await ask(calls, question, kind === "count", differences));
      }
      times.set(kind, found);
    }
    await calls.close();
    await bed.stopNode(node);
    const p95 = (kind: string) => quantile(times.get(kind) ?? [], 0.95);
    return {
      values: {
        equality_p95_ms: p95("equality"),
        prefix_p95_ms: p95("prefix"),
        regex_p95_ms: p95("regex"),
        count_p95_ms: p95("count"),
        indexed_us: indexed.us,
        plain_us: plain.us,
        index_bytes: indexed.bytes - plain.bytes,
      },
      remarks: [...times].map(([kind, all]) => {
        const [middle, most] = [quantile(all, 0.5), Math.max(...all)].map((ms) => ms.toFixed(1));
        return `${kind}: ${all.length} calls, ${middle} ms in the middle, ${most} ms at most`;
      }),
      verdicts: [verdictOf(entities, differences)],
    };
  } finally {
    await database.close();
  }
}

interface Written {
  readonly us: number;
  readonly bytes: number;
}

/** Writes all rows once without the indexes of attributes, and once with them. */
async function fill(connection: Connection, entities: number, { note }: BenchmarkOptions): Promise<[Written, Written]> {
  note(`making ${entities} snapshots`);
  await connection.script("set work_mem = '256MB'; set statement_timeout = 0");
  await connection.script(`create unlogged table made as ${rowsText(entities)}; analyze made`);
  await connection.query(`insert into starling.snapshot_run
    (tick, at, kind, cause, status, phase, base, fingerprint, started_at, ended_at)
    values (1, now(), 'full', 'demand', 'finished', 'ended', 0, 'bench', now(), now())`);
  const defined = await findIndexes(connection);
  const write = async (): Promise<Written> => {
    await connection.script("checkpoint");
    const started = performance.now();
    await connection.script("insert into starling.snapshot (shard, type, eid, from_tick, body) table made");
    const us = ((performance.now() - started) * 1_000) / entities;
    const [size] = await connection.query<{ bytes: number }>(
      "select pg_indexes_size('starling.snapshot')::float8 as bytes",
    );
    return { us, bytes: (size?.bytes ?? 0) / entities };
  };
  note("writing them without indexes of attributes, and with them");
  await connection.script(defined.map(({ name }) => `drop index starling."${name}";`).join("\n"));
  const plain = await write();
  await connection.script(["truncate starling.snapshot;", ...defined.map(({ text }) => `${text};`)].join("\n"));
  const indexed = await write();
  await connection.script("drop table made");
  await connection.script("vacuum (analyze) starling.snapshot");
  return [indexed, plain];
}

/** The indexes of attributes, which the node makes while it serves already. */
async function findIndexes(connection: Connection): Promise<readonly { text: string; name: string }[]> {
  for (const until = performance.now() + 30_000; performance.now() < until; await delay(100)) {
    const found = await connection.query<{ text: string; name: string }>(
      `select indexdef as text, indexname as name from pg_indexes
        where tablename = 'snapshot' and indexname like 'snapshot/%' and indexdef like '%body%'`,
    );
    if (found.length === attributes) return found;
  }
  throw new Error("the node has not made its indexes of snapshots");
}

/** Rows in the order in which shards are visited. No two attributes grow together: planners take them for independent. */
function rowsText(entities: number): string {
  const address = (n: string) => `'10.' || ${n} / 65536 || '.' || ${n} / 256 % 256 || '.' || ${n} % 256`;
  return `select i % 256 as shard, 'host'::text as type, 'host-' || i as eid, 1::int8 as from_tick, jsonb_build_object(
    'eid', 'host-' || i, 'name', 'name ' || md5(i::text), 'state', (array['up', 'up', 'up', 'down', 'unknown'])[1 + i % 5],
    'open', a / 7 % 2 = 0, 'ports', b % 1000, 'load', (i * 7919 % 100000) / 100.0, 'load#c', 0.9, 'ip', ${address("a")},
    'mac', regexp_replace(lpad(to_hex(b), 12, '0'), '(..)(?!$)', '\\1:', 'g'),
    'seen', to_char('2026-01-01'::timestamp + c * interval '1 minute', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
    'peer', jsonb_build_object('eid', 'host-' || i * 17 % ${entities}),
    'tags', jsonb_build_array('tag-' || a % 500, 'site-' || c % 20)) as body
    from (
      select i, (i * 7919::int8 % ${entities})::int as a, (i * 104729::int8 % ${entities})::int as b,
          (i * 1299709::int8 % ${entities})::int as c from generate_series(0, ${entities - 1}) i
    ) n order by 1, i`;
}

function questionOf(kind: keyof typeof asks, random: () => number, entities: number): Question {
  const pick = (below: number) => Math.floor(random() * below);
  const hex = (digits: number) =>
    pick(16 ** digits)
      .toString(16)
      .padStart(digits, "0");
  const sort = [sorts[pick(sorts.length)] ?? "eid"];
  const equal = (attr: string, v: unknown): Question => ({
    filter: { [attr]: v },
    sort,
    holds: (values) => JSON.stringify(values[attr]).includes(JSON.stringify(v)),
  });
  const match = (attr: string, pattern: string): Question => ({
    filter: { [attr]: { $regex: pattern } },
    sort,
    holds: (values) => [values[attr]].flat().some((v) => new RegExp(pattern).test(String(v))),
  });
  const i = pick(entities);
  if (kind === "regex") return match("name", `${hex(2)}.*${hex(2)}$`);
  if (kind === "prefix") {
    const choices = [
      () => match("name", `^name ${hex(1 + pick(4))}`),
      () => match("eid", `^host-${1 + pick(99)}`),
      () => match("mac", `^00:00:00:0${pick(3)}:${hex(2)}`),
      () => match("state", "^u"),
    ];
    return (choices[pick(choices.length)] ?? (() => match("eid", "^h")))();
  }
  const choices = [
    () => equal("state", ["up", "down", "unknown"][pick(3)]),
    () => equal("open", pick(2) === 0),
    () => equal("ports", pick(1_000)),
    () => equal("load", ((i * 7919) % 100_000) / 100),
    () => equal("ip", `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`),
    () => equal("peer", `host-${i}`),
    () => equal("tags", `tag-${pick(500)}`),
    () => equal("tags", `site-${pick(20)}`),
    () => equal("eid", `host-${i}`),
  ];
  return (choices[pick(choices.length)] ?? (() => equal("open", true)))();
}

/** Asks, compares what came back with the filter, and returns how long that took. */
async function ask(calls: Calls, question: Question, counts: boolean, differences: string[]): Promise<number> {
  const { filter, sort, holds } = question;
  const started = performance.now();
  if (counts) {
    await calls.snapshots.count({ type: "host", filter });
    return performance.now() - started;
  }
  const { snapshots } = await calls.snapshots.list({ type: "host", filter, sort, limit });
  const ms = performance.now() - started;
  for (const { eid, values } of snapshots) {
    if (!holds(values)) differences.push(`${eid} is told, which does not fulfil ${JSON.stringify(filter)}`);
  }
  if (snapshots.length === 0 && "open" in filter) differences.push(`nothing is told of ${JSON.stringify(filter)}`);
  return ms;
}

function verdictOf(entities: number, differences: readonly string[]): Verdict {
  return {
    entities,
    history: 0,
    differences: differences.length,
    lost: 0,
    duplicated: 0,
    first: differences.slice(0, 10),
  };
}
