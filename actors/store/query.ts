import { toSeq, toShardId } from "../../proto/ids.ts";
import { hashOf } from "../../proto/shard-of.ts";
import type { Pool } from "./connection.ts";
import { readWhole } from "./load.ts";
import type { Queries, RawRow, StoredEntity } from "./store.ts";

/**
 * The view `raw`, one row per datapoint, and the search for the newest datapoints of one entity. Lines are described in
 * line.ts. A task is refused as a whole: its `+` lines belong to the nearest line above of another kind.
 */
export const queryFunctions = String.raw`
-- Pairs of backslashes are taken out first: between them every backslash begins an escape.
create function starling.unescape_1(p_text text) returns text language plpgsql immutable parallel safe as $$
declare
  v_pieces text[];
  v_piece text;
begin
  if strpos(p_text, '\') = 0 then
    return p_text;
  end if;
  v_pieces := string_to_array(p_text, '\\');
  for i in 1 .. cardinality(v_pieces) loop
    v_piece := replace(replace(replace(v_pieces[i], '\t', e'\t'), '\n', e'\n'), '\e', '');
    for c in 1 .. case when strpos(v_piece, '\x') > 0 then 31 else 0 end loop
      v_piece := replace(v_piece, '\x' || lpad(to_hex(c), 2, '0'), chr(c));
    end loop;
    v_pieces[i] := v_piece;
  end loop;
  return array_to_string(v_pieces, '\');
end
$$;

-- A value that jsonb refuses (U+0000, a lone surrogate) is shown as a string of its JSON text.
-- In plpgsql: of an SQL expression the planner would evaluate the branch that fails.
create function starling.to_jsonb_1(p_json text) returns jsonb language plpgsql immutable parallel safe as $$
begin
  if strpos(p_json, '\u') > 0 and not pg_input_is_valid(p_json, 'jsonb') then
    return to_jsonb(p_json);
  end if;
  return p_json::jsonb;
end
$$;

-- The datapoints of one segment: line number from 0, that of the task's first line, and the fields as they stand.
create function starling.lines_1(p_body text) returns table (line bigint, task bigint, f text[])
language sql immutable parallel safe begin atomic
  select l.line, l.task, l.f from (
    select t.i - 1 as line, max(case when left(t.r, 1) <> '+' then t.i - 1 end) over (order by t.i) as task,
        string_to_array(t.r, e'\t') as f
      from string_to_table(p_body, e'\n') with ordinality t(r, i)
  ) l where l.f[1] in ('d', '+');
end;

create view starling.raw as
  select s.shard, s.seq + l.line as seq, s.at, l.f[2] as type, starling.unescape_1(l.f[3]) as eid, l.f[4] as attr,
      case when l.f[5] <> '' then starling.unescape_1(l.f[5]) end as src,
      case when l.f[6] <> '' then starling.to_time_1(l.f[6]::bigint) end as t1,
      case when l.f[7] <> '' then starling.to_time_1(l.f[7]::bigint) end as t2,
      l.f[8]::float8 as c, starling.to_jsonb_1(l.f[9]) as v
    from starling.log s cross join lateral starling.lines_1(s.body) l
    where not exists (select from starling.refused r where r.shard = s.shard and r.seq = s.seq + l.task);

-- Newest first, partition by partition. The index alone tells which small segments hold the entity's hash, and leaves
-- the large ones to a look at the row; hashes may collide and match across two keys, so lines are compared as well.
create function starling.find_raw_1(p_shard int, p_type text, p_eid text, p_attr text, p_hash text, p_limit int)
  returns table (seq float8, at float8, f text[]) language plpgsql stable as $$
declare
  v_partition text;
  v_segment record;
  v_left int := p_limit;
  v_count int;
begin
  for v_partition in select n from starling.partitions_1() n loop
    for v_segment in execute format($q$
      select l.seq, l.at, l.body
        from (
          select k.seq, k.at from %1$s k where k.shard = $1 and (k.brief is null or position(decode($2, 'hex') in k.brief) > 0)
            order by k.seq desc offset 0
        ) k, lateral (
          select * from %1$s l where l.shard = $1 and l.seq = k.seq and l.at = k.at offset 0
        ) l
        where l.brief is not null or strpos(l.keys, $2) > 0
    $q$, v_partition) using p_shard, p_hash loop
      return query select (v_segment.seq + l.line)::float8, starling.to_ms_1(v_segment.at), l.f
        from starling.lines_1(v_segment.body) l
        where l.f[2] = p_type and starling.unescape_1(l.f[3]) = p_eid and (p_attr is null or l.f[4] = p_attr)
          and not exists (
            select from starling.refused r where r.shard = p_shard and r.seq = v_segment.seq + l.task
          )
        order by l.line desc limit v_left;
      get diagnostics v_count = row_count;
      v_left := v_left - v_count;
      if v_left <= 0 then
        return;
      end if;
    end loop;
  end loop;
end
$$;
`;

