import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createConnection } from "../../actors/store/connection.ts";
import type { Coordinator } from "../../cluster/coordinator.ts";
import { openEtcd } from "../../cluster/etcd/etcd.ts";
import { createMembershipKeys, type MembershipKeys } from "../../cluster/membership/membership-keys.ts";
import { connect } from "../../proto/client.ts";
import { systemClock } from "../../proto/clock.ts";
import { checkClusterFacts, sentencesOf } from "../support/cluster/checker.ts";
import { type ClusterLoad, startClusterLoad } from "../support/cluster/cluster-load.ts";
import type { ClusterNode } from "../support/cluster/cluster-node.ts";
import { findBacklog, findUnowned, statusOf, untilNothing } from "../support/cluster/liveness.ts";
import { startTestCluster, type TestCluster } from "../support/cluster/test-cluster.ts";
import { openKillDatabase } from "../support/kill-facts.ts";
import { seedOfRun } from "../support/random.ts";
import { repository } from "../support/repository.ts";

/** Bad luck of a cluster under one load, beside that of `cluster.test.ts`. The last test checks what was sent in all. */
const testMs = 90_000;
const liveWithinMs = 30_000;
const seed = seedOfRun();
let cluster: TestCluster;
let load: ClusterLoad;
let etcd: Coordinator;
let keys: MembershipKeys;

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 2, shards: { entity: 32, system: 8 } });
  const jumping = `--import ${join(repository, "dist/test/support/jumping-clock.js")}`;
  await (await cluster.add("node-c", { env: { NODE_OPTIONS: jumping } })).start();
  etcd = openEtcd({ endpoints: [cluster.etcd.endpoint], clock: systemClock });
  keys = createMembershipKeys(`/starling/${(await statusOf(cluster.addresses[0] ?? "")).clusterId}/`);
  console.log(`cluster luck: seed ${seed}`);
  load = startClusterLoad({ addresses: cluster.addresses, seed, rate: 400, entityShards: cluster.shards.entity });
  expect(await untilNothing(() => findUnowned(cluster), liveWithinMs)).toEqual([]);
}, testMs);

afterAll(async () => {
  await etcd?.close();
  await cluster?.close();
});

/** All shards are owned by living nodes, and what is sent is acknowledged. */
async function untilServed(): Promise<void> {
  expect(await untilNothing(() => findUnowned(cluster), liveWithinMs)).toEqual([]);
  const from = load.acks.length;
  await expect.poll(() => load.acks.length, { timeout: liveWithinMs }).toBeGreaterThan(from + 10);
  expect(load.errors).toEqual([]);
}

function nodeAt(at: number): ClusterNode {
  const found = cluster.nodes[at];
  if (found === undefined) throw new Error(`there is no node ${at}`);
  return found;
}

const said = (message: string): number =>
  cluster.nodes.flatMap((node) => node.log()).filter((line) => line.includes(`"msg":"${message}"`)).length;

test("a client that talks to a node that owns nothing is served by it", { timeout: testMs }, async () => {
  const idle = nodeAt(1);
  const weigh = (weight: string) =>
    etcd.commit(
      [],
      (["entity", "system"] as const).map((group) => {
        return { kind: "put", key: keys.weight(group, idle.name), value: weight, lease: null };
      }),
    );
  await weigh("0");
  await expect.poll(async () => (await statusOf(idle.address)).shards.length, { timeout: liveWithinMs }).toBe(0);
  await using client = await connect({ address: idle.address, level: "processed" });
  const eids = Array.from({ length: 40 }, (_, index) => `idle${index}`);
  const { accepted } = await client.send(
    eids.map((eid) => ({ type: "probe", eid, attr: "number", v: 1, t1: 1, src: "idle" })),
  );
  expect(accepted).toBe(eids.length);
  for (const eid of eids.slice(0, 5)) {
    expect((await client.entities.get({ type: "probe", eid })).attributes.number?.v).toBe(1);
  }
  await weigh("1");
  await expect
    .poll(async () => (await statusOf(idle.address)).shards.length, { timeout: liveWithinMs })
    .toBeGreaterThan(0);
  await untilServed();
});

