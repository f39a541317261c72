import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createLog } from "../../node/log.ts";
import { startNode } from "../../node/node.ts";
import { type Client, connect } from "../../proto/client.ts";
import { shardOf } from "../../proto/shard-of.ts";
import { checkClusterFacts, sentencesOf } from "../support/cluster/checker.ts";
import { type ClusterLoad, startClusterLoad } from "../support/cluster/cluster-load.ts";
import { type EpochWatch, watchEpochs } from "../support/cluster/epoch-watch.ts";
import { findBacklog, findUnowned, statusOf, untilNothing } from "../support/cluster/liveness.ts";
import { startTestCluster, type TestCluster } from "../support/cluster/test-cluster.ts";
import { startTestEtcd } from "../support/etcd-server.ts";
import { openKillDatabase } from "../support/kill-facts.ts";
import { seedOfRun } from "../support/random.ts";
import { repository } from "../support/repository.ts";

/**
 * Three nodes under one load, and what can go wrong in a fixed order: each test waits until all shards are served again, the
 * last one ends the load and checks that nothing was lost, doubled or put out of order on the way.
 */
const liveWithinMs = 15_000;
const testMs = 60_000;
const rate = 400;
const once = { tries: 1 };
const seed = seedOfRun();
/** What the first test sends datapoints for. */
const firstCount = 2;
const firstEids = Array.from({ length: 60 }, (_, index) => `x${index}`);
let cluster: TestCluster;
let load: ClusterLoad;
let epochs: EpochWatch;

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 3, shards: { entity: 32, system: 8 } });
  epochs = watchEpochs(cluster.databaseUrls);
}, testMs);

afterAll(async () => {
  await epochs?.close();
  await cluster?.close();
});

/** All shards are owned by living nodes, and a datapoint sent to each node is acknowledged. */
async function untilServed(): Promise<void> {
  expect(await untilNothing(() => findUnowned(cluster), liveWithinMs)).toEqual([]);
  const from = load.acks.length;
  await expect.poll(() => load.acks.length, { timeout: liveWithinMs }).toBeGreaterThan(from + 10);
  expect(load.errors).toEqual([]);
}

test("three nodes share the shards, and each serves what any of them stores", { timeout: testMs }, async () => {
  const balanced = async () => {
    const statuses = await Promise.all(cluster.addresses.map((address) => statusOf(address)));
    const counts = statuses.map(({ shards }) => shards.length);
    return Math.max(...counts) - Math.min(...counts) <= 2 ? [] : [`${counts}`];
  };
  expect(await untilNothing(() => findUnowned(cluster), liveWithinMs)).toEqual([]);
  expect(await untilNothing(balanced, liveWithinMs)).toEqual([]);
  const [one = "", other = "", third = ""] = cluster.addresses;
  await using sender = await connect({ address: one, level: "processed" });
  await using reader = await connect({ address: other });
  for (let number = 1; number <= firstCount; number++) {
    const batch = firstEids.map((eid) => ({ type: "probe", eid, attr: "number", v: number, t1: number, src: "first" }));
    const { tokens, accepted } = await sender.send(batch);
    expect(accepted).toBe(firstEids.length);
    for (const eid of firstEids) {
      const shard = shardOf("entity", "probe", eid, cluster.shards.entity);
      const token = tokens.find((each) => each.shard === Number(shard));
      const record = await reader.entities.get({ type: "probe", eid, ...(token && { token }) });
      expect(record.attributes.number?.v).toBe(number);
    }
  }
  const sorted = [...firstEids].sort();
  await expect
    .poll(async () => (await reader.entities.count("probe")).counts.probe, { timeout: 10_000 })
    .toBe(firstEids.length);
  const { records } = await reader.entities.list({ type: "probe", limit: 100 });
  expect(records.map(({ eid }) => eid).sort()).toEqual(sorted);
  for (const eid of firstEids.slice(0, 5)) {
    const numbers: unknown[] = [];
    for await (const { v } of reader.entities.raw({ type: "probe", eid, attr: "number" })) numbers.push(v);
    expect(numbers.sort()).toEqual([1, 2]);
  }
  console.log(`cluster test: seed ${seed}`);
  load = startClusterLoad({ addresses: cluster.addresses, seed, rate, entityShards: cluster.shards.entity });
  await using follower = await connect({ address: third });
  const seen = await follow(follower, (eids) => eids.size > 20);
  expect(seen.size).toBeGreaterThan(20);
});

