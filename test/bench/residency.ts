import { setTimeout as delay } from "node:timers/promises";
import type { NodeProcess } from "../support/node-process.ts";
import { rssMb, rssPeakMb } from "../support/process-usage.ts";
import type { Bed } from "./bed.ts";
import type { Benchmark, BenchmarkOptions, Outcome } from "./benchmark.ts";
import { expectThings } from "./expectation.ts";
import { residentEntities } from "./memory-watch.ts";
import { createPlan } from "./plan.ts";
import { verify } from "./verify.ts";

/**
 * What 100,000 entities take in memory, and whether it comes back. The memory before is that of a node that has had just as
 * many datapoints for a hundredth of the entities, and none resident: only the entities make the difference.
 */
export const residency: Benchmark = {
  name: "residency",
  summary: "memory with 100,000 resident entities, and after they have passivated",
  fields: [
    { key: "rss_mb_before", unit: "MB", what: "resident memory of the node without entities" },
    { key: "rss_peak_mb", unit: "MB", what: "peak" },
    { key: "rss_mb_after", unit: "MB", what: "after all have passivated" },
  ],
  bounds: ({ rss_mb_before = Number.NaN }) => [
    { key: "rss_peak_mb", sense: "at most", limit: 1024 },
    { key: "rss_mb_after", sense: "at most", limit: 1.1 * rss_mb_before },
  ],
  run,
};

const passivateAfterMs = 20_000;
const emptyWithinMs = 120_000;
/** How long the node may take to give memory back once nothing is resident. */
const restMs = 30_000;
const share = 100;

async function run(bed: Bed, options: BenchmarkOptions): Promise<Outcome> {
  const entities = options.entities ?? 100_000;
  const few = Math.max(1, Math.floor(entities / share));
  const database = await bed.createDatabase();
  try {
    const flags = ["--passivate-after-ms", String(passivateAfterMs)];
    const node = await bed.startNode({ databaseUrl: database.url, flags });
    const warm = createPlan(few, { population: entities, generation: 0, passes: share });
    options.note(`${share} passes over ${few} entities`);
    const warmed = await bed.send(node, warm);
    const before = await memoryWhenEmpty(node, options);
    const plan = createPlan(entities, { generation: share });
    options.note(`${entities} entities`);
    const report = await bed.send(node, plan);
    const residents = await residentEntities(node.address);
    const peak = rssPeakMb(node.pid);
    const after = await memoryWhenEmpty(node, options);
    await bed.stopNode(node);
    const sent = [
      { plan: warm, sent: warmed.sent },
      { plan, sent: report.sent },
    ];
    const verdict = await bed.withConnection(database.url, (connection) => verify(connection, expectThings(sent)));
    return {
      values: { rss_mb_before: before, rss_peak_mb: peak, rss_mb_after: after },
      remarks: [`${residents} entities were resident at the end of the sending`],
      verdicts: [verdict],
    };
  } finally {
    await database.close();
  }
}

/** Waits until nothing is resident; the lowest memory in the time after. */
async function memoryWhenEmpty(node: NodeProcess, options: BenchmarkOptions): Promise<number> {
  options.note("waiting until all have passivated");
  const deadline = performance.now() + emptyWithinMs;
  while ((await residentEntities(node.address)) > 0) {
    if (performance.now() > deadline) throw new Error(`entities were still resident after ${emptyWithinMs} ms`);
    await delay(500, undefined, { signal: options.signal });
  }
  let lowest = rssMb(node.pid);
  for (let waited = 0; waited < restMs; waited += 1000) {
    await delay(1000, undefined, { signal: options.signal });
    lowest = Math.min(lowest, rssMb(node.pid));
  }
  return lowest;
}
