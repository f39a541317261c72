/**
 * In step 8: the ends of entities that have gone. They are found along the key of each page: whatever size the tables had when
 * that was planned, no page reads the open rows of other shards, and none compares each of its rows with all that were written
 * with it, as `snapshot_gone_2` did.
 */
export const goneFunction = String.raw`
-- Ends the snapshots, and drops the values, of entities between the two places of a page that are not among its rows. Where
-- a visit ends: to the last entity, beyond the longest eid.
create function starling.snapshot_gone_3(p_tick bigint, p_pages jsonb, p_escaped boolean, p_row_places int[], p_types text,
  p_eids text) returns table (place int, closed int) language plpgsql
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
begin
  return query with p as materialized (
    select p.place, p.shard, p.after_eid, p.after_type, p.type,
        case when p.visited then repeat(chr(1114111), 257) else p.eid end as eid
      from jsonb_to_recordset(p_pages) p(place int, shard int, after_eid text, after_type text, eid text, type text,
        visited boolean, whole boolean)
      where p.whole
  ), n as materialized (
    select * from unnest(p_row_places, starling.split_1(p_types, p_escaped), starling.split_1(p_eids, p_escaped))
      n(place, type, eid)
  ), g as materialized (
    select p.place, o.row from p cross join lateral (
        select s.ctid as row, s.type, s.eid from starling.snapshot s
          where s.shard = p.shard and (s.eid, s.type) > (p.after_eid, p.after_type) and (s.eid, s.type) <= (p.eid, p.type)
            and s.to_tick is null and s.from_tick < p_tick offset 0
      ) o where (p.place, o.type, o.eid) not in (select n.place, n.type, n.eid from n)
  ), v as (
    delete from starling.snapshot_value v where v.ctid = any(array(
      select o.row from p cross join lateral (
          select v.ctid as row, v.type, v.eid from starling.snapshot_value v
            where v.shard = p.shard and (v.eid, v.type) > (p.after_eid, p.after_type) and (v.eid, v.type) <= (p.eid, p.type)
            offset 0
        ) o where (p.place, o.type, o.eid) not in (select n.place, n.type, n.eid from n)
    ))
  ), u as (
    update starling.snapshot s set to_tick = p_tick where s.ctid = any(array(select g.row from g))
  )
  select g.place, count(*)::int from g group by g.place;
end
$$;

-- Of pages whose rows say who has gone: ends the values of those, and drops what ended in ticks before.
create function starling.snapshot_closed_3(p_tick bigint, p_pages jsonb, p_escaped boolean, p_row_places int[],
  p_types text, p_eids text, p_kinds text) returns void language plpgsql
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan as $$
begin
  delete from starling.snapshot_value v where v.ctid = any(array(
    select o.row from jsonb_to_recordset(p_pages) p(shard int, after_eid text, after_type text, eid text, type text,
        visited boolean, listed boolean) cross join lateral (
        select v.ctid as row from starling.snapshot_value v
          where v.shard = p.shard and (v.eid, v.type) > (p.after_eid, p.after_type)
            and (v.eid, v.type) <= (case when p.visited then repeat(chr(1114111), 257) else p.eid end, p.type)
            and v.body = '' and v.tick < p_tick offset 0
      ) o where p.listed
  ));
  update starling.snapshot_value v set was = v.links, links = '', body = '', due = null, tick = p_tick
    where v.ctid = any(array(
      select o.row from jsonb_to_recordset(p_pages) p(place int, shard int, listed boolean)
        join unnest(p_row_places, starling.split_1(p_types, p_escaped), starling.split_1(p_eids, p_escaped),
          string_to_array(p_kinds, null)) n(place, type, eid, kind) on n.place = p.place and n.kind = 'c'
        cross join lateral (
          select v.ctid as row from starling.snapshot_value v
            where v.shard = p.shard and v.eid = n.eid and v.type = n.type and v.body <> '' offset 0
        ) o where p.listed
    ));
end
$$;
`;