/** See {@link Queries.raw}. */
export async function findRaw(reads: Pool, request: Parameters<Queries["raw"]>[0]): Promise<RawRow[]> {
  const { shard, type, eid, attr, limit } = request;
  const hash = hashOf(type, eid).toString(16).padStart(8, "0");
  const text = `select seq, at, f[4] as attr, case when f[5] <> '' then starling.unescape_1(f[5]) end as src,
    nullif(f[6], '')::float8 as t1, nullif(f[7], '')::float8 as t2, f[8]::float8 as c, f[9] as json
    from starling.find_raw_1($1, $2, $3, $4, $5, $6)`;
  type Row = Pick<RawRow, "at" | "attr" | "src" | "t1" | "t2" | "c" | "json"> & { seq: number };
  const rows = await reads.query<Row>(text, [shard, type, eid, attr, hash, limit]);
  return rows.map((row) => ({ ...row, seq: toSeq(row.seq), shard, type, eid }));
}

interface EntityRow {
  readonly shard: number;
  readonly type: string;
  readonly eid: string;
  readonly created: number;
  readonly created_at: number;
  readonly applied: number;
  readonly state: string;
}

/** See {@link Queries.list}: by eid, in the order of its UTF-8 bytes. */
export async function listEntities(reads: Pool, request: Parameters<Queries["list"]>[0]): Promise<StoredEntity[]> {
  const text = `select shard, type, eid, created::float8 as created, starling.to_ms_1(created_at) as created_at,
    applied::float8 as applied, state from starling.entity
    where type = $1 and eid > $2 and not tombstone order by type, eid limit $3`;
  const rows = await reads.query<EntityRow>(text, [request.type, request.after, request.limit]);
  const records = rows.map((row) => ({
    shard: toShardId(row.shard),
    type: row.type,
    eid: row.eid,
    created: toSeq(row.created),
    createdAt: row.created_at,
    applied: toSeq(row.applied),
    state: row.state,
    tombstone: false,
  }));
  const whole = await readWhole(reads, records);
  const last = records.at(-1);
  // What was deleted in between must not make the page short: a short page is the last one.
  if (whole.length === records.length || records.length < request.limit || last === undefined) return whole;
  const rest = { ...request, after: last.eid, limit: request.limit - whole.length };
  return [...whole, ...(await listEntities(reads, rest))];
}

/** See {@link Queries.count}. Counts the index and takes tombstones off, which are few. */
export async function countEntities(reads: Pool, type: string | null): Promise<Map<string, number>> {
  const text = `select a.type, a.n - coalesce(t.n, 0) as n
    from (select type, count(*)::float8 as n from starling.entity where $1::text is null or type = $1 group by type) a
    left join (select type, count(*) as n from starling.entity where tombstone group by type) t using (type)
    order by a.type`;
  const rows = await reads.query<{ type: string; n: number }>(text, [type]);
  return new Map(rows.filter(({ n }) => n > 0).map((row) => [row.type, row.n]));
}
