import { expect, test } from "vitest";
import type { NodeRecord, NodeState } from "../../cluster/membership/membership.ts";
import { findElsewhere } from "../../node/open-cluster.ts";
import { toNodeId } from "../../proto/ids.ts";

function record(name: string, state: NodeState): NodeRecord {
  const rest = { version: "0", protocolMin: 1, protocolMax: 1, modelHash: "m" };
  return { id: toNodeId(name), name, address: `${name}.example:4700`, state, ...rest };
}

test("clients of a node that leaves are sent to those that stay, and not back to it, whatever its address", () => {
  const nodes = [record("a", "leaving"), record("b", "serving"), record("c", "leaving"), record("d", "ailing")];
  expect(findElsewhere({ nodes }, toNodeId("a"))).toEqual(["b.example:4700", "d.example:4700"]);
  expect(findElsewhere({ nodes }, toNodeId("b"))).toEqual(["d.example:4700"]);
});
