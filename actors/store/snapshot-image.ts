import { toSeq } from "../../proto/ids.ts";
import { markedSql } from "./large-value.ts";
import { type Packer, packKeys, packNumbers } from "./pack.ts";
import type { FlushRequest } from "./store.ts";
import type { StoredMark } from "./tick.ts";

const pageColumns = "e.eid, e.type, e.created, e.created_at, e.applied, e.tombstone, e.state";

/** Of rows `e` of the entities, none twice, and the images: see `tick_page_1`. */
const pageTail = String.raw`i as (
      select i.* from starling.snapshot_image i
        where i.shard = p_shard and (i.eid, i.type) > (p_eid, p_type) and i.tick = p_tick
        order by i.eid, i.type limit p_limit
    ), k as materialized (
      select coalesce(i.eid, e.eid) as eid, coalesce(i.type, e.type) as type, i.eid is not null as imaged,
          case when i.eid is null then e.tombstone is false else i.state is not null end as present,
          coalesce(i.created, e.created) as created, coalesce(i.created_at, e.created_at) as created_at,
          coalesce(i.applied, e.applied) as applied, case when i.eid is null then e.state else i.state end as state,
          i.history
        from e full join i on i.eid = e.eid and i.type = e.type order by 1, 2 limit p_limit
    ), h as materialized (
      select h.eid, h.type, sum(octet_length(h.body)) as bytes from starling.history h
        where h.shard = p_shard and (h.eid, h.type) > (p_eid, p_type) and h.eid <= (select max(k.eid) from k)
        group by h.eid, h.type
    ), m as (
      select k.*, not k.imaged and ${markedSql("k.state")} as marked from k
    ), s as (
      select m.*, h.bytes is not null as rows, row_number() over (order by m.eid, m.type) as place,
          sum(coalesce(octet_length(m.state), 0) + coalesce(octet_length(m.history), h.bytes, 0) + case when m.marked then (
            select sum(octet_length(v.body)) from starling.large_value v
              where v.shard = p_shard and v.eid = m.eid and v.type = m.type
          ) else 0 end) over (order by m.eid, m.type) as upto
        from m left join h on h.eid = m.eid and h.type = m.type
    )
    select s.eid, s.type, s.present, s.created, s.created_at, s.applied, s.state,
        case when s.present and s.marked then starling.large_values_1(p_shard, s.type, s.eid) end,
        s.history,
        case when s.present and s.history is null and s.rows then (
          select json_agg(json_build_array(h.seq, h.body) order by h.seq)::text from starling.history h
            where h.shard = p_shard and h.eid = s.eid and h.type = s.type and (not s.imaged or h.seq <= s.applied)
        ) end
      from s where s.upto <= p_bytes or s.place = 1 order by s.eid, s.type`;

/**
 * In step 6: entities as they were at a shard's mark.
 *
 * 1. A flush writes the image with the first change after the mark, in one transaction; whoever reads sees the row of before,
 *    or the row of after and the image. The first image of a tick stands: what a later owner replays is the same.
 * 2. A deletion takes the history away; if there is an image, that takes a copy first.
 * 3. No fold touches an entity that has an image: so of one without, all rows and pages are of before the mark, and of one
 *    with, those up to its `applied`.
 * 4. Images go when the visit has passed their place, those of former ticks with them. What is left over means nothing once
 *    the shard is visited, or has a mark of a later tick, or the run has ended (which the coordinator's database knows).
 */
