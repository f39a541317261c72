import { afterEach, beforeEach, expect, test } from "vitest";
import { hearFarewells, type Members } from "../../cluster/farewells.ts";
import type { LinkListener } from "../../cluster/links/links.ts";
import type { MembershipView, NodeRecord, NodeState } from "../../cluster/membership/membership.ts";
import { planOwnership } from "../../cluster/plan-ownership.ts";
import { type NodeId, type ShardId, shardId, toNodeId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";

const [ada, bob] = [toNodeId("ada-1"), toNodeId("bob-1")];
const problem = new StarlingError("UNAVAILABLE", "the connection ended");
const viewListeners = new Set<(view: MembershipView) => void>();
const linkListeners = new Set<LinkListener>();
const down = new Map<NodeId, "left" | "lost">();
let view: MembershipView;
let members: Members & { close(): void };
let told: NodeState[][];

const record = (id: NodeId): NodeRecord => ({
  ...{ id, name: id.slice(0, 3), address: `${id}:7800`, version: "1", protocolMin: 1, protocolMax: 1 },
  ...{ modelHash: "m", state: "serving" },
});
const viewOf = (...ids: NodeId[]): MembershipView => ({
  ...{ revision: 1, nodes: ids.map(record), suspects: new Set(), pins: new Map(), weights: new Map() },
  departed: new Map(),
});
const states = (): NodeState[] => members.view.nodes.map(({ state }) => state);

function see(next: MembershipView): void {
  view = next;
  for (const listener of viewListeners) listener(view);
}

function lose(id: NodeId, how: "left" | "lost"): void {
  down.set(id, how);
  for (const { onDown } of linkListeners) onDown(id, problem);
}

function reach(id: NodeId): void {
  down.delete(id);
  for (const { onUp } of linkListeners) onUp(id);
}

beforeEach(() => {
  view = viewOf(ada, bob);
  told = [];
  down.clear();
  const membership: Members = {
    self: record(ada),
    get view() {
      return view;
    },
    onView: (listener) => {
      viewListeners.add(listener);
      return () => void viewListeners.delete(listener);
    },
  };
  members = hearFarewells(membership, {
    isUp: (id) => !down.has(id),
    hasLeft: (id) => down.get(id) === "left",
    on: (listener) => {
      linkListeners.add(listener);
      return () => void linkListeners.delete(listener);
    },
  });
  members.onView(({ nodes }) => void told.push(nodes.map(({ state }) => state)));
});

afterEach(() => {
  members.close();
  expect([viewListeners.size, linkListeners.size]).toEqual([0, 0]);
});

test("a node that said farewell counts as leaving until it is reached again; one whose link is lost serves", () => {
  lose(bob, "lost");
  expect(states()).toEqual(["serving", "serving"]);
  lose(bob, "left");
  expect(states()).toEqual(["serving", "leaving"]);
  // It is missed by then, but it has left all the same.
  lose(bob, "lost");
  see(viewOf(ada, bob));
  expect(states()).toEqual(["serving", "leaving"]);
  reach(bob);
  expect(states()).toEqual(["serving", "serving"]);
  expect(told).toEqual([
    ["serving", "leaving"],
    ["serving", "leaving"],
    ["serving", "serving"],
  ]);
});

test("a node that left is forgotten when the coordinator has heard of it", () => {
  lose(bob, "left");
  see(viewOf(ada));
  expect(states()).toEqual(["serving"]);
  see(viewOf(ada, bob));
  expect(states()).toEqual(["serving", "serving"]);
});

test("of a node that said farewell what it released is taken, and nothing else", () => {
  const released = shardId("entity", 2);
  const owners = new Map<ShardId, NodeId | null>([
    [shardId("entity", 0), ada],
    [shardId("entity", 1), ada],
    [released, null],
    [shardId("entity", 3), bob],
  ]);
  const plan = () =>
    planOwnership({
      self: ada,
      view: members.view,
      shards: [...owners.keys()],
      owners: { ownerOf: (shard) => owners.get(shard) ?? null },
      owns: (shard) => owners.get(shard) === ada,
    });
  expect(plan()).toEqual({ acquire: [], giveUp: [] });
  lose(bob, "left");
  expect(plan()).toEqual({ acquire: [released], giveUp: [] });
});
