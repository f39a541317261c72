import { type Seq, toEpoch, toSeq, toShardId } from "../../proto/ids.ts";
import type { Pool } from "./connection.ts";
import { channelNeedle } from "./find-parts.ts";
import type { Fence, SegmentHead } from "./store.ts";

/** As of one instant in each database. */
export interface Unpassed {
  /** Segments that end above their shard's watermark and hold parts of the channels, also such as it has passed. */
  readonly heads: readonly SegmentHead[];
  /** The watermark of every shard that has one, as a place in the log. */
  readonly watermarks: readonly (Fence & { readonly seq: Seq })[];
  /** Entities that owe something (R16). */
  readonly owing: number;
}

/** One statement, one snapshot. The segment that holds the first seq above the watermark may begin below it. */
const unpassedText = `
select
  (select json_agg(json_build_array(s.shard, s.epoch, p.watermark) order by s.shard)
    from starling.shard s join starling.progress p on p.shard = s.shard) as watermarks,
  (select count(*)::int from starling.obligation) as owing,
  (select json_agg(json_build_array(l.shard, l.seq, l.head) order by l.shard, l.seq)
    from starling.shard s left join starling.progress p on p.shard = s.shard
    cross join lateral (
      select g.shard, g.seq, g.head from starling.log g
        where g.shard = s.shard and g.last_seq > coalesce(p.watermark, 0) and g.seq >= coalesce((
          select b.seq from starling.log b where b.shard = s.shard and b.seq <= p.watermark order by b.seq desc limit 1
        ), 0)
    ) l
    where exists (select from json_array_elements_text($1::text::json) n where strpos(l.head, n) > 0)) as heads`;

interface UnpassedRow {
  readonly watermarks: readonly (readonly [shard: number, epoch: number, seq: number])[] | null;
  readonly owing: number;
  readonly heads: readonly (readonly [shard: number, seq: number, head: string])[] | null;
}

/** See {@link Store.readUnpassed}. */
export async function readUnpassed(reads: Pool, channels: readonly string[]): Promise<Unpassed> {
  const [row] = await reads.query<UnpassedRow>(unpassedText, [JSON.stringify(channels.map(channelNeedle))]);
  const at = (shard: number, seq: number): { shard: ReturnType<typeof toShardId>; seq: Seq } => ({
    shard: toShardId(shard),
    seq: toSeq(seq),
  });
  return {
    heads: (row?.heads ?? []).map(([shard, seq, head]) => ({ ...at(shard, seq), head })),
    watermarks: (row?.watermarks ?? []).map(([shard, epoch, seq]) => ({ ...at(shard, seq), epoch: toEpoch(epoch) })),
    owing: row?.owing ?? 0,
  };
}
