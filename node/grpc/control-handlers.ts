import type { ClusterControl } from "../../actors/cluster-control.ts";
import type { MembershipChanged } from "../../cluster/membership/membership-change.ts";
import type { Admin } from "../../proto/gen/starling_pb.ts";
import { type ShardGroup, shardGroups, toShardId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Handlers } from "./service.ts";

type ControlHandlers = Pick<Handlers<typeof Admin>, "clusterStatus" | "why" | "move" | "weigh" | "drain">;

/** The calls of Admin that concern the whole cluster; null: this node has none. */
export function createControlHandlers(control: ClusterControl | null, clusterId: string): ControlHandlers {
  const cluster = (): ClusterControl => {
    if (control === null) throw new StarlingError("UNAVAILABLE", "this node is in no cluster");
    return control;
  };
  return {
    clusterStatus: async () => toWire(await cluster().status(clusterId)),
    why: async ({ message: { subject } }) => {
      if (subject.case === undefined) throw new StarlingError("INVALID_ARGUMENT", "a shard or an entity is needed");
      return toWire(await cluster().why(subject.case === "shard" ? toShardId(subject.value) : subject.value));
    },
    move: async ({ message: { shard, node } }) => changed(await cluster().move(toShardId(shard), node || null)),
    weigh: async ({ message: { node, weight, groups } }) => {
      const chosen = groups.length === 0 ? shardGroups : groups.map(parseGroup);
      return changed(await cluster().weigh(parseName(node), weight ?? null, chosen));
    },
    drain: async ({ message: { node } }) => changed(await cluster().drain(parseName(node))),
  };
}

/** The same, with lists that may be changed, as messages have them. */
type Wire<T> = T extends readonly (infer Item)[]
  ? Wire<Item>[]
  : T extends object
    ? { -readonly [K in keyof T]: Wire<T[K]> }
    : T;

function toWire<T>(value: T): Wire<T> {
  return value as Wire<T>;
}

function changed({ unpinned }: MembershipChanged) {
  return { unpinned: [...unpinned] };
}

function parseName(name: string): string {
  if (name === "") throw new StarlingError("INVALID_ARGUMENT", "the name of a node is needed");
  return name;
}

function parseGroup(text: string): ShardGroup {
  const group = shardGroups.find((known) => known === text);
  if (group === undefined)
    throw new StarlingError("INVALID_ARGUMENT", `${JSON.stringify(text)} is no group of shards: entity, system`);
  return group;
}
