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

/** Sends what the entities have before the clock starts, and then what is measured. */
export async function measureIngest(bed: Bed, node: NodeProcess, entities: number) {
  const before = createPlan(entities, { attributes: preloaded, generation: 0, seed: 2 });
  const preload = await bed.send(node, before);
  await bed.checkpoint();
  const plan = ingestPlan(entities);
  const { result: report, ...cpu } = await bed.measureCpu(node, () => bed.send(node, plan));
  const sent: readonly Sent[] = [
    { plan: before, sent: preload.sent },
    { plan, sent: report.sent },
  ];
  return { report, cpu, sent };
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
    const { report, cpu, sent } = await measureIngest(bed, node, entities);
    const peak = rssPeakMb(node.pid);
    const more = await after(node, report);
    await bed.stopNode(node);
    const expectation = expectThings([...sent, ...more]);
    const verdict = await bed.withConnection(database.url, (connection) => verify(connection, expectation));
    return { report, cpu, rssPeakMb: peak, verdict };
  } finally {
    await database.close();
  }
}
