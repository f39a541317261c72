import { setTimeout as delay } from "node:timers/promises";
import { startTestEtcd } from "../support/etcd-server.ts";
import type { NodeProcess } from "../support/node-process.ts";
import type { TestDatabase } from "../support/postgres-server.ts";
import type { Bed } from "./bed.ts";
import { type Benchmark, type BenchmarkOptions, median, type Outcome } from "./benchmark.ts";
import { type Case, cases, measureCpu, startNodes } from "./cluster.ts";
import { expectThings, type Sent } from "./expectation.ts";
import { buildVersion } from "./other-version.ts";
import { createPlan } from "./plan.ts";
import { type Verdict, verify } from "./verify.ts";

/**
 * What it costs nodes to tell of themselves. Nodes with metrics, which are read as Prometheus does by default, and nodes
 * without stand side by side, and get the same load in turn, in the order A B B A: so whatever else the machine does meets
 * both. Without metrics means `http_listen: none`, or with `--against COMMIT` nodes of that commit: the one before metrics
 * came, for instance.
 */
export const metrics: Benchmark = {
  name: "metrics",
  summary:
    "8,000 datapoints a second for 15 s, ten times, in turn on nodes with metrics and without; on one node, and on three",
  fields: [
    { key: "ratio_1", unit: "", what: "processor time of one node with metrics over that of one without, of pairs" },
    { key: "ratio_3", unit: "", what: "the same with three nodes" },
    { key: "ratio_1_postgres", unit: "", what: "the same of one node and PostgreSQL together" },
    { key: "ratio_3_postgres", unit: "", what: "the same of three nodes and PostgreSQL together" },
    { key: "cpu_s_per_million_1", unit: "s", what: "processor time of one node without, per million datapoints" },
    { key: "cpu_s_per_million_3", unit: "s", what: "the same of three nodes" },
    { key: "scrapes", unit: "", what: "times that a node's metrics were read: once in 15 s" },
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

const pairsDefault = 5;
const entitiesDefault = 12_000;
const rateDefault = 8_000;
/** Turns at full speed before the first that counts. */
const warmingTurns = 2;
const flushedMs = 2_000;
/** Into a turn, which takes about as long as Prometheus waits between two readings. */
const scrapeAfterMs = 7_000;

/** Processor time of one turn, seconds per million datapoints. */
interface Turn {
  readonly nodesS: number;
  readonly bothS: number;
}

interface Pair {
  readonly on: Turn;
  readonly off: Turn;
}

/** Nodes that get the load in turn with others. */
interface Side {
  readonly nodes: readonly NodeProcess[];
  readonly database: TestDatabase;
  readonly sent: Sent[];
  /** Sends every attribute of every entity once. */
  send(generation: number, rate: number | null): Promise<number>;
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
      const pairs = await runPairs(bed, options, { on, off, tally });
      // How another version stores what it was sent is its own affair.
      for (const side of [on, off]) {
        verdicts.push(...(await closeSide(bed, side, side === on || other === null)));
      }
      values[`ratio_${one.nodes}`] = ratioOf(pairs, ({ nodesS }) => nodesS);
      values[`ratio_${one.nodes}_postgres`] = ratioOf(pairs, ({ bothS }) => bothS);
      values[`cpu_s_per_million_${one.nodes}`] = median(pairs.map(({ off: { nodesS } }) => nodesS));
      remarks.push(`${one.name}: ${inWords(pairs)}`);
    }
  } finally {
    await etcd.close();
    await other?.close();
  }
  return { values: { ...values, scrapes: tally.scrapes }, remarks, verdicts, durability: await bed.durability() };
}

