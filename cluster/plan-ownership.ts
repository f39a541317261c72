import { groupOf, type NodeId, type ShardGroup, type ShardId } from "../proto/ids.ts";
import { allocation, type Owners } from "./allocation.ts";
import type { MembershipView } from "./membership/membership.ts";
import type { OwnerTable } from "./owner-table.ts";

/** What a node is to do so that its shards become those that the allocation gives it. */
export interface OwnershipPlan {
  /** Shards to take: they are this node's, and nobody who lives owns them. */
  readonly acquire: readonly ShardId[];
  /** Shards to give up: a node that serves is to have them. Some this node owns without having them: an acquiring failed late. */
  readonly giveUp: readonly ShardId[];
}

export interface OwnershipFacts {
  readonly self: NodeId;
  readonly view: MembershipView;
  /** Every shard of the cluster. */
  readonly shards: readonly ShardId[];
  readonly owners: Pick<OwnerTable, "ownerOf">;
  /** Nodes that have been ailing for so long that their shards may be taken from them. */
  readonly ailing?: ReadonlySet<NodeId>;
  /** Whether this node has a shard in its lanes. */
  readonly owns: (shard: ShardId) => boolean;
}

const nobody: ReadonlySet<NodeId> = new Set();
const nothing: OwnershipPlan = { acquire: [], giveUp: [] };

/**
 * Every node plans for itself, from what all of them read: nobody leads. A shard changes hands in two steps that PostgreSQL
 * orders: its owner gives it up, then whose it is takes it; or its owner is dead, then whose it is takes it at once. Nodes that
 * see different members for a moment may take what is not theirs: that costs a hand-off later, never data. Pure.
 *
 * A node that joins is given nothing yet; one that leaves is no longer counted, so all of its shards are to move, as long as
 * there is somebody to have them. One that is ailing can give nothing up: after a while others take its shards from it.
 */
export function planOwnership({ self, view, shards, owners, owns, ailing = nobody }: OwnershipFacts): OwnershipPlan {
  const byId = new Map(view.nodes.map((node) => [node.id, node]));
  const me = byId.get(self);
  if (me === undefined || me.state === "ailing") return nothing;
  const current = new Map<ShardId, string | null>();
  for (const shard of shards) {
    const owner = owners.ownerOf(shard);
    current.set(shard, owner === null ? null : (byId.get(owner)?.name ?? null));
  }
  const targets = targetsOf(view, current);
  const acquire: ShardId[] = [];
  const giveUp: ShardId[] = [];
  for (const shard of shards) {
    const target = targets.get(shard) ?? null;
    const owner = owners.ownerOf(shard);
    if (target === me.name) {
      const isFree = owner === null || owner === self || !byId.has(owner) || ailing.has(owner);
      if (isFree && !owns(shard)) acquire.push(shard);
    } else if (target !== null && (owner === self || owns(shard))) giveUp.push(shard);
  }
  return { acquire, giveUp };
}

/**
 * The name of the node that is to own each shard; null: nobody is there to have it. Where only nodes of weight 0 are left, these
 * share the shards evenly: a drained node that serves is better than none.
 */
export function targetsOf(
  view: Pick<MembershipView, "nodes" | "pins" | "weights">,
  current: Owners,
): Map<ShardId, string | null> {
  const serving = view.nodes.filter(({ state }) => state === "serving");
  const groups = new Map<ShardGroup, Map<ShardId, string | null>>();
  for (const [shard, name] of current) {
    const group = groupOf(shard);
    const owners = groups.get(group) ?? new Map<ShardId, string | null>();
    groups.set(group, owners.set(shard, name));
  }
  const targets = new Map<ShardId, string | null>();
  for (const [group, owners] of groups) {
    const weighed = serving.map(({ name }) => ({ name, weight: view.weights.get(group)?.get(name) ?? 1 }));
    const members = weighed.some(({ weight }) => weight > 0)
      ? weighed
      : weighed.map(({ name }) => ({ name, weight: 1 }));
    for (const [shard, name] of allocation(members, view.pins, owners)) targets.set(shard, name);
  }
  return targets;
}
