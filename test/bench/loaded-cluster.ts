import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { ClusterNode } from "../support/cluster/cluster-node.ts";
import { startTestCluster, type TestCluster } from "../support/cluster/test-cluster.ts";
import type { Bed } from "./bed.ts";
import type { BenchmarkOptions } from "./benchmark.ts";
import { untilBalanced, untilCaughtUp } from "./cluster-state.ts";
import { expectThings } from "./expectation.ts";
import { type LoadProcess, startLoadProcess } from "./load-process.ts";
import { createPlan } from "./plan.ts";
import type { SendReport } from "./sender.ts";
import { type Verdict, verify } from "./verify.ts";

export interface LoadedCluster {
  readonly cluster: TestCluster;
  readonly load: LoadProcess;
  /**
   * Waits until all nodes serve and share the shards, nothing is left to process of what was sent before, and the client has
   * caught up with its rate.
   */
  untilWell(): Promise<void>;
}

export interface LoadedRun {
  readonly report: SendReport;
  readonly verdict: Verdict;
  readonly longestGapMs: number;
  readonly nodes: readonly ClusterNode[];
}

export interface LoadedOptions {
  readonly entities: number;
  /** Datapoints a second. */
  readonly rate: number;
  readonly configDir: string;
  readonly ownerAware?: boolean;
  /** How far behind its rate the client may be when all is well; default 500 ms. */
  readonly lagMaxMs?: number;
}

/** What a client sends in one batch. */
export const loadBatch = 256;
const shards = { entity: 256, system: 16 };
const passesMax = 1_000_000;
/** Some ten seconds at the usual rate: longer than any pause that is allowed. */
const waitingMaxBatches = 500;
const lagDefaultMs = 500;
const steadyWithinMs = 120_000;

/** Runs three nodes under load while something happens to them, then verifies what they stored. */
export async function runLoaded(
  bed: Bed,
  { signal, note }: BenchmarkOptions,
  options: LoadedOptions,
  during: (loaded: LoadedCluster) => Promise<void>,
): Promise<LoadedRun> {
  await using cluster = await startTestCluster({ nodes: 3, shards, configDir: options.configDir });
  const { addresses } = cluster;
  await untilBalanced(addresses, shards, signal);
  const plan = createPlan(options.entities, {
    ...{ passes: passesMax, batch: loadBatch, rate: options.rate, maxInFlight: 16 },
    ...{ addresses, ownerAware: options.ownerAware ?? false, liveMaxBatches: waitingMaxBatches },
  });
  const load = startLoadProcess(plan, shards.entity);
  try {
    const untilWell = async (): Promise<void> => {
      await untilBalanced(addresses, shards, signal);
      await untilCaughtUp(addresses, signal);
    };
    const untilSteady = async (): Promise<void> => {
      await untilWell();
      const untilMs = performance.now() + steadyWithinMs;
      while (load.lagMs() > (options.lagMaxMs ?? lagDefaultMs)) {
        signal.throwIfAborted();
        if (performance.now() > untilMs) throw new Error(`the nodes do not keep up with ${options.rate} datapoints/s`);
        await delay(50);
      }
    };
    await untilSteady();
    await during({ cluster, load, untilWell: untilSteady });
    note("waiting for the end of what was sent");
    const report = await load.finish();
    const gap = load.longestGap();
    note(`the longest gap, of ${Math.round(gap.ms)} ms, ended at ${new Date(gap.endMs).toISOString()}`);
    await untilWell();
    for (const node of cluster.nodes) await node.stop();
    const expectation = expectThings([{ plan, sent: report.sent }]);
    const verdict = await bed.withConnection(cluster.databaseUrl, (connection) => verify(connection, expectation));
    return { report, verdict, longestGapMs: gap.ms, nodes: cluster.nodes };
  } finally {
    load.kill();
    // For whoever wants to know where the time went.
    const folder = process.env.STARLING_BENCH_LOGS;
    if (folder !== undefined) await cluster.saveLogs(join(folder, `${Date.now()}`));
  }
}
