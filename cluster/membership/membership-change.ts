import { type ShardGroup, type ShardId, shardGroups } from "../../proto/ids.ts";
import { StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import type { Condition, Coordinator, Listing, Write } from "../coordinator.ts";
import type { MembershipKeys } from "./membership-keys.ts";
import { readSnapshot, type Snapshot } from "./membership-snapshot.ts";

/** What a person decides about where shards are to be. It knows nodes by name: it outlives their restarts. */
export type MembershipChange =
  /** A shard is to be at a node; null: wherever the weights put it. */
  | { readonly kind: "pin"; readonly shard: ShardId; readonly name: string | null }
  /** A node's share of some groups; null: 1, as where nothing is said. */
  | {
      readonly kind: "weigh";
      readonly name: string;
      readonly groups: readonly ShardGroup[];
      readonly weight: number | null;
    }
  /** A node is to own nothing: weight 0 in all groups, and what is pinned to it is pinned no longer. */
  | { readonly kind: "drain"; readonly name: string };

/** What a change did beside what it says. */
export interface MembershipChanged {
  /** Shards whose pin was taken away. */
  readonly unpinned: readonly ShardId[];
}

export interface ChangeWorld {
  readonly coordinator: Coordinator;
  readonly keys: MembershipKeys;
  readonly list: () => Promise<Listing>;
}

/** How often others may be quicker. */
const tries = 5;

/**
 * Makes a change, if everything that it was judged by still stands. Raises NOT_FOUND for a node that nobody knows,
 * INVALID_ARGUMENT for a change after which nobody would take shards, and UNAVAILABLE when the coordinator does not answer.
 */
export async function makeChange(world: ChangeWorld, change: MembershipChange): Promise<MembershipChanged> {
  for (let attempt = 0; attempt < tries; attempt++) {
    const listing = await world.list().catch((error: unknown) => {
      throw new StarlingError("UNAVAILABLE", `etcd does not answer, so nothing was changed: ${textOf(error)}`);
    });
    const plan = planChange(world.keys, readSnapshot(world.keys, listing), revisionsOf(listing), change);
    const { done } = await world.coordinator.commit(plan.conditions, plan.writes).catch((error: unknown) => {
      const text = `etcd did not say whether it took the change, look at the status: ${textOf(error)}`;
      throw new StarlingError("UNAVAILABLE", text);
    });
    if (done) return { unpinned: plan.unpinned };
  }
  throw new StarlingError("BUSY", "others changed the same at the same time");
}

interface ChangePlan extends MembershipChanged {
  readonly conditions: readonly Condition[];
  readonly writes: readonly Write[];
}

/** The commit of a change; `revisions` are those of the keys. Pure. */
export function planChange(
  keys: MembershipKeys,
  snapshot: Snapshot,
  revisions: ReadonlyMap<string, number>,
  change: MembershipChange,
): ChangePlan {
  const known = (key: string): Condition => ({ key, revision: revisions.get(key) ?? 0 });
  if (change.kind === "pin") {
    const { shard, name } = change;
    if (name !== null) checkKnown(snapshot, name);
    const key = keys.pin(shard);
    const holder = name === null ? [] : [known(keys.node(name))];
    return { conditions: [known(key), ...holder], writes: [write(key, name)], unpinned: [] };
  }
  const { name } = change;
  checkKnown(snapshot, name);
  const groups = change.kind === "drain" ? shardGroups : change.groups;
  const weight = change.kind === "drain" ? 0 : change.weight;
  if (weight !== null && !(Number.isFinite(weight) && weight >= 0))
    throw new StarlingError("INVALID_ARGUMENT", `a weight is a number from 0, not ${weight}`);
  checkRemaining(snapshot, name, groups, weight ?? 1);
  // Two that take the last two nodes away at once: one of them finds other keys.
  const judged = groups.flatMap((group) => [...snapshot.holders.keys()].map((holder) => keys.weight(group, holder)));
  const own = groups.map((group) => keys.weight(group, name));
  const unpinned = change.kind === "drain" ? pinnedTo(snapshot, name) : [];
  const pins = unpinned.map((shard) => keys.pin(shard));
  return {
    conditions: [...new Set([...judged, ...own, ...pins])].map(known),
    writes: [
      ...own.map((key) => write(key, weight === null ? null : String(weight))),
      ...pins.map((key) => write(key, null)),
    ],
    unpinned,
  };
}

function write(key: string, value: string | null): Write {
  return value === null ? { kind: "delete", key } : { kind: "put", key, value, lease: null };
}

function pinnedTo({ pins }: Snapshot, name: string): ShardId[] {
  return [...pins].filter(([, pinned]) => pinned === name).map(([shard]) => shard);
}

/** A node that is away has weights all the same, and may be given others. */
function checkKnown({ holders, weights }: Snapshot, name: string): void {
  if (holders.has(name) || [...weights.values()].some((byName) => byName.has(name))) return;
  const names = [...holders.keys()].sort().join(", ");
  throw new StarlingError("NOT_FOUND", `there is no node ${JSON.stringify(name)}: the nodes are ${names}`);
}

function checkRemaining(snapshot: Snapshot, name: string, groups: readonly ShardGroup[], weight: number): void {
  if (weight > 0) return;
  for (const group of groups) {
    const weights = snapshot.weights.get(group);
    const others = [...snapshot.holders].filter(([other, { record }]) => {
      return other !== name && record?.state !== "leaving" && (weights?.get(other) ?? 1) > 0;
    });
    if (others.length > 0) continue;
    const text = `${name} is the last node that takes shards of the group ${group}: start another one, or give one a weight`;
    throw new StarlingError("INVALID_ARGUMENT", text);
  }
}

function revisionsOf({ entries }: Listing): Map<string, number> {
  return new Map(entries.map(({ key, revision }) => [key, revision]));
}

function textOf(error: unknown): string {
  return toStarlingError(error).message;
}
