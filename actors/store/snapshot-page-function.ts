const closedSql = `
    perform starling.snapshot_closed_3(p_tick, v_pages, p_escaped, p_row_places, p_types, p_eids, p_kinds);`;

/**
 * The function that writes pages of several shards, by its number: 2 in step 7; 3 in step 8, with the pages of lists; 4 in step 9,
 * with confidences.
 */
export const pagesFunction = (
  number: 2 | 3 | 4,
): string => String.raw`create function starling.snapshot_pages_${number}(p_node text, p_tick bigint, p_joining boolean, p_pages text, p_escaped boolean,
  p_row_places int[], p_shards int[], p_types text, p_eids text, p_dues bigint[], p_kinds text, p_bodies text,${number === 4 ? " p_confidences text," : ""}
  p_value_places int[], p_value_shards int[], p_value_types text, p_value_eids text, p_value_dues bigint[], p_links text,
  p_values text) returns text language plpgsql as $$
declare
  v_lost text;
  v_pages jsonb;
  v_places int[];
  v_written jsonb := '{}';
  v_closed jsonb := '{}';
  v_gone jsonb := '{}';
begin
  select starling.fence_1(p_node, array_agg(p.shard), array_agg(p.epoch)) into v_lost
    from jsonb_to_recordset(p_pages::jsonb) p(shard int, epoch bigint);
  if v_lost is not null then
    return v_lost;
  end if;
  perform from jsonb_to_recordset(p_pages::jsonb) p(shard int)
    join starling.snapshot_mark m on m.shard = p.shard and m.tick = p_tick order by m.shard for update of m;
  select jsonb_agg(p.page), array_agg((p.page->>'place')::int) into v_pages, v_places
    from jsonb_array_elements(p_pages::jsonb) p(page)
    join starling.snapshot_mark m on m.shard = (p.page->>'shard')::int and m.tick = p_tick
    where not m.done and m.visited = p_joining and m.eid = p.page->>'after_eid' and m.type = p.page->>'after_type';
  if v_places is null then
    return null;
  end if;
  if not p_joining then
    select coalesce(jsonb_object_agg(g.place, g.closed), '{}') into v_gone
      from starling.snapshot_gone_${Math.min(number, 3)}(p_tick, v_pages, p_escaped, p_row_places, p_types, p_eids) g;
  end if;
  if p_shards <> '{}' then
    select coalesce(jsonb_object_agg(r.place, r.written), '{}'), coalesce(jsonb_object_agg(r.place, r.closed), '{}')
      into v_written, v_closed
      from starling.snapshot_rows_${number === 4 ? 3 : 2}(p_tick, v_places, p_escaped, p_row_places, p_shards, p_types, p_eids, p_dues, p_kinds,
        p_bodies${number === 4 ? ", p_confidences" : ""}) r;
  end if;
  if not p_joining then
    select v_gone || coalesce(jsonb_object_agg(p.place, starling.snapshot_absent_2(p_tick, p.shard, p.after_eid,
          p.after_type, case when p.visited then repeat(chr(1114111), 257) else p.eid end, p.type)), '{}') into v_gone
      from jsonb_to_recordset(v_pages) p(place int, shard int, after_eid text, after_type text, eid text, type text,
        visited boolean, whole boolean${number >= 3 ? ", listed boolean" : ""}) where not p.whole${number >= 3 ? " and not p.listed" : ""};${number >= 3 ? closedSql : ""}
    delete from starling.snapshot_image i
      using jsonb_to_recordset(v_pages) p(shard int, eid text, type text, visited boolean)
      where i.shard = p.shard and i.tick <= p_tick and (p.visited or (i.eid, i.type) <= (p.eid, p.type));
  end if;
  if p_value_dues <> '{}' then
    insert into starling.snapshot_value as v (shard, type, eid, tick, due, links, was, body)
      select n.shard, n.type, n.eid, p_tick, n.due, n.links, '', n.body
        from unnest(p_value_places, p_value_shards, starling.split_1(p_value_types, p_escaped),
          starling.split_1(p_value_eids, p_escaped), p_value_dues, starling.split_1(p_links, p_escaped),
          starling.split_1(p_values, p_escaped)) n(place, shard, type, eid, due, links, body)
        where n.place = any(v_places)
      on conflict (shard, eid, type) do update set tick = excluded.tick, due = excluded.due, links = excluded.links,
        was = v.links, body = excluded.body${number === 4 ? ", changes = ''" : ""};
  end if;
  insert into starling.snapshot_task (shard, tick, page, body)
    select m.shard, m.tick, m.page, p.tasks from jsonb_to_recordset(v_pages) p(shard int, tasks text)
      join starling.snapshot_mark m on m.shard = p.shard and m.tick = p_tick where p.tasks is not null;
  update starling.snapshot_mark m set visited = p.visited or p_joining, done = p.done, eid = p.eid, type = p.type,
      page = m.page + case when p.tasks is null then 0 else 1 end,
      counts = p.counts || jsonb_build_object(
        'written', coalesce((m.counts->>'written')::int, 0) + coalesce((v_written->>p.place::text)::int, 0),
        'closed', coalesce((m.counts->>'closed')::int, 0) + coalesce((v_closed->>p.place::text)::int, 0)
          + coalesce((v_gone->>p.place::text)::int, 0))
    from jsonb_to_recordset(v_pages) p(place int, shard int, eid text, type text, visited boolean, done boolean,
      counts jsonb, tasks text)
    where m.shard = p.shard and m.tick = p_tick;
  return null;
end
$$;
`;