/** Follows raw numbers of all shards until enough entities were seen. */
async function follow(client: Client, isEnough: (eids: ReadonlySet<string>) => boolean): Promise<Set<string>> {
  const eids = new Set<string>();
  const signal = AbortSignal.timeout(20_000);
  for await (const { eid } of client.entities.raw({ type: "probe", attr: "number", follow: true, signal })) {
    eids.add(eid);
    if (isEnough(eids)) break;
  }
  return eids;
}

test("a node that is killed is replaced within seconds, and comes back", { timeout: testMs }, async () => {
  await expect.poll(() => load.acks.length, { timeout: 10_000 }).toBeGreaterThan(10);
  await node(1).kill();
  expect(await untilNothing(() => findUnowned(cluster), liveWithinMs)).toEqual([]);
  await node(1).start();
  await untilServed();
});

test("all nodes are restarted one by one, and no client sees an error", { timeout: testMs }, async () => {
  for (const each of cluster.nodes) {
    expect(await each.stop()).toBe(0);
    await each.start();
    await untilServed();
  }
});

test("two nodes that cannot reach each other go on, both ways and one way", { timeout: testMs }, async () => {
  for (const ways of [
    [
      ["node-a", "node-b"],
      ["node-b", "node-a"],
    ],
    [["node-b", "node-c"]],
  ] as const) {
    for (const [from, to] of ways) cluster.network.cut(from, to, "lost");
    await setTimeout(4_000); // longer than it takes to suspect a node and to give it up
    await untilServed();
    for (const [from, to] of ways) cluster.network.heal(from, to);
    await untilServed();
  }
});

test("without etcd for ten seconds everything is served on", { timeout: testMs }, async () => {
  await cluster.etcd.stop();
  const from = load.acks.length;
  const slowest = slowestSince(performance.now());
  await setTimeout(10_000);
  expect(load.acks.length - from).toBeGreaterThan(30);
  // Nothing has waited until etcd was there again.
  expect(slowest()).toBeLessThan(8_000);
  await cluster.etcd.start();
  await untilServed();
});

test("after a crash of PostgreSQL the nodes come back by themselves", { timeout: testMs }, async () => {
  await cluster.restartPostgres("immediate", 1_000);
  await untilServed();
});

test("a node that was frozen for six seconds wakes up without its shards, and joins again", {
  timeout: testMs,
}, async () => {
  const { address, process } = node(2);
  const epochs = async () => new Map((await statusOf(address)).shards.map(({ shard, epoch }) => [shard, epoch]));
  const before = await epochs();
  expect(before.size).toBeGreaterThan(0);
  node(2).freeze();
  await setTimeout(6_000);
  node(2).thaw();
  await process?.logged((line) => line.includes("this node was given up by the others: its shards are dropped"));
  await untilServed();
  await expect.poll(async () => (await epochs()).size, { timeout: liveWithinMs }).toBeGreaterThan(0);
  const after = await epochs();
  // Whatever it has now was somebody else's meanwhile.
  for (const [shard, epoch] of after) expect(epoch, `shard ${shard}`).toBeGreaterThan(before.get(shard) ?? 0);
  expect(node(2).process).toBe(process);
});

