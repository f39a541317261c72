import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { ClusterNode } from "../support/cluster/cluster-node.ts";
import type { TestCluster } from "../support/cluster/test-cluster.ts";
import { repository } from "../support/repository.ts";
import type { Bed } from "./bed.ts";
import { type Benchmark, type BenchmarkOptions, median, type Outcome } from "./benchmark.ts";
import { untilCaughtUp } from "./cluster-state.ts";
import { type LoadedCluster, type LoadedRun, runLoaded } from "./loaded-cluster.ts";

const leaseTtlMs = 4_000;

/** Nodes that die, stand still or are cut off under load; and nodes that are only slow, which nobody may give up. */
export const failover: Benchmark = {
  name: "failover",
  summary: "three nodes at 30 % of full speed: kills, freezes and cuts of one; then slow nodes at 70 %",
  fields: [
    { key: "full_per_s", unit: "datapoints/s", what: "what three nodes take of a client that sends as fast as it can" },
    {
      key: "recovery_p50_ms",
      unit: "ms",
      what: "from kill -9 of a node until every shard has acknowledged something new",
    },
    { key: "recovery_p99_ms", unit: "ms", what: "the same, the worst" },
    {
      key: "freeze_recovery_max_ms",
      unit: "ms",
      what: "the same after SIGSTOP or a cut that swallows everything, the worst",
    },
    { key: "caught_up_ms", unit: "ms", what: "from the fault until what was sent meanwhile is processed, the worst" },
    { key: "longest_gap_ms", unit: "ms", what: "without any acknowledgement" },
    {
      key: "client_errors",
      unit: "",
      what: "connections that broke, those to nodes that died among them, and what the client could not hide from its user",
    },
    { key: "shown_errors", unit: "", what: "what the client could not hide from its user" },
    { key: "lost", unit: "datapoints", what: "acknowledged and not stored" },
    { key: "duplicated", unit: "datapoints", what: "stored more than once" },
    {
      key: "false_suspicions",
      unit: "",
      what: "nodes given up that lived, with a hook that blocks each for 500 ms every second",
    },
  ],
  bounds: () => [
    { key: "recovery_p99_ms", sense: "at most", limit: 3_000 },
    { key: "freeze_recovery_max_ms", sense: "at most", limit: leaseTtlMs + 3_000 },
    { key: "caught_up_ms", sense: "at most", limit: 15_000 },
    { key: "shown_errors", sense: "at most", limit: 0 },
    { key: "lost", sense: "at most", limit: 0 },
    { key: "duplicated", sense: "at most", limit: 0 },
    { key: "false_suspicions", sense: "at most", limit: 0 },
  ],
  run,
};

/** More than the nodes take: then they set the pace. */
const endlessRate = 200_000;
const fullForMs = 20_000;
const kills = 20;
const answerWithinMs = 60_000;

type Fault = "kill" | "freeze" | "cut";

interface Recovery {
  readonly fault: Fault;
  readonly recoveryMs: number;
  readonly caughtUpMs: number;
}

async function run(bed: Bed, options: BenchmarkOptions): Promise<Outcome> {
  const entities = options.entities ?? 20_000;
  const { rate } = options;
  // Whoever names the rate names 30 % of the full one.
  const full = rate === null ? await measureFull(bed, options, entities) : rate / 0.3;
  options.note(`full speed is ${Math.round(full)} datapoints/s`);
  const faulty = await runFaults(bed, options, { entities, rate: Math.round(full * 0.3) });
  const highRate = Math.round(full * 0.7);
  const slow = await runSlow(bed, options, { entities, rate: highRate });
  const of = (fault: (one: Recovery) => boolean) => faulty.recoveries.filter(fault);
  const killed = of(({ fault }) => fault === "kill").map(({ recoveryMs }) => recoveryMs);
  const frozen = of(({ fault }) => fault !== "kill").map(({ recoveryMs }) => recoveryMs);
  const given = slow.nodes.flatMap((node) => node.log());
  const count = (message: string) => given.filter((line) => line.includes(`"msg":"${message}"`)).length;
  const runs = [faulty.loaded, slow];
  return {
    values: {
      full_per_s: full,
      recovery_p50_ms: median(killed),
      recovery_p99_ms: Math.max(...killed),
      freeze_recovery_max_ms: Math.max(...frozen),
      caught_up_ms: Math.max(...faulty.recoveries.map(({ caughtUpMs }) => caughtUpMs)),
      longest_gap_ms: faulty.loaded.longestGapMs,
      client_errors: runs.reduce((sum, { report }) => sum + report.breaks.length + report.rejected, 0),
      shown_errors: runs.reduce((sum, { report }) => sum + report.rejected, 0),
      lost: runs.reduce((sum, { verdict }) => sum + verdict.lost, 0),
      duplicated: runs.reduce((sum, { verdict }) => sum + verdict.duplicated, 0),
      false_suspicions: count("node given up"),
    },
    remarks: [
      `${killed.length} kills, ${frozen.length} freezes and cuts`,
      `slow nodes: ${count("node suspected")} suspicions, ${count("suspicion was contested")} contested; ` +
        `${Math.round(slow.report.sent / slow.report.ackedS)} datapoints/s of ${highRate}`,
    ],
    verdicts: runs.map(({ verdict }) => verdict),
  };
}

