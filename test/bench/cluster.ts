import { setTimeout as delay } from "node:timers/promises";
import { startTestEtcd } from "../support/etcd-server.ts";
import type { NodeProcess } from "../support/node-process.ts";
import { cpuSeconds, treeCpuSeconds } from "../support/process-usage.ts";
import type { Bed } from "./bed.ts";
import { type Benchmark, type BenchmarkOptions, median, type Outcome } from "./benchmark.ts";
import { untilBalanced } from "./cluster-state.ts";
import { expectThings } from "./expectation.ts";
import { createPlan, type SendPlan } from "./plan.ts";
import { type Verdict, verify } from "./verify.ts";

/** What several nodes cost beside one that does the same. */
export const cluster: Benchmark = {
  name: "cluster",
  summary:
    "500,000 datapoints at 8,000 a second: one node, three, and three with a client that knows the owners, three times",
  fields: [
    {
      key: "cpu_s_per_million_1",
      unit: "s",
      what: "processor time of one node and PostgreSQL, per million datapoints",
    },
    { key: "cpu_s_per_million_3", unit: "s", what: "the same with three nodes" },
    { key: "cpu_s_per_million_3_owner_aware", unit: "s", what: "the same with a client that knows the owners" },
    { key: "ratio", unit: "", what: "three nodes over one" },
    { key: "ratio_owner_aware", unit: "", what: "the same with a client that knows the owners" },
    { key: "idle_cpu_percent", unit: "%", what: "of a core, the busiest of three nodes with nothing to do" },
  ],
  bounds: () => [
    { key: "ratio", sense: "at most", limit: 1.5 },
    { key: "ratio_owner_aware", sense: "at most", limit: 1.15 },
    { key: "idle_cpu_percent", sense: "at most", limit: 1 },
  ],
  run,
};

const rounds = 3;
const defaultRate = 8_000;
const shards = { entity: 256, system: 16 };
const flushedMs = 2_000;
const idleAfterMs = 5_000;
const idleMs = 20_000;
const preloaded = [4, 5];
/**
 * So many other entities for each node come before the clock starts, as fast for each as the load for one: what a process
 * compiles once is no cost of the work, and what full speed makes it compile is not what the load needs.
 */
const warmingEntities = 10_000;

export const cases = [
  { name: "one node", nodes: 1, ownerAware: false },
  { name: "three nodes", nodes: 3, ownerAware: false },
  { name: "three nodes, owners known", nodes: 3, ownerAware: true },
] as const;
export type Case = (typeof cases)[number];

interface CaseRun {
  readonly nodesPerMillionS: number;
  readonly postgresPerMillionS: number;
  readonly clientPerMillionS: number;
  readonly ackP99Ms: number;
  readonly idlePercent: number | null;
  readonly verdict: Verdict;
}

async function run(bed: Bed, options: BenchmarkOptions): Promise<Outcome> {
  const entities = options.entities ?? 50_000;
  const count = options.rounds ?? rounds;
  const runs = new Map<Case, CaseRun[]>(cases.map((one) => [one, []]));
  const etcd = await startTestEtcd();
  try {
    for (let round = 1; round <= count; round++) {
      for (const one of cases) {
        const isIdleToo = round === 1 && one.nodes === 3 && !one.ownerAware;
        const result = await runCase(bed, options, { one, entities, endpoint: etcd.endpoint, isIdleToo });
        runs.get(one)?.push(result);
        options.note(`round ${round} of ${count}: ${one.name}: ${inWords([result])}`);
      }
    }
  } finally {
    await etcd.close();
  }
  const all = [...runs.values()].flat();
  const [one = 0, three = 0, aware = 0] = cases.map((which) =>
    median((runs.get(which) ?? []).map((result) => result.nodesPerMillionS + result.postgresPerMillionS)),
  );
  return {
    values: {
      cpu_s_per_million_1: one,
      cpu_s_per_million_3: three,
      cpu_s_per_million_3_owner_aware: aware,
      ratio: three / one,
      ratio_owner_aware: aware / one,
      idle_cpu_percent: Math.max(...all.map(({ idlePercent }) => idlePercent ?? 0)),
    },
    durability: await bed.durability(),
    remarks: cases.map((which) => `${which.name}: ${inWords(runs.get(which) ?? [])}`),
    verdicts: all.map(({ verdict }) => verdict),
  };
}