test("a node that lost its lease and is well keeps its id and its shards", { timeout: testMs }, async () => {
  const key = keys.node(nodeAt(0).name);
  const record = async () => (await etcd.list(key)).entries.find((entry) => entry.key === key);
  const before = await record();
  await etcd.revoke(before?.lease ?? "");
  await expect.poll(async () => (await record())?.lease ?? null, { timeout: liveWithinMs }).not.toBeNull();
  expect((await record())?.value).toBe(before?.value);
  expect(said("node given up")).toBe(0);
  await untilServed();
});

test("a calendar that jumps an hour ahead, and two back, changes nothing", { timeout: testMs }, async () => {
  const { pid } = nodeAt(2).process ?? {};
  for (let jump = 0; jump < 2; jump++) {
    process.kill(pid ?? 0, "SIGUSR2");
    await setTimeout(3_000); // what thinks in calendar time would act by now
    await untilServed();
  }
  expect(said("node given up")).toBe(0);
});

test("commits that take 500 ms each make everything slow, and nothing else", { timeout: testMs }, async () => {
  const settings = { application: "luck", statementTimeoutMs: 30_000, connectTimeoutMs: 10_000 };
  const admin = createConnection({ url: cluster.databaseUrl, ...settings });
  await admin.script(`create function starling.slow() returns trigger language plpgsql as
    $$ begin perform pg_sleep(0.5); return null; end $$;
    create trigger slow_disk before insert on starling.log for each statement execute function starling.slow()`);
  const from = load.acks.length;
  await setTimeout(6_000);
  expect(load.acks.length).toBeGreaterThan(from);
  await admin.script("drop trigger slow_disk on starling.log; drop function starling.slow");
  await admin.close();
  expect(said("node given up")).toBe(0);
  await untilServed();
});

test("etcd that is away during a hand-off delays it; nothing is unserved", { timeout: testMs }, async () => {
  const leaving = nodeAt(0);
  await cluster.etcd.stop();
  const stopped = leaving.stop();
  await setTimeout(2_000);
  await cluster.etcd.start();
  expect(await stopped).toBe(0);
  await untilServed();
});

test("a node that starts while etcd is away ends and says so; later it starts", { timeout: testMs }, async () => {
  await cluster.etcd.stop();
  await expect(nodeAt(0).start({ tries: 1 })).rejects.toThrow(/etcd at 127\.0\.0\.1:\d+/);
  await cluster.etcd.start();
  await nodeAt(0).start();
  await untilServed();
});

test("without PostgreSQL for six seconds nodes say so, and serve again by themselves", {
  timeout: testMs,
}, async () => {
  await cluster.restartPostgres("fast", 6_000);
  await untilServed();
  expect(said("postgresql does not answer this node: it is given no shards")).toBeGreaterThan(0);
});

test("nothing was lost, doubled or put out of order on the way", { timeout: testMs }, async () => {
  const finished = await Promise.race([load.finish().then(() => "finished"), setTimeout(liveWithinMs, "waiting")]);
  expect([finished, load.waiting()]).toEqual(["finished", []]);
  expect(await untilNothing(() => findBacklog(cluster), liveWithinMs)).toEqual([]);
  expect(load.errors).toEqual([]);
  expect(cluster.nodes.flatMap(({ mishaps }) => mishaps.filter(({ kind }) => kind === "ended"))).toEqual([]);
  await using database = openKillDatabase(cluster.databaseUrl);
  const idle = Array.from({ length: 40 }, (_, index) => ({ eid: `idle${index}`, session: "idle", count: 1 }));
  const verdict = checkClusterFacts({ ...(await database.facts()), sent: [...load.sent(), ...idle] });
  expect(sentencesOf(verdict).slice(0, 20)).toEqual([]);
});