interface Pace {
  readonly entities: number;
  /** Datapoints a second. */
  readonly rate: number;
}

/** Datapoints a second that are acknowledged when more are offered. */
async function measureFull(bed: Bed, options: BenchmarkOptions, entities: number): Promise<number> {
  const configDir = join(repository, "test/bench/config");
  const pace = { entities, rate: endlessRate, configDir, lagMaxMs: Number.POSITIVE_INFINITY };
  const { report } = await runLoaded(bed, options, pace, async () => {
    await delay(fullForMs, undefined, { signal: options.signal });
  });
  return report.sent / report.ackedS;
}

async function runFaults(bed: Bed, options: BenchmarkOptions, pace: Pace) {
  const rounds = options.rounds ?? kills;
  const recoveries: Recovery[] = [];
  const configDir = join(repository, "test/bench/config");
  const loaded = await runLoaded(bed, options, { ...pace, configDir }, async (running) => {
    for (let round = 0; round < rounds; round++) {
      recoveries.push(await strike(running, "kill", round, options));
    }
    for (let round = 0; round < Math.ceil(rounds / 2); round++) {
      recoveries.push(await strike(running, round % 2 === 0 ? "freeze" : "cut", Math.floor(round / 2), options));
    }
  });
  return { recoveries, loaded };
}

/** Does it to a node, another one in each round, waits until all is well without it, and mends it. */
async function strike(
  { cluster, load, untilWell }: LoadedCluster,
  fault: Fault,
  round: number,
  { signal, note }: BenchmarkOptions,
): Promise<Recovery> {
  const node = cluster.nodes[round % cluster.nodes.length];
  if (node === undefined) throw new Error("a cluster without nodes");
  const others = cluster.nodes.filter((one) => one !== node).map(({ address }) => address);
  const faultMs = performance.timeOrigin + performance.now();
  const mend = await begin(cluster, node, fault);
  const answeredMs = await waitForAnswer(load, faultMs, signal);
  await untilCaughtUp(others, signal);
  const caughtUpMs = performance.timeOrigin + performance.now() - faultMs;
  const recoveryMs = answeredMs - faultMs;
  note(`${fault} of ${node.name}: recovery ${Math.round(recoveryMs)} ms, caught up ${Math.round(caughtUpMs)} ms`);
  await mend();
  await untilWell();
  return { fault, recoveryMs, caughtUpMs };
}

async function begin(cluster: TestCluster, node: ClusterNode, fault: Fault): Promise<() => Promise<void>> {
  if (fault === "kill") {
    await node.kill();
    return () => node.start();
  }
  if (fault === "freeze") {
    node.freeze();
    return async () => node.thaw();
  }
  const { network } = cluster;
  // As if its machine had lost its network.
  const others = cluster.nodes.filter((one) => one !== node).map(({ name }) => name);
  const parties = [...others, "etcd", "postgres", "client"];
  for (const party of parties) {
    network.cut(node.name, party, "lost");
    network.cut(party, node.name, "lost");
  }
  return async () => network.healAll();
}

async function waitForAnswer(load: LoadedCluster["load"], faultMs: number, signal: AbortSignal): Promise<number> {
  const untilMs = performance.now() + answerWithinMs;
  for (;;) {
    signal.throwIfAborted();
    const answeredMs = load.answeredMs(faultMs);
    if (answeredMs !== null) return answeredMs;
    if (performance.now() > untilMs)
      throw new Error(`not every shard acknowledged anything within ${answerWithinMs} ms`);
    await delay(50);
  }
}

/** A hook blocks every node for half a second, once a second. */
async function runSlow(bed: Bed, options: BenchmarkOptions, pace: Pace): Promise<LoadedRun> {
  const { minutes, note, signal } = options;
  note(`slow nodes at ${pace.rate} datapoints/s for ${minutes} minutes`);
  const configDir = join(repository, "test/bench/blocked-config");
  return await runLoaded(bed, options, { ...pace, configDir, lagMaxMs: Number.POSITIVE_INFINITY }, async () => {
    await delay(minutes * 60_000, undefined, { signal });
  });
}
