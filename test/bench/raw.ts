import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import type { Connection } from "../../actors/store/connection.ts";
import { loadConfig } from "../../node/config/load-config.ts";
import { type Calls, openCalls } from "../../proto/client-calls.ts";
import { repository } from "../support/repository.ts";
import type { Bed } from "./bed.ts";
import { type Benchmark, type BenchmarkOptions, type Outcome, quantile } from "./benchmark.ts";
import { createLogPlan, fillLog, type LogPlan } from "./fill-log.ts";
import type { ThingDatapoint } from "./things.ts";
import type { Verdict } from "./verify.ts";

/**
 * The newest raw datapoints of single entities out of a log of six days. One entity has a thousand, spread over all of it,
 * the others ten, and some that are asked for have none: these are the dear ones, since all of their shard has to be looked
 * through. The node has just been started, so nothing is known to it; the days but the last are vacuumed, as they would be.
 */
export const raw: Benchmark = {
  name: "raw",
  summary: "the newest 20 raw datapoints of one entity, out of 10,000,000, 200 times",
  fields: [
    { key: "raw_p50_ms", unit: "ms", what: "from the call over gRPC to the last datapoint" },
    { key: "raw_p99_ms", unit: "ms", what: "" },
    { key: "raw_max_ms", unit: "ms", what: "" },
    { key: "rows", unit: "", what: "raw datapoints stored" },
  ],
  bounds: () => [{ key: "raw_p99_ms", sense: "at most", limit: 50 }],
  run,
};

const dayMs = 86_400_000;
const days = 6;
const asks = 200;
const limit = 20;
const firstMax = 10;
const kinds = ["many", "few", "none"] as const;

/** One question and what came back. */
interface Answer {
  readonly kind: (typeof kinds)[number];
  readonly eid: string;
  readonly expected: readonly ThingDatapoint[];
  readonly found: readonly ThingDatapoint[];
  readonly ms: number;
}

async function run(bed: Bed, options: BenchmarkOptions): Promise<Outcome> {
  const plan = createLogPlan(options.entities ?? 1_000_000);
  const database = await bed.createDatabase();
  try {
    options.note(`storing ${plan.rows} raw datapoints`);
    await store(bed, database.url, plan, options.signal);
    options.note("asking");
    const node = await bed.startNode({ databaseUrl: database.url });
    const calls = await openCalls({ address: node.address });
    const answers = await askAll(calls, plan, options.entities ?? 1_000_000);
    await calls.close();
    await bed.stopNode(node);
    const rows = await bed.withConnection(database.url, countRows);
    const times = answers.map(({ ms }) => ms);
    return {
      values: {
        raw_p50_ms: quantile(times, 0.5),
        raw_p99_ms: quantile(times, 0.99),
        raw_max_ms: Math.max(...times),
        rows,
      },
      remarks: kinds.map((kind) => remarkOf(kind, answers)),
      verdicts: [verdictOf(answers)],
    };
  } finally {
    await database.close();
  }
}

async function store(bed: Bed, url: string, plan: LogPlan, signal: AbortSignal): Promise<void> {
  const { model } = await loadConfig(join(repository, "test/bench/config"), { env: {}, flags: {} });
  const entity = model.entities.get("thing");
  if (entity === undefined) throw new Error("the benchmarks' model has no things");
  const to = Date.now();
  await fillLog({ url, plan, entity, from: to - days * dayMs, to, signal });
  await bed.withConnection(url, async (connection) => {
    for (const name of await passedPartitions(connection)) await connection.script(`vacuum (analyze) ${name}`);
    await connection.script("analyze starling.log");
  });
  await bed.checkpoint();
}

/** Those of the days before today, UTC. */
async function passedPartitions(connection: Connection): Promise<string[]> {
  const text = `select inhrelid::regclass::text as name from pg_inherits where inhparent = 'starling.log'::regclass
    and inhrelid::regclass::text < 'starling.log_' || to_char(now(), 'YYYYMMDD') order by 1`;
  return (await connection.query<{ name: string }>(text)).map(({ name }) => name);
}

async function askAll(calls: Calls, plan: LogPlan, entities: number): Promise<Answer[]> {
  const answers: Answer[] = [];
  for (let i = 0; i < asks; i++) {
    const { kind, number } = questionOf(i, plan, entities);
    const eid = `thing-${number}`;
    const expected = kind === "none" ? [] : plan.newest(number, limit);
    const found: ThingDatapoint[] = [];
    const started = performance.now();
    for await (const { type, attr, v, t1, t2, src } of calls.entities.raw({ type: "thing", eid, limit })) {
      const times = { ...(t1 !== null && { t1 }), ...(t2 !== null && { t2 }) };
      found.push({ type, eid, attr: attr as ThingDatapoint["attr"], v, ...times, src: src ?? "" });
    }
    answers.push({ kind, eid, expected, found, ms: performance.now() - started });
  }
  return answers;
}

/** Of ten questions one is for the busy thing, six for others, and three for things that never were. */
function questionOf(i: number, plan: LogPlan, entities: number): { kind: Answer["kind"]; number: number } {
  if (i % 10 === 0) return { kind: "many", number: plan.busy };
  if (i % 10 > 6) return { kind: "none", number: plan.busy + 1 + i };
  return { kind: "few", number: (i * 7919) % entities };
}

/** What the segments say that they hold. */
async function countRows(connection: Connection): Promise<number> {
  const text = "select coalesce(sum(last_seq - seq + 1), 0)::float8 as rows from starling.log";
  const [row] = await connection.query<{ rows: number }>(text);
  return row?.rows ?? 0;
}

function remarkOf(kind: Answer["kind"], answers: readonly Answer[]): string {
  const times = answers.filter((answer) => answer.kind === kind).map(({ ms }) => ms);
  const [middle, most] = [quantile(times, 0.5), Math.max(...times)].map((ms) => ms.toFixed(1));
  return `entities with ${kind} datapoints: ${times.length} calls, ${middle} ms in the middle, ${most} ms at most`;
}

/** Compares every answer, datapoint by datapoint, with what was stored. */
function verdictOf(answers: readonly Answer[]): Verdict {
  const different = answers.filter(({ expected, found }) => !isDeepStrictEqual(found, expected));
  return {
    entities: new Set(answers.map(({ eid }) => eid)).size,
    history: answers.reduce((sum, { found }) => sum + found.length, 0),
    differences: different.length,
    lost: 0,
    duplicated: 0,
    first: different.slice(0, firstMax).map(({ eid, expected, found }) => {
      return `${eid}: ${found.length} raw datapoints, expected ${expected.length}: ${JSON.stringify(found[0])}`;
    }),
  };
}
