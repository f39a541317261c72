import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { connect } from "../../proto/client.ts";
import { findUnowned, untilNothing } from "../support/cluster/liveness.ts";
import { startTestCluster, type TestCluster } from "../support/cluster/test-cluster.ts";
import { type NodeProcess, startNodeProcess } from "../support/node-process.ts";
import { testDatabases } from "../support/postgres.ts";
import { repository } from "../support/repository.ts";

/** However a node is stopped, its process ends by itself, and soon: nothing that it has opened is left open. */
const testMs = 90_000;
/** Without etcd it asks some times for several seconds; a statement of PostgreSQL alone would be waited for longer. */
const endsWithinMs = 20_000;
let cluster: TestCluster;

beforeAll(async () => {
  cluster = await startTestCluster({
    nodes: 4,
    shards: { entity: 16, system: 4 },
  });
}, testMs);

afterAll(() => cluster?.close());

/** SIGTERM; what was still open after "stopped" would be logged. */
async function expectEnd(node: NodeProcess): Promise<void> {
  const beganMs = performance.now();
  expect(await node.stop()).toBe(0);
  expect(performance.now() - beganMs).toBeLessThan(endsWithinMs);
  expect(node.log.filter((line) => line.includes("left open"))).toEqual([]);
  expect(node.log.at(-1)).toContain('"msg":"stopped"');
}

function processAt(at: number): NodeProcess {
  const node = cluster.nodes[at]?.process ?? null;
  if (node === null) throw new Error(`node ${at} does not run`);
  return node;
}

test("alone, with a client connected", { timeout: testMs }, async () => {
  const databases = await testDatabases();
  const configDir = join(repository, "test/support/cluster-config");
  const node = await startNodeProcess({ configDir, ...databases.settings });
  await using client = await connect({ address: node.address, giveUpAfterMs: 100 });
  await client.send([{ type: "probe", eid: "a", attr: "number", v: 1, t1: 1 }]);
  await expectEnd(node);
  await client.close().catch(() => undefined); // its node is gone
  await databases.close();
});

test("one of several, which no other then suspects, nor misses", { timeout: testMs }, async () => {
  expect(await untilNothing(() => findUnowned(cluster), 15_000)).toEqual([]);
  const leaving = processAt(0);
  const others = [1, 2, 3].map(processAt);
  const { id } = idOf(leaving);
  await using client = await connect({ addresses: cluster.addresses });
  await client.send([{ type: "probe", eid: "b", attr: "number", v: 1, t1: 1 }]);
  await expectEnd(leaving);
  for (const other of others) await other.logged((line) => line.includes("link closed") && line.includes(id));
  await setTimeout(6_000); // longer than it takes to miss what a node has to say
  const said = others.flatMap((other) => other.log.filter((line) => line.includes(id) && /"level":[45]0/.test(line)));
  expect(said).toEqual([]);
});

test.concurrent("cut off from etcd", { timeout: testMs }, async () => {
  cluster.network.cut("node-b", "etcd", "lost");
  cluster.network.cut("etcd", "node-b", "lost");
  await expectEnd(processAt(1));
});

test.concurrent("cut off from PostgreSQL, with changes that are not written", { timeout: testMs }, async () => {
  await using client = await connect({ addresses: cluster.addresses.slice(2, 3), giveUpAfterMs: 100 });
  // So many that most of them wait for their flush when it is cut off.
  const many = Array.from({ length: 5_000 }, (_, i) => ({ type: "probe", eid: `c${i}`, attr: "number", v: i, t1: 1 }));
  await client.send(many);
  cluster.network.cut("node-c", "postgres", "lost");
  cluster.network.cut("postgres", "node-c", "lost");
  await expectEnd(processAt(2));
});

test("the last one of a cluster, without etcd and PostgreSQL", { timeout: testMs }, async () => {
  await cluster.etcd.stop();
  cluster.network.cut("node-d", "postgres", "lost");
  cluster.network.cut("postgres", "node-d", "lost");
  await expectEnd(processAt(3));
});

function idOf(node: NodeProcess): { readonly id: string } {
  const line = node.log.find((text) => text.includes('"msg":"serving"')) ?? "{}";
  return { id: (JSON.parse(line) as { node: string }).node };
}
