import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Coordinator } from "../../cluster/coordinator.ts";
import { openEtcd } from "../../cluster/etcd/etcd.ts";
import { createMembershipKeys, type MembershipKeys } from "../../cluster/membership/membership-keys.ts";
import { type Client, connect } from "../../proto/client.ts";
import { systemClock } from "../../proto/clock.ts";
import { toShardId } from "../../proto/ids.ts";
import { startTestEtcd } from "../support/etcd-server.ts";
import type { NodeProcess } from "../support/node-process.ts";
import { repository } from "../support/repository.ts";
import type { Bed } from "./bed.ts";
import { type Benchmark, type BenchmarkOptions, median, type Outcome, quantile } from "./benchmark.ts";
import { readStatuses, untilBalanced } from "./cluster-state.ts";
import { whileCommitting } from "./commit-probe.ts";
import { type LoadedRun, runLoaded } from "./loaded-cluster.ts";
import { startShardPulse } from "./shard-pulse.ts";
import { createShardThings, type ShardThings } from "./shard-things.ts";
import { type Verdict, verify } from "./verify.ts";

/** Shards that move as planned, and nodes that are restarted one after another. */
export const handoff: Benchmark = {
  name: "handoff",
  summary: "planned moves of shards with 2,000 dirty entities and a running hook; then a rolling restart under load",
  fields: [
    { key: "pause_p50_ms", unit: "ms", what: "the longest time without an acknowledgement of a shard while it moves" },
    { key: "pause_p99_ms", unit: "ms", what: "the same" },
    {
      key: "unwritten_min",
      unit: "datapoints",
      what: "each of another entity, that a shard has not written when its move begins, the fewest",
    },
    { key: "hooks_running_min", unit: "hooks", what: "that run in a shard when its move begins, the fewest" },
    { key: "commit_p99_ms", unit: "ms", what: "an empty commit (one row of one number) meanwhile" },
    { key: "longest_gap_ms", unit: "ms", what: "without any acknowledgement, during the rolling restart" },
    {
      key: "client_errors",
      unit: "",
      what: "connections that broke, and what the client could not hide from its user",
    },
    { key: "lost", unit: "datapoints", what: "acknowledged and not stored" },
    { key: "duplicated", unit: "datapoints", what: "stored more than once" },
  ],
  bounds: ({ commit_p99_ms = Number.NaN }) => [
    { key: "pause_p99_ms", sense: "at most", limit: 100 + 2 * commit_p99_ms },
    { key: "unwritten_min", sense: "at least", limit: dirtyEntities },
    { key: "hooks_running_min", sense: "at least", limit: 1 },
    { key: "client_errors", sense: "at most", limit: 0 },
    { key: "lost", sense: "at most", limit: 0 },
    { key: "duplicated", sense: "at most", limit: 0 },
  ],
  run,
};

const moves = 200;
const shards = { entity: 16, system: 4 };
const dirtyEntities = 2_000;
const pulseEntities = 4;
const names = ["a", "b", "c"] as const;
const defaultRate = 8_000;
/** Until what was acknowledged is in memory; well below the time between two flushes. */
const processedMs = 20;
const afterMs = 200;

async function run(bed: Bed, options: BenchmarkOptions): Promise<Outcome> {
  const { result: moved, commits } = await whileCommitting(bed, () => runMoves(bed, options));
  options.note("rolling restart");
  const restarted = await restartAll(bed, options);
  const verdicts = [moved.verdict, restarted.verdict];
  const { breaks, rejected } = restarted.report;
  for (const text of breaks.slice(0, 5)) options.note(`a connection broke: ${text}`);
  return {
    values: {
      pause_p50_ms: median(moved.pauses),
      pause_p99_ms: quantile(moved.pauses, 0.99),
      unwritten_min: Math.min(...moved.begun.map(({ unwritten }) => unwritten)),
      hooks_running_min: Math.min(...moved.begun.map(({ hooks }) => hooks)),
      commit_p99_ms: quantile(commits, 0.99),
      longest_gap_ms: restarted.longestGapMs,
      client_errors: moved.breaks + breaks.length + rejected,
      lost: verdicts.reduce((sum, { lost }) => sum + lost, 0),
      duplicated: verdicts.reduce((sum, { duplicated }) => sum + duplicated, 0),
    },
    durability: await bed.durability(),
    remarks: moved.remarks,
    verdicts,
  };
}

/** What a shard has in hand when its move begins. */
interface InHand {
  readonly unwritten: number;
  readonly hooks: number;
}

interface Moves {
  readonly pauses: readonly number[];
  readonly begun: readonly InHand[];
  readonly breaks: number;
  readonly remarks: readonly string[];
  readonly verdict: Verdict;
}

