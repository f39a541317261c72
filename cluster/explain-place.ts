import { groupOf, type NodeId, type ShardId } from "../proto/ids.ts";
import type { MembershipView, NodeRecord } from "./membership/membership.ts";
import type { OwnerTable } from "./owner-table.ts";
import { targetsOf } from "./plan-ownership.ts";

/** Where a shard is, and why. */
export interface Place {
  /** Null: nobody who is there owns it. */
  readonly owner: NodeRecord | null;
  /** In a sentence. */
  readonly reason: string;
}

export interface PlaceFacts {
  readonly view: Pick<MembershipView, "nodes" | "pins" | "weights" | "departed">;
  /** Every shard of the cluster. */
  readonly shards: readonly ShardId[];
  readonly owners: Pick<OwnerTable, "ownerOf">;
}

/** Says why a shard is where it is, from what every node plans by. Pure. */
export function explainPlace(shard: ShardId, { view, shards, owners }: PlaceFacts): Place {
  const byId = new Map(view.nodes.map((node) => [node.id, node]));
  const nameOf = (id: NodeId | null): string | null => (id === null ? null : (byId.get(id)?.name ?? null));
  const current = new Map(shards.map((each) => [each, nameOf(owners.ownerOf(each))]));
  const target = targetsOf(view, current).get(shard) ?? null;
  const id = owners.ownerOf(shard);
  const owner = (id === null ? undefined : byId.get(id)) ?? null;
  const pinned = view.pins.get(shard);
  const pinProblem =
    pinned !== undefined && pinned !== target ? `; it is pinned to ${pinned}, which does not serve now` : "";
  return { owner, reason: reasonOf() + pinProblem };

  function reasonOf(): string {
    if (target === null) {
      return owner === null
        ? "nobody owns it, since no node serves"
        : `${owner.name} keeps it, since no node serves that could have it`;
    }
    const why = reasonOfTarget(shard, target);
    if (owner === null) {
      const before = id === null ? "nobody owns it" : "its owner is gone";
      return `${before}, and ${target} is to take it: ${why}`;
    }
    if (owner.name === target) return why;
    const state = owner.state === "ailing" ? `${owner.name} cannot write it` : `${owner.name} is handing it over`;
    return `${state}, and ${target} is to have it: ${why}`;
  }

  function reasonOfTarget(one: ShardId, name: string): string {
    if (view.pins.get(one) === name) return `it is pinned to ${name}`;
    const serving = view.nodes.filter(({ state }) => state === "serving");
    if (serving.length === 1) return `${name} is the only node that serves`;
    const group = groupOf(one);
    const weightOf = (node: string): number => view.weights.get(group)?.get(node) ?? 1;
    const total = serving.reduce((sum, node) => sum + weightOf(node.name), 0);
    if (total === 0) return "all nodes that serve are drained, so they share the shards evenly";
    const count = shards.filter((each) => groupOf(each) === group).length;
    const has = [...current].filter(([each, node]) => node === name && groupOf(each) === group).length;
    const share = ((count * weightOf(name)) / total).toFixed(1).replace(/\.0$/, "");
    return `${name} has weight ${weightOf(name)} of ${total} among ${serving.length} nodes, so ${share} of the ${count} shards of the group ${group} are its share, and it has ${has}`;
  }
}
