import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { heapFlags } from "../../node/heap-flags.ts";
import { repository } from "../support/repository.ts";
import type { Bed } from "./bed.ts";
import type { Benchmark, BenchmarkOptions, Field, Outcome, Values } from "./benchmark.ts";
import { type ProfileShares, type Share, shareProfile } from "./profile-stages.ts";
import { type AlonePlan, type AloneReport, stages, surroundings } from "./stage.ts";
import { type NodeRun, runNode } from "./stages-node.ts";
import { stageTable } from "./stages-table.ts";

const aloneSurroundings = ["client", "gc"] as const;
const postgresCalls = ["append", "flush", "other"] as const;
const byteKinds = ["wire", "log", "state", "history"] as const;
const rowKinds = ["log", "state", "history"] as const;

/** What a datapoint costs at each stage, twice: each stage alone, and in a node under load (see stage.ts). */
export const stagesBenchmark: Benchmark = {
  name: "stages",
  summary: "what one of ingest's datapoints costs at each stage, alone and in a node under load",
  fields: fieldsOf(),
  bounds: () => [],
  run,
};

function fieldsOf(): Field[] {
  const field = (key: string, unit: string, what: string): Field => ({ key, unit, what });
  return [
    ...[...stages, ...aloneSurroundings, "sum", "other"].map((key) => field(`alone_${key}_us`, "µs", "")),
    ...stages.map((stage) => field(`alone_${stage}_heap_bytes`, "bytes", "")),
    ...[...stages, ...Object.keys(surroundings)].map((key) => field(`node_${key}_us`, "µs", "")),
    field("node_us", "µs", "the whole node, without profiler"),
    field("node_idle_share", "", "of the main thread's samples"),
    ...postgresCalls.map((key) => field(`postgres_${key}_us`, "µs", "while the stages run alone")),
    field("postgres_us", "µs", "while the node runs"),
    ...byteKinds.map((key) => field(`${key}_bytes`, "bytes", "as text, without PostgreSQL's own")),
    ...rowKinds.map((key) => field(`${key}_rows`, "rows", "in the node")),
    field("processed_per_s", "datapoints/s", "in the node, without profiler"),
  ];
}

async function run(bed: Bed, options: BenchmarkOptions): Promise<Outcome> {
  const entities = options.entities ?? 100_000;
  options.note("a node");
  const plain = await runNode(bed, entities, { profiled: false });
  options.note("a node with a profiler");
  const profiled = await runNode(bed, entities, { profiled: true });
  if (profiled.profile === null) throw new Error("there is no profile");
  const shares = shareProfile(profiled.profile);
  options.note("each stage alone");
  const alone = await runAlone(bed, planAlone(entities, plain), options.signal);
  const values = valuesOf(alone, plain, shares);
  return {
    values,
    remarks: [...stageTable(values), ...remarksOf(alone, profiled, shares)],
    verdicts: [plain.verdict, profiled.verdict],
  };
}

const shards = 256;
const batch = 500;
const attributes = 10;

/**
 * Alone, rows are as large as in the node: as many batches in an append, and so many entities dirty that a
 * datapoint meets as many that are. If the share d of all is dirty, of n datapoints (1 - d) n write a record at
 * once, and d n / 10 at the end.
 */
function planAlone(entities: number, { rows }: NodeRun): Omit<AlonePlan, "url" | "postgresPid"> {
  const dirty = Math.min(0.95, Math.max(0, (1 - rows.state) / (1 - 1 / attributes)));
  return {
    entities,
    batches: Math.min(8, Math.max(1, Math.round(shards / rows.log / batch))),
    dirtyMin: Math.round(dirty * entities),
  };
}

async function runAlone(bed: Bed, plan: Omit<AlonePlan, "url" | "postgresPid">, signal: AbortSignal) {
  const database = await bed.createDatabase();
  try {
    const program = join(repository, "dist/test/bench/stages-alone.js");
    const whole: AlonePlan = { ...plan, url: database.url, postgresPid: bed.postgres.pid };
    const args = [...heapFlags, program, JSON.stringify(whole)];
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"], signal });
    let printed = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      printed += text;
    });
    const [code] = (await once(child, "close")) as [number | null];
    if (code !== 0) throw new Error(`the stages alone ended with ${code}`);
    return { plan, ...(JSON.parse(printed) as AloneReport) };
  } finally {
    await database.close();
  }
}

type Alone = Awaited<ReturnType<typeof runAlone>>;

function valuesOf(alone: Alone, node: NodeRun, { hits }: ProfileShares): Values {
  const total = node.mainUs + node.threadsUs;
  const hitsOf = (share: Share): number => hits.get(share) ?? 0;
  const all = [...hits.values()].reduce((sum, count) => sum + count, 0);
  const busy = all - hitsOf("idle");
  const shares = [...stages, "client", "grpc", "gc", "native", "other"] as const;
  const sum = [...stages, ...aloneSurroundings].reduce((us, key) => us + alone.us[key], 0);
  return {
    ...named([...stages, ...aloneSurroundings], "alone_*_us", (key) => alone.us[key]),
    alone_sum_us: sum,
    alone_other_us: total - sum,
    ...named(stages, "alone_*_heap_bytes", (stage) => alone.heap[stage]),
    ...named(shares, "node_*_us", (share) => (hitsOf(share) / busy) * node.mainUs),
    node_threads_us: node.threadsUs,
    node_us: total,
    node_idle_share: hitsOf("idle") / all,
    ...named(postgresCalls, "postgres_*_us", (call) => alone.postgresUs[call]),
    postgres_us: node.postgresUs,
    ...named(byteKinds, "*_bytes", (kind) => alone.bytes[kind]),
    ...named(rowKinds, "*_rows", (kind) => node.rows[kind]),
    processed_per_s: node.report.sent / node.report.processedS,
  };
}

/** A value for each key, under a name in which the key stands for the star. */
function named<Key extends string>(keys: readonly Key[], name: string, of: (key: Key) => number): Values {
  return Object.fromEntries(keys.map((key) => [name.replace("*", key), of(key)]));
}

function remarksOf({ plan, rows, parts }: Alone, profiled: NodeRun, { others }: ProfileShares): string[] {
  const all = [...stages].flatMap((stage) => Object.entries(parts).filter(([part]) => part.startsWith(`${stage}:`)));
  const frames = others.slice(0, 5).map(({ frame, hits }) => `${frame} (${hits})`);
  const totalUs = profiled.mainUs + profiled.threadsUs;
  return [
    `alone: ${plan.batches} batches in an append, ${plan.dirtyMin} entities dirty; rows for each datapoint: ` +
      rowKinds.map((kind) => `${kind} ${rows[kind].toFixed(3)}`).join(", "),
    `alone, in parts: ${all.map(([part, us]) => `${part} ${us.toFixed(2)}`).join(", ")} µs`,
    `the node with its profiler: ${totalUs.toFixed(1)} µs; most of its other: ${frames.join(", ")}`,
  ];
}
