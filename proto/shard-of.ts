import { type ShardGroup, type ShardId, shardId } from "./ids.ts";

/**
 * The shard of an entity or of a named actor; fixed for the life of a cluster.
 *
 * FNV-1a, 32 bits, over the UTF-16 code units of `type`, a NUL, and `eid` (low byte, then high byte where it is not
 * zero), finished with MurmurHash3's `fmix32` so that the low bits are good, then modulo `shards`.
 */
export function shardOf(group: ShardGroup, type: string, eid: string, shards: number): ShardId {
  // A small integer also to the engine: an unsigned remainder would be a double, boxed wherever it is kept.
  return shardId(group, (hashOf(type, eid) % shards) | 0);
}

/** The 32-bit hash behind {@link shardOf}, unsigned. Also the entity key of a log segment. */
export function hashOf(type: string, eid: string): number {
  let h = mix(0x811c9dc5, type);
  h = Math.imul(h ^ 0, 0x01000193);
  h = mix(h, eid);
  h ^= h >>> 16;
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  h ^= h >>> 16;
  return h >>> 0;
}

function mix(start: number, text: string): number {
  let h = start;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    h = Math.imul(h ^ (unit & 0xff), 0x01000193);
    if (unit > 0xff) h = Math.imul(h ^ (unit >>> 8), 0x01000193);
  }
  return h;
}
