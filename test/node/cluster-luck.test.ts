import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Connection } from "../../actors/store/connection.ts";
import { codeOf } from "../../actors/store/postgres-error.ts";
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
import { type Connections, connectAll } from "../support/databases.ts";
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
let admin: Connections;

beforeAll(async () => {
  cluster = await startTestCluster({ nodes: 2, shards: { entity: 32, system: 8 } });
  const jumping = `--import ${join(repository, "dist/test/support/jumping-clock.js")}`;
  await (await cluster.add("node-c", { env: { NODE_OPTIONS: jumping } })).start();
  etcd = openEtcd({ endpoints: [cluster.etcd.endpoint], clock: systemClock });
  const settings = { application: "luck", statementTimeoutMs: 30_000, connectTimeoutMs: 10_000 };
  admin = connectAll(cluster.databaseUrls, settings);
  keys = createMembershipKeys(`/starling/${(await statusOf(cluster.addresses[0] ?? "")).clusterId}/`);
  console.log(`cluster luck: seed ${seed}`);
  load = startClusterLoad({ addresses: cluster.addresses, seed, rate: 400, entityShards: cluster.shards.entity });
  expect(await untilNothing(() => findUnowned(cluster), liveWithinMs)).toEqual([]);
}, testMs);

afterAll(async () => {
  await admin?.close();
  await etcd?.close();
  await cluster?.close();
});

/** All shards are owned by living nodes, and what is sent is acknowledged. */
async function untilServed(): Promise<void> {
  expect(await untilNothing(() => findUnowned(cluster), liveWithinMs)).toEqual([]);
  await untilAcknowledged();
}

async function untilAcknowledged(): Promise<void> {
  const from = load.acks.length;
  await expect.poll(() => load.acks.length, { timeout: liveWithinMs }).toBeGreaterThan(from + 10);
  expect(load.errors).toEqual([]);
}

/** The epochs and owners of all shards. */
function readShards(): Promise<{ shard: number; epoch: string; owner: string }[]> {
  return admin.query("select shard, epoch::text as epoch, owner from starling.shard order by shard");
}

/** How many shards are this node's, as PostgreSQL says. */
async function ownedBy(node: string): Promise<number> {
  return (await readShards()).filter(({ owner }) => owner === node).length;
}

/** Bytes are lost both ways, and nobody is told. */
function cutFrom({ name }: ClusterNode, party: "etcd" | "postgres"): void {
  cluster.network.cut(name, party, "lost");
  cluster.network.cut(party, name, "lost");
}

/** Each transaction that writes takes half a second more, as it commits, whatever it writes. Returns the end of it. */
async function slowCommits(): Promise<() => Promise<void>> {
  const ends = await Promise.all(admin.each.map(slowCommitsOf));
  return async () => void (await Promise.all(ends.map((end) => end())));
}

async function slowCommitsOf(database: Connection): Promise<() => Promise<void>> {
  const sleep = (text: string) =>
    database.script(`create or replace function starling.slow() returns trigger language plpgsql as $$ begin
      if current_setting('luck.slept', true) is distinct from txid_current()::text then
        perform set_config('luck.slept', txid_current()::text, true), ${text};
      end if;
      return null;
    end $$`);
  const tables = await database.query<{ name: string }>(`select oid::regclass::text as name from pg_class
    where relnamespace = 'starling'::regnamespace and relkind in ('r', 'p') and not relispartition`);
  await sleep(`pg_sleep(${commitMs / 1000})`);
  for (const { name } of tables) {
    await alter(
      database,
      `create constraint trigger slow_disk after insert or update or delete on ${name}
      deferrable initially deferred for each row execute function starling.slow()`,
    );
  }
  return async () => {
    await sleep("1");
    for (const { name } of tables) await alter(database, `drop trigger slow_disk on ${name}`);
  };
}

/** Changes a table that nodes write to: of two that wait for each other PostgreSQL ends one, which is then tried again. */
async function alter(database: Connection, text: string): Promise<void> {
  for (;;) {
    try {
      return await database.script(text);
    } catch (error) {
      if (codeOf(error) !== "40P01") throw error;
    }
  }
}

const commitMs = 500;
const noCoordinator = "coordinator did not answer";
const noAnswer = "postgresql does not answer this node: it is given no shards";

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

test("commits that take 500 ms each, whatever they write, make everything slow, and nothing else", {
  timeout: testMs,
}, async () => {
  const before = await readShards();
  const quicken = await slowCommits();
  const sinceMs = performance.now();
  await setTimeout(6_000); // what takes the slow for the dead would act by now
  const acks = load.acks.filter(({ sentMs }) => sentMs > sinceMs);
  await quicken();
  expect(acks.length).toBeGreaterThan(40);
  expect(Math.min(...acks.map(({ sentMs, ackedMs }) => ackedMs - sentMs))).toBeGreaterThan(commitMs);
  // Nobody lost a shard, and nobody was taken for ill.
  expect(await readShards()).toEqual(before);
  expect([said("node given up"), said(noAnswer)]).toEqual([0, 0]);
  await untilServed();
});

test("a node that alone is without etcd serves on until it is given up, and one without PostgreSQL is; both come back", {
  timeout: testMs,
}, async () => {
  const [noPostgres, noEtcd] = [nodeAt(1), nodeAt(2)];
  const [{ node: ill }, { node: unseen }] = [await statusOf(noPostgres.address), await statusOf(noEtcd.address)];
  const owned = await ownedBy(unseen);
  const timesSaid = ({ log }: ClusterNode, message: string) => log().filter((line) => line.includes(message)).length;
  const before = timesSaid(noEtcd, noCoordinator);
  cutFrom(noEtcd, "etcd");
  await expect.poll(() => timesSaid(noEtcd, noCoordinator), { timeout: liveWithinMs }).toBe(before + 1);
  await untilAcknowledged();
  const { state, shards } = await statusOf(noEtcd.address);
  expect([state, shards.length, await ownedBy(unseen)]).toEqual(["serving", owned, owned]);
  cutFrom(noPostgres, "postgres");
  await expect.poll(() => timesSaid(noPostgres, noAnswer), { timeout: liveWithinMs }).toBe(1);
  await expect.poll(async () => [await ownedBy(ill), await ownedBy(unseen)], { timeout: liveWithinMs }).toEqual([0, 0]);
  await untilAcknowledged();
  cluster.network.healAll();
  await untilServed();
  expect(cluster.nodes.flatMap(({ mishaps }) => mishaps)).toEqual([]);
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
  const before = said(noAnswer);
  await cluster.restartPostgres("fast", 6_000);
  await untilServed();
  expect(said(noAnswer)).toBeGreaterThan(before);
});

test("nothing was lost, doubled or put out of order on the way", { timeout: testMs }, async () => {
  const finished = await Promise.race([load.finish().then(() => "finished"), setTimeout(liveWithinMs, "waiting")]);
  expect([finished, load.waiting()]).toEqual(["finished", []]);
  expect(await untilNothing(() => findBacklog(cluster), liveWithinMs)).toEqual([]);
  expect(load.errors).toEqual([]);
  expect(cluster.nodes.flatMap(({ mishaps }) => mishaps.filter(({ kind }) => kind === "ended"))).toEqual([]);
  await using databases = openKillDatabase(cluster.databaseUrls);
  const idle = Array.from({ length: 40 }, (_, index) => ({ eid: `idle${index}`, session: "idle", count: 1 }));
  const verdict = checkClusterFacts({ ...(await databases.facts()), sent: [...load.sent(), ...idle] });
  expect(sentencesOf(verdict).slice(0, 20)).toEqual([]);
});
