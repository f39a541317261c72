import { setTimeout as delay } from "node:timers/promises";
import { startTestEtcd } from "../support/etcd-server.ts";
import type { NodeProcess } from "../support/node-process.ts";
import type { TestDatabase } from "../support/postgres-server.ts";
import { cpuSeconds } from "../support/process-usage.ts";
import type { Bed } from "./bed.ts";
import type { Benchmark, BenchmarkOptions, Outcome } from "./benchmark.ts";
import { type Case, cases, startNodes } from "./cluster.ts";
import { expectThings, type Sent } from "./expectation.ts";
import { buildVersion } from "./other-version.ts";
import { createPlan } from "./plan.ts";
import { type Verdict, verify } from "./verify.ts";

/**
 * What it costs nodes to tell of themselves. Nodes with metrics, which are read, and nodes without stand side by side and get
 * the same load at the same time, each half of the rate: so whatever else the machine does meets both. Turns do not do: a
 * node that waits for its turn collects its heap and forgets what it has compiled, more or less, as it happens. Without
 * metrics means `http_listen: none`, or with `--against COMMIT` nodes of that commit: the one before metrics came, say.
 */
export const metrics: Benchmark = {
  name: "metrics",
  summary:
    "8,000 datapoints a second for three minutes, half of them to nodes with metrics; one node of each, and three",
  fields: [
    { key: "ratio_1", unit: "", what: "processor time of one node with metrics over that of one without" },
    { key: "ratio_3", unit: "", what: "the same with three nodes" },
    { key: "cpu_s_per_million_1", unit: "s", what: "processor time of one node without, per million datapoints" },
    { key: "cpu_s_per_million_3", unit: "s", what: "the same of three nodes" },
    { key: "scrapes", unit: "", what: "times that a node's metrics were read" },
  ],
  bounds: (values) => [
    ...[1, 3].flatMap((nodes) => {
      const key = `ratio_${nodes}`;
      return values[key] === undefined ? [] : [{ key, sense: "at most" as const, limit: 1.05 }];
    }),
    { key: "scrapes", sense: "at least", limit: 1 },
  ],
  run,
};

const entitiesDefault = 12_000;
const rateDefault = 8_000;
/** Over all entities and attributes: at full speed before the clock starts, and then at the rate. */
const warmingPasses = 3;
const passesDefault = 6;
/** A scrape for so many datapoints of a side: with 8,000 a second that would be every 15 s, as many have it. */
const scrapeEvery = 120_000;
const flushedMs = 3_000;

/** Nodes that get the load beside others. */
interface Side {
  readonly nodes: readonly NodeProcess[];
  readonly database: TestDatabase;
  readonly sent: Sent[];
  /** Sends the values of all attributes of all entities so many times; null: at full speed. */
  send(passes: number, rate: number | null): Promise<void>;
}

interface SideOptions {
  readonly one: Case;
  readonly endpoint: string;
  /** Of another version; null: of this one. */
  readonly program: string | null;
  readonly hasMetrics: boolean;
}

async function run(bed: Bed, options: BenchmarkOptions): Promise<Outcome> {
  const wanted = cases.filter(({ nodes, ownerAware }) => !ownerAware && (options.nodes ?? nodes) === nodes);
  const other = options.against === null ? null : await buildVersion(options.against, options.signal);
  const etcd = await startTestEtcd();
  const tally = { scrapes: 0 };
  const values: Record<string, number> = {};
  const remarks: string[] = [];
  const verdicts: Verdict[] = [];
  try {
    for (const one of wanted) {
      const place = { one, endpoint: etcd.endpoint };
      const on = await openSide(bed, options, { ...place, program: null, hasMetrics: true });
      const off = await openSide(bed, options, { ...place, program: other?.program ?? null, hasMetrics: false });
      const used = await compare(options, { on, off, tally });
      const datapoints = (options.rounds ?? passesDefault) * 10 * (options.entities ?? entitiesDefault);
      values[`ratio_${one.nodes}`] = used.on / used.off;
      values[`cpu_s_per_million_${one.nodes}`] = (used.off * 1e6) / datapoints;
      remarks.push(`${one.name}: ${used.on.toFixed(2)} s with metrics, ${used.off.toFixed(2)} s without`);
      options.note(remarks.at(-1) ?? "");
      // How another version stores what it was sent is its own affair.
      for (const side of [on, off]) verdicts.push(...(await closeSide(bed, side, side === on || other === null)));
    }
  } finally {
    await etcd.close();
    await other?.close();
  }
  return { values: { ...values, scrapes: tally.scrapes }, remarks, verdicts, durability: await bed.durability() };
}

