import { type ShardId, toSeq, toShardId } from "../../proto/ids.ts";
import type { Pool } from "./connection.ts";
import { type Packer, packNumbers } from "./pack.ts";
import type { FlushRequest } from "./store.ts";
import type { LogEnd, NewObituary, Obituary, ShardPlace } from "./stored-link.ts";

/*
 * Obituaries: what was deleted and may be linked to, a row for each shard and flush, with how far every log went then. They
 * are read and removed by `actors/links/link-keeper.ts`. In step 6.
 */
export const obituaryFunctions = String.raw`
-- dead: JSON, [type, eid] each; places: shard, seq and time of the end of each log, as places_text_1 writes them.
create table starling.obituary (
  shard int not null,
  seq bigint not null,
  dead text not null,
  places text not null,
  primary key (shard, seq)
);

-- How far each shard is: the end of its log, the newest time there, and up to where everything is applied and flushed. Times
-- grow with seqs, so the end is looked for in the partitions of the last flush and after, and in all only if there is none.
create function starling.places_1() returns table (shard int, seq float8, at float8, settled float8)
language sql stable begin atomic
  select s.shard, greatest(l.last_seq, p.watermark, 0)::float8, coalesce(starling.to_ms_1(greatest(l.at, p.at)), 0)::float8,
      starling.floor_1(s.shard)::float8
    from starling.shard s
      left join starling.progress p on p.shard = s.shard
      left join lateral (
        (select g.last_seq, g.at from starling.log g where g.shard = s.shard and g.at >= p.at - interval '1 hour'
          order by g.seq desc limit 1)
        union all
        (select g.last_seq, g.at from starling.log g where g.shard = s.shard order by g.seq desc limit 1)
        limit 1
      ) l on true;
end;

create function starling.places_text_1() returns text language sql stable
return (select coalesce(string_agg(concat_ws(',', p.shard, p.seq, p.at), ';'), '') from starling.places_1() p);

-- The ends of the logs are read in a statement of their own: after the deletions are durable, before anybody is told.
create function starling.flush_obituaries_1(p_escaped boolean, p_obituaries text, p_places text) returns void
language plpgsql as $$
declare
  v_places text := case when p_places = '' then starling.places_text_1() else p_places end;
begin
  insert into starling.obituary (shard, seq, dead, places)
    select f[1]::int, f[2]::bigint, starling.unpack_1(f[3], p_escaped), v_places
      from (select string_to_array(r, e'\x1f') from string_to_table(p_obituaries, e'\x1e') r offset 0) s(f)
    on conflict do nothing;
end
$$;
`;

/** The two last parameters of a flush with links. */
export function packObituaries({ rows, text }: Packer, { obituaries = [], places = [] }: FlushRequest): string[] {
  const byShard = new Map<ShardId, NewObituary[]>();
  for (const one of obituaries) byShard.set(one.shard, [...(byShard.get(one.shard) ?? []), one]);
  return [
    rows([...byShard], ([shard, all]) => {
      const seq = Math.max(...all.map((one) => one.seq));
      return `${shard}\x1f${seq}\x1f${text(JSON.stringify(all.map(({ type, eid }) => [type, eid])))}`;
    }),
    places.map(({ shard, seq, at }) => `${shard},${seq},${at}`).join(";"),
  ];
}

/** See {@link Store.places}. */
export async function readPlaces(pool: Pool): Promise<ShardPlace[]> {
  const rows = await pool.query<{ shard: number; seq: number; at: number; settled: number; delivered: number }>(
    `select shard, l.seq, l.at, l.settled, coalesce(p.delivered, 0)::float8 as delivered
      from starling.places_1() l left join starling.progress p using (shard)`,
  );
  return rows.map(({ shard, seq, at, settled, delivered }) => {
    return { shard: toShardId(shard), seq: toSeq(seq), at, settled: toSeq(settled), delivered: toSeq(delivered) };
  });
}

/** See `Obituaries.obituaries`. */
export async function readObituaries(pool: Pool, shards: readonly ShardId[], limit: number): Promise<Obituary[]> {
  if (shards.length === 0) return [];
  const rows = await pool.query<{ shard: number; seq: number; dead: string; places: string }>(
    `select shard, seq::float8 as seq, dead, places from starling.obituary where shard = any($1)
      order by shard, obituary.seq limit $2`,
    [packNumbers(shards), limit],
  );
  return rows.map(({ shard, seq, dead, places }) => ({
    shard: toShardId(shard),
    seq: toSeq(seq),
    dead: (JSON.parse(dead) as [string, string][]).map(([type, eid]) => ({ type, eid })),
    places: new Map(places === "" ? [] : places.split(";").map(toEnd)),
  }));
}

function toEnd(text: string): [ShardId, LogEnd] {
  const [shard, seq, at] = text.split(",").map(Number);
  return [toShardId(shard ?? 0), { seq: toSeq(seq ?? 0), at: at ?? 0 }];
}

/** See `Obituaries.bury`. */
export async function bury(pool: Pool, { shard, seq }: Pick<Obituary, "shard" | "seq">): Promise<void> {
  await pool.query("delete from starling.obituary where shard = $1 and seq = $2", [shard, seq]);
}
