import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { MembershipChange } from "../../../cluster/membership/membership-change.ts";
import { planOwnership, targetsOf } from "../../../cluster/plan-ownership.ts";
import { shardGroups, shardId, toNodeId } from "../../../proto/ids.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { createMembershipCluster, type MembershipCluster, type TestNode } from "./membership-cluster.ts";

const shard = shardId("entity", 5);
let cluster: MembershipCluster;
let a: TestNode;
let b: TestNode;

beforeEach(async () => {
  cluster = createMembershipCluster();
  a = await cluster.start("a");
  b = await cluster.start("b");
});

afterEach(async () => {
  await cluster.close();
  expect(cluster.clock.timers).toBe(0);
});

/** What a change comes to; time passes meanwhile. */
async function make(node: TestNode, change: MembershipChange) {
  const made = node.membership.change(change).catch((error: unknown) => error);
  await cluster.clock.advance(6_000);
  return await made;
}

const weightsOf = (node: TestNode) =>
  Object.fromEntries([...node.membership.view.weights].map(([group, byName]) => [group, Object.fromEntries(byName)]));

describe("a pin", () => {
  it("that one node sets all nodes see, until it is taken away", async () => {
    expect(await make(a, { kind: "pin", shard, name: "b" })).toEqual({ unpinned: [] });
    for (const node of [a, b]) expect([...node.membership.view.pins]).toEqual([[shard, "b"]]);
    await make(b, { kind: "pin", shard, name: null });
    for (const node of [a, b]) expect(node.membership.view.pins.size).toBe(0);
  });

  it("to a node that nobody knows is refused, with the names of those that are there", async () => {
    const refused = await make(a, { kind: "pin", shard, name: "c" });
    expect(refused).toMatchObject({ code: "NOT_FOUND", message: 'there is no node "c": the nodes are a, b' });
  });
});

describe("a weight", () => {
  it("holds for the groups that were named, and null takes it back", async () => {
    await make(a, { kind: "weigh", name: "b", groups: ["system"], weight: 2.5 });
    expect(weightsOf(b)).toEqual({ system: { b: 2.5 } });
    await make(a, { kind: "weigh", name: "b", groups: shardGroups, weight: null });
    expect(weightsOf(b)).toEqual({});
  });

  it.each([-1, Number.NaN, Number.POSITIVE_INFINITY])("of %s is refused", async (weight) => {
    const refused = await make(a, { kind: "weigh", name: "b", groups: shardGroups, weight });
    expect(refused).toMatchObject({ code: "INVALID_ARGUMENT" });
    expect(weightsOf(a)).toEqual({});
  });
});

describe("a drain", () => {
  it("takes all weights and pins of a node, and names the pins", async () => {
    await make(a, { kind: "pin", shard, name: "b" });
    await make(a, { kind: "pin", shard: shardId("entity", 6), name: "a" });
    expect(await make(a, { kind: "drain", name: "b" })).toEqual({ unpinned: [shard] });
    expect(weightsOf(a)).toEqual({ entity: { b: 0 }, system: { b: 0 }, dataflow: { b: 0 }, job: { b: 0 } });
    expect([...a.membership.view.pins.values()]).toEqual(["a"]);
  });

  it("of the last node that takes shards is refused, and changes nothing", async () => {
    await make(a, { kind: "drain", name: "b" });
    const refused = await make(b, { kind: "drain", name: "a" });
    expect(refused).toMatchObject({ code: "INVALID_ARGUMENT", message: expect.stringContaining("a is the last node") });
    expect(weightsOf(a)).toMatchObject({ entity: { b: 0 } });
  });

  it("of both nodes at once succeeds for one of them", async () => {
    const outcomes = await Promise.all([make(a, { kind: "drain", name: "b" }), make(b, { kind: "drain", name: "a" })]);
    expect(outcomes.filter((outcome) => outcome instanceof StarlingError)).toHaveLength(1);
    expect(Object.values(weightsOf(a).entity ?? {})).toEqual([0]);
  });
});

it("without the coordinator a change is refused, and says that nothing was changed", async () => {
  a.cut();
  const refused = await make(a, { kind: "pin", shard, name: "b" });
  expect(refused).toMatchObject({ code: "UNAVAILABLE", message: expect.stringMatching(/nothing was changed/) });
  a.heal();
  await cluster.clock.advance(5_000);
  expect(a.membership.view.pins.size).toBe(0);
});

it("who has left is told with its reason, until somebody of its name is there again", async () => {
  const leaving = b.membership.close();
  await cluster.clock.advance(3_000);
  await leaving;
  expect([...a.membership.view.departed]).toEqual([["b", "it left"]]);
  const again = await cluster.start("b");
  expect(again.names()).toEqual(["a", "b"]);
  expect(a.membership.view.departed.size).toBe(0);
});

it("where only drained nodes are left they share the shards", () => {
  const record = { address: "x:1", version: "1", protocolMin: 1, protocolMax: 1, modelHash: "m" };
  const node = (name: string) => ({ ...record, id: toNodeId(name), name, state: "serving" as const });
  const weights = new Map([["entity" as const, new Map([["a", 0]])]]);
  const view = { nodes: [node("a")], pins: new Map(), weights };
  expect([...targetsOf(view, new Map([[shard, null]]))]).toEqual([[shard, "a"]]);
  const full = { ...view, revision: 1, suspects: new Set<never>(), departed: new Map() };
  const facts = { self: toNodeId("a"), shards: [shard], owners: { ownerOf: () => null }, owns: () => false };
  expect(planOwnership({ ...facts, view: full }).acquire).toEqual([shard]);
});