async function openSide(bed: Bed, options: BenchmarkOptions, side: SideOptions): Promise<Side> {
  const { one, endpoint, program, hasMetrics } = side;
  const database = await bed.createDatabase();
  const nodes = await startNodes(bed, database.url, options.signal, {
    ...{ one, endpoint, folder: hasMetrics ? "on" : "off" },
    ...(program === null ? {} : { program, env: { STARLING_HTTP_LISTEN: "" } }),
    flags: hasMetrics || program !== null ? [] : ["--http-listen", "none"],
  });
  const [first] = nodes;
  if (first === undefined) throw new Error("no node");
  const addresses = nodes.map(({ address }) => address);
  const sent: Sent[] = [];
  const send = async (passes: number, rate: number | null): Promise<void> => {
    const generation = sent.reduce((sum, { plan }) => sum + plan.passes, 0);
    const plan = createPlan(options.entities ?? entitiesDefault, { addresses, rate, passes, generation });
    const report = await bed.send(first, plan);
    sent.push({ plan, sent: report.sent });
  };
  return { nodes, database, sent, send };
}

/** Processor seconds of both sides under the load, with what it left to be flushed. */
async function compare(
  options: BenchmarkOptions,
  { on, off, tally }: { readonly on: Side; readonly off: Side; readonly tally: { scrapes: number } },
): Promise<{ readonly on: number; readonly off: number }> {
  const rate = (options.rate ?? rateDefault) / 2;
  await Promise.all([on.send(warmingPasses, null), off.send(warmingPasses, null)]);
  await delay(flushedMs);
  const before = { on: secondsOf(on), off: secondsOf(off) };
  let scraping: Promise<void> = Promise.resolve();
  const timer = setInterval(
    () => {
      scraping = scrape(on.nodes, tally);
    },
    (scrapeEvery / rate) * 1_000,
  );
  try {
    const passes = options.rounds ?? passesDefault;
    await Promise.all([on.send(passes, rate), off.send(passes, rate)]);
  } finally {
    clearInterval(timer);
    await scraping;
  }
  await delay(flushedMs);
  return { on: secondsOf(on) - before.on, off: secondsOf(off) - before.off };
}

function secondsOf({ nodes }: Side): number {
  return nodes.reduce((sum, { pid }) => sum + cpuSeconds(pid), 0);
}

/** Reads each node's metrics once. */
async function scrape(nodes: readonly NodeProcess[], tally: { scrapes: number }): Promise<void> {
  for (const { httpAddress } of nodes) {
    const answer = await fetch(`http://${httpAddress}/metrics`);
    if (answer.ok && (await answer.text()).includes("starling_batches_total")) tally.scrapes += 1;
  }
}

async function closeSide(bed: Bed, { nodes, database, sent }: Side, isVerified: boolean): Promise<Verdict[]> {
  for (const node of nodes) await bed.stopNode(node);
  const expectation = expectThings(sent);
  const verdicts = isVerified
    ? [await bed.withConnection(database.url, (connection) => verify(connection, expectation))]
    : [];
  await database.close();
  return verdicts;
}

/** Of the sums: a collection of the whole heap falls into a quartet or it does not. */
