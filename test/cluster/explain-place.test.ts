import { expect, it } from "vitest";
import { explainPlace, type PlaceFacts } from "../../cluster/explain-place.ts";
import type { NodeRecord, NodeState } from "../../cluster/membership/membership.ts";
import { shardId, toNodeId } from "../../proto/ids.ts";

const shards = Array.from({ length: 4 }, (_, index) => shardId("entity", index));
const [first = shardId("entity", 0)] = shards;

function record(name: string, state: NodeState = "serving"): NodeRecord {
  const rest = { address: `${name}:1`, version: "1", protocolMin: 1, protocolMax: 1, modelHash: "m" };
  return { id: toNodeId(`id-${name}`), name, state, ...rest };
}

interface Scene {
  readonly nodes: readonly NodeRecord[];
  /** Names of the owners, shard by shard; empty: nobody. */
  readonly owned: readonly string[];
  readonly pin?: string;
  readonly weights?: Readonly<Record<string, number>>;
}

function why({ nodes, owned, pin, weights = {} }: Scene): string {
  const ids = owned.map((name) => (name === "" ? null : toNodeId(`id-${name}`)));
  const facts: PlaceFacts = {
    shards,
    owners: { ownerOf: (shard) => ids[shards.indexOf(shard)] ?? null },
    view: {
      nodes,
      pins: new Map(pin === undefined ? [] : [[first, pin]]),
      weights: new Map([["entity", new Map(Object.entries(weights))]]),
      departed: new Map(),
    },
  };
  return explainPlace(first, facts).reason;
}

const two = [record("a"), record("b")];

it.each<[string, Scene, string]>([
  [
    "its owner's share",
    { nodes: two, owned: ["a", "a", "b", "b"], weights: { a: 1.5, b: 1 } },
    "a has weight 1.5 of 2.5 among 2 nodes, so 2.4 of the 4 shards of the group entity are its share, and it has 2",
  ],
  ["a pin", { nodes: two, owned: ["b", "a", "a", "b"], pin: "b" }, "it is pinned to b"],
  ["the only node", { nodes: [record("a")], owned: ["a", "a", "a", "a"] }, "a is the only node that serves"],
  [
    "a hand-over to where it is pinned",
    { nodes: two, owned: ["a", "a", "b", "b"], pin: "b" },
    "a is handing it over, and b is to have it: it is pinned to b",
  ],
  [
    "a pin to a node that is not there",
    { nodes: [record("a")], owned: ["a", "a", "a", "a"], pin: "b" },
    "a is the only node that serves; it is pinned to b, which does not serve now",
  ],
  [
    "an owner that is gone",
    { nodes: [record("a")], owned: ["gone", "a", "a", "a"] },
    "its owner is gone, and a is to take it: a is the only node that serves",
  ],
  [
    "an owner that cannot write",
    { nodes: [record("a"), record("b", "ailing")], owned: ["b", "a", "a", "b"] },
    "b cannot write it, and a is to have it: a is the only node that serves",
  ],
  [
    "nobody who serves",
    { nodes: [record("a", "leaving")], owned: ["", "", "", ""] },
    "nobody owns it, since no node serves",
  ],
  [
    "drained nodes only",
    { nodes: two, owned: ["a", "a", "b", "b"], weights: { a: 0, b: 0 } },
    "all nodes that serve are drained, so they share the shards evenly",
  ],
])("a shard is explained by %s", (_, scene, reason) => {
  expect(why(scene)).toBe(reason);
});
