import type { ClientDatapoint } from "./client-batch.ts";
import type { OwnersReply } from "./gen/starling_pb.ts";
import { shardOf } from "./shard-of.ts";

/** Which node owns which shard of the entities, as nodes have said. A guess: what is wrong costs a hop, never correctness. */
export interface OwnerMap {
  readonly shards: number;
  shardOf(datapoint: ClientDatapoint): number;
  /** Null: nobody has said. */
  addressOf(shard: number): string | null;
  /** All owners' addresses. */
  addresses(): ReadonlySet<string>;
  /** Later epochs win, whoever tells of them. */
  learn(news: OwnersReply): void;
}

/** A map of a cluster with so many shards, with nothing in it. */
export function createOwnerMap(shards: number): OwnerMap {
  const epochs = new Float64Array(shards);
  const addresses = new Array<string | null>(shards).fill(null);
  return {
    shards,
    // As written: where a node would write an id in another way, its spellings may take different ways.
    shardOf: ({ type, eid }) => shardOf("entity", type, typeof eid === "string" ? eid : String(eid), shards),
    addressOf: (shard) => addresses[shard] ?? null,
    addresses: () => new Set(addresses.filter((address) => address !== null)),
    learn: ({ owners }) => {
      for (const { shard, epoch, address } of owners) {
        if (shard >= shards || Number(epoch) < (epochs[shard] ?? 0)) continue;
        epochs[shard] = Number(epoch);
        addresses[shard] = address;
      }
    },
  };
}
