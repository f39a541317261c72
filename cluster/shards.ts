import { type ShardId, shardId } from "../proto/ids.ts";

/** How many shards each group of a cluster has: fixed at the cluster's creation. */
export interface ShardCounts {
  readonly entity: number;
  readonly system: number;
}

/** Every shard of a cluster, group by group, in the order of their ids. */
export function allShards(counts: ShardCounts): ShardId[] {
  return [
    ...Array.from({ length: counts.entity }, (_, index) => shardId("entity", index)),
    ...Array.from({ length: counts.system }, (_, index) => shardId("system", index)),
  ];
}
