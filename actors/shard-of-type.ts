import { isSingletonType } from "../modules/behaviour.ts";
import type { ShardId } from "../proto/ids.ts";
import { shardOf } from "../proto/shard-of.ts";

/** Numbers of shards by group, fixed at the cluster's creation. */
export interface ShardCounts {
  readonly entityShards: number;
  readonly systemShards: number;
}

/** Where an entity or an actor lives: singletons among the system's shards, all else among those of entities. */
export function shardOfType(type: string, eid: string, { entityShards, systemShards }: ShardCounts): ShardId {
  return isSingletonType(type)
    ? shardOf("system", type, eid, systemShards)
    : shardOf("entity", type, eid, entityShards);
}