/** Starts nodes, and lets them compile what they will need. */
async function openSide(bed: Bed, options: BenchmarkOptions, side: SideOptions): Promise<Side> {
  const { one, endpoint, program, hasMetrics } = side;
  const database = await bed.createDatabase();
  const entities = options.entities ?? entitiesDefault;
  const nodes = await startNodes(bed, database.url, options.signal, {
    ...{ one, endpoint, folder: hasMetrics ? "on" : "off" },
    ...(program === null ? {} : { program, env: { STARLING_HTTP_LISTEN: "" } }),
    flags: hasMetrics || program !== null ? [] : ["--http-listen", "none"],
  });
  const [first] = nodes;
  if (first === undefined) throw new Error("no node");
  const addresses = nodes.map(({ address }) => address);
  const sent: Sent[] = [];
  const send = async (generation: number, rate: number | null): Promise<number> => {
    const plan = createPlan(entities, { addresses, generation, rate, seed: generation + 1 });
    const report = await bed.send(first, plan);
    sent.push({ plan, sent: report.sent });
    return report.sent;
  };
  for (let generation = 0; generation < warmingTurns; generation++) await send(generation, null);
  return { nodes, database, sent, send };
}

/** A B B A, so that neither always comes first. */
async function runPairs(
  bed: Bed,
  options: BenchmarkOptions,
  { on, off, tally }: { readonly on: Side; readonly off: Side; readonly tally: { scrapes: number } },
): Promise<Pair[]> {
  const count = options.rounds ?? pairsDefault;
  const rate = options.rate ?? rateDefault;
  const pairs: Pair[] = [];
  for (let pair = 1; pair <= count; pair++) {
    const turns = new Map<Side, Turn>();
    for (const side of pair % 2 === 0 ? [off, on] : [on, off]) {
      turns.set(
        side,
        await runTurn(bed, side, { generation: warmingTurns + pair - 1, rate, tally, isRead: side === on }),
      );
    }
    const [first, second] = [turns.get(on), turns.get(off)];
    if (first === undefined || second === undefined) throw new Error("a pair has two turns");
    pairs.push({ on: first, off: second });
    options.note(`pair ${pair} of ${count}, ${on.nodes.length} nodes: ${inWords(pairs.slice(-1))}`);
  }
  return pairs;
}

interface TurnOptions {
  readonly generation: number;
  readonly rate: number;
  readonly isRead: boolean;
  readonly tally: { scrapes: number };
}

/** The load once, in the middle of which metrics are read; what is flushed after it is part of it. */
async function runTurn(bed: Bed, side: Side, { generation, rate, isRead, tally }: TurnOptions): Promise<Turn> {
  await bed.checkpoint();
  const { result, nodesS, postgresS } = await measureCpu(bed, side.nodes, async () => {
    const sending = side.send(generation, rate);
    if (isRead) {
      await delay(scrapeAfterMs);
      tally.scrapes += await scrape(side.nodes);
    }
    const sent = await sending;
    await delay(flushedMs);
    return sent;
  });
  const millions = result / 1e6;
  return { nodesS: nodesS / millions, bothS: (nodesS + postgresS) / millions };
}

/** Reads each node's metrics once; returns how many answered. */
async function scrape(nodes: readonly NodeProcess[]): Promise<number> {
  let scrapes = 0;
  for (const { httpAddress } of nodes) {
    const answer = await fetch(`http://${httpAddress}/metrics`);
    if (answer.ok && (await answer.text()).includes("starling_batches_total")) scrapes += 1;
  }
  return scrapes;
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

function ratioOf(pairs: readonly Pair[], seconds: (turn: Turn) => number): number {
  return median(pairs.map(({ on, off }) => seconds(on) / seconds(off)));
}

function inWords(pairs: readonly Pair[]): string {
  const middle = (of: (pair: Pair) => number): string => median(pairs.map(of)).toFixed(1);
  const each = pairs.map(({ on, off }) => (on.nodesS / off.nodesS).toFixed(3)).join(", ");
  const [on, off] = [middle((pair) => pair.on.nodesS), middle((pair) => pair.off.nodesS)];
  return `nodes ${on} s per million with metrics, ${off} s without: ratio ${each}`;
}
