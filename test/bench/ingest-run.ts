import type { NodeProcess } from "../support/node-process.ts";
import { rssPeakMb } from "../support/process-usage.ts";
import type { Bed, CpuUse } from "./bed.ts";
import { expectThings, type Sent } from "./expectation.ts";
import { createPlan, type SendPlan } from "./plan.ts";
import type { SendReport } from "./sender.ts";
import { type Verdict, verify } from "./verify.ts";

/** One run of `ingest`'s datapoints through a node that nobody used before. */
export interface IngestRun {
  readonly report: SendReport;
  readonly cpu: CpuUse;
  readonly rssPeakMb: number;
  readonly verdict: Verdict;
}

/** The two observations that have a history before the clock starts: o_level and o_state. */
const preloaded = [4, 5];

/** The datapoints that are measured: ten for each entity. */
export function ingestPlan(entities: number): SendPlan {
  return createPlan(entities);
}

/** What the entities have before the clock starts. */
export function preloadPlan(entities: number): SendPlan {
  return createPlan(entities, { attributes: preloaded, generation: 0, seed: 2 });
}

/** Sends, measures and verifies. `after` goes on with the same node, and says what else it sent. */
export async function runIngest(
  bed: Bed,
  entities: number,
  after: (node: NodeProcess, report: SendReport) => Promise<readonly Sent[]> = async () => [],
): Promise<IngestRun> {
  const database = await bed.createDatabase();
  try {
    const node = await bed.startNode({ databaseUrl: database.url });
    const before = preloadPlan(entities);
    const preload = await bed.send(node, before);
    await bed.checkpoint();
    const plan = ingestPlan(entities);
    const { result: report, ...cpu } = await bed.measureCpu(node, () => bed.send(node, plan));
    const peak = rssPeakMb(node.pid);
    const more = await after(node, report);
    await bed.stopNode(node);
    const sent = [{ plan: before, sent: preload.sent }, { plan, sent: report.sent }, ...more];
    const verdict = await bed.withConnection(database.url, (connection) => verify(connection, expectThings(sent)));
    return { report, cpu, rssPeakMb: peak, verdict };
  } finally {
    await database.close();
  }
}
