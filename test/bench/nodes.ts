import { setTimeout as delay } from "node:timers/promises";
import { startTestEtcd } from "../support/etcd-server.ts";
import type { NodeProcess } from "../support/node-process.ts";
import { cpuSeconds, rssMb } from "../support/process-usage.ts";
import type { Bed } from "./bed.ts";
import type { Benchmark, BenchmarkOptions, Outcome } from "./benchmark.ts";
import { untilBalanced, untilCaughtUp, untilOwned } from "./cluster-state.ts";
import { type ConnectionCount, countConnections } from "./connection-count.ts";
import { expectThings } from "./expectation.ts";
import { createPlan } from "./plan.ts";
import { verify } from "./verify.ts";

/** What a cluster of many nodes takes from a small machine, and how soon all shards are served again when nodes die. */
export const nodes: Benchmark = {
  name: "nodes",
  summary: "eight nodes with 1,024 shards of entities: their start, two kills, and what they take when nothing happens",
  fields: [
    { key: "balanced_ms", unit: "ms", what: "from the start of all nodes until each has its share" },
    { key: "owned_ms_1", unit: "ms", what: "from kill -9 of a node until all shards are owned again" },
    { key: "owned_ms_2", unit: "ms", what: "the same of a second one" },
    { key: "connections", unit: "", what: "connections to PostgreSQL of all nodes, the most at once" },
    { key: "rss_max_mib", unit: "MiB", what: "resident memory of a node with nothing to do, the largest" },
    { key: "idle_cpu_percent", unit: "%", what: "of a core, the busiest node with nothing to do" },
  ],
  bounds: () => [
    { key: "balanced_ms", sense: "at most", limit: 60_000 },
    { key: "owned_ms_1", sense: "at most", limit: 10_000 },
    { key: "owned_ms_2", sense: "at most", limit: 10_000 },
    { key: "connections", sense: "at most", limit: 90 },
    { key: "rss_max_mib", sense: "at most", limit: 150e6 / 1024 ** 2 },
    { key: "idle_cpu_percent", sense: "at most", limit: 1 },
  ],
  run,
};

const names = ["a", "b", "c", "d", "e", "f", "g", "h"];
const shards = { entity: 1_024, system: 16 };
/** So that every node has opened its connections and has stored something. */
const defaultEntities = 2_000;
const idleAfterMs = 60_000;
const idleMs = 20_000;

async function run(bed: Bed, { entities, signal, note }: BenchmarkOptions): Promise<Outcome> {
  const database = await bed.createDatabase();
  const etcd = await startTestEtcd();
  const connections = countConnections(database.url);
  try {
    const beganMs = performance.now();
    const all = await startNodes(bed, database.url, etcd.endpoint);
    const addresses = all.map(({ address }) => address);
    await untilBalanced(addresses, shards, signal);
    const balancedMs = performance.now() - beganMs;
    note(`balanced after ${Math.round(balancedMs)} ms`);
    const [first, second, third] = all;
    if (first === undefined || second === undefined || third === undefined) throw new Error("too few nodes");
    const plan = createPlan(entities ?? defaultEntities, { addresses });
    const { sent } = await bed.send(third, plan);
    await untilCaughtUp(addresses, signal);
    const idle = await measureIdle(all, signal);
    note(
      `idle: ${idle.map(({ rssMib, cpuPercent }) => `${rssMib.toFixed(0)} MiB ${cpuPercent.toFixed(2)} %`).join(", ")}`,
    );
    const ownedMs: number[] = [];
    for (const [at, victim] of [first, second].entries()) {
      ownedMs.push(await killOne(victim, addresses.slice(at + 1), signal));
      note(`all shards were owned ${Math.round(ownedMs[at] ?? 0)} ms after kill ${at + 1}`);
    }
    for (const node of all.slice(2)) await bed.stopNode(node);
    const expectation = expectThings([{ plan, sent }]);
    const verdict = await bed.withConnection(database.url, (connection) => verify(connection, expectation));
    return {
      values: {
        balanced_ms: balancedMs,
        owned_ms_1: ownedMs[0] ?? Number.NaN,
        owned_ms_2: ownedMs[1] ?? Number.NaN,
        connections: connections.most(),
        rss_max_mib: Math.max(...idle.map(({ rssMib }) => rssMib)),
        idle_cpu_percent: Math.max(...idle.map(({ cpuPercent }) => cpuPercent)),
      },
      remarks: [remarkOf(idle, connections)],
      verdicts: [verdict],
    };
  } finally {
    await connections.close();
    await etcd.close();
    await database.close();
  }
}

/** All at once, as a machine that was switched on does. */
function startNodes(bed: Bed, databaseUrl: string, endpoint: string): Promise<NodeProcess[]> {
  const flags = ["--etcd", endpoint, "--entity-shards", `${shards.entity}`, "--system-shards", `${shards.system}`];
  return Promise.all(names.map((name) => bed.startNode({ databaseUrl, name, flags: [...flags, "--name", name] })));
}

/** Returns after how many milliseconds those that are left own every shard. */
async function killOne(victim: NodeProcess, left: readonly string[], signal: AbortSignal): Promise<number> {
  const killedMs = performance.now();
  await victim.kill();
  await untilOwned(left, shards, signal);
  const ownedMs = performance.now() - killedMs;
  await untilBalanced(left, shards, signal);
  return ownedMs;
}

interface Idle {
  readonly rssMib: number;
  readonly cpuPercent: number;
}

/** What each node takes, a minute after it last had something to do. */
async function measureIdle(all: readonly NodeProcess[], signal: AbortSignal): Promise<Idle[]> {
  await delay(idleAfterMs, undefined, { signal });
  const before = all.map(({ pid }) => cpuSeconds(pid));
  await delay(idleMs, undefined, { signal });
  return all.map(({ pid }, at) => ({
    rssMib: rssMb(pid),
    cpuPercent: ((cpuSeconds(pid) - (before[at] ?? 0)) / (idleMs / 1_000)) * 100,
  }));
}

function remarkOf(idle: readonly Idle[], connections: ConnectionCount): string {
  const mean = (of: (one: Idle) => number): number => idle.reduce((sum, one) => sum + of(one), 0) / idle.length;
  const memory = `${mean(({ rssMib }) => rssMib).toFixed(0)} MiB (VmRSS)`;
  const cpu = `${mean(({ cpuPercent }) => cpuPercent).toFixed(2)} %`;
  return `an idle node on average: ${memory}, ${cpu}; connections by the end: ${connections.last()}`;
}