function inWords(runs: readonly CaseRun[]): string {
  const middle = (of: (run: CaseRun) => number): string => median(runs.map(of)).toFixed(1);
  return (
    `nodes ${middle((run) => run.nodesPerMillionS)} s, PostgreSQL ${middle((run) => run.postgresPerMillionS)} s, ` +
    `client ${middle((run) => run.clientPerMillionS)} s per million; ack p99 ${middle((run) => run.ackP99Ms)} ms`
  );
}

/** Where the nodes of a case run, and as what. */
export interface NodesOptions {
  readonly one: Case;
  /** etcd's. */
  readonly endpoint: string;
  /** Of each node. */
  readonly flags?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Of another version. */
  readonly program?: string;
  /** Of their folders, where two cases run at the same time. */
  readonly folder?: string;
}

interface CaseOptions extends NodesOptions {
  readonly entities: number;
  readonly isIdleToo: boolean;
}

/** One load on nodes that nobody used before. */
async function runCase(bed: Bed, { signal, rate: asked }: BenchmarkOptions, options: CaseOptions): Promise<CaseRun> {
  const { one, entities } = options;
  const rate = asked ?? defaultRate;
  const database = await bed.createDatabase();
  try {
    const nodes = await startNodes(bed, database.url, signal, options);
    const [first] = nodes;
    if (first === undefined) throw new Error("no node");
    const addresses = nodes.map(({ address }) => address);
    const warming = warmingEntities * one.nodes;
    const changes = { addresses, ownerAware: one.ownerAware, population: entities + warming };
    const warm = createPlan(warming, { ...changes, firstEntity: entities, rate: rate * one.nodes });
    const before = createPlan(entities, { ...changes, attributes: preloaded, generation: 0, seed: 2 });
    const warmed = await bed.send(first, warm);
    const preload = await bed.send(first, before);
    await bed.checkpoint();
    const plan: SendPlan = createPlan(entities, { ...changes, rate });
    const {
      result: report,
      nodesS,
      postgresS,
    } = await measureCpu(bed, nodes, async () => {
      const sent = await bed.send(first, plan);
      await delay(flushedMs);
      return sent;
    });
    const idlePercent = options.isIdleToo ? await measureIdle(nodes) : null;
    for (const node of nodes) await bed.stopNode(node);
    const expectation = expectThings([
      { plan: warm, sent: warmed.sent },
      { plan: before, sent: preload.sent },
      { plan, sent: report.sent },
    ]);
    const verdict = await bed.withConnection(database.url, (connection) => verify(connection, expectation));
    const millions = report.sent / 1e6;
    return {
      nodesPerMillionS: nodesS / millions,
      postgresPerMillionS: postgresS / millions,
      clientPerMillionS: report.cpuS / millions,
      ackP99Ms: report.ackP99Ms,
      idlePercent,
      verdict,
    };
  } finally {
    await database.close();
  }
}

/** Starts the nodes of a case; several share the shards when it resolves. */
export async function startNodes(
  bed: Bed,
  databaseUrl: string,
  signal: AbortSignal,
  { one, endpoint, flags = [], folder = "node", ...rest }: NodesOptions,
): Promise<NodeProcess[]> {
  const { env, program } = rest;
  const common = { databaseUrl, ...(env && { env }), ...(program !== undefined && { program }) };
  if (one.nodes === 1) return [await bed.startNode({ ...common, flags, name: folder })];
  const nodes: NodeProcess[] = [];
  for (const name of ["a", "b", "c"]) {
    const own = ["--etcd", endpoint, "--name", name, ...flags];
    nodes.push(await bed.startNode({ ...common, name: `${folder}-${name}`, flags: own }));
  }
  const addresses = nodes.map(({ address }) => address);
  await untilBalanced(addresses, shards, signal);
  return nodes;
}

/** Processor seconds that nodes and PostgreSQL use during some work. */
export async function measureCpu<T>(bed: Bed, nodes: readonly NodeProcess[], work: () => Promise<T>) {
  const read = () => ({
    nodes: nodes.reduce((sum, { pid }) => sum + cpuSeconds(pid), 0),
    postgres: treeCpuSeconds(bed.postgres.pid),
  });
  const before = read();
  const result = await work();
  const after = read();
  return { result, nodesS: after.nodes - before.nodes, postgresS: after.postgres - before.postgres };
}

/** The largest share of a core that a node takes with nothing to do. */
async function measureIdle(nodes: readonly NodeProcess[]): Promise<number> {
  await delay(idleAfterMs);
  const before = nodes.map(({ pid }) => cpuSeconds(pid));
  await delay(idleMs);
  const used = nodes.map(({ pid }, index) => cpuSeconds(pid) - (before[index] ?? 0));
  return (Math.max(...used) / (idleMs / 1_000)) * 100;
}
