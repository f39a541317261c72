import { type Seq, type ShardId, toSeq, toShardId } from "../../proto/ids.ts";
import type { Pool } from "./connection.ts";
import type { Segment } from "./store.ts";

/** The segment that holds seq `p_after` may begin below it: the scan starts there. */
export const readLogFunctions = String.raw`
create function starling.read_log_1(p_shard int, p_after bigint, p_limit int)
  returns table (shard int, seq float8, last_seq float8, at float8, keys text, head text, body text)
  language sql stable begin atomic
  select l.shard, l.seq::float8, l.last_seq::float8, starling.to_ms_1(l.at),
      coalesce(encode(l.brief, 'hex'), l.keys), l.head, l.body
    from starling.log l
    where l.shard = p_shard and l.last_seq > p_after and l.seq >= coalesce((
      select b.seq from starling.log b where b.shard = p_shard and b.seq <= p_after order by b.seq desc limit 1
    ), 0)
    order by l.seq limit p_limit;
end;

-- Names of the log's partitions, newest first.
create function starling.partitions_1() returns setof text language sql stable begin atomic
  select format('starling.%I', c.relname) from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'starling.log'::regclass and not i.inhdetachpending order by c.relname desc;
end;

create function starling.find_part_1(p_shard int, p_needle text)
  returns table (shard int, seq float8, last_seq float8, at float8, keys text, head text, body text)
  language plpgsql stable as $$
declare
  v_partition text;
begin
  for v_partition in select n from starling.partitions_1() n loop
    return query execute format($q$
      select l.shard, l.seq::float8, l.last_seq::float8, starling.to_ms_1(l.at),
          coalesce(encode(l.brief, 'hex'), l.keys), l.head, l.body
        from %s l where l.shard = $1 and strpos(l.head, $2) > 0 order by l.seq desc limit 1
    $q$, v_partition) using p_shard, p_needle;
    if found then
      return;
    end if;
  end loop;
end
$$;
`;

interface SegmentRow {
  readonly shard: number;
  readonly seq: number;
  readonly last_seq: number;
  readonly at: number;
  readonly keys: string;
  readonly head: string;
  readonly body: string;
}

function toSegment(row: SegmentRow): Segment {
  const { shard, seq, last_seq, at, keys, head, body } = row;
  return { shard: toShardId(shard), seq: toSeq(seq), lastSeq: toSeq(last_seq), at, keys, head, body };
}

/** See {@link Store.readLog}. */
export async function readLog(reads: Pool, shard: ShardId, after: Seq, limit: number): Promise<Segment[]> {
  const text = "select * from starling.read_log_1($1, $2, $3)";
  return (await reads.query<SegmentRow>(text, [shard, after, limit])).map(toSegment);
}

/** See {@link Store.readChannel}. */
export async function readChannel(reads: Pool, shard: ShardId, channel: string): Promise<number> {
  const text = "select number::float8 as number from starling.channel where shard = $1 and channel = $2";
  const [row] = await reads.query<{ number: number }>(text, [shard, channel]);
  return row?.number ?? 0;
}