async function runMoves(bed: Bed, options: BenchmarkOptions): Promise<Moves> {
  const database = await bed.createDatabase();
  const etcd = await startTestEtcd();
  const coordinator = openEtcd({ endpoints: [etcd.endpoint], clock: systemClock });
  let breaks = 0;
  const onBreak = (): void => {
    breaks += 1;
  };
  try {
    const nodes = await startNodes(bed, database.url, etcd.endpoint);
    const addresses = nodes.map(({ address }) => address);
    await untilBalanced(addresses, shards, options.signal);
    const things = createShardThings(shards.entity, dirtyEntities + pulseEntities);
    const pauses: number[] = [];
    const begun: InHand[] = [];
    {
      await using client = await connect({ addresses, onBreak });
      await using pulse = await connect({ addresses: [...addresses].reverse(), onBreak });
      const stage: Stage = {
        client,
        pulse,
        things,
        pins: await pinAll(coordinator, addresses),
        signal: options.signal,
      };
      for (let move = 0; move < (options.rounds ?? moves); move++) {
        const { pauseMs, inHand } = await moveOne(stage, move);
        pauses.push(pauseMs);
        begun.push(inHand);
        if (move % 20 === 19) options.note(`${move + 1} moves, pause p50 ${median(pauses).toFixed(0)} ms`);
      }
    }
    const remarks = await remarksOf(addresses, pauses);
    await Promise.all(nodes.map((node) => bed.stopNode(node)));
    const verdict = await bed.withConnection(database.url, (connection) => verify(connection, things.expectation()));
    return { pauses, begun, breaks, remarks, verdict };
  } finally {
    await coordinator.close();
    await etcd.close();
    await database.close();
  }
}

function startNodes(bed: Bed, databaseUrl: string, endpoint: string): Promise<NodeProcess[]> {
  const configDir = join(repository, "test/bench/handoff-config");
  const common = ["--etcd", endpoint, "--entity-shards", `${shards.entity}`, "--system-shards", `${shards.system}`];
  return Promise.all(
    names.map((name) => bed.startNode({ databaseUrl, configDir, name, flags: [...common, "--name", name] })),
  );
}

interface Pins {
  nameOf(shard: number): string;
  move(shard: number, name: string): Promise<void>;
}

interface Stage {
  readonly client: Client;
  readonly pulse: Client;
  readonly things: ShardThings;
  readonly pins: Pins;
  readonly signal: AbortSignal;
}

/** Pins every shard to where it is: from then on only what is moved moves. */
async function pinAll(coordinator: Coordinator, addresses: readonly string[]): Promise<Pins> {
  const statuses = await readStatuses(addresses);
  const keys: MembershipKeys = createMembershipKeys(`/starling/${statuses[0]?.clusterId}/`);
  const owners = new Map<number, string>(
    statuses.flatMap((status, index) => status.shards.map(({ shard }) => [shard, names[index] ?? ""] as const)),
  );
  const put = (shard: number, value: string) =>
    ({ kind: "put", key: keys.pin(toShardId(shard)), value, lease: null }) as const;
  await coordinator.commit(
    [],
    [...owners].map(([shard, name]) => put(shard, name)),
  );
  return {
    nameOf: (shard) => owners.get(shard) ?? "",
    move: async (shard, name) => {
      owners.set(shard, name);
      await coordinator.commit([], [put(shard, name)]);
    },
  };
}

/** Moves one shard while it is written to. */
async function moveOne({ client, pulse, things, pins, signal }: Stage, move: number) {
  const shard = move % shards.entity;
  const entities = things.of(shard);
  const pulsing = entities.slice(dirtyEntities, dirtyEntities + pulseEntities);
  const running = startShardPulse(pulse, shard, () => pulsing.map((entity) => things.next(entity, "o_count")));
  let epoch = 0;
  await running.until((ack) => {
    epoch = ack.epoch;
    return epoch > 0;
  }, signal);
  await client.send(entities.slice(0, dirtyEntities).map((entity) => things.next(entity, "o_level")));
  await client.send([things.next(entities[0] ?? 0, "p_flag")]);
  await delay(processedMs);
  const { lag, waits } = await client.admin.why(toShardId(shard));
  const inHand = { unwritten: lag, hooks: waits.filter(({ kind }) => kind === "hook").length };
  const pinnedMs = performance.now();
  const at = (names as readonly string[]).indexOf(pins.nameOf(shard));
  await pins.move(shard, names[(at + 1 + (move % 2)) % names.length] ?? "");
  await running.until((ack) => ack.epoch > epoch, signal);
  await delay(afterMs);
  await running.stop();
  return { pauseMs: running.longestGapMs(pinnedMs), inHand };
}

async function remarksOf(addresses: readonly string[], pauses: readonly number[]): Promise<string[]> {
  const statuses = await readStatuses(addresses);
  const sum = (name: string) => statuses.reduce((total, { counters }) => total + (counters[name] ?? 0), 0);
  const longest = Math.max(...statuses.map(({ counters }) => counters.hand_off_pause_max_ms ?? 0));
  const mean = sum("hand_off_pause_ms") / sum("shards_given_up");
  return [
    `${pauses.length} moves, the longest pause ${Math.max(...pauses).toFixed(0)} ms; from seal to release ${mean.toFixed(0)} ms ` +
      `on average, ${longest} ms at most; ${sum("hooks_given_up")} hooks were aborted`,
  ];
}

/** Restarts every node in order under load. */
function restartAll(bed: Bed, options: BenchmarkOptions): Promise<LoadedRun> {
  const configDir = join(repository, "test/bench/config");
  const entities = options.entities ?? 20_000;
  return runLoaded(
    bed,
    options,
    { entities, rate: options.rate ?? defaultRate, configDir },
    async ({ cluster, untilWell }) => {
      for (const node of cluster.nodes) {
        const code = await node.stop();
        if (code !== 0) throw new Error(`${node.name} ended with ${code}:\n${node.log().slice(-10).join("\n")}`);
        await node.start();
        await untilWell();
        options.note(`${node.name} was restarted`);
      }
    },
  );
}
