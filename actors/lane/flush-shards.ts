import type { ShardId } from "../../proto/ids.ts";
import type { FlushRequest } from "../store/store.ts";
import type { Flush } from "./lane.ts";

/**
 * Two flushes of half of the shards each; null: it is of one. Marks of a gate are left out of a lane's: its next flush has them
 * again, of the shards that can be written (`poison.ts`).
 */
export function halve(flush: Flush): readonly [Flush, Flush] | null {
  const { attempts: _, ...rest } = flush.request;
  const request = flush.scope === "lane" ? rest : flush.request;
  const shards = request.fences.map(({ shard }) => shard);
  const middle = Math.ceil(shards.length / 2);
  const first = withoutShards({ ...flush, request }, new Set(shards.slice(middle)));
  const second = withoutShards({ ...flush, request }, new Set(shards.slice(0, middle)));
  return first === null || second === null ? null : [first, second];
}

/** What is left of a flush without some shards; null: nothing. */
export function withoutShards(flush: Flush, lost: ReadonlySet<ShardId>): Flush | null {
  const { request } = flush;
  const stays = ({ shard }: { shard: ShardId }) => !lost.has(shard);
  const left: FlushRequest = {
    fences: request.fences.filter(stays),
    entities: request.entities.filter(stays),
    history: request.history.filter(stays),
    progress: request.progress.filter(stays),
    refused: request.refused.filter(stays),
    deadLetters: request.deadLetters.filter(stays),
    ...(request.links && { links: request.links.filter(stays) }),
    ...(request.obituaries && { obituaries: request.obituaries.filter(stays) }),
    ...(request.looks && { looks: request.looks.filter(stays) }),
    ...(request.obligations && { obligations: request.obligations.filter(stays) }),
    ...(request.attempts && { attempts: request.attempts.filter(stays) }),
    ...(request.images && { images: request.images.filter(stays) }),
    ...(request.marks && { marks: request.marks.filter(stays) }),
  };
  if (left.fences.length === 0) return null;
  const entities = flush.entities.filter(({ shard }) => stays({ shard: shard.id }));
  const progress = flush.progress.filter(({ shard }) => stays({ shard: shard.id }));
  return { ...flush, request: left, entities, progress };
}
