import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { checkClusterFacts } from "../support/cluster/checker.ts";
import { type Ack, type ClusterLoad, startClusterLoad } from "../support/cluster/cluster-load.ts";
import { watchEpochs } from "../support/cluster/epoch-watch.ts";
import { findBacklog, findUnowned, untilEachWasOwned, untilNothing } from "../support/cluster/liveness.ts";
import { type QueueWatch, watchQueues } from "../support/cluster/queue-watch.ts";
import { startTestCluster, type TestCluster } from "../support/cluster/test-cluster.ts";
import { type Fleet, type FleetVerdict, startFleet } from "../support/fleet/fleet.ts";
import { writeFleetConfig } from "../support/fleet/fleet-config.ts";
import { openKillDatabase } from "../support/kill-facts.ts";
import { rssPeakMb } from "../support/process-usage.ts";
import { type Fault, type FaultKind, faultText } from "./fault-plan.ts";
import { liveAgain, liveWithinMs } from "./live-again.ts";
import { type PlayedFault, playFaults } from "./play-faults.ts";

/** What one run came to: a line of the file of results. */
export interface RunResult {
  readonly seed: number;
  readonly run: number;
  readonly plan: readonly string[];
  readonly faults: readonly FaultResult[];
  readonly datapoints: number;
  readonly loadMs: number;
  /** With the start of the cluster and all that is looked at in the end. */
  readonly tookMs: number;
  readonly lost: number;
  readonly doubled: number;
  readonly disordered: number;
  readonly clientErrors: number;
  readonly reads: { readonly exact: number; readonly refused: number };
  readonly epochChanges: number;
  readonly snapshots: FleetVerdict["runs"];
  /** From the end of the last fault until every shard was owned and all that had been sent before was acknowledged. */
  readonly liveMs: number;
  /** From the end of the load until everything was owned and processed. */
  readonly caughtUpMs: number;
  readonly rssPeakMb: number;
  /** How full the fullest queue of a node was, in per cent of its bound. */
  readonly queuePeakPercent: number;
  /** All that is wrong, sentence by sentence. */
  readonly violations: readonly string[];
  /** The folder with the nodes' logs; empty when nothing is wrong. */
  readonly logs: string;
}

export interface FaultResult {
  readonly kind: FaultKind;
  /** The longest that a batch waited for its acknowledgement while it lasted or in the five seconds after it. */
  readonly stallMs: number;
  readonly skipped: string | null;
}

export interface FaultRunOptions {
  readonly seed: number;
  readonly run: number;
  readonly plan: readonly Fault[];
  /** Where logs of failed runs go. */
  readonly folder: string;
  readonly loadMs?: number;
  readonly datapoints?: number;
  readonly rate?: number;
  /** Ends the run with its reason; nodes and databases go with it. */
  readonly signal?: AbortSignal;
}

/** How many nodes a run has. */
export const nodesCount = 3;
/** A run that is late is a violation; its other checks wait so much longer. */
const patienceMs = 45_000;
const afterFaultMs = 5_000;
/** On a machine that is busy with other things it takes long until enough was sent. */
const loadMaxMs = 300_000;
/** Who has lost etcd serves on: a batch that waits so long has waited for it. */
const servedWithinMs = 15_000;

/** Starts a cluster, plays the faults under load, and checks what is left. */
export async function runFaults(options: FaultRunOptions): Promise<RunResult> {
  const { seed, run, signal } = options;
  const startedMs = performance.now();
  await using config = await openConfig();
  signal?.throwIfAborted();
  await using cluster = await startTestCluster({ nodes: nodesCount, configDir: config.folder });
  signal?.throwIfAborted();
  const { addresses, databaseUrls } = cluster;
  await using fleet = await startFleet({ addresses, databaseUrls, seed: seed * 1_000 + run });
  signal?.throwIfAborted();
  const over = new AbortController();
  const ended = new Promise<never>((_, reject) =>
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true, signal: over.signal }),
  );
  try {
    const result = await Promise.race([playRun(options, cluster, fleet), ended]);
    return { ...result, tookMs: Math.round(performance.now() - startedMs) };
  } finally {
    over.abort();
  }
}

async function playRun(
  options: FaultRunOptions,
  cluster: TestCluster,
  fleet: Fleet,
): Promise<Omit<RunResult, "tookMs">> {
  const { seed, run, plan, folder, loadMs = 30_000, datapoints = 100_000, rate = 4_000 } = options;
  const { addresses, databaseUrls, shards } = cluster;
  const epochs = watchEpochs(databaseUrls);
  const queues = watchQueues(cluster.nodes);
  const loadSeed = seed * 1_000 + run;
  const load = startClusterLoad({ addresses, seed: loadSeed, rate, entityShards: shards.entity });
  const beganMs = performance.now();
  const violations: string[] = [];
  const played = await playFaults(cluster, plan).catch((error: unknown) => {
    violations.push(`a fault could not be played: ${error instanceof Error ? error.message : String(error)}`);
    cluster.network.healAll();
    return [];
  });
  const mendedMs = performance.now();
  const owning = untilEachWasOwned(cluster, liveWithinMs).then((unowned) => {
    return { unowned, ownedMs: performance.now() - mendedMs };
  });
  while (
    load.errors.length + fleet.load.errors.length === 0 &&
    (performance.now() - beganMs < loadMs || load.count < datapoints) &&
    performance.now() - beganMs < loadMaxMs
  ) {
    await setTimeout(100);
  }
  const endMs = performance.now();
  const owned = await owning;
  const end = await settle(cluster, { load, fleet });
  const late = await fleet.settle(patienceMs);
  await Promise.all([epochs.close(), queues.close()]);
  violations.push(...end.late, ...late, ...epochs.problems, ...overfull(queues), ...load.errors, ...mishapsOf(cluster));
  const again = liveAgain({ ...owned, mendedMs, acks: load.acks });
  violations.push(...findWaits(played, load.acks), ...again.problems);
  if (load.count < datapoints) violations.push(`only ${load.count} datapoints were sent`);
  const { verdict, snapshots } = await checkEnd(cluster, { load, fleet });
  violations.push(...Object.values(verdict).flatMap((list) => list.slice(0, 8)), ...snapshots.problems.slice(0, 40));
  const logs = violations.length === 0 ? "" : join(folder, `seed-${seed}-run-${run}`);
  if (logs !== "") await cluster.saveLogs(logs);
  return {
    ...{ seed, run, plan: plan.map(faultText) },
    faults: played.map((one) => resultOf(one, load.acks)),
    ...{ datapoints: load.count + fleet.load.count, loadMs: Math.round(endMs - beganMs) },
    ...{ lost: verdict.lost.length, doubled: verdict.doubled.length, disordered: verdict.disordered.length },
    ...{ clientErrors: load.errors.length, reads: load.reads, epochChanges: epochs.changes },
    snapshots: snapshots.runs,
    ...{ liveMs: again.liveMs, caughtUpMs: end.caughtUpMs },
    rssPeakMb: Math.round(Math.max(...cluster.nodes.map(({ process }) => (process ? rssPeakMb(process.pid) : 0)))),
    queuePeakPercent: Math.round(100_000 * queues.fullest) / 1_000,
    ...{ violations, logs },
  };
}

