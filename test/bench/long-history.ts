import { setTimeout as delay } from "node:timers/promises";
import type { Connection } from "../../actors/store/connection.ts";
import type { NodeProcess } from "../support/node-process.ts";
import type { Bed } from "./bed.ts";
import type { Benchmark, BenchmarkOptions, Outcome } from "./benchmark.ts";
import { expectThings, type Sent } from "./expectation.ts";
import { fillHistories } from "./fill-histories.ts";
import { createPlan, type SendPlan } from "./plan.ts";
import { readProcessClock, secondsBetween } from "./process-clock.ts";
import { verify } from "./verify.ts";

/**
 * One more datapoint for entities with short and long histories, round by round in turn. Short ones get fresh entities in
 * each round, so that they stay short. Every round activates its entities anew: PostgreSQL publishes its counts of pages
 * only after 10 s of rest, in which entities passivate. Autovacuum is off, since its pages would be counted as well.
 */
export const longHistory: Benchmark = {
  name: "long-history",
  summary: "one more datapoint at 10, 1,000 and 100,000 stored ones, 20,000 each, interleaved",
  fields: [
    { key: "cpu_ratio", unit: "", what: "processor time of node and PostgreSQL per datapoint, longest over shortest" },
    { key: "pages_ratio", unit: "", what: "pages that PostgreSQL touches per datapoint, longest over shortest" },
  ],
  settings: { autovacuum: "off" },
  bounds: () => [
    { key: "pages_ratio", sense: "at most", limit: 1.3 },
    { key: "cpu_ratio", sense: "at most", limit: 1.5 },
  ],
  run,
};

const rounds = 5;
const datapointsPerRound = 4000;
const rate = 2000;
const statisticsAfterMs = 11_000;
const level = 4;
const numberAttribute = 1;

interface Length {
  readonly stored: number;
  readonly firstEntity: number;
  /** Fresh ones in each round, or the same ones. */
  readonly entities: number;
  cpuS: number;
  pages: number;
  datapoints: number;
}

async function run(bed: Bed, options: BenchmarkOptions): Promise<Outcome> {
  const perRound = options.entities ?? 100;
  const lengths: Length[] = [10, Math.min(1000, options.stored), options.stored].map((stored, i) => {
    const firstEntity = i === 0 ? 0 : (rounds + i - 1) * perRound;
    return { stored, firstEntity, entities: i === 0 ? rounds * perRound : perRound, cpuS: 0, pages: 0, datapoints: 0 };
  });
  const database = await bed.createDatabase();
  try {
    const sent = await store(bed, database.url, lengths, options);
    const node = await bed.startNode({ databaseUrl: database.url, flags: ["--passivate-after-ms", "1000"] });
    // Unmeasured: a new node is slower, whatever it does first.
    const population = lengths.reduce((sum, { entities }) => sum + entities, 0);
    const warm = createPlan(population, { attributes: [numberAttribute], generation: 0, passes: 10, rate });
    sent.push({ plan: warm, sent: (await bed.send(node, warm)).sent });
    await delay(statisticsAfterMs);
    for (let round = 0; round < rounds; round++) {
      options.note(`round ${round + 1} of ${rounds}`);
      const turned = [...lengths.slice(round % lengths.length), ...lengths.slice(0, round % lengths.length)];
      for (const length of turned) {
        sent.push(await runRound(bed, node, database.url, { length, round, perRound }));
      }
    }
    await bed.stopNode(node);
    options.note("verifying");
    const verdict = await bed.withConnection(database.url, (connection) => verify(connection, expectThings(sent)));
    return { ...valuesOf(lengths), verdicts: [verdict] };
  } finally {
    await database.close();
  }
}

/** Makes every entity by sending its first datapoint, and fills up the histories while no node runs. */
async function store(bed: Bed, url: string, lengths: readonly Length[], options: BenchmarkOptions): Promise<Sent[]> {
  const population = lengths.reduce((sum, { entities }) => sum + entities, 0);
  const node = await bed.startNode({ databaseUrl: url });
  await bed.send(node, createPlan(population, { attributes: [level], generation: 0 }));
  await bed.stopNode(node);
  await bed.withConnection(url, async (connection) => {
    for (const { firstEntity, entities, stored } of lengths) {
      options.note(`filling ${entities} histories of ${stored} datapoints`);
      await fillHistories(connection, { firstEntity, entities, stored });
    }
    await connection.script("vacuum (freeze, analyze) starling.history");
    await connection.script("vacuum (freeze, analyze) starling.entity");
  });
  await bed.checkpoint();
  return lengths.map(({ firstEntity, entities, stored }) => {
    const plan = createPlan(entities, { firstEntity, population, attributes: [level], generation: 0, passes: stored });
    return { plan, sent: entities * stored };
  });
}

async function runRound(
  bed: Bed,
  node: NodeProcess,
  url: string,
  { length, round, perRound }: { readonly length: Length; readonly round: number; readonly perRound: number },
): Promise<Sent> {
  const fresh = length.entities > perRound;
  const passes = Math.ceil(datapointsPerRound / perRound);
  const plan: SendPlan = createPlan(perRound, {
    firstEntity: length.firstEntity + (fresh ? round * perRound : 0),
    attributes: [level],
    generation: length.stored + (fresh ? 0 : round * passes),
    passes,
    rate,
    seed: 5 + round,
  });
  const pagesBefore = await bed.withConnection(url, readPages);
  const before = { node: readProcessClock(node.pid), postgres: readProcessClock(bed.postgres.pid) };
  const report = await bed.send(node, plan);
  length.cpuS += secondsBetween(before.node, readProcessClock(node.pid));
  length.cpuS += secondsBetween(before.postgres, readProcessClock(bed.postgres.pid));
  await delay(statisticsAfterMs);
  length.pages += (await bed.withConnection(url, readPages)) - pagesBefore;
  length.datapoints += report.sent;
  return { plan, sent: report.sent };
}

/** Pages of our tables, their indexes and their TOAST, from memory or not. */
async function readPages(connection: Connection): Promise<number> {
  const columns = ["heap", "idx", "toast", "tidx"].flatMap((part) => [`${part}_blks_hit`, `${part}_blks_read`]);
  const sum = columns.map((column) => `coalesce(${column}, 0)`).join(" + ");
  const text = `select sum(${sum})::float8 as pages from pg_statio_all_tables where schemaname = 'starling'`;
  const [row] = await connection.query<{ pages: number }>(text);
  return row?.pages ?? 0;
}

function valuesOf(lengths: readonly Length[]): Pick<Outcome, "values" | "remarks"> {
  const [short] = lengths;
  const long = lengths.at(-1);
  if (short === undefined || long === undefined) throw new Error("there are no lengths to compare");
  const perDatapoint = (length: Length, of: "cpuS" | "pages") => length[of] / length.datapoints;
  return {
    values: {
      cpu_ratio: perDatapoint(long, "cpuS") / perDatapoint(short, "cpuS"),
      pages_ratio: perDatapoint(long, "pages") / perDatapoint(short, "pages"),
    },
    remarks: lengths.map((length) => {
      const cpuUs = (perDatapoint(length, "cpuS") * 1e6).toFixed(1);
      const pages = perDatapoint(length, "pages").toFixed(2);
      return `at ${length.stored} stored: ${cpuUs} µs and ${pages} pages for each of ${length.datapoints} datapoints`;
    }),
  };
}