export const snapshotImageFunctions = String.raw`
-- Whether an image is still wanted; the row of its mark may come after it.
create function starling.imaged_1(p_shard int, p_eid text, p_type text) returns boolean language sql stable
set enable_seqscan = off begin atomic
  select exists (
    select from starling.snapshot_image i where i.shard = p_shard and i.eid = p_eid and i.type = p_type and not exists (
      select from starling.snapshot_mark m
        where m.shard = i.shard and (m.tick > i.tick or (m.tick = i.tick and (m.visited or m.done)))
    ) and not exists (select from starling.snapshot_run r where r.tick = i.tick and r.status <> 'running')
  );
end;

-- Comes before the flush that it belongs to, in its transaction: false if that will write nothing.
create function starling.flush_images_1(p_lane int, p_number bigint, p_node text, p_shards int[], p_epochs bigint[],
  p_escaped boolean, p_image_shards int[], p_types text, p_eids text, p_ticks bigint[], p_created bigint[],
  p_created_at bigint[], p_applied bigint[], p_absent boolean[], p_states text, p_marks text) returns boolean
language plpgsql as $$
begin
  if p_lane is not null and not starling.next_flush_1(p_node, p_lane, p_number)
      or starling.fence_1(p_node, p_shards, p_epochs) is not null then
    return false;
  end if;
  if p_image_shards <> '{}' then
    insert into starling.snapshot_image (shard, eid, type, tick, created, created_at, applied, state)
      select n.shard, n.eid, n.type, n.tick, n.created, starling.to_time_1(n.created_at), n.applied,
          case when not n.absent then n.state end
        from (
          select unnest(p_image_shards), unnest(starling.split_1(p_types, p_escaped)),
              unnest(starling.split_1(p_eids, p_escaped)), unnest(p_ticks), unnest(p_created), unnest(p_created_at),
              unnest(p_applied), unnest(p_absent), unnest(starling.split_1(p_states, p_escaped))
        ) n(shard, type, eid, tick, created, created_at, applied, absent, state)
      on conflict do nothing;
  end if;
  if p_marks <> '' then
    insert into starling.snapshot_mark (shard, tick, seq)
      select f[1]::int, f[2]::bigint, f[3]::bigint
        from (select string_to_array(r, e'\x1f') from string_to_table(p_marks, e'\x1e') r offset 0) s(f)
      on conflict do nothing;
  end if;
  return true;
end
$$;

create or replace function starling.flush_tombstones_1(p_escaped boolean, p_shards int[], p_types text, p_eids text,
  p_applied bigint[], p_tombstones boolean[]) returns void
language sql set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan begin atomic
  update starling.snapshot_image i set history = json_build_object(
      'rows', (
        select json_agg(json_build_array(h.seq, h.body) order by h.seq) from starling.history h
          where h.shard = i.shard and h.type = i.type and h.eid = i.eid and h.seq <= i.applied
      ),
      'pages', (
        select json_agg(json_build_array(p.attr, p.t1, p.t2, p.seq, p.place, p.cut, p.body)) from starling.history_page p
          where p.shard = i.shard and p.type = i.type and p.eid = i.eid and p.seq <= i.applied
      ))::text
    from (
      select unnest(p_shards), unnest(starling.split_1(p_types, p_escaped)),
          unnest(starling.split_1(p_eids, p_escaped)), unnest(p_tombstones)
    ) n(shard, type, eid, tombstone)
    where n.tombstone and i.shard = n.shard and i.eid = n.eid and i.type = n.type and i.state is not null
      and i.history is null;
  delete from starling.history h
    using (
      select unnest(p_shards), unnest(starling.split_1(p_types, p_escaped)),
          unnest(starling.split_1(p_eids, p_escaped)),
          unnest(p_applied), unnest(p_tombstones)
    ) n(shard, type, eid, applied, tombstone)
    where n.tombstone and h.shard = n.shard and h.type = n.type and h.eid = n.eid and h.seq <= n.applied;
  delete from starling.history_page p
    using (
      select unnest(p_shards), unnest(starling.split_1(p_types, p_escaped)),
          unnest(starling.split_1(p_eids, p_escaped)),
          unnest(p_applied), unnest(p_tombstones)
    ) n(shard, type, eid, applied, tombstone)
    where n.tombstone and p.shard = n.shard and p.type = n.type and p.eid = n.eid and p.seq <= n.applied;
end;

-- Whoever has read rows of after the mark has read them with the image, so that it is here to be seen. Under the old name, so
-- that the nodes of the version before look, too.
alter function starling.fold_history_1 rename to fold_unimaged_history_1;
create function starling.fold_history_1(p_escaped boolean, p_row_shards int[], p_row_types text, p_row_eids text,
  p_row_seqs bigint[], p_old_shards int[], p_old_types text, p_old_eids text, p_old_attrs text, p_old_t2s float8[],
  p_old_seqs bigint[], p_old_places int[], p_shards int[], p_types text, p_eids text, p_attrs text, p_t2s float8[],
  p_seqs bigint[], p_places int[], p_t1s float8[], p_cuts float8[], p_bodies text) returns boolean language plpgsql as $$
begin
  return not exists (
    select from (
      select unnest(p_row_shards), unnest(starling.split_1(p_row_types, p_escaped)),
        unnest(starling.split_1(p_row_eids, p_escaped))
    ) n(shard, type, eid) where starling.imaged_1(n.shard, n.eid, n.type)
  ) and starling.fold_unimaged_history_1(p_escaped, p_row_shards, p_row_types, p_row_eids, p_row_seqs, p_old_shards,
    p_old_types, p_old_eids, p_old_attrs, p_old_t2s, p_old_seqs, p_old_places, p_shards, p_types, p_eids, p_attrs, p_t2s,
    p_seqs, p_places, p_t1s, p_cuts, p_bodies);
end
$$;

-- The newest mark of a shard, for its new owner. Volatile: it has to see what the old owner wrote last (R5).
create function starling.newest_mark_1(p_shard int) returns json language plpgsql volatile as $$
begin
  return (
    select json_build_array(m.tick, m.seq, m.eid, m.type, m.visited or m.done) from starling.snapshot_mark m
      where m.shard = p_shard order by m.tick desc limit 1
  );
end
$$;

-- A page of entities as they were, in the order of their places: without image the row is it. With p_since only those that
-- changed after that seq, are of the types p_always, or whose values time alone has changed up to p_due. What is over p_bytes,
-- counted from the first one, is left out, but for the first. Each table is read once, from one end of the page to the other.
create function starling.tick_page_1(p_shard int, p_tick bigint, p_eid text, p_type text, p_limit int, p_bytes bigint,
  p_since bigint, p_due bigint, p_always text)
  returns table (eid text, type text, present boolean, created bigint, created_at timestamptz, applied bigint, state text,
    large text, history text, fresh text) language plpgsql stable
set enable_seqscan = off set enable_bitmapscan = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
begin
  if p_since is null then
    return query with e as (
      select ${pageColumns} from starling.entity e where e.shard = p_shard and (e.eid, e.type) > (p_eid, p_type)
        order by e.eid, e.type limit p_limit
    ), ${pageTail};
  else
    return query with d as (
      (select s.eid, s.type from starling.snapshot s
        where s.shard = p_shard and (s.eid, s.type) > (p_eid, p_type) and s.to_tick is null and s.due <= p_due
        order by s.eid, s.type limit p_limit)
      union
      (select v.eid, v.type from starling.snapshot_value v
        where v.shard = p_shard and (v.eid, v.type) > (p_eid, p_type) and v.due <= p_due
        order by v.eid, v.type limit p_limit)
    ), e as (
      (select ${pageColumns} from starling.entity e where e.shard = p_shard and (e.eid, e.type) > (p_eid, p_type)
        and (e.applied > p_since or e.type = any(string_to_array(p_always, ',')))
        order by e.eid, e.type limit p_limit)
      union all
      select d.eid, d.type, e.created, e.created_at, e.applied, e.tombstone, e.state
        from d left join starling.entity e on e.shard = p_shard and e.eid = d.eid and e.type = d.type
        where e.eid is null or not (e.applied > p_since or e.type = any(string_to_array(p_always, ',')))
    ), ${pageTail};
  end if;
end
$$;
`;

