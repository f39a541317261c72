import { describe, expect, it } from "vitest";
import type { NodeReport, ShardReport } from "../../actors/node-report.ts";
import { type ClusterFacts, summarizeCluster } from "../../actors/summarize-cluster.ts";
import type { MembershipView, NodeRecord } from "../../cluster/membership/membership.ts";
import { type NodeId, type ShardId, shardId, toEpoch, toNodeId, toSeq } from "../../proto/ids.ts";

const shards = [shardId("entity", 0), shardId("entity", 1), shardId("system", 0)];

function record(name: string, more: Partial<NodeRecord> = {}): NodeRecord {
  const rest = { address: `${name}:1`, version: "1", protocolMin: 1, protocolMax: 1, modelHash: "m" };
  return { id: toNodeId(name), name, state: "serving", ...rest, ...more };
}

function shardReport(shard: ShardId, more: Partial<ShardReport> = {}): ShardReport {
  return {
    ...{ shard, epoch: toEpoch(2), lastSeq: toSeq(1010), watermark: toSeq(7), residentEntities: 4, undelivered: 1 },
    ...{ lagEntries: 3, lagBytes: 0, outboxBytes: 0, residentBytes: 0, dirtyEntities: 0, obligations: 1 },
    ...{ handOff: null, ...more },
  };
}

function report(owned: readonly ShardReport[], more: Partial<NodeReport> = {}): NodeReport {
  return {
    ...{ shards: owned, arriving: [], queueBytes: 5, queueMaxBytes: 100, uptimeS: 60, problem: null },
    ...{ etcdSilentMs: 0, databaseSilentMs: 0, handOffsDone: 0, ...more },
  };
}

const [one = shardId("entity", 0), other = shardId("entity", 1), system = shardId("system", 0)] = shards;
const view: MembershipView = {
  revision: 1,
  nodes: [record("a"), record("b")],
  suspects: new Set(),
  pins: new Map(),
  weights: new Map(),
  departed: new Map(),
};
const owners = new Map([
  [one, "a"],
  [other, "a"],
  [system, "b"],
]);
const answers = new Map<NodeId, NodeReport | string>([
  [toNodeId("a"), report([shardReport(one), shardReport(other, { epoch: toEpoch(5) })])],
  [toNodeId("b"), report([shardReport(system, { handOff: "sealed" })])],
]);
const well: ClusterFacts = {
  ...{ clusterId: "c", asked: record("a"), view, shards, answers, etcd: "answers" },
  ownerOf: (shard) => {
    const owner = owners.get(shard);
    return owner === undefined ? undefined : { shard, epoch: toEpoch(2), owner: toNodeId(owner) };
  },
  deadLetters: new Map(),
};

describe("a cluster's status", () => {
  it("adds up what the nodes answered", () => {
    const { nodes, problems, unowned, ...status } = summarizeCluster(well);
    expect({ problems, unowned }).toEqual({ problems: [], unowned: [] });
    expect(status).toMatchObject({ epochMin: 2, epochMax: 5, versions: { 1: 2 }, models: { m: 2 }, deadLetters: 0 });
    expect(nodes[0]).toMatchObject({
      ...{ name: "a", state: "serving", shards: { entity: 2 }, lag: 6, obligations: 2, undelivered: 2, handOffs: 0 },
      weights: { entity: 1, system: 1 },
    });
    expect(nodes[1]).toMatchObject({ shards: { system: 1 }, handOffs: 1 });
    expect(status.shards.map(({ lag }) => lag)).toEqual([3, 3, 3]);
    expect(status.shards.map(({ state }) => state)).toEqual(["owned", "owned", "handing off"]);
  });

  it("names a node that did not answer, and does not judge its shards", () => {
    const silent = new Map(answers).set(toNodeId("b"), "it did not answer within 2000 ms");
    const { nodes, problems, unowned, shards: all } = summarizeCluster({ ...well, answers: silent });
    expect(nodes[1]).toMatchObject({ state: "silent", problem: "it did not answer within 2000 ms" });
    expect(problems).toEqual(["b (b:1) did not answer: it did not answer within 2000 ms"]);
    expect([unowned, all[2]?.state]).toEqual([[], "unknown"]);
  });

  it("says what is away, for whom, and since when", () => {
    const late = report([], { etcdSilentMs: 9_400, databaseSilentMs: 12_000 });
    const facts = { ...well, etcd: "away", deadLetters: null, answers: new Map(answers).set(toNodeId("a"), late) };
    const { etcd, database, problems, deadLetters } = summarizeCluster(facts as ClusterFacts);
    expect({ etcd, database, deadLetters }).toEqual({
      etcd: { state: "away", silentMs: 9_400 },
      database: { state: "away", silentMs: 12_000 },
      deadLetters: undefined,
    });
    expect(problems.slice(0, 2)).toEqual([
      "PostgreSQL does not answer a, since 12 s: nothing is taken in",
      "etcd does not answer a, since 9 s: nodes serve on, none comes or goes",
    ]);
  });

  it("says what only another node cannot reach", () => {
    const cut = new Map(answers).set(toNodeId("b"), report([shardReport(system)], { databaseSilentMs: 8_000 }));
    expect(summarizeCluster({ ...well, answers: cut }).problems).toEqual(["PostgreSQL does not answer b, since 8 s"]);
  });

  it("counts as nobody's what its owner does not have, unless that is still reading its log", () => {
    const less = new Map(answers).set(toNodeId("a"), report([shardReport(one)], { arriving: [other] }));
    expect(summarizeCluster({ ...well, answers: less }).shards[1]?.state).toBe("arriving");
    const none = new Map(answers).set(toNodeId("a"), report([shardReport(one)]));
    const { unowned, problems } = summarizeCluster({ ...well, answers: none });
    expect(unowned).toEqual([other]);
    expect(problems).toEqual(["nobody serves 1 shards: 1; `cluster why SHARD` says why"]);
  });

  it("tells draining from drained, and shows who has gone and why", () => {
    const weights = new Map([
      ["entity" as const, new Map([["b", 0]])],
      ["system" as const, new Map([["b", 0]])],
    ]);
    const draining = { ...view, weights, departed: new Map([["c", "it left"]]) };
    expect(summarizeCluster({ ...well, view: draining }).nodes.map(({ name, state }) => [name, state])).toEqual([
      ["a", "serving"],
      ["b", "draining"],
      ["c", "gone"],
    ]);
    const moved = new Map(owners).set(system, "a");
    const ownerOf = (shard: ShardId) => ({ shard, epoch: toEpoch(3), owner: toNodeId(moved.get(shard) ?? "") });
    const drained = summarizeCluster({ ...well, view: draining, ownerOf });
    expect(drained.nodes[1]?.state).toBe("drained");
  });

  it("says that versions or models are mixed, and that dead letters wait", () => {
    const mixed = { ...view, nodes: [record("a"), record("b", { version: "2", modelHash: "n" })] };
    const { problems } = summarizeCluster({ ...well, view: mixed, deadLetters: new Map([[one, 3]]) });
    expect(problems).toEqual([
      "nodes run different versions: 1 on 1, 2 on 1",
      "nodes have different models or modules: m on 1, n on 1",
      "3 dead letters wait for a person: `dead-letter list`",
    ]);
  });
});
