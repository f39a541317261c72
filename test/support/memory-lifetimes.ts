import type { DueLook, Lifetimes, LookAt } from "../../actors/store/store.ts";
import type { ShardId } from "../../proto/ids.ts";
import type { MemoryShard } from "./memory-durable.ts";
import { keyOf } from "./memory-queries.ts";

/** Writes when a lifetime is to be looked at, as a flush in PostgreSQL does. */
export function flushLook(shard: MemoryShard | undefined, { at, ...key }: LookAt): void {
  if (at === null) shard?.looks.delete(keyOf(key));
  else shard?.looks.set(keyOf(key), { ...key, at: Math.ceil(at) });
}

/** Reads lifetimes as PostgreSQL does. */
export function memoryLifetimes(
  shards: ReadonlyMap<ShardId, MemoryShard>,
): Pick<Lifetimes, "toLookAt" | "inhabitants"> {
  return {
    inhabitants: async ({ shards: ids, type, after, limit }) =>
      ids
        .flatMap((shard) => [...(shards.get(shard)?.entities.values() ?? [])])
        .filter((one) => one.type === type && !one.tombstone && compareText(one.eid, after) > 0)
        .sort((a, b) => compareText(a.eid, b.eid))
        .slice(0, limit)
        .map(({ shard, eid }) => ({ shard, type, eid })),
    toLookAt: async (ids, by, after, limit) =>
      ids
        .flatMap((id) => [...(shards.get(id)?.looks.values() ?? [])])
        .filter((look) => look.at <= by && (after === null || compareLooks(look, after) > 0))
        .sort(compareLooks)
        .slice(0, limit),
  };
}

function compareLooks(a: DueLook, b: DueLook): number {
  return a.at - b.at || a.shard - b.shard || compareText(a.type, b.type) || compareText(a.eid, b.eid);
}

function compareText(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
