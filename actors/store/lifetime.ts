import { toShardId } from "../../proto/ids.ts";
import type { Pool } from "./connection.ts";
import { type Packer, packNumbers } from "./pack.ts";
import type { DueLook, EntityKey, FlushRequest, InhabitantsRequest } from "./store.ts";

/*
 * When the collector has to look at the lifetime of an entity (`actors/lifetimes/lifetime.ts`): a row for each that may end by itself,
 * written with its record. In step 6.
 */
export const lifetimeFunctions = String.raw`
create table starling.lifetime (
  shard int not null,
  type text collate "C" not null,
  eid text collate "C" not null,
  look_at bigint not null,
  primary key (shard, type, eid)
) with (fillfactor = 90);
create index lifetime_look_at on starling.lifetime (look_at, shard, type, eid);

-- One row each: shard, type, eid, time; without a time the row goes.
create function starling.flush_looks_1(p_escaped boolean, p_looks text) returns boolean language plpgsql
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off set plan_cache_mode = force_generic_plan
as $$
begin
  if p_looks = '' then
    return true;
  end if;
  delete from starling.lifetime l
    using (select string_to_array(r, e'\x1f') from string_to_table(p_looks, e'\x1e') r offset 0) s(f)
    where f[4] = '' and l.shard = f[1]::int and l.type = starling.unpack_1(f[2], p_escaped)
      and l.eid = starling.unpack_1(f[3], p_escaped);
  insert into starling.lifetime as l (shard, type, eid, look_at)
    select f[1]::int, starling.unpack_1(f[2], p_escaped), starling.unpack_1(f[3], p_escaped), f[4]::bigint
      from (select string_to_array(r, e'\x1f') from string_to_table(p_looks, e'\x1e') r offset 0) s(f)
      where f[4] <> ''
    on conflict (shard, type, eid) do update set look_at = excluded.look_at where l.look_at <> excluded.look_at;
  return true;
end
$$;
`;

/** The last parameter of a flush with links and lifetimes. */
export function packLooks({ rows, text }: Packer, { looks = [] }: FlushRequest): string {
  return rows(looks, ({ shard, type, eid, at }) => {
    const time = at === null ? "" : String(Math.ceil(Math.min(at, timeMax)));
    return `${shard}\x1f${text(type)}\x1f${text(eid)}\x1f${time}`;
  });
}

/** Far beyond every date. */
const timeMax = 1e16;

/** See `Lifetimes.toLookAt`. */
export async function readLooks(
  pool: Pool,
  shards: readonly number[],
  { by, after, limit }: { readonly by: number; readonly after: DueLook | null; readonly limit: number },
): Promise<DueLook[]> {
  if (shards.length === 0) return [];
  const rows = await pool.query<{ shard: number; type: string; eid: string; at: number }>(
    `select shard, type, eid, look_at::float8 as at from starling.lifetime
      where look_at <= $2 and shard = any($1)
        and ($3::bigint is null or (look_at, shard, type, eid) > ($3, $4::int, $5, $6))
      order by look_at, shard, type, eid limit $7`,
    [
      ...[packNumbers(shards), Math.floor(by), after?.at ?? null, after?.shard ?? null, after?.type ?? null],
      ...[after?.eid ?? null, limit],
    ],
  );
  return rows.map(({ shard, ...rest }) => ({ ...rest, shard: toShardId(shard) }));
}

/** See `Lifetimes.inhabitants`. */
export async function listInhabitants(pool: Pool, request: InhabitantsRequest): Promise<EntityKey[]> {
  const { shards, type, after, limit } = request;
  if (shards.length === 0) return [];
  const rows = await pool.query<{ shard: number; eid: string }>(
    `select shard, eid from starling.entity
      where type = $1 and eid > $2 and shard = any($3) and not tombstone order by type, eid limit $4`,
    [type, after, packNumbers(shards), limit],
  );
  return rows.map(({ shard, eid }) => ({ shard: toShardId(shard), type, eid }));
}
