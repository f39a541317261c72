import { channelNeedle } from "../../actors/store/find-parts.ts";
import type { Segment } from "../../actors/store/store.ts";
import type { Unpassed } from "../../actors/store/unpassed.ts";
import { type ShardId, toEpoch, toSeq } from "../../proto/ids.ts";
import type { MemoryShard } from "./memory-durable.ts";

/** See `Store.readLog`. */
export function readLog(log: readonly Segment[], after: number, limit: number): Segment[] {
  let low = 0;
  for (let high = log.length; low < high; ) {
    const middle = (low + high) >>> 1;
    if ((log[middle]?.lastSeq ?? 0) > after) high = middle;
    else low = middle + 1;
  }
  return log.slice(low, low + limit);
}

/** See `Store.readUnpassed`. */
export function readUnpassed(shards: ReadonlyMap<ShardId, MemoryShard>, channels: readonly string[]): Unpassed {
  const needles = channels.map(channelNeedle);
  const all = [...shards];
  return {
    heads: all.flatMap(([, { log, watermark }]) =>
      readLog(log, watermark, Number.POSITIVE_INFINITY)
        .filter(({ head }) => needles.some((needle) => head.includes(needle)))
        .map(({ shard, seq, head }) => ({ shard, seq, head })),
    ),
    watermarks: all
      .filter(([, { watermark }]) => watermark > 0)
      .map(([shard, { epoch, watermark }]) => ({ shard, epoch: toEpoch(epoch), seq: toSeq(watermark) })),
    owing: all.reduce((sum, [, { obligations }]) => sum + obligations.size, 0),
  };
}