test("a second node of one name, a node with another etcd and one without are refused, and told why", {
  timeout: testMs,
}, async () => {
  const other = await startTestEtcd();
  try {
    const twin = await cluster.add("node-d", { called: "node-a" });
    const stray = await cluster.add("node-e", { flags: ["--etcd", other.endpoint] });
    const alone = await cluster.add("node-f", { isAlone: true });
    await Promise.all([
      expect(twin.start(once)).rejects.toThrow(/another node named node-a is alive at 127\.0\.0\.1:\d+/),
      expect(stray.start(once)).rejects.toThrow(/is not the one that this cluster was created with/),
      expect(alone.start(once)).rejects.toThrow(/DATA_FOLDER_TAKEN|uses the database/),
    ]);
  } finally {
    await other.close();
  }
  await untilServed();
});

test("a start that waits for its name is given up when it is told to", { timeout: testMs }, async () => {
  const person = new AbortController();
  const said: string[] = [];
  const log = createLog({ level: "silent" });
  // The package sets it anew with the level.
  const info = (_: object, message: string): void => void said.push(message);
  Object.defineProperty(log, "info", { get: () => info, set: () => {} });
  const [databaseUrl = "", ...more] = cluster.databaseUrls;
  const flags = {
    ...{ name: "node-a", etcd: cluster.etcd.endpoint, databaseUrl, listen: "127.0.0.1:0", logLevel: "silent" },
    ...{ entityShards: "32", systemShards: "8", dataDir: await mkdtemp(join(tmpdir(), "starling-given-up-")) },
    ...(more.length > 0 && { databaseUrls: more.join() }),
  };
  const configDir = join(repository, "test/support/cluster-config");
  const ended = startNode({ configDir, env: {}, flags, log, signal: person.signal }).catch((error: Error) => error);
  await expect.poll(() => said, { timeout: 10_000 }).toContain("name is held by another node and was waited for");
  const from = performance.now();
  person.abort();
  expect(await ended).toMatchObject({ code: "UNAVAILABLE" });
  expect(performance.now() - from).toBeLessThan(3_000);
  await untilServed();
});

test("nothing was lost, doubled or put out of order on the way", { timeout: testMs }, async ({ onTestFailed }) => {
  onTestFailed(async () => {
    const folder = await mkdtemp(join(tmpdir(), "starling-cluster-logs-"));
    await cluster.saveLogs(folder);
    console.error(`repeat with STARLING_SEED=${seed}; the nodes' logs are in ${folder}`);
  });
  const finished = await Promise.race([load.finish().then(() => "finished"), setTimeout(liveWithinMs, "waiting")]);
  expect([finished, load.waiting()]).toEqual(["finished", []]);
  expect(await untilNothing(() => findBacklog(cluster), liveWithinMs)).toEqual([]);
  expect(load.errors).toEqual([]);
  expect(epochs.problems).toEqual([]);
  expect(load.reads.exact).toBeGreaterThan(0);
  expect(cluster.nodes.flatMap(({ mishaps }) => mishaps.filter(({ kind }) => kind === "ended"))).toEqual([]);
  await using databases = openKillDatabase(cluster.databaseUrls);
  const ofFirstTest = firstEids.map((eid) => ({ eid, session: "first", count: firstCount }));
  const verdict = checkClusterFacts({ ...(await databases.facts()), sent: [...load.sent(), ...ofFirstTest] });
  expect(sentencesOf(verdict).slice(0, 20)).toEqual([]);
});

test("an etcd that was emptied is refused by who starts then", { timeout: testMs }, async () => {
  await cluster.etcd.restartEmpty();
  const late = await cluster.add("node-g");
  await expect(late.start(once)).rejects.toThrow(/is not the one that this cluster was created with/);
});

function node(at: number): TestCluster["nodes"][number] {
  const found = cluster.nodes[at];
  if (found === undefined) throw new Error(`there is no node ${at}`);
  return found;
}

/** How long the slowest batch took of those that were sent since. */
function slowestSince(sinceMs: number): () => number {
  return () =>
    Math.max(0, ...load.acks.filter(({ sentMs }) => sentMs > sinceMs).map((ack) => ack.ackedMs - ack.sentMs));
}