/** A folder for the nodes' configuration. */
async function openConfig(): Promise<AsyncDisposable & { readonly folder: string }> {
  const folder = await mkdtemp(join(tmpdir(), "starling-faults-config-"));
  await writeFleetConfig(folder);
  return { folder, [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }) };
}

interface Loads {
  readonly load: ClusterLoad;
  readonly fleet: Fleet;
}

/** Ends the load; everything has to be acknowledged, owned and processed in time. */
async function settle(
  cluster: TestCluster,
  { load, fleet }: Loads,
): Promise<{ readonly late: readonly string[]; readonly caughtUpMs: number }> {
  const endMs = performance.now();
  const leftMs = (limitMs: number): number => Math.max(0, endMs + limitMs - performance.now());
  const finished = Promise.all([load.finish(), fleet.finish()]);
  const isFinished = (withinMs: number): Promise<boolean> =>
    Promise.race([finished.then(() => true), setTimeout(withinMs, false, { ref: false })]);
  const late: string[] = [];
  if (!(await isFinished(liveWithinMs))) {
    late.push(...load.waiting().map((one) => `not acknowledged within ${liveWithinMs} ms: ${one}`));
    if (!(await isFinished(patienceMs))) late.push(...load.waiting().map((one) => `never acknowledged: ${one}`));
  }
  const left = await untilNothing(() => findOpen(cluster), leftMs(liveWithinMs));
  if (left.length > 0) {
    late.push(...left.slice(0, 5).map((one) => `within ${liveWithinMs} ms not live: ${one}`));
    const never = await untilNothing(() => findOpen(cluster), patienceMs);
    late.push(...never.slice(0, 5).map((one) => `never live: ${one}`));
  }
  return { late, caughtUpMs: Math.round(performance.now() - endMs) };
}

async function findOpen(cluster: TestCluster): Promise<string[]> {
  return [...(await findUnowned(cluster)), ...(await findBacklog(cluster))];
}

/** The types of which nothing is sent any more; runs of snapshots go on, and tell of themselves. */
const restingTypes = ["probe", "mirror", "total"];

async function checkEnd(cluster: TestCluster, { load, fleet }: Loads) {
  await using databases = openKillDatabase(cluster.databaseUrls);
  // What the last run has told is processed, too.
  await untilNothing(() => findBacklog(cluster), patienceMs);
  const facts = await databases.facts();
  const isResting = ({ type }: { readonly type: string }): boolean => restingTypes.includes(type);
  const verdict = checkClusterFacts({
    ...facts,
    sent: load.sent(),
    raw: facts.raw.filter(isResting),
    entities: facts.entities.filter(isResting),
    history: facts.history.filter(isResting),
    logs: [],
  });
  return { verdict, snapshots: await fleet.check(facts) };
}

/** While etcd is away nothing waits for it. */
function findWaits(played: readonly PlayedFault[], acks: readonly Ack[]): string[] {
  const waits = played.filter(({ fault }) => fault.kind === "etcd-away").map((one) => resultOf(one, acks).stallMs);
  return waits
    .filter((ms) => ms > servedWithinMs)
    .map((ms) => `without etcd a batch has waited for ${Math.round(ms / 1000)} s`);
}

/** Queues beyond their bounds; that nobody told of one is a violation, too. */
function overfull({ readings, problems }: QueueWatch): readonly string[] {
  return readings === 0 ? ["no node told of its queues"] : problems;
}

/** A node must not end by itself; a start may fail while etcd or PostgreSQL is away. */
function mishapsOf(cluster: TestCluster): string[] {
  const ends = cluster.nodes.flatMap(({ mishaps }) => mishaps.filter(({ kind }) => kind === "ended"));
  return ends.map(({ text }) => `a node ended by itself: ${text}`);
}

function resultOf({ fault, beganMs, mendedMs, skipped }: PlayedFault, acks: readonly Ack[]): FaultResult {
  const untilMs = mendedMs + afterFaultMs;
  const touched = acks.filter(({ sentMs, ackedMs }) => sentMs < untilMs && ackedMs > beganMs);
  const waits = touched.map(({ sentMs, ackedMs }) => ackedMs - Math.max(sentMs, beganMs));
  return { kind: fault.kind, stallMs: Math.round(Math.max(0, ...waits)), skipped };
}