/** The parameters that a flush of a tick has beside its own. */
export function packImages(packer: Packer, { images = [], marks = [] }: FlushRequest): string[] {
  return [
    ...packKeys(packer, images),
    packNumbers(images.map(({ tick }) => tick)),
    packNumbers(images.map(({ created }) => created)),
    packNumbers(images.map(({ createdAt }) => createdAt)),
    packNumbers(images.map(({ applied }) => applied)),
    `{${images.map(({ state }) => (state === null ? "t" : "f")).join(",")}}`,
    packer.column(images.map(({ state }) => state ?? "")),
    packer.rows(marks, ({ shard, tick, seq }) => `${shard}\x1f${tick}\x1f${seq}`),
  ];
}

/** The call of a flush, images first; their parameters begin at number `from`. */
export function imagedCall(call: string, ordered: boolean, from: number): string {
  const head = ordered ? "$1, $2, $3, $4, $5, $6" : "null, null, $1, $2, $3, $4";
  const own = Array.from({ length: 10 }, (_, i) => `$${from + i}`).join(", ");
  return `case when starling.flush_images_1(${head}, ${own}) is not null then ${call} end`;
}

/** As `newest_mark_1` says it. */
export function toMark(fields: MarkFields | null): StoredMark | null {
  if (fields === null) return null;
  const [tick, seq, eid, type, visited] = fields;
  return { tick, seq: toSeq(seq), passed: type === "" ? null : { eid, type }, visited };
}

export type MarkFields = [tick: number, seq: number, eid: string, type: string, visited: boolean];
