/**
 * The numbers and names that identify things, as branded types. This is the one file that casts to a brand.
 */
declare const brand: unique symbol;
type Brand<T, B extends string> = T & { readonly [brand]: B };

/** A fixed slice of one group's key space. The group stands in the high bits: see {@link shardId}. */
export type ShardId = Brand<number, "ShardId">;
/** The number that fences a shard: whoever holds an older one cannot write. From 1. */
export type Epoch = Brand<number, "Epoch">;
/** A place in a shard's log, from 1; it numbers datapoints. 0 stands before the first. */
export type Seq = Brand<number, "Seq">;
/** One run of one node: new for every start. */
export type NodeId = Brand<string, "NodeId">;
/** A sender's durable identity. */
export type SessionId = Brand<string, "SessionId">;

/** The groups of shards, in the order of their numbers. Only `entity` and `system` exist yet. */
export const shardGroups = ["entity", "system", "dataflow", "job"] as const;
export type ShardGroup = (typeof shardGroups)[number];

const groupSize = 4096;

/** The id of shard `index` (0 to 4095) of a group. */
export function shardId(group: ShardGroup, index: number): ShardId {
  return (shardGroups.indexOf(group) * groupSize + index) as ShardId;
}

/** The group that a shard belongs to. */
export function groupOf(shard: ShardId): ShardGroup {
  return shardGroups[Math.floor(shard / groupSize)] ?? "entity";
}

export const toShardId = (value: number): ShardId => value as ShardId;
export const toEpoch = (value: number): Epoch => value as Epoch;
export const toSeq = (value: number): Seq => value as Seq;
export const toNodeId = (value: string): NodeId => value as NodeId;
export const toSessionId = (value: string): SessionId => value as SessionId;
