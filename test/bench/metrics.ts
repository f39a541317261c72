import { startTestEtcd } from "../support/etcd-server.ts";
import type { NodeProcess } from "../support/node-process.ts";
import type { Bed } from "./bed.ts";
import { type Benchmark, type BenchmarkOptions, median, type Outcome } from "./benchmark.ts";
import { type Case, type CaseRun, cases, runCase } from "./cluster.ts";

/**
 * What it costs a node to tell of itself: the same load with and without, side by side, so that both see the same machine
 * at the same time. One after the other tells of what else the machine does: by a quarter, where programs share two cores.
 */
export const metrics: Benchmark = {
  name: "metrics",
  summary:
    "200,000 datapoints at 8,000 a second with and without metrics, side by side, on one node and on three, four times",
  fields: [
    { key: "ratio_1", unit: "", what: "processor time of one node with metrics, read each second, over without" },
    { key: "ratio_3", unit: "", what: "the same with three nodes" },
    { key: "cpu_s_per_million_1", unit: "s", what: "processor time of one node without, per million datapoints" },
    { key: "cpu_s_per_million_3", unit: "s", what: "the same of three nodes" },
    { key: "scrapes", unit: "", what: "times that metrics were read" },
  ],
  bounds: () => [
    { key: "ratio_1", sense: "at most", limit: 1.05 },
    { key: "ratio_3", sense: "at most", limit: 1.05 },
    { key: "scrapes", sense: "at least", limit: 1 },
  ],
  run,
};

const rounds = 4;
const entitiesDefault = 20_000;
const rateDefault = 8_000;
const scrapeEveryMs = 1_000;

interface Pair {
  readonly on: CaseRun;
  readonly off: CaseRun;
}

async function run(bed: Bed, options: BenchmarkOptions): Promise<Outcome> {
  const [one, three] = cases;
  const etcd = await startTestEtcd();
  const tally = { scrapes: 0 };
  const pairs = new Map<Case, Pair[]>([one, three].map((which) => [which, []]));
  try {
    const count = options.rounds ?? rounds;
    for (let round = 1; round <= count; round++) {
      for (const [which, done] of pairs) {
        const pair = await runPair(bed, options, { one: which, endpoint: etcd.endpoint, tally });
        done.push(pair);
        options.note(`round ${round} of ${count}: ${which.name}: ${inWords([pair])}`);
      }
    }
  } finally {
    await etcd.close();
  }
  const all = [...pairs.values()].flat();
  const of = (which: Case): readonly Pair[] => pairs.get(which) ?? [];
  return {
    values: {
      ratio_1: ratioOf(of(one)),
      ratio_3: ratioOf(of(three)),
      cpu_s_per_million_1: median(of(one).map(({ off }) => off.nodesPerMillionS)),
      cpu_s_per_million_3: median(of(three).map(({ off }) => off.nodesPerMillionS)),
      scrapes: tally.scrapes,
    },
    durability: await bed.durability(),
    remarks: [...pairs].map(([which, done]) => `${which.name}: ${inWords(done)}`),
    verdicts: all.flatMap(({ on, off }) => [on.verdict, off.verdict]),
  };
}

interface PairOptions {
  readonly one: Case;
  readonly endpoint: string;
  readonly tally: { scrapes: number };
}

async function runPair(bed: Bed, options: BenchmarkOptions, { tally, ...where }: PairOptions): Promise<Pair> {
  const paced = { ...options, rate: options.rate ?? rateDefault };
  const common = { ...where, entities: options.entities ?? entitiesDefault, isIdleToo: false };
  const [on, off] = await Promise.all([
    runCase(bed, paced, { ...common, folder: "on", beside: (nodes) => scrape(nodes, tally) }),
    runCase(bed, paced, { ...common, folder: "off", flags: ["--http-listen", "none"] }),
  ]);
  return { on, off };
}

/** Reads each node's metrics as Prometheus does, only more often. */
function scrape(nodes: readonly NodeProcess[], tally: { scrapes: number }): () => void {
  const read = async (): Promise<void> => {
    for (const { httpAddress } of nodes) {
      const answer = await fetch(`http://${httpAddress}/metrics`);
      if (answer.ok && (await answer.text()).includes("starling_batches_total")) tally.scrapes += 1;
    }
  };
  // One that fails is missing in the count, which the bounds look at.
  const timer = setInterval(() => void read().catch(() => undefined), scrapeEveryMs);
  return () => clearInterval(timer);
}

function ratioOf(pairs: readonly Pair[]): number {
  return median(pairs.map(({ on, off }) => on.nodesPerMillionS / off.nodesPerMillionS));
}

function inWords(pairs: readonly Pair[]): string {
  const middle = (of: (pair: Pair) => number): string => median(pairs.map(of)).toFixed(1);
  const [on, off] = [middle((pair) => pair.on.nodesPerMillionS), middle((pair) => pair.off.nodesPerMillionS)];
  return `nodes ${on} s per million with metrics, ${off} s without: ratio ${ratioOf(pairs).toFixed(3)}`;
}
