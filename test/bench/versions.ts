import type { Bed } from "./bed.ts";
import { type Benchmark, type BenchmarkOptions, median, type Outcome } from "./benchmark.ts";
import { expectThings } from "./expectation.ts";
import { measureIngest } from "./ingest-run.ts";
import { buildVersion } from "./other-version.ts";
import { type Verdict, verify } from "./verify.ts";

/**
 * What the same datapoints cost nodes of an earlier commit and nodes of this one, in turns. By default of the last commit before
 * there were several nodes, links by their sources, lifetimes, snapshots and metrics.
 */
export const versions: Benchmark = {
  name: "versions",
  summary: "ingest's datapoints at full speed, to one node of another commit and to one of this, in turns, five times",
  fields: [
    { key: "cpu_s_per_million_before", unit: "s", what: "processor time of a node of the commit, and PostgreSQL" },
    { key: "cpu_s_per_million", unit: "s", what: "the same of a node of this version" },
    { key: "ratio", unit: "", what: "this version over the commit" },
    { key: "node_cpu_us_before", unit: "µs", what: "processor time of the commit's node alone, per datapoint" },
    { key: "node_cpu_us", unit: "µs", what: "the same of this version" },
    { key: "acked_per_s_before", unit: "datapoints/s", what: "durable, with the commit's node" },
    { key: "acked_per_s", unit: "datapoints/s", what: "the same with this version" },
  ],
  bounds: () => [{ key: "ratio", sense: "at most", limit: 1.1 }],
  run,
};

const lastOfOneNode = "f03a5841c4fe72fb501e7e7e2ef12d61829fc070";
const entitiesDefault = 60_000;
const roundsDefault = 5;

interface Cost {
  readonly nodeUs: number;
  readonly allUs: number;
  readonly ackedPerS: number;
  /** Null: of a commit whose tables are not those of this version. */
  readonly verdict: Verdict | null;
}

async function run(bed: Bed, options: BenchmarkOptions): Promise<Outcome> {
  const { signal, note } = options;
  const commit = options.against ?? lastOfOneNode;
  const entities = options.entities ?? entitiesDefault;
  const rounds = options.rounds ?? roundsDefault;
  note(`building ${commit.slice(0, 12)}`);
  const other = await buildVersion(commit, signal);
  const before: Cost[] = [];
  const now: Cost[] = [];
  try {
    for (let round = 1; round <= rounds; round++) {
      before.push(await ingestOnce(bed, entities, other.program));
      now.push(await ingestOnce(bed, entities, null));
      const [old, own] = [before.at(-1)?.allUs ?? 0, now.at(-1)?.allUs ?? 0];
      note(`round ${round} of ${rounds}: ${old.toFixed(1)} s per million before, ${own.toFixed(1)} s now`);
    }
  } finally {
    await other.close();
  }
  const middle = (costs: readonly Cost[], of: (cost: Cost) => number): number => median(costs.map(of));
  const [allBefore, all] = [before, now].map((costs) => middle(costs, ({ allUs }) => allUs));
  return {
    values: {
      cpu_s_per_million_before: allBefore ?? 0,
      cpu_s_per_million: all ?? 0,
      ratio: (all ?? 0) / (allBefore ?? 0),
      node_cpu_us_before: middle(before, ({ nodeUs }) => nodeUs),
      node_cpu_us: middle(now, ({ nodeUs }) => nodeUs),
      acked_per_s_before: middle(before, ({ ackedPerS }) => ackedPerS),
      acked_per_s: middle(now, ({ ackedPerS }) => ackedPerS),
    },
    durability: await bed.durability(),
    remarks: [`${rounds} rounds of ${entities} entities against ${commit.slice(0, 12)}`],
    verdicts: now.flatMap(({ verdict }) => verdict ?? []),
  };
}

/** Sends, measures, and verifies what a node of this version has stored. */
async function ingestOnce(bed: Bed, entities: number, program: string | null): Promise<Cost> {
  const database = await bed.createDatabase();
  try {
    const node = await bed.startNode({ databaseUrl: database.url, ...(program !== null && { program }) });
    const { report, cpu, sent } = await measureIngest(bed, node, entities);
    await bed.stopNode(node);
    const expectation = expectThings(sent);
    const verdict = program === null ? await bed.withConnection(database.url, (one) => verify(one, expectation)) : null;
    const perDatapoint = 1e6 / report.sent;
    return {
      nodeUs: cpu.nodeS * perDatapoint,
      allUs: (cpu.nodeS + cpu.postgresS) * perDatapoint,
      ackedPerS: report.sent / report.ackedS,
      verdict,
    };
  } finally {
    await database.close();
  }
}
