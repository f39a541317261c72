/**
 * In step 9: the rows of `snapshot` hold confidences apart from all else. Of an entity in the decay of a validity, which is
 * computed in every run, those alone have changed: they stand in no index, so PostgreSQL writes the open row anew in its page
 * (a heap-only tuple) and leaves the indexes of all attributes as they are. The row before goes into the history as a copy.
 *
 * 1. What changes with every run may stand in no index, not even in one that leaves the row out. So the key by `from_tick` has to
 *    go: see `snapshot-index.ts`, which does that without holding anybody up. As long as it is there all of this works, too.
 * 2. Rows of earlier steps have the confidences in their bodies: see `wholeBodyText` and `bodyText`.
 */
/** Nodes that would not read all of what others write make no run together: a part of the fingerprint of runs. */
export const snapshotFormat = 9;

export const snapshotRowTables = String.raw`
-- Null: the entity has none, or, in a row of step 8 and before, they stand in the body.
alter table starling.snapshot add column confidences jsonb;
alter table starling.snapshot alter confidences set statistics 0;
-- Pages keep room for what is written anew in them.
alter table starling.snapshot set (fillfactor = 75);

-- What hooks of a large group changed of a value so far: it stands behind the body, which is never written again for it.
alter table starling.snapshot_value add column changes text collate "C" not null default '';
alter table starling.snapshot_value alter changes set statistics 0;
alter table starling.snapshot_value set (fillfactor = 75);
`;

export const snapshotRowFunctions = String.raw`
-- Kinds: b a body, c the snapshot ends, k it stands. One statement: the texts are split and parsed once. The old rows are
-- closed before new ones come, as of one entity only one may be open. Where the body stands and only the confidences are
-- others, the open row stays where it is. Plans are made once and before the tables have their size: without the settings,
-- and where rows are found otherwise than by key or place, they might read them whole.
create function starling.snapshot_rows_3(p_tick bigint, p_places int[], p_escaped boolean, p_row_places int[],
  p_shards int[], p_types text, p_eids text, p_dues bigint[], p_kinds text, p_bodies text, p_confidences text)
  returns table (place int, written int, closed int) language plpgsql
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
  return query with n as materialized (
    select n.place, n.shard, n.type, n.eid, n.due, n.kind, case n.kind when 'b' then n.body::jsonb end as body,
        nullif(n.confidences, '')::jsonb as confidences
      from unnest(p_row_places, p_shards, starling.split_1(p_types, p_escaped), starling.split_1(p_eids, p_escaped),
        p_dues, string_to_array(p_kinds, null), starling.split_1(p_bodies, p_escaped),
        starling.split_1(p_confidences, p_escaped)) n(place, shard, type, eid, due, kind, body, confidences)
      where n.kind <> 'k' and n.place = any(p_places)
  ), s as materialized (
    select n.*, s.row, s.due as was_due, s.from_tick < p_tick as older, s.body = n.body as stands,
        s.confidences is distinct from n.confidences as differs
      from n left join lateral (
        select s.ctid as row, s.due, s.from_tick, s.body, s.confidences from starling.snapshot s
          where s.shard = n.shard and s.eid = n.eid and s.type = n.type and s.to_tick is null offset 0
      ) s on true
  ), o as materialized (
    select s.*, s.older and (s.kind = 'c' or not s.stands) as ends,
        s.older and s.kind = 'b' and s.stands and s.differs as moves from s
  ), u as (
    update starling.snapshot s set to_tick = p_tick where s.ctid = any(array(select o.row from o where o.ends)) returning 1
  ), m as (
    update starling.snapshot s set from_tick = p_tick, due = o.due, confidences = o.confidences from o
      where o.moves and s.ctid = o.row returning 1
  ), h as (
    insert into starling.snapshot (shard, type, eid, from_tick, to_tick, due, body, confidences)
      select s.shard, s.type, s.eid, s.from_tick, p_tick, s.due, s.body, s.confidences from starling.snapshot s
        where s.ctid = any(array(select o.row from o where o.moves)) and (select count(*) from m) >= 0
  ), d as (
    update starling.snapshot s set due = o.due from o
      where o.kind = 'b' and not o.ends and not o.moves and o.was_due is distinct from o.due and s.ctid = o.row
  ), i as (
    insert into starling.snapshot (shard, type, eid, from_tick, due, body, confidences)
      select o.shard, o.type, o.eid, p_tick, o.due, o.body, o.confidences from o
        where o.kind = 'b' and (o.row is null or o.ends) and (select count(*) from u) >= 0
      returning 1
  )
  select o.place, (count(*) filter (where o.kind = 'b' and (o.row is null or o.ends or o.moves)))::int,
      (count(*) filter (where o.kind = 'c' and o.ends))::int
    from o where (select count(*) from i) >= 0 group by o.place;
end
$$;

-- Rows of shards whose newest tick this is, and no others. Of a component whose first member's shard is in another database.
create function starling.snapshot_foreign_2(p_tick bigint, p_escaped boolean, p_shards int[], p_types text, p_eids text,
  p_dues bigint[], p_kinds text, p_bodies text, p_confidences text) returns void language plpgsql as $$
begin
  perform from starling.snapshot_mark m where m.tick = p_tick and m.shard = any(p_shards) order by m.shard for update;
  if exists (select from starling.snapshot_mark m where m.shard = any(p_shards) and m.tick > p_tick) then
    return;
  end if;
  perform from starling.snapshot_rows_3(p_tick, '{0}', p_escaped, array_fill(0, array[cardinality(p_shards)]), p_shards,
    p_types, p_eids, p_dues, p_kinds, p_bodies, p_confidences);
end
$$;
`;

/** In step 9: what hooks changed of values is written without the values. */
export const valueChangeFunctions = String.raw`
-- Changes of values, while no later tick has marked their shards.
create function starling.snapshot_values_2(p_node text, p_shard int, p_epoch bigint, p_tick bigint, p_escaped boolean,
  p_shards int[], p_types text, p_eids text, p_changes text) returns text language plpgsql
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off as $$
declare
  v_lost text;
begin
  if p_node is not null then
    v_lost := starling.fence_1(p_node, array[p_shard], array[p_epoch]);
  end if;
  if v_lost is null and not exists (
    select from starling.snapshot_mark m where m.shard = any(p_shards) and m.tick > p_tick
  ) then
    update starling.snapshot_value v set changes = n.changes
      from unnest(p_shards, starling.split_1(p_types, p_escaped), starling.split_1(p_eids, p_escaped),
        starling.split_1(p_changes, p_escaped)) n(shard, type, eid, changes)
      where v.shard = n.shard and v.eid = n.eid and v.type = n.type;
  end if;
  return v_lost;
end
$$;
`;

/** SQL of a snapshot as readers see it, of a row of `snapshot`. */
export function wholeBodyText(row: string): string {
  return `(case when ${row}.confidences is null then ${row}.body else ${row}.body || ${row}.confidences end)`;
}

/** SQL of the object that holds an attribute's value, or its confidence (`attr#c`). */
export function bodyText(row: string, attr: string): string {
  return attr.endsWith("#c") ? `coalesce(${row}.confidences, ${row}.body)` : `${row}.body`;
}
