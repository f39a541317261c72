-- Written by test/support/write-old-database.ts: see there.

create schema if not exists starling;
create table if not exists starling.meta (key text primary key, value text not null);
insert into starling.meta values ('schema_version', '0') on conflict do nothing;


create table starling.shard (
  shard int primary key,
  epoch bigint not null,
  owner text
);

create table starling.claim (
  shard int primary key,
  claimant text not null,
  until timestamptz not null
);

create table starling.progress (
  shard int primary key,
  watermark bigint not null,
  delivered bigint not null,
  at timestamptz not null
) with (fillfactor = 50);

create table starling.channel (
  shard int not null,
  channel text collate "C" not null,
  number bigint not null,
  primary key (shard, channel)
) with (fillfactor = 70);

-- brief: the keys of a small segment, 4 bytes each, so that the index alone finds an entity's segments; else null.
-- keys: those of a large one; empty if brief holds them.
create table starling.log (
  shard int not null,
  seq bigint not null,
  last_seq bigint not null,
  at timestamptz not null,
  brief bytea,
  keys text collate "C" not null,
  head text collate "C" not null,
  body text collate "C" not null,
  primary key (shard, seq, at) include (brief)
) partition by range (at);
alter table starling.log alter keys set storage external, alter head set storage external, alter body set storage external;

-- Keys of entity and history name the eid before the type: a comparison ends at the first column that differs, and
-- types hardly ever do. The room in a page is for updates: as no index holds what they change, they touch none (HOT).
-- Records of 2 to 4 KB stay in their page as well, where an update costs a third less than in chunks of 2 KB apart. No
-- statistics of texts that no query compares: autovacuum would sort samples of them for nothing.
create table starling.entity (
  shard int not null,
  type text collate "C" not null,
  eid text collate "C" not null,
  created bigint not null,
  created_at timestamptz not null,
  applied bigint not null,
  tombstone boolean not null,
  state text collate "C" not null,
  primary key (shard, eid, type)
) with (fillfactor = 60, toast_tuple_target = 4080, autovacuum_vacuum_scale_factor = 0.1,
  autovacuum_analyze_scale_factor = 0.5);
alter table starling.entity alter state set storage external, alter state set statistics 0;
create index entity_by_type on starling.entity (type, eid);
create index entity_tombstone on starling.entity (shard) where tombstone;

-- Values with a long JSON text, each in a row of its own: see large-value.ts. Rows of 2 to 4 KB stay in their page.
create table starling.large_value (
  shard int not null,
  eid text collate "C" not null,
  type text collate "C" not null,
  attr text collate "C" not null,
  body text collate "C" not null,
  primary key (shard, eid, type, attr)
) with (fillfactor = 60, toast_tuple_target = 4080);
alter table starling.large_value alter body set storage external, alter body set statistics 0;

create table starling.history (
  shard int not null,
  type text collate "C" not null,
  eid text collate "C" not null,
  seq bigint not null,
  body text collate "C" not null,
  primary key (shard, eid, type, seq)
);
alter table starling.history alter body set storage external, alter body set statistics 0;

create table starling.refused (
  shard int not null,
  seq bigint not null,
  type text collate "C" not null,
  eid text collate "C" not null,
  primary key (shard, seq)
);

create table starling.dead_letter (
  shard int not null,
  seq bigint not null,
  number int not null,
  kind text not null check (kind in ('unapplied', 'hook')),
  hook text collate "C" not null,
  type text collate "C" not null,
  eid text collate "C" not null,
  code text not null,
  error text not null,
  at timestamptz not null,
  status text not null default 'open' check (status in ('open', 'replayed', 'discarded')),
  task text not null,
  primary key (shard, seq, number),
  unique (shard, seq, kind, hook)
);

-- What an entity owes below the watermark. seq to task are null when only entries behind the held one are left.
create table starling.obligation (
  shard int not null,
  type text collate "C" not null,
  eid text collate "C" not null,
  seq bigint,
  last_seq bigint,
  at timestamptz,
  hook text collate "C",
  place text,
  task text collate "C",
  first_waiting bigint,
  primary key (shard, type, eid)
);

create table starling.attempt (
  shard int primary key,
  from_seq bigint not null,
  to_seq bigint not null,
  deaths int not null
);

create table starling.session (
  session text collate "C" primary key,
  named boolean not null,
  closed boolean not null,
  opened_at timestamptz not null default clock_timestamp()
);


-- Both are as volatile as what they call, or the planner would not inline them.
create function starling.to_time_1(p_ms bigint) returns timestamptz language sql immutable parallel safe
return to_timestamp(p_ms::float8 / 1000);

-- date_part, as extract would reckon in numeric.
create function starling.to_ms_1(p_at timestamptz) returns float8 language sql stable parallel safe
return round(date_part('epoch', p_at) * 1000);

-- The opposite of pack.ts's escaping.
create function starling.unpack_1(p_value text, p_escaped boolean) returns text language sql immutable parallel safe
return case when p_escaped
  then replace(replace(replace(p_value, e'\x1df', e'\x1f'), e'\x1de', e'\x1e'), e'\x1dd', e'\x1d')
  else p_value end;

-- The values of a column that pack.ts joined: a column of one empty text is an empty text, too. In two functions, as
-- the planner does not inline one with a query in it.
create function starling.split_escaped_1(p_column text) returns text[] language sql immutable parallel safe
return (
  select array_agg(starling.unpack_1(t.r, true) order by t.i)
    from string_to_table(p_column, e'\x1e') with ordinality t(r, i)
);

create function starling.split_1(p_column text, p_escaped boolean) returns text[] language sql immutable parallel safe
return case when p_column = '' then array[''] when p_escaped then starling.split_escaped_1(p_column)
  else string_to_array(p_column, e'\x1e') end;

-- The shards that p_node may not write; if there is none, they are locked against a change of the epoch until the end
-- of the transaction. The comparison stands in a later statement than the locks: in the same one it would see the old
-- epoch.
create function starling.fence_1(p_node text, p_shards int[], p_epochs bigint[]) returns text language plpgsql as $$
declare
  v_lost int[];
begin
  select array_agg(c.shard) into v_lost from starling.claim c
    where c.shard = any(p_shards) and c.claimant <> p_node and c.until > clock_timestamp();
  if v_lost is null then
    perform pg_advisory_xact_lock_shared(1398030674, f.shard) from unnest(p_shards) f(shard);
  end if;
  return (
    select string_agg(lost.shard::text, ',' order by lost.shard) from (
      select f.shard from unnest(p_shards, p_epochs) f(shard, epoch) left join starling.shard s on s.shard = f.shard
        where s.epoch is distinct from f.epoch or s.owner is distinct from p_node
      union
      select unnest(v_lost)
    ) lost
  );
end
$$;


create function starling.ensure_partition_1(p_day date) returns void language plpgsql set lock_timeout = '5s' as $$
declare
  v_name text := 'log_' || to_char(p_day, 'YYYYMMDD');
  v_pending boolean;
begin
  perform pg_advisory_xact_lock(1398030675, 1);
  if to_regclass('starling.' || v_name) is null then
    execute format('create table starling.%I (like starling.log including defaults including constraints including storage)', v_name);
  end if;
  select i.inhdetachpending into v_pending from pg_inherits i where i.inhrelid = ('starling.' || v_name)::regclass;
  if v_pending then
    execute format('alter table starling.log detach partition starling.%I finalize', v_name);
  end if;
  if v_pending is distinct from false then
    execute format('alter table starling.log attach partition starling.%I for values from (%L) to (%L)', v_name,
      p_day::timestamp at time zone 'UTC', (p_day + 1)::timestamp at time zone 'UTC');
  end if;
end
$$;

-- Whether every shard has passed the last row of a partition, also one that is detached already.
create function starling.partition_passed_1(p_name text) returns boolean language plpgsql as $$
declare
  v_passed boolean;
begin
  execute format($q$
    select coalesce(bool_and(coalesce(least(p.watermark, p.delivered, o.passed), -1) >= m.last_seq), true)
      from (select shard, max(last_seq) as last_seq from starling.%I group by shard) m
        left join starling.progress p on p.shard = m.shard
        left join (select shard, min(first_waiting) - 1 as passed from starling.obligation group by shard) o
          on o.shard = m.shard
  $q$, p_name) into v_passed;
  return v_passed;
end
$$;

-- What only made sense beside the partition's rows.
create function starling.forget_refused_1(p_name text) returns void language plpgsql as $$
begin
  execute format($q$
    delete from starling.refused r using (select shard, max(last_seq) as last_seq from starling.%I group by shard) m
      where r.shard = m.shard and r.seq <= m.last_seq
  $q$, p_name);
end
$$;


create function starling.append_1(p_node text, p_shards int[], p_epochs bigint[], p_escaped boolean,
  p_log_shards int[], p_seqs bigint[], p_last_seqs bigint[], p_ats bigint[], p_keys text, p_heads text, p_bodies text,
  p_closings text) returns text language plpgsql as $$
declare
  v_lost text := starling.fence_1(p_node, p_shards, p_epochs);
  v_written bigint;
  v_closed bigint;
begin
  if v_lost is not null then
    return v_lost;
  end if;
  begin
    insert into starling.log (shard, seq, last_seq, at, brief, keys, head, body)
      select r.* from starling.log_rows_1(p_escaped, p_log_shards, p_seqs, p_last_seqs, p_ats, p_keys, p_heads, p_bodies) r
      where p_log_shards <> '{}';
    get diagnostics v_written = row_count;
  exception when unique_violation then
    insert into starling.log (shard, seq, last_seq, at, brief, keys, head, body)
      select r.* from starling.log_rows_1(p_escaped, p_log_shards, p_seqs, p_last_seqs, p_ats, p_keys, p_heads, p_bodies) r
      on conflict (shard, seq, at) do nothing;
    get diagnostics v_written = row_count;
  end;
  if p_closings <> '' then
    update starling.dead_letter d set status = 'replayed'
      from (select string_to_array(c, '-')::bigint[] from string_to_table(p_closings, ',') c) s(f)
      where d.shard = f[1] and d.seq = f[2] and d.number = f[3] and d.status = 'open';
    get diagnostics v_closed = row_count;
    if v_written > 0 and v_closed < cardinality(string_to_array(p_closings, ',')) then
      raise exception 'a dead letter is no longer open' using errcode = '22023';
    end if;
  end if;
  return null;
end
$$;

-- A key column that begins with a point is a brief, in hex.
create function starling.log_rows_1(p_escaped boolean, p_shards int[], p_seqs bigint[], p_last_seqs bigint[],
  p_ats bigint[], p_keys text, p_heads text, p_bodies text)
  returns table (shard int, seq bigint, last_seq bigint, at timestamptz, brief bytea, keys text, head text, body text)
language sql stable begin atomic
  select r.shard, r.seq, r.last_seq, starling.to_time_1(r.at),
      case when starts_with(r.keys, '.') then decode(substr(r.keys, 2), 'hex') end,
      case when starts_with(r.keys, '.') then '' else r.keys end, r.head, r.body
    from (
      select unnest(p_shards), unnest(p_seqs), unnest(p_last_seqs), unnest(p_ats),
          unnest(starling.split_1(p_keys, false)), unnest(starling.split_1(p_heads, p_escaped)),
          unnest(starling.split_1(p_bodies, p_escaped))
    ) r(shard, seq, last_seq, at, keys, head, body);
end;


create function starling.flush_obligations_1(p_escaped boolean, p_obligations text) returns void
language sql begin atomic
  insert into starling.obligation (shard, type, eid, seq, last_seq, at, hook, place, task, first_waiting)
    select f[1]::int, starling.unpack_1(f[2], p_escaped), starling.unpack_1(f[3], p_escaped), nullif(f[4], '')::bigint,
        nullif(f[5], '')::bigint, starling.to_time_1(nullif(f[6], '')::bigint), starling.unpack_1(f[7], p_escaped),
        starling.unpack_1(f[8], p_escaped), starling.unpack_1(f[9], p_escaped), nullif(f[10], '')::bigint
      from (select string_to_array(r, e'\x1f') from string_to_table(p_obligations, e'\x1e') r offset 0) s(f)
      where f[4] <> '' or f[10] <> ''
    on conflict (shard, type, eid) do update set seq = excluded.seq, last_seq = excluded.last_seq, at = excluded.at,
      hook = excluded.hook, place = excluded.place, task = excluded.task, first_waiting = excluded.first_waiting;
  delete from starling.obligation o
    using (select string_to_array(r, e'\x1f') from string_to_table(p_obligations, e'\x1e') r offset 0) s(f)
    where f[4] = '' and f[10] = '' and o.shard = f[1]::int and o.type = starling.unpack_1(f[2], p_escaped)
      and o.eid = starling.unpack_1(f[3], p_escaped);
end;

create function starling.flush_attempts_1(p_attempts text) returns void
language sql begin atomic
  insert into starling.attempt (shard, from_seq, to_seq, deaths)
    select f[1], f[2], f[3], f[4]
      from (select string_to_array(r, e'\x1f')::bigint[] from string_to_table(p_attempts, e'\x1e') r offset 0) s(f)
      where f[3] > 0
    on conflict (shard) do update set from_seq = excluded.from_seq, to_seq = excluded.to_seq, deaths = excluded.deaths;
  delete from starling.attempt a
    using (select string_to_array(r, e'\x1f')::bigint[] from string_to_table(p_attempts, e'\x1e') r offset 0) s(f)
    where f[3] = 0 and a.shard = f[1];
end;

-- The seq below which an acquiring owner needs to know nothing of the shard's answers and refusals.
create function starling.floor_1(p_shard int) returns bigint language sql stable
return least(
  coalesce((select p.watermark from starling.progress p where p.shard = p_shard), 0),
  (select min(least(o.seq, o.first_waiting)) - 1 from starling.obligation o where o.shard = p_shard)
);

create function starling.obligations_1(p_shard int) returns json language sql stable
return (
  select json_agg(json_build_array(o.type, o.eid, o.seq, o.last_seq, starling.to_ms_1(o.at), o.hook, o.place, o.task,
    o.first_waiting) order by least(o.seq, o.first_waiting)) from starling.obligation o where o.shard = p_shard
);


-- The large values of one record: bodies by attribute.
create function starling.large_values_1(p_shard int, p_type text, p_eid text) returns text
language sql stable set enable_seqscan = off set enable_bitmapscan = off begin atomic
  select json_object_agg(v.attr, v.body order by v.attr)::text from starling.large_value v
    where v.shard = p_shard and v.eid = p_eid and v.type = p_type;
end;

-- Writes a row for each body and deletes one for each empty body; an empty attr stands for all that the entity has.
-- Comes after the entities: what does not stand where this flush has put it is newer, and what does is kept from
-- changing until the end. Of a repeat nothing is written again.
create function starling.flush_large_1(p_escaped boolean, p_large text, p_bodies text) returns void
language sql set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan begin atomic
  with moved as materialized (
    select n.* from (
      select f[1]::int, f[2], starling.unpack_1(f[3], p_escaped), f[4]::bigint, starling.unpack_1(f[5], p_escaped), body
        from (
          select string_to_array(unnest(string_to_array(p_large, e'\x1e')), e'\x1f'),
            unnest(starling.split_1(p_bodies, p_escaped)) offset 0
        ) s(f, body)
    ) n(shard, type, eid, applied, attr, body), starling.entity e
      where e.shard = n.shard and e.type = n.type and e.eid = n.eid and e.applied = n.applied
      for no key update of e
  ), written as (
    insert into starling.large_value (shard, eid, type, attr, body)
      select m.shard, m.eid, m.type, m.attr, m.body from moved m where m.body <> ''
      on conflict (shard, eid, type, attr) do update set body = excluded.body where large_value.body <> excluded.body
  )
  delete from starling.large_value v using moved m
    where m.body = '' and v.shard = m.shard and v.eid = m.eid and v.type = m.type and (m.attr = '' or v.attr = m.attr);
end;

create function starling.flush_1(p_node text, p_shards int[], p_epochs bigint[], p_escaped boolean,
  p_entity_shards int[], p_entity_types text, p_entity_eids text, p_created bigint[], p_created_at bigint[],
  p_applied bigint[], p_tombstones boolean[], p_states text, p_history_shards int[], p_history_types text,
  p_history_eids text, p_seqs bigint[], p_bodies text, p_progress text, p_channels text, p_refused text, p_letters text,
  p_obligations text, p_attempts text, p_large text, p_large_bodies text) returns text language plpgsql as $$
declare
  v_lost text := starling.fence_1(p_node, p_shards, p_epochs);
begin
  if v_lost is not null then
    return v_lost;
  end if;
  for v_attempt in 1 .. 2 loop
    begin
      if p_entity_shards <> '{}' then
        perform starling.flush_entities_1(p_escaped, p_entity_shards, p_entity_types, p_entity_eids, p_created,
          p_created_at, p_applied, p_tombstones, p_states);
      end if;
      if p_large <> '' then
        perform starling.flush_large_1(p_escaped, p_large, p_large_bodies);
      end if;
      if p_history_shards <> '{}' then
        perform starling.flush_history_1(p_escaped, p_history_shards, p_history_types, p_history_eids, p_seqs, p_bodies,
          v_attempt > 1);
      end if;
      exit;
    exception when unique_violation then
      -- A repeat of a flush whose answer was lost, perhaps beside its first attempt, which has ended now.
      if v_attempt > 1 then
        raise;
      end if;
    end;
  end loop;
  if true = any(p_tombstones) then
    perform starling.flush_tombstones_1(p_escaped, p_entity_shards, p_entity_types, p_entity_eids, p_applied,
      p_tombstones);
  end if;
  if p_refused <> '' then
    insert into starling.refused (shard, seq, type, eid)
      select f[1]::int, f[4]::bigint, f[2], starling.unpack_1(f[3], p_escaped)
        from (select string_to_array(r, e'\x1f') from string_to_table(p_refused, e'\x1e') r offset 0) s(f)
      on conflict do nothing;
  end if;
  if p_letters <> '' then
    perform starling.flush_letters_1(p_escaped, p_letters);
  end if;
  if p_obligations <> '' then
    perform starling.flush_obligations_1(p_escaped, p_obligations);
  end if;
  if p_attempts <> '' then
    perform starling.flush_attempts_1(p_attempts);
  end if;
  if p_progress <> '' then
    perform starling.flush_progress_1(p_escaped, p_progress, p_channels);
  end if;
  return null;
end
$$;

-- The plan is made once and before the table has its size: without the settings it might read the whole table for ever.
create function starling.flush_entities_1(p_escaped boolean, p_shards int[], p_types text, p_eids text,
  p_created bigint[], p_created_at bigint[], p_applied bigint[], p_tombstones boolean[], p_states text) returns void
language sql set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan begin atomic
  merge into starling.entity e
    using (
      select unnest(p_shards), unnest(starling.split_1(p_types, p_escaped)),
          unnest(starling.split_1(p_eids, p_escaped)),
          unnest(p_created), unnest(p_created_at), unnest(p_applied), unnest(p_tombstones),
          unnest(starling.split_1(p_states, p_escaped))
    ) n(shard, type, eid, created, created_at, applied, tombstone, state)
    on e.shard = n.shard and e.type = n.type and e.eid = n.eid
    when matched and e.applied < n.applied then
      update set created = n.created, created_at = starling.to_time_1(n.created_at), applied = n.applied,
        tombstone = n.tombstone, state = n.state
    when not matched then
      insert (shard, type, eid, created, created_at, applied, tombstone, state)
        values (n.shard, n.type, n.eid, n.created, starling.to_time_1(n.created_at), n.applied, n.tombstone, n.state);
end;

-- Raises unique_violation for rows that are there, unless told that they may be: to look first costs as much as to
-- insert.
create function starling.flush_history_1(p_escaped boolean, p_shards int[], p_types text, p_eids text, p_seqs bigint[],
  p_bodies text, p_repeated boolean) returns void language plpgsql as $$
begin
  if p_repeated then
    insert into starling.history (shard, type, eid, seq, body)
      select unnest(p_shards), unnest(starling.split_1(p_types, p_escaped)),
          unnest(starling.split_1(p_eids, p_escaped)),
          unnest(p_seqs), unnest(starling.split_1(p_bodies, p_escaped))
      on conflict do nothing;
  else
    insert into starling.history (shard, type, eid, seq, body)
      select unnest(p_shards), unnest(starling.split_1(p_types, p_escaped)),
          unnest(starling.split_1(p_eids, p_escaped)),
          unnest(p_seqs), unnest(starling.split_1(p_bodies, p_escaped));
  end if;
end
$$;

create function starling.flush_tombstones_1(p_escaped boolean, p_shards int[], p_types text, p_eids text,
  p_applied bigint[], p_tombstones boolean[]) returns void
language sql set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan begin atomic
  delete from starling.history h
    using (
      select unnest(p_shards), unnest(starling.split_1(p_types, p_escaped)),
          unnest(starling.split_1(p_eids, p_escaped)),
          unnest(p_applied), unnest(p_tombstones)
    ) n(shard, type, eid, applied, tombstone)
    where n.tombstone and h.shard = n.shard and h.type = n.type and h.eid = n.eid and h.seq <= n.applied;
end;

create function starling.flush_letters_1(p_escaped boolean, p_letters text) returns void
language sql begin atomic
  insert into starling.dead_letter (shard, seq, number, kind, hook, type, eid, code, error, at, task)
    select n.shard, n.seq, (select count(*) from starling.dead_letter d where d.shard = n.shard and d.seq = n.seq)
        + row_number() over (partition by n.shard, n.seq order by n.ordinal), n.f[5], n.hook, n.f[2],
        starling.unpack_1(n.f[3], p_escaped), n.f[8], starling.unpack_1(n.f[9], p_escaped),
        starling.to_time_1(n.f[6]::bigint), starling.unpack_1(n.f[10], p_escaped)
      from (
        select f, f[1]::int, f[4]::bigint, starling.unpack_1(f[7], p_escaped), ordinal from (
          select string_to_array(r, e'\x1f'), i from string_to_table(p_letters, e'\x1e') with ordinality t(r, i) offset 0
        ) s(f, ordinal)
      ) n(f, shard, seq, hook, ordinal)
      where not exists (
        select from starling.dead_letter d where d.shard = n.shard and d.seq = n.seq and d.kind = n.f[5]
          and d.hook = n.hook
      )
    on conflict do nothing;
end;

create function starling.flush_progress_1(p_escaped boolean, p_progress text, p_channels text) returns void
language sql begin atomic
  insert into starling.progress (shard, watermark, delivered, at)
    select f[1]::int, f[2]::bigint, f[3]::bigint, starling.to_time_1(f[4]::bigint)
      from (select string_to_array(r, e'\x1f') from string_to_table(p_progress, e'\x1e') r offset 0) s(f)
    on conflict (shard) do update set watermark = greatest(progress.watermark, excluded.watermark),
      delivered = greatest(progress.delivered, excluded.delivered), at = greatest(progress.at, excluded.at);
  insert into starling.channel (shard, channel, number)
    select f[1]::int, starling.unpack_1(f[2], p_escaped), f[3]::bigint
      from (select string_to_array(r, e'\x1f') from string_to_table(p_channels, e'\x1e') r offset 0) s(f)
    on conflict (shard, channel) do update set number = excluded.number where channel.number < excluded.number;
  delete from starling.entity e using starling.progress p
    where e.tombstone and p.shard = e.shard and e.applied <= p.watermark
      and e.shard in (select split_part(r, e'\x1f', 1)::int from string_to_table(p_progress, e'\x1e') r);
end;


create function starling.claim_1(p_node text, p_shards int[]) returns setof int language sql begin atomic
  insert into starling.claim as c (shard, claimant, until)
    select s.shard, p_node, clock_timestamp() + interval '2 s' from unnest(p_shards) s(shard) order by s.shard
    on conflict (shard) do update set claimant = excluded.claimant, until = excluded.until
      where c.claimant = p_node or c.until <= clock_timestamp()
    returning shard;
end;

create function starling.acquire_1(p_node text, p_shards int[])
  returns table (shard int, epoch float8, watermark float8, last_seq float8, delivered float8, last_at float8,
    channels json, refused json, letters json, clean boolean, obligations json, attempt json) language plpgsql as $$
#variable_conflict use_column
declare
  v_taken int[];
  v_owned int[];
begin
  perform pg_advisory_xact_lock(1398030674, f.shard) from unnest(p_shards) f(shard);
  insert into starling.shard (shard, epoch, owner) select f.shard, 0, null from unnest(p_shards) f(shard)
    on conflict do nothing;
  v_owned := array(select s.shard from starling.shard s where s.shard = any(p_shards) and s.owner is not null);
  with bumped as (
    update starling.shard s set epoch = s.epoch + 1, owner = p_node from starling.claim c
      where s.shard = any(p_shards) and c.shard = s.shard and c.claimant = p_node and c.until > clock_timestamp()
      returning s.shard
  ) select array_agg(b.shard) into v_taken from bumped b;
  delete from starling.claim c where c.shard = any(p_shards) and c.claimant = p_node;
  return query select s.shard, s.epoch::float8, coalesce(p.watermark, 0)::float8,
      greatest(l.last_seq, p.watermark, 0)::float8, coalesce(p.delivered, 0)::float8,
      coalesce(starling.to_ms_1(greatest(l.at, p.at)), 0),
      (select json_agg(json_build_array(c.channel, c.number)) from starling.channel c where c.shard = s.shard),
      (select json_agg(r.seq) from starling.refused r where r.shard = s.shard and r.seq > b.floor),
      (select json_agg(json_build_array(d.seq, d.hook)) from starling.dead_letter d
        where d.shard = s.shard and d.seq > b.floor and d.kind = 'hook'),
      not s.shard = any(v_owned), starling.obligations_1(s.shard),
      (select json_build_array(a.from_seq, a.to_seq, a.deaths) from starling.attempt a where a.shard = s.shard)
    from unnest(v_taken) f(shard)
      join starling.shard s on s.shard = f.shard
      left join starling.progress p on p.shard = f.shard
      cross join lateral (select starling.floor_1(f.shard) offset 0) b(floor)
      left join lateral (
        select g.last_seq, g.at from starling.log g where g.shard = f.shard order by g.seq desc limit 1
      ) l on true
    order by s.shard;
end
$$;

create function starling.unblock_1(p_pid int) returns int language sql begin atomic
  select count(pg_terminate_backend(b.pid))::int from unnest(pg_blocking_pids(p_pid)) b(pid) where b.pid > 0;
end;

create function starling.release_1(p_node text, p_shards int[], p_epochs bigint[]) returns void
language sql begin atomic
  update starling.shard s set owner = null from unnest(p_shards, p_epochs) f(shard, epoch)
    where s.shard = f.shard and s.epoch = f.epoch and s.owner = p_node;
end;


create function starling.load_1(p_escaped boolean, p_shards int[], p_types text, p_eids text) returns table (place int,
  created bigint, created_at timestamptz, applied bigint, tombstone boolean, state text, large text)
  language sql stable begin atomic
  select k.place, e.created, e.created_at, e.applied, e.tombstone, e.state,
      case when left(e.state, 11) = '{"#large":{' then starling.large_values_1(k.shard, k.type, k.eid) end
    from (
      select generate_series(1, cardinality(p_shards)), unnest(p_shards), unnest(starling.split_1(p_types, p_escaped)),
        unnest(starling.split_1(p_eids, p_escaped))
    ) k(place, shard, type, eid), lateral (
      select * from starling.entity e where e.shard = k.shard and e.type = k.type and e.eid = k.eid offset 0
    ) e;
end;


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


create function starling.open_session_1(p_session text, p_named boolean)
  returns table (session text, named boolean, closed boolean) language sql begin atomic
  insert into starling.session as s (session, named, closed) values (p_session, p_named, false)
    on conflict (session) do update set closed = s.closed
    returning s.session, s.named, s.closed;
end;

create function starling.close_session_1(p_session text) returns void language sql begin atomic
  insert into starling.session as s (session, named, closed) values (p_session, false, true)
    on conflict (session) do update set closed = true where not s.closed;
end;


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


-- What stored records may hold. attr is empty in the row of a type's own ids. data_type is how the model last wrote the
-- type, for people; fingerprint decides. Rows of what the model no longer has stay: records still hold it.
create table starling.attribute (
  type text collate "C" not null,
  attr text collate "C" not null,
  kind text not null check (kind in ('id', 'plain', 'observations', 'timeseries')),
  data_type text not null,
  fingerprint text not null,
  primary key (type, attr)
);


-- The server and the timeline in which each shard was last acquired (R25).
create table starling.world (
  shard int primary key,
  system_identifier text not null,
  timeline int not null
);


-- The timeline of what is written now; pg_control_checkpoint() still names the old one until the next checkpoint. A
-- server in recovery raises an error of class 55.
create function starling.world_1() returns table (system_identifier text, timeline int) language sql volatile begin atomic
  select c.system_identifier::text, ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
    from pg_control_system() c;
end;


create function starling.acquire_2(p_node text, p_shards int[])
  returns table (shard int, epoch float8, watermark float8, last_seq float8, delivered float8, last_at float8,
    channels json, refused json, letters json, clean boolean, obligations json, attempt json, jumped boolean)
  language plpgsql as $$
#variable_conflict use_column
declare
  v_world record;
  v_claimed int[];
  v_jumped int[];
begin
  perform pg_advisory_xact_lock(1398030674, f.shard) from unnest(p_shards) f(shard);
  select * into v_world from starling.world_1();
  v_claimed := array(select c.shard from starling.claim c
    where c.shard = any(p_shards) and c.claimant = p_node and c.until > clock_timestamp());
  v_jumped := array(select w.shard from starling.world w where w.shard = any(v_claimed)
    and (w.system_identifier, w.timeline) is distinct from (v_world.system_identifier, v_world.timeline));
  update starling.shard s set epoch = s.epoch + 999 where s.shard = any(v_jumped);
  insert into starling.world as w (shard, system_identifier, timeline)
    select f.shard, v_world.system_identifier, v_world.timeline from unnest(v_claimed) f(shard)
    on conflict (shard) do update
      set system_identifier = excluded.system_identifier, timeline = excluded.timeline
      where (w.system_identifier, w.timeline) is distinct from (excluded.system_identifier, excluded.timeline);
  return query select a.*, a.shard = any(v_jumped) from starling.acquire_1(p_node, p_shards) a;
end
$$;


-- The newest membership by which somebody acquired (R22).
create table starling.membership (
  one boolean primary key default true check (one),
  revision bigint not null
);

create function starling.claim_2(p_node text, p_shards int[], p_epochs bigint[], p_revision bigint) returns setof int
language sql begin atomic
  with newest as (
    insert into starling.membership as m (revision) values (coalesce(p_revision, 0))
      on conflict (one) do update set revision = greatest(m.revision, excluded.revision) returning revision
  )
  insert into starling.claim as c (shard, claimant, until)
    select f.shard, p_node, clock_timestamp() + interval '2 s'
      from newest cross join unnest(p_shards, p_epochs) f(shard, epoch)
      left join starling.shard s on s.shard = f.shard
      where coalesce(s.epoch, 0) = f.epoch and (p_revision is null or p_revision = newest.revision) order by f.shard
    on conflict (shard) do update set claimant = excluded.claimant, until = excluded.until
      where c.claimant = p_node or c.until <= clock_timestamp()
    returning shard;
end;


alter table starling.session add column opening int not null default 0;

create function starling.open_session_2(p_session text, p_named boolean)
  returns table (session text, named boolean, closed boolean, opening int) language sql begin atomic
  insert into starling.session as s (session, named, closed, opening) values (p_session, p_named, false, 1)
    on conflict (session) do update set opening = s.opening + 1
    returning s.session, s.named, s.closed, s.opening;
end;


create table starling.flushed (
  node text not null,
  lane int not null,
  number bigint not null,
  at timestamptz not null default clock_timestamp(),
  primary key (node, lane)
) with (fillfactor = 50);

create function starling.flush_2(p_lane int, p_number bigint, p_node text, p_shards int[], p_epochs bigint[],
  p_escaped boolean, p_entity_shards int[], p_entity_types text, p_entity_eids text, p_created bigint[],
  p_created_at bigint[], p_applied bigint[], p_tombstones boolean[], p_states text, p_history_shards int[],
  p_history_types text, p_history_eids text, p_seqs bigint[], p_bodies text, p_progress text, p_channels text,
  p_refused text, p_letters text, p_obligations text, p_attempts text, p_large text, p_large_bodies text)
  returns text language plpgsql as $$
declare
  v_number bigint;
  v_lost text;
begin
  insert into starling.flushed (node, lane, number) values (p_node, p_lane, 0) on conflict do nothing;
  select f.number into v_number from starling.flushed f where f.node = p_node and f.lane = p_lane for update;
  if v_number >= p_number then
    return starling.fence_1(p_node, p_shards, p_epochs);
  end if;
  v_lost := starling.flush_1(p_node, p_shards, p_epochs, p_escaped, p_entity_shards, p_entity_types, p_entity_eids,
    p_created, p_created_at, p_applied, p_tombstones, p_states, p_history_shards, p_history_types, p_history_eids, p_seqs,
    p_bodies, p_progress, p_channels, p_refused, p_letters, p_obligations, p_attempts, p_large, p_large_bodies);
  if v_lost is null then
    update starling.flushed f set number = p_number, at = clock_timestamp() where f.node = p_node and f.lane = p_lane;
  end if;
  return v_lost;
end
$$;


create table starling.history_page (
  shard int not null,
  eid text collate "C" not null,
  type text collate "C" not null,
  attr text collate "C" not null,
  t2 float8 not null,
  seq bigint not null,
  place int not null,
  t1 float8 not null,
  cut float8 not null,
  body text collate "C" not null,
  primary key (shard, eid, type, attr, t2, seq, place)
) with (toast_tuple_target = 4080, autovacuum_vacuum_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.5);
alter table starling.history_page alter body set storage external, alter body set statistics 0;
create index history_page_by_age on starling.history_page (type, attr, t2);

-- What cleaning has taken by age: whatever ended before t2.
create table starling.history_horizon (
  type text collate "C" not null,
  attr text collate "C" not null,
  t2 float8 not null,
  primary key (type, attr)
);

create or replace function starling.flush_tombstones_1(p_escaped boolean, p_shards int[], p_types text, p_eids text,
  p_applied bigint[], p_tombstones boolean[]) returns void
language sql set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off
set plan_cache_mode = force_generic_plan begin atomic
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

-- False, and nothing done, if a row or page has gone.
create function starling.fold_history_1(p_escaped boolean, p_row_shards int[], p_row_types text, p_row_eids text,
  p_row_seqs bigint[], p_old_shards int[], p_old_types text, p_old_eids text, p_old_attrs text, p_old_t2s float8[],
  p_old_seqs bigint[], p_old_places int[], p_shards int[], p_types text, p_eids text, p_attrs text, p_t2s float8[],
  p_seqs bigint[], p_places int[], p_t1s float8[], p_cuts float8[], p_bodies text) returns boolean language plpgsql
  set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off
  set plan_cache_mode = force_generic_plan as $$
declare
  v_count bigint;
begin
  delete from starling.history h using (
    select unnest(p_row_shards), unnest(starling.split_1(p_row_types, p_escaped)),
      unnest(starling.split_1(p_row_eids, p_escaped)), unnest(p_row_seqs)
  ) n(shard, type, eid, seq) where h.shard = n.shard and h.type = n.type and h.eid = n.eid and h.seq = n.seq;
  get diagnostics v_count = row_count;
  if v_count <> cardinality(p_row_seqs) then
    raise exception using errcode = 'P0F01';
  end if;
  if p_old_shards <> '{}' then
    delete from starling.history_page p using (
      select unnest(p_old_shards), unnest(starling.split_1(p_old_types, p_escaped)),
        unnest(starling.split_1(p_old_eids, p_escaped)), unnest(starling.split_1(p_old_attrs, p_escaped)),
        unnest(p_old_t2s), unnest(p_old_seqs), unnest(p_old_places)
    ) n(shard, type, eid, attr, t2, seq, place)
      where p.shard = n.shard and p.eid = n.eid and p.type = n.type and p.attr = n.attr and p.t2 = n.t2
        and p.seq = n.seq and p.place = n.place;
    get diagnostics v_count = row_count;
    if v_count <> cardinality(p_old_shards) then
      raise exception using errcode = 'P0F01';
    end if;
  end if;
  if p_shards <> '{}' then
    insert into starling.history_page (shard, type, eid, attr, t2, seq, place, t1, cut, body)
      select unnest(p_shards), unnest(starling.split_1(p_types, p_escaped)), unnest(starling.split_1(p_eids, p_escaped)),
        unnest(starling.split_1(p_attrs, p_escaped)), unnest(p_t2s), unnest(p_seqs), unnest(p_places), unnest(p_t1s),
        unnest(p_cuts), unnest(starling.split_1(p_bodies, p_escaped));
  end if;
  return true;
exception when sqlstate 'P0F01' then
  return false;
end
$$;

-- How many pages went, at most p_limit. Pages that somebody is just replacing wait for the next time.
create function starling.clean_history_1(p_type text, p_attr text, p_before float8, p_limit int) returns int
language plpgsql as $$
declare
  v_count int;
begin
  insert into starling.history_horizon (type, attr, t2) values (p_type, p_attr, p_before)
    on conflict (type, attr) do update set t2 = excluded.t2 where history_horizon.t2 < excluded.t2;
  delete from starling.history_page where ctid = any(array(
    select ctid from starling.history_page where type = p_type and attr = p_attr and t2 < p_before
      order by t2 limit p_limit for update skip locked
  ));
  get diagnostics v_count = row_count;
  return v_count;
end
$$;


-- spans: when the link was observed, Unix ms; null: it is plain, and holds as long as the row stands.
create table starling.link (
  shard int not null,
  eid text collate "C" not null,
  type text collate "C" not null,
  reverse boolean not null,
  attr text collate "C" not null,
  other_type text collate "C" not null,
  other text collate "C" not null,
  spans int8multirange,
  primary key (shard, eid, type, reverse, attr, other_type, other)
) with (fillfactor = 80);

create function starling.bounded_spans_1(p_spans int8multirange) returns int8multirange
language sql immutable parallel safe begin atomic
  select case when p_spans is null or (select count(*) from unnest(p_spans)) <= 64 then p_spans
    else p_spans + (
      select range_agg(g.gap) from (
        select s.gap from (
          select int8range(upper(r.span), lead(lower(r.span)) over (order by r.span)) as gap from unnest(p_spans) r(span)
        ) s where not upper_inf(s.gap)
          order by upper(s.gap) - lower(s.gap) limit (select count(*) - 64 from unnest(p_spans))
      ) g
    ) end;
end;

-- Whether no later flush of the lane has written, nor this one. Its row is locked until the end, as by the flush itself.
create function starling.next_flush_1(p_node text, p_lane int, p_number bigint) returns boolean language plpgsql as $$
declare
  v_number bigint;
begin
  insert into starling.flushed (node, lane, number) values (p_node, p_lane, 0) on conflict do nothing;
  select f.number into v_number from starling.flushed f where f.node = p_node and f.lane = p_lane for update;
  return v_number < p_number;
end
$$;

-- One row each: shard, type, eid, action, reverse, attr, other type, other, spans. Actions: c all rows of the entity go, d the
-- row goes, p it is plain, s it gains spans, r it has these spans alone.
create function starling.link_rows_1(p_escaped boolean, p_links text) returns table (shard int, type text, eid text,
  action text, reverse boolean, attr text, other_type text, other text, spans int8multirange)
language sql immutable begin atomic
  select f[1]::int, starling.unpack_1(f[2], p_escaped), starling.unpack_1(f[3], p_escaped), f[4], f[5]::boolean,
      starling.unpack_1(f[6], p_escaped), starling.unpack_1(f[7], p_escaped), starling.unpack_1(f[8], p_escaped),
      nullif(f[9], '')::int8multirange
    from (select string_to_array(r, e'\x1f') from string_to_table(p_links, e'\x1e') r offset 0) s(f);
end;

create function starling.flush_links_1(p_escaped boolean, p_links text) returns boolean language plpgsql
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off set plan_cache_mode = force_generic_plan
as $$
begin
  delete from starling.link l using starling.link_rows_1(p_escaped, p_links) n
    where n.action = 'c' and l.shard = n.shard and l.eid = n.eid and l.type = n.type;
  delete from starling.link l using starling.link_rows_1(p_escaped, p_links) n
    where n.action in ('d', 'r') and l.shard = n.shard and l.eid = n.eid and l.type = n.type and l.reverse = n.reverse
      and l.attr = n.attr and l.other_type = n.other_type and l.other = n.other;
  insert into starling.link (shard, eid, type, reverse, attr, other_type, other, spans)
    select n.shard, n.eid, n.type, n.reverse, n.attr, n.other_type, n.other, starling.bounded_spans_1(n.spans)
      from starling.link_rows_1(p_escaped, p_links) n where n.action in ('p', 's', 'r')
    on conflict (shard, eid, type, reverse, attr, other_type, other)
      do update set spans = starling.bounded_spans_1(link.spans + excluded.spans);
  return true;
end
$$;


-- at: the instant T. counts: see SnapshotCounts; hooks: by id, see SnapshotHookReport. node: who coordinated last.
create table starling.snapshot_run (
  tick bigint primary key,
  at timestamptz not null,
  kind text not null check (kind in ('full', 'changed')),
  cause text not null check (cause in ('schedule', 'demand')),
  status text not null check (status in ('running', 'finished', 'failed')),
  phase text not null,
  base bigint not null,
  fingerprint text not null,
  started_at timestamptz not null,
  ended_at timestamptz,
  counts jsonb not null default '{}',
  hooks jsonb not null default '{}',
  error text
);
create unique index snapshot_run_running on starling.snapshot_run ((true)) where status = 'running';
create index snapshot_run_finished on starling.snapshot_run (tick) where status = 'finished';

-- What somebody asks of the coordinator: a run, whose tick is the answer, or the end of one.
create table starling.snapshot_request (
  id text primary key,
  kind text not null check (kind in ('run', 'end')),
  whole boolean not null,
  tick bigint,
  error text,
  at timestamptz not null default clock_timestamp()
);
create index snapshot_request_open on starling.snapshot_request (at) where tick is null or kind = 'end';

-- What a node did for a tick: its init hooks before its first entity, its finalize hooks after the last one.
create table starling.snapshot_node (
  tick bigint not null,
  node text not null,
  step text not null check (step in ('init', 'finalize')),
  hooks jsonb not null,
  primary key (tick, node, step)
);

-- The first answer per tick and hook of those that run on every node: its tasks, as snapshot_task has them.
create table starling.snapshot_answer (
  tick bigint not null,
  hook text collate "C" not null,
  number bigint not null,
  body text not null,
  primary key (tick, hook)
);

-- A shard's place in a tick. seq: of the mark in its log. eid, type: the last entity that is written; below it nothing is
-- kept any more. visited: all entities have been looked at; the cursor then goes over components. page: of tasks.
create table starling.snapshot_mark (
  shard int not null,
  tick bigint not null,
  seq bigint not null,
  eid text collate "C" not null default '',
  type text collate "C" not null default '',
  page int not null default 0,
  visited boolean not null default false,
  done boolean not null default false,
  counts jsonb not null default '{}',
  primary key (shard, tick)
) with (fillfactor = 50);

-- What an entity was at the mark, of those that changed since; state: whole, null: there was none. history: copied when the
-- entity was deleted since, which takes its own away.
create table starling.snapshot_image (
  shard int not null,
  eid text collate "C" not null,
  type text collate "C" not null,
  tick bigint not null,
  created bigint not null,
  created_at timestamptz not null,
  applied bigint not null,
  state text collate "C",
  history text collate "C",
  primary key (shard, eid, type, tick)
);
alter table starling.snapshot_image alter state set storage external, alter state set statistics 0,
  alter history set storage external, alter history set statistics 0;

-- Of entities whose types are linked: their values at T. links: whom they link to over paths of hooks; was: the same before
-- the tick. An empty body: the entity went in that tick.
create table starling.snapshot_value (
  shard int not null,
  eid text collate "C" not null,
  type text collate "C" not null,
  tick bigint not null,
  due bigint,
  links text collate "C" not null,
  was text collate "C" not null,
  body text collate "C" not null,
  primary key (shard, eid, type)
);
alter table starling.snapshot_value alter body set storage external, alter body set statistics 0;

-- Tasks of hooks on their way into the ingestion, a row for what one page or component gave.
create table starling.snapshot_task (
  shard int not null,
  tick bigint not null,
  page int not null,
  body text collate "C" not null,
  primary key (shard, tick, page)
);

-- due: when time alone changes the entity next, Unix ms; of open rows.
create table starling.snapshot (
  shard int not null,
  type text collate "C" not null,
  eid text collate "C" not null,
  from_tick bigint not null,
  to_tick bigint,
  due bigint,
  body jsonb not null,
  primary key (shard, eid, type, from_tick)
) with (toast_tuple_target = 4080, autovacuum_vacuum_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.5);
create index snapshot_value_due on starling.snapshot_value (shard, due) where due is not null;
create unique index snapshot_open on starling.snapshot (shard, eid, type) where to_tick is null;
create index snapshot_due on starling.snapshot (shard, due) where to_tick is null and due is not null;
create index snapshot_by_end on starling.snapshot (shard, to_tick) where to_tick is not null;
-- For lists by eid; those of attributes are made as the model says.
create index snapshot_by_type on starling.snapshot (type, eid) where to_tick is null;
alter table starling.snapshot alter body set statistics 0;


create function starling.snapshot_begin_1(p_node text, p_shard int, p_epoch bigint, p_at bigint, p_kind text,
  p_cause text, p_fingerprint text, p_requests text) returns table (lost text, tick float8, begun boolean) language plpgsql as $$
declare
  v_lost text := starling.fence_1(p_node, array[p_shard], array[p_epoch]);
  v_tick bigint;
begin
  if v_lost is not null then
    return query select v_lost, 0::float8, false;
    return;
  end if;
  select r.tick into v_tick from starling.snapshot_run r where r.status = 'running';
  if found then
    return query select null::text, v_tick::float8, false;
    return;
  end if;
  insert into starling.snapshot_run as r (tick, at, kind, cause, status, phase, base, fingerprint, started_at)
    select coalesce(max(o.tick), 0) + 1, starling.to_time_1(p_at), p_kind, p_cause, 'running', 'visit',
        coalesce(max(o.tick) filter (where o.status = 'finished'), 0), p_fingerprint, clock_timestamp()
      from starling.snapshot_run o
    returning r.tick into v_tick;
  update starling.snapshot_request q set tick = v_tick where q.id = any(string_to_array(p_requests, ','));
  delete from starling.snapshot_request q where q.at < clock_timestamp() - interval '1 day';
  return query select null::text, v_tick::float8, true;
end
$$;

-- An ended run stays as it is: what comes late changes nothing.
create function starling.snapshot_note_1(p_node text, p_shard int, p_epoch bigint, p_tick bigint, p_status text,
  p_phase text, p_counts text, p_hooks text, p_error text) returns text language plpgsql as $$
declare
  v_lost text := starling.fence_1(p_node, array[p_shard], array[p_epoch]);
begin
  if v_lost is null then
    update starling.snapshot_run set status = p_status, phase = p_phase, counts = p_counts::jsonb,
        hooks = coalesce(p_hooks::jsonb, hooks), error = p_error,
        ended_at = case when p_status <> 'running' then clock_timestamp() end
      where tick = p_tick and status = 'running';
  end if;
  return v_lost;
end
$$;

create function starling.snapshot_forget_1(p_node text, p_shard int, p_epoch bigint, p_before bigint) returns int
language plpgsql as $$
declare
  v_count int;
begin
  if starling.fence_1(p_node, array[p_shard], array[p_epoch]) is not null then
    return 0;
  end if;
  delete from starling.snapshot_run r
    where r.ended_at < starling.to_time_1(p_before)
      and r.tick < (select max(o.tick) from starling.snapshot_run o where o.status = 'finished');
  get diagnostics v_count = row_count;
  delete from starling.snapshot_answer a
    where a.body = '' and not exists (select from starling.snapshot_run r where r.tick = a.tick);
  delete from starling.snapshot_node n where not exists (select from starling.snapshot_run r where r.tick = n.tick);
  return v_count;
end
$$;

-- The tasks of one answer have a number of their own within the tick: it is that of their batch.
create function starling.snapshot_node_1(p_tick bigint, p_node text, p_step text, p_hooks text, p_answers text)
returns void language plpgsql as $$
begin
  perform from starling.snapshot_run r where r.tick = p_tick and r.status = 'running' for share;
  if not found then
    return;
  end if;
  insert into starling.snapshot_node (tick, node, step, hooks) values (p_tick, p_node, p_step, p_hooks::jsonb)
    on conflict do nothing;
  if not found then
    return;
  end if;
  lock table starling.snapshot_answer in share row exclusive mode;
  insert into starling.snapshot_answer (tick, hook, number, body)
    select p_tick, a.hook, (select count(*) from starling.snapshot_answer o where o.tick = p_tick) + row_number() over (),
        a.body
      from jsonb_to_recordset(p_answers::jsonb) a(hook text, body text)
      where not exists (select from starling.snapshot_answer o where o.tick = p_tick and o.hook = a.hook);
end
$$;


-- Takes back what failed ticks above the base have written, before the first page of this one; and forgets older marks.
create function starling.snapshot_open_1(p_node text, p_shard int, p_epoch bigint, p_tick bigint, p_base bigint)
returns text language plpgsql as $$
declare
  v_lost text := starling.fence_1(p_node, array[p_shard], array[p_epoch]);
begin
  if v_lost is not null then
    return v_lost;
  end if;
  perform from starling.snapshot_mark m
    where m.shard = p_shard and m.tick = p_tick and not m.visited and m.eid = '' and m.type = '' for update;
  if not found then
    return null;
  end if;
  if p_base < p_tick - 1 then
    delete from starling.snapshot s where s.shard = p_shard and s.to_tick is null and s.from_tick > p_base;
    update starling.snapshot s set to_tick = null where s.shard = p_shard and s.to_tick > p_base;
  end if;
  delete from starling.snapshot_image i where i.shard = p_shard and i.tick < p_tick;
  delete from starling.snapshot_mark m where m.shard = p_shard and m.tick < p_tick and m.tick <> p_base;
  return null;
end
$$;

-- Kinds: b a body, c the snapshot ends, k it stands. Plans are made once and
-- before the tables have their size: without the settings they might read them whole.
create function starling.snapshot_rows_1(p_tick bigint, p_escaped boolean, p_shards int[], p_types text, p_eids text,
  p_dues bigint[], p_kinds text, p_bodies text, out written int, out closed int) language plpgsql
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off set plan_cache_mode = force_generic_plan
as $$
begin
  update starling.snapshot s set to_tick = p_tick
    from unnest(p_shards, starling.split_1(p_types, p_escaped), starling.split_1(p_eids, p_escaped),
      string_to_array(p_kinds, null), starling.split_1(p_bodies, p_escaped)) n(shard, type, eid, kind, body)
    where n.kind <> 'k' and s.shard = n.shard and s.eid = n.eid and s.type = n.type and s.to_tick is null
      and s.from_tick < p_tick and case when n.kind = 'c' then true else s.body <> n.body::jsonb end;
  update starling.snapshot s set due = n.due
    from unnest(p_shards, starling.split_1(p_types, p_escaped), starling.split_1(p_eids, p_escaped), p_dues,
      string_to_array(p_kinds, null)) n(shard, type, eid, due, kind)
    where n.kind = 'b' and s.shard = n.shard and s.eid = n.eid and s.type = n.type and s.to_tick is null
      and s.due is distinct from n.due;
  insert into starling.snapshot (shard, type, eid, from_tick, due, body)
    select n.shard, n.type, n.eid, p_tick, n.due, n.body::jsonb
      from unnest(p_shards, starling.split_1(p_types, p_escaped), starling.split_1(p_eids, p_escaped), p_dues,
        string_to_array(p_kinds, null), starling.split_1(p_bodies, p_escaped)) n(shard, type, eid, due, kind, body)
      where n.kind = 'b' and not exists (
        select from starling.snapshot s
          where s.shard = n.shard and s.eid = n.eid and s.type = n.type and s.to_tick is null
      );
  get diagnostics written = row_count;
  select count(*) into closed
    from unnest(p_shards, starling.split_1(p_types, p_escaped), starling.split_1(p_eids, p_escaped),
        string_to_array(p_kinds, null)) n(shard, type, eid, kind)
    where n.kind = 'c' and exists (
      select from starling.snapshot s
        where s.shard = n.shard and s.eid = n.eid and s.type = n.type and s.to_tick = p_tick
    );
end
$$;

-- Ends the snapshots, and drops the values, of entities between the two places that are not among the given ones. Without
-- an end: to the last entity.
create function starling.snapshot_gone_1(p_tick bigint, p_shard int, p_after_eid text, p_after_type text, p_eid text,
  p_type text, p_escaped boolean, p_types text, p_eids text) returns int language plpgsql
set enable_mergejoin = off set enable_seqscan = off as $$
declare
  v_count int;
begin
  with n as materialized (
    select * from unnest(starling.split_1(p_types, p_escaped), starling.split_1(p_eids, p_escaped)) n(type, eid)
  ) update starling.snapshot s set to_tick = p_tick
    where s.shard = p_shard and (s.eid, s.type) > (p_after_eid, p_after_type)
      and (s.eid, s.type) <= (p_eid, p_type) and s.to_tick is null and s.from_tick < p_tick
      and not exists (select from n where n.type = s.type and n.eid = s.eid);
  get diagnostics v_count = row_count;
  with n as materialized (
    select * from unnest(starling.split_1(p_types, p_escaped), starling.split_1(p_eids, p_escaped)) n(type, eid)
  ) delete from starling.snapshot_value v
    where v.shard = p_shard and (v.eid, v.type) > (p_after_eid, p_after_type)
      and (v.eid, v.type) <= (p_eid, p_type) and not exists (select from n where n.type = v.type and n.eid = v.eid);
  return v_count;
end
$$;

-- The same where the pages hold only what has changed: of entities that were not there at the mark. Those have no row, or one
-- of after it; an image says so.
create function starling.snapshot_absent_1(p_tick bigint, p_shard int, p_after_eid text, p_after_type text, p_eid text,
  p_type text) returns int language plpgsql set enable_seqscan = off as $$
declare
  v_gone int;
  v_count int;
begin
  update starling.snapshot s set to_tick = p_tick
    where s.shard = p_shard and (s.eid, s.type) > (p_after_eid, p_after_type) and (s.eid, s.type) <= (p_eid, p_type)
      and s.to_tick is null and s.from_tick < p_tick
      and not exists (
        select from starling.entity e where e.shard = p_shard and e.eid = s.eid and e.type = s.type and not e.tombstone
      ) and not exists (
        select from starling.snapshot_image i where i.shard = p_shard and i.eid = s.eid and i.type = s.type
          and i.tick = p_tick and i.state is not null
      );
  get diagnostics v_gone = row_count;
  update starling.snapshot s set to_tick = p_tick from starling.snapshot_image i
    where i.shard = p_shard and (i.eid, i.type) > (p_after_eid, p_after_type) and (i.eid, i.type) <= (p_eid, p_type)
      and i.tick = p_tick and i.state is null
      and s.shard = p_shard and s.eid = i.eid and s.type = i.type and s.to_tick is null and s.from_tick < p_tick;
  get diagnostics v_count = row_count;
  delete from starling.snapshot_value v
    where v.shard = p_shard and (v.eid, v.type) > (p_after_eid, p_after_type) and (v.eid, v.type) <= (p_eid, p_type)
      and v.body = '' and v.tick < p_tick;
  update starling.snapshot_value v set was = v.links, links = '', body = '', due = null, tick = p_tick
    where v.shard = p_shard and (v.eid, v.type) > (p_after_eid, p_after_type) and (v.eid, v.type) <= (p_eid, p_type)
      and v.body <> '' and not exists (
        select from starling.entity e where e.shard = p_shard and e.eid = v.eid and e.type = v.type and not e.tombstone
      ) and not exists (
        select from starling.snapshot_image i where i.shard = p_shard and i.eid = v.eid and i.type = v.type
          and i.tick = p_tick and i.state is not null
      );
  update starling.snapshot_value v set was = v.links, links = '', body = '', due = null, tick = p_tick
    from starling.snapshot_image i
    where i.shard = p_shard and (i.eid, i.type) > (p_after_eid, p_after_type) and (i.eid, i.type) <= (p_eid, p_type)
      and i.tick = p_tick and i.state is null
      and v.shard = p_shard and v.eid = i.eid and v.type = i.type and v.body <> '';
  return v_gone + v_count;
end
$$;

-- The last page of a visit goes up to beyond the longest eid.
create function starling.snapshot_page_1(p_node text, p_shard int, p_epoch bigint, p_tick bigint, p_after_eid text,
  p_after_type text, p_was_visited boolean, p_eid text, p_type text, p_visited boolean, p_done boolean, p_whole boolean,
  p_counts text, p_tasks text, p_escaped boolean, p_shards int[], p_types text, p_eids text, p_dues bigint[],
  p_kinds text, p_bodies text, p_value_types text, p_value_eids text, p_value_dues bigint[], p_links text,
  p_values text) returns text language plpgsql as $$
declare
  v_lost text := starling.fence_1(p_node, array[p_shard], array[p_epoch]);
  v_mark starling.snapshot_mark;
  v_written int := 0;
  v_closed int := 0;
  v_end_eid text := case when p_visited then repeat(chr(1114111), 257) else p_eid end;
begin
  if v_lost is not null then
    return v_lost;
  end if;
  select * into v_mark from starling.snapshot_mark m where m.shard = p_shard and m.tick = p_tick for update;
  if not found or v_mark.done or v_mark.visited <> p_was_visited or v_mark.eid <> p_after_eid
      or v_mark.type <> p_after_type then
    return null;
  end if;
  if p_shards <> '{}' then
    select r.written, r.closed into v_written, v_closed
      from starling.snapshot_rows_1(p_tick, p_escaped, p_shards, p_types, p_eids, p_dues, p_kinds, p_bodies) r;
  end if;
  if p_whole then
    v_closed := v_closed + starling.snapshot_gone_1(p_tick, p_shard, p_after_eid, p_after_type, v_end_eid, p_type,
      p_escaped, p_types, p_eids);
  elsif not p_was_visited then
    v_closed := v_closed + starling.snapshot_absent_1(p_tick, p_shard, p_after_eid, p_after_type, v_end_eid, p_type);
  end if;
  if p_value_dues <> '{}' then
    insert into starling.snapshot_value as v (shard, type, eid, tick, due, links, was, body)
      select p_shard, n.type, n.eid, p_tick, n.due, n.links, '', n.body
        from unnest(starling.split_1(p_value_types, p_escaped), starling.split_1(p_value_eids, p_escaped),
          p_value_dues, starling.split_1(p_links, p_escaped), starling.split_1(p_values, p_escaped))
          n(type, eid, due, links, body)
      on conflict (shard, eid, type) do update set tick = excluded.tick, due = excluded.due, links = excluded.links,
        was = v.links, body = excluded.body;
  end if;
  if p_tasks is not null then
    insert into starling.snapshot_task (shard, tick, page, body) values (p_shard, p_tick, v_mark.page, p_tasks);
  end if;
  if not p_was_visited then
    delete from starling.snapshot_image i where i.shard = p_shard and i.tick <= p_tick
      and (i.eid, i.type) <= (v_end_eid, p_type);
  end if;
  update starling.snapshot_mark m set visited = p_visited or p_was_visited, done = p_done,
      eid = p_eid, type = p_type, page = m.page + case when p_tasks is null then 0 else 1 end,
      counts = p_counts::jsonb || jsonb_build_object(
        'written', coalesce((m.counts->>'written')::int, 0) + v_written,
        'closed', coalesce((m.counts->>'closed')::int, 0) + v_closed)
    where m.shard = p_shard and m.tick = p_tick;
  return null;
end
$$;

-- Rows of shards whose newest tick this is, and no others. Of a component whose first member's shard is in another database.
create function starling.snapshot_foreign_1(p_tick bigint, p_escaped boolean, p_shards int[], p_types text, p_eids text,
  p_dues bigint[], p_kinds text, p_bodies text) returns void language plpgsql as $$
begin
  perform from starling.snapshot_mark m where m.tick = p_tick and m.shard = any(p_shards) order by m.shard for update;
  if exists (select from starling.snapshot_mark m where m.shard = any(p_shards) and m.tick > p_tick) then
    return;
  end if;
  perform starling.snapshot_rows_1(p_tick, p_escaped, p_shards, p_types, p_eids, p_dues, p_kinds, p_bodies);
end
$$;

-- Texts of values, while no later tick has marked their shards.
create function starling.snapshot_values_1(p_node text, p_shard int, p_epoch bigint, p_tick bigint, p_escaped boolean,
  p_shards int[], p_types text, p_eids text, p_bodies text) returns text language plpgsql
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
    update starling.snapshot_value v set body = n.body
      from unnest(p_shards, starling.split_1(p_types, p_escaped), starling.split_1(p_eids, p_escaped),
        starling.split_1(p_bodies, p_escaped)) n(shard, type, eid, body)
      where v.shard = n.shard and v.eid = n.eid and v.type = n.type;
  end if;
  return v_lost;
end
$$;

create function starling.snapshot_sent_1(p_node text, p_shard int, p_epoch bigint, p_tick bigint, p_page int)
returns text language plpgsql as $$
declare
  v_lost text := starling.fence_1(p_node, array[p_shard], array[p_epoch]);
begin
  if v_lost is null then
    delete from starling.snapshot_task t where t.shard = p_shard and t.tick = p_tick and t.page = p_page;
  end if;
  return v_lost;
end
$$;


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
      select e.eid, e.type, e.created, e.created_at, e.applied, e.tombstone, e.state from starling.entity e where e.shard = p_shard and (e.eid, e.type) > (p_eid, p_type)
        order by e.eid, e.type limit p_limit
    ), i as (
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
      select k.*, not k.imaged and left(k.state, 11) = '{"#large":{' as marked from k
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
      from s where s.upto <= p_bytes or s.place = 1 order by s.eid, s.type;
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
      (select e.eid, e.type, e.created, e.created_at, e.applied, e.tombstone, e.state from starling.entity e where e.shard = p_shard and (e.eid, e.type) > (p_eid, p_type)
        and (e.applied > p_since or e.type = any(string_to_array(p_always, ',')))
        order by e.eid, e.type limit p_limit)
      union all
      select d.eid, d.type, e.created, e.created_at, e.applied, e.tombstone, e.state
        from d left join starling.entity e on e.shard = p_shard and e.eid = d.eid and e.type = d.type
        where e.eid is null or not (e.applied > p_since or e.type = any(string_to_array(p_always, ',')))
    ), i as (
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
      select k.*, not k.imaged and left(k.state, 11) = '{"#large":{' as marked from k
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
      from s where s.upto <= p_bytes or s.place = 1 order by s.eid, s.type;
  end if;
end
$$;


-- Null for what is no address: hooks write what they like. In plpgsql: of an SQL expression the planner would evaluate the
-- branch that fails.
create function starling.snapshot_address_1(p_text text) returns inet language plpgsql immutable strict parallel safe as $$
begin
  return case when pg_input_is_valid(p_text, 'inet') then p_text::inet end;
end
$$;


alter table starling.session add column holder text;

create function starling.open_session_3(p_session text, p_named boolean, p_holder text)
  returns table (session text, named boolean, closed boolean, opening int) language sql begin atomic
  insert into starling.session as s (session, named, closed, opening, holder)
    values (p_session, p_named, false, 1, p_holder)
    on conflict (session) do update set opening = s.opening + 1, holder = coalesce(s.holder, p_holder)
      where s.holder is null or p_holder is null or s.holder = p_holder
    returning s.session, s.named, s.closed, s.opening;
end;


-- seen: when the newest observation arrived, Unix ms; spans as in step 5.
create table starling.reference (
  shard int not null,
  eid text collate "C" not null,
  type text collate "C" not null,
  attr text collate "C" not null,
  target_type text collate "C" not null,
  target text collate "C" not null,
  seen bigint,
  spans int8multirange
);
insert into starling.reference (shard, eid, type, attr, target_type, target, seen, spans)
  select shard, eid, type, attr, other_type, other, case when spans is not null then 0 end, spans
    from starling.link where not reverse order by shard, eid, type;
alter table starling.reference add primary key (shard, eid, type, attr, target_type, target);
create index reference_target on starling.reference (target, target_type, attr, type, eid);
drop table starling.link;

create view starling.link as
  select shard, eid, type, false as reverse, attr, target_type as other_type, target as other, spans
    from starling.reference;

create or replace function starling.flush_links_1(p_escaped boolean, p_links text) returns boolean language plpgsql
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off set plan_cache_mode = force_generic_plan
as $$
begin
  delete from starling.reference l using starling.link_rows_1(p_escaped, p_links) n
    where n.action = 'c' and l.shard = n.shard and l.eid = n.eid and l.type = n.type;
  delete from starling.reference l using starling.link_rows_1(p_escaped, p_links) n
    where n.action in ('d', 'r') and not n.reverse and l.shard = n.shard and l.eid = n.eid and l.type = n.type
      and l.attr = n.attr and l.target_type = n.other_type and l.target = n.other;
  insert into starling.reference as l (shard, eid, type, attr, target_type, target, seen, spans)
    select n.shard, n.eid, n.type, n.attr, n.other_type, n.other, case when n.spans is not null then 0 end,
        starling.bounded_spans_1(n.spans)
      from starling.link_rows_1(p_escaped, p_links) n where n.action in ('p', 's', 'r') and not n.reverse
    on conflict (shard, eid, type, attr, target_type, target)
      do update set spans = starling.bounded_spans_1(l.spans + excluded.spans);
  return true;
end
$$;

-- Plain rows that go, and those that come. They are many, and so stand column by column: type, eid, attr, target type, target,
-- joined by U+001F. One that comes is hardly ever there already: to look first costs as much as to insert.
create function starling.flush_plain_links_1(p_escaped boolean, p_gone_shards int[], p_gone text, p_shards int[],
  p_links text) returns void language plpgsql
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off set plan_cache_mode = force_generic_plan
as $$
declare
  v_gone text[] := string_to_array(p_gone, e'\x1f');
  v_links text[] := string_to_array(p_links, e'\x1f');
begin
  if p_gone_shards <> '{}' then
    delete from starling.reference l
      using (
        select unnest(p_gone_shards), unnest(starling.split_1(v_gone[1], p_escaped)),
            unnest(starling.split_1(v_gone[2], p_escaped)), unnest(starling.split_1(v_gone[3], p_escaped)),
            unnest(starling.split_1(v_gone[4], p_escaped)), unnest(starling.split_1(v_gone[5], p_escaped))
      ) n(shard, type, eid, attr, target_type, target)
      where l.shard = n.shard and l.eid = n.eid and l.type = n.type and l.attr = n.attr
        and l.target_type = n.target_type and l.target = n.target;
  end if;
  if p_shards = '{}' then
    return;
  end if;
  begin
    insert into starling.reference (shard, type, eid, attr, target_type, target)
      select unnest(p_shards), unnest(starling.split_1(v_links[1], p_escaped)),
          unnest(starling.split_1(v_links[2], p_escaped)), unnest(starling.split_1(v_links[3], p_escaped)),
          unnest(starling.split_1(v_links[4], p_escaped)), unnest(starling.split_1(v_links[5], p_escaped));
  exception when unique_violation then
    insert into starling.reference as l (shard, type, eid, attr, target_type, target)
      select unnest(p_shards), unnest(starling.split_1(v_links[1], p_escaped)),
          unnest(starling.split_1(v_links[2], p_escaped)), unnest(starling.split_1(v_links[3], p_escaped)),
          unnest(starling.split_1(v_links[4], p_escaped)), unnest(starling.split_1(v_links[5], p_escaped))
      on conflict (shard, eid, type, attr, target_type, target) do update set seen = null, spans = null
        where l.spans is not null;
  end;
end
$$;

-- Observed links, one row each: shard, type, eid, attr, target type, target, time, spans. Without spans it goes unless it was
-- seen after that time; with spans these are added.
create function starling.seen_rows_1(p_escaped boolean, p_links text) returns table (shard int, type text, eid text,
  attr text, target_type text, target text, at bigint, spans int8multirange)
language sql immutable begin atomic
  select f[1]::int, starling.unpack_1(f[2], p_escaped), starling.unpack_1(f[3], p_escaped),
      starling.unpack_1(f[4], p_escaped), starling.unpack_1(f[5], p_escaped), starling.unpack_1(f[6], p_escaped),
      nullif(f[7], '')::bigint, nullif(f[8], '')::int8multirange
    from (select string_to_array(r, e'\x1f') from string_to_table(p_links, e'\x1e') r offset 0) s(f);
end;

create function starling.flush_seen_links_1(p_escaped boolean, p_links text) returns void language plpgsql
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off set plan_cache_mode = force_generic_plan
as $$
begin
  delete from starling.reference l using starling.seen_rows_1(p_escaped, p_links) n
    where n.spans is null and l.shard = n.shard and l.eid = n.eid and l.type = n.type and l.attr = n.attr
      and l.target_type = n.target_type and l.target = n.target and (n.at is null or l.seen <= n.at);
  insert into starling.reference as l (shard, eid, type, attr, target_type, target, seen, spans)
    select n.shard, n.eid, n.type, n.attr, n.target_type, n.target, n.at, starling.bounded_spans_1(n.spans)
      from starling.seen_rows_1(p_escaped, p_links) n where n.spans is not null
    on conflict (shard, eid, type, attr, target_type, target)
      do update set seen = excluded.seen, spans = starling.bounded_spans_1(coalesce(l.spans, '{}') + excluded.spans)
      where l.spans is null or not l.spans @> excluded.spans;
end
$$;

create function starling.clear_links_1(p_escaped boolean, p_keys text) returns void language sql
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off begin atomic
  delete from starling.reference l
    using (select string_to_array(r, e'\x1f') from string_to_table(p_keys, e'\x1e') r offset 0) s(f)
    where l.shard = f[1]::int and l.eid = starling.unpack_1(f[3], p_escaped)
      and l.type = starling.unpack_1(f[2], p_escaped);
end;

create function starling.flush_links_2(p_escaped boolean, p_cleared text, p_gone_shards int[], p_gone text,
  p_shards int[], p_links text, p_seen text, p_obituaries text, p_places text) returns boolean language plpgsql as $$
begin
  if p_cleared <> '' then
    perform starling.clear_links_1(p_escaped, p_cleared);
  end if;
  perform starling.flush_plain_links_1(p_escaped, p_gone_shards, p_gone, p_shards, p_links);
  if p_seen <> '' then
    perform starling.flush_seen_links_1(p_escaped, p_seen);
  end if;
  if p_obituaries <> '' then
    perform starling.flush_obituaries_1(p_escaped, p_obituaries, p_places);
  end if;
  return true;
end
$$;


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


-- Takes back what failed ticks above the base have written, before the first page of this one; and forgets older marks. Then
-- tells where the shards stand. Volatile: it has to see what whoever was before has written while it waited for the marks.
create function starling.snapshot_open_2(p_node text, p_shards int[], p_epochs bigint[], p_tick bigint, p_base bigint)
returns table (lost text, shard int, tick bigint, seq bigint, eid text, type text, page int, visited boolean, done boolean,
  counts text, base_seq bigint) language plpgsql volatile as $$
#variable_conflict use_column
declare
  v_lost text := starling.fence_1(p_node, p_shards, p_epochs);
  v_fresh int[];
begin
  if v_lost is not null then
    return query select v_lost, null::int, null::bigint, null::bigint, null, null, null::int, null::boolean, null::boolean,
      null, null::bigint;
    return;
  end if;
  v_fresh := array(
    select m.shard from starling.snapshot_mark m
      where m.shard = any(p_shards) and m.tick = p_tick and not m.visited and m.eid = '' and m.type = ''
      order by m.shard for update
  );
  if p_base < p_tick - 1 then
    delete from starling.snapshot s where s.shard = any(v_fresh) and s.to_tick is null and s.from_tick > p_base;
    update starling.snapshot s set to_tick = null where s.shard = any(v_fresh) and s.to_tick > p_base;
  end if;
  delete from starling.snapshot_image i where i.shard = any(v_fresh) and i.tick < p_tick;
  delete from starling.snapshot_mark m where m.shard = any(v_fresh) and m.tick < p_tick and m.tick <> p_base;
  return query select null, m.shard, m.tick, m.seq, m.eid, m.type, m.page, m.visited, m.done, m.counts::text, b.seq
    from starling.snapshot_mark m left join starling.snapshot_mark b on b.shard = m.shard and b.tick = p_base
    where m.shard = any(p_shards) and m.tick = p_tick;
end
$$;

-- Kinds: b a body, c the snapshot ends, k it stands. One statement: the texts are split and parsed once. The old rows are
-- closed before new ones come, as of one entity only one may be open. Plans are made once and before the tables have
-- their size: without the settings, and where rows are found otherwise than by key or place, they might read them whole.
create function starling.snapshot_rows_2(p_tick bigint, p_places int[], p_escaped boolean, p_row_places int[],
  p_shards int[], p_types text, p_eids text, p_dues bigint[], p_kinds text, p_bodies text)
  returns table (place int, written int, closed int) language plpgsql
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
  return query with n as materialized (
    select n.place, n.shard, n.type, n.eid, n.due, n.kind, case n.kind when 'b' then n.body::jsonb end as body
      from unnest(p_row_places, p_shards, starling.split_1(p_types, p_escaped), starling.split_1(p_eids, p_escaped),
        p_dues, string_to_array(p_kinds, null), starling.split_1(p_bodies, p_escaped))
        n(place, shard, type, eid, due, kind, body)
      where n.kind <> 'k' and n.place = any(p_places)
  ), o as materialized (
    select n.*, s.row, s.due as was_due, s.from_tick < p_tick and (n.kind = 'c' or s.body <> n.body) as ends
      from n left join lateral (
        select s.ctid as row, s.due, s.from_tick, s.body from starling.snapshot s
          where s.shard = n.shard and s.eid = n.eid and s.type = n.type and s.to_tick is null offset 0
      ) s on true
  ), u as (
    update starling.snapshot s set to_tick = p_tick where s.ctid = any(array(select o.row from o where o.ends)) returning 1
  ), d as (
    update starling.snapshot s set due = o.due from o
      where o.kind = 'b' and not o.ends and o.was_due is distinct from o.due
        and s.shard = o.shard and s.eid = o.eid and s.type = o.type and s.to_tick is null
  ), i as (
    insert into starling.snapshot (shard, type, eid, from_tick, due, body)
      select o.shard, o.type, o.eid, p_tick, o.due, o.body from o
        where o.kind = 'b' and (o.row is null or o.ends) and (select count(*) from u) >= 0
      returning 1
  )
  select o.place, (count(*) filter (where o.kind = 'b' and (o.row is null or o.ends)))::int,
      (count(*) filter (where o.kind = 'c' and o.ends))::int
    from o where (select count(*) from i) >= 0 group by o.place;
end
$$;

-- Ends the snapshots, and drops the values, of entities between the two places of a page that are not among its rows. Where
-- a visit ends: to the last entity, beyond the longest eid.
create function starling.snapshot_gone_2(p_tick bigint, p_pages jsonb, p_escaped boolean, p_row_places int[], p_types text,
  p_eids text) returns table (place int, closed int) language plpgsql
set enable_mergejoin = off set enable_seqscan = off set plan_cache_mode = force_generic_plan as $$
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
  ), v as (
    delete from starling.snapshot_value v using p
      where v.shard = p.shard and (v.eid, v.type) > (p.after_eid, p.after_type) and (v.eid, v.type) <= (p.eid, p.type)
        and not exists (select from n where n.place = p.place and n.type = v.type and n.eid = v.eid)
  ), s as (
    update starling.snapshot s set to_tick = p_tick from p
      where s.shard = p.shard and (s.eid, s.type) > (p.after_eid, p.after_type) and (s.eid, s.type) <= (p.eid, p.type)
        and s.to_tick is null and s.from_tick < p_tick
        and not exists (select from n where n.place = p.place and n.type = s.type and n.eid = s.eid)
      returning p.place
  )
  select s.place, count(*)::int from s group by s.place;
end
$$;

-- Open snapshots, and values, between two places of whose entities there is none: two indexes are gone along side by side.
create function starling.snapshot_orphans_2(p_tick bigint, p_shard int, p_after_eid text, p_after_type text, p_eid text,
  p_type text, out snapshots tid[], out links tid[]) language plpgsql volatile
set enable_nestloop = off set enable_hashjoin = off set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
set plan_cache_mode = force_generic_plan as $$
begin
  snapshots := array(
    select s.ctid from starling.snapshot s
      where s.shard = p_shard and (s.eid, s.type) > (p_after_eid, p_after_type) and (s.eid, s.type) <= (p_eid, p_type)
        and s.to_tick is null and s.from_tick < p_tick and not exists (
          select from starling.entity e where e.shard = p_shard and (e.eid, e.type) > (p_after_eid, p_after_type)
            and (e.eid, e.type) <= (p_eid, p_type) and e.eid = s.eid and e.type = s.type and not e.tombstone
        )
  );
  links := array(
    select v.ctid from starling.snapshot_value v
      where v.shard = p_shard and (v.eid, v.type) > (p_after_eid, p_after_type) and (v.eid, v.type) <= (p_eid, p_type)
        and v.body <> '' and not exists (
          select from starling.entity e where e.shard = p_shard and (e.eid, e.type) > (p_after_eid, p_after_type)
            and (e.eid, e.type) <= (p_eid, p_type) and e.eid = v.eid and e.type = v.type and not e.tombstone
        )
  );
end
$$;

-- Where pages hold only what has changed: ends the snapshots, and the values, of entities that were not there at the mark.
-- Those have no row, or one of after it; an image says so.
create function starling.snapshot_absent_2(p_tick bigint, p_shard int, p_after_eid text, p_after_type text, p_eid text,
  p_type text) returns int language plpgsql set enable_seqscan = off as $$
declare
  v_snapshots tid[];
  v_values tid[];
  v_gone int;
  v_count int;
begin
  select o.snapshots, o.links into v_snapshots, v_values
    from starling.snapshot_orphans_2(p_tick, p_shard, p_after_eid, p_after_type, p_eid, p_type) o;
  update starling.snapshot s set to_tick = p_tick where s.ctid = any(v_snapshots) and not exists (
    select from starling.snapshot_image i where i.shard = p_shard and i.eid = s.eid and i.type = s.type
      and i.tick = p_tick and i.state is not null
  );
  get diagnostics v_gone = row_count;
  update starling.snapshot s set to_tick = p_tick from starling.snapshot_image i
    where i.shard = p_shard and (i.eid, i.type) > (p_after_eid, p_after_type) and (i.eid, i.type) <= (p_eid, p_type)
      and i.tick = p_tick and i.state is null
      and s.shard = p_shard and s.eid = i.eid and s.type = i.type and s.to_tick is null and s.from_tick < p_tick;
  get diagnostics v_count = row_count;
  delete from starling.snapshot_value v
    where v.shard = p_shard and (v.eid, v.type) > (p_after_eid, p_after_type) and (v.eid, v.type) <= (p_eid, p_type)
      and v.body = '' and v.tick < p_tick;
  update starling.snapshot_value v set was = v.links, links = '', body = '', due = null, tick = p_tick
    where v.ctid = any(v_values) and not exists (
      select from starling.snapshot_image i where i.shard = p_shard and i.eid = v.eid and i.type = v.type
        and i.tick = p_tick and i.state is not null
    );
  update starling.snapshot_value v set was = v.links, links = '', body = '', due = null, tick = p_tick
    from starling.snapshot_image i
    where i.shard = p_shard and (i.eid, i.type) > (p_after_eid, p_after_type) and (i.eid, i.type) <= (p_eid, p_type)
      and i.tick = p_tick and i.state is null
      and v.shard = p_shard and v.eid = i.eid and v.type = i.type and v.body <> '';
  return v_gone + v_count;
end
$$;

create function starling.snapshot_pages_2(p_node text, p_tick bigint, p_joining boolean, p_pages text, p_escaped boolean,
  p_row_places int[], p_shards int[], p_types text, p_eids text, p_dues bigint[], p_kinds text, p_bodies text,
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
      from starling.snapshot_gone_2(p_tick, v_pages, p_escaped, p_row_places, p_types, p_eids) g;
  end if;
  if p_shards <> '{}' then
    select coalesce(jsonb_object_agg(r.place, r.written), '{}'), coalesce(jsonb_object_agg(r.place, r.closed), '{}')
      into v_written, v_closed
      from starling.snapshot_rows_2(p_tick, v_places, p_escaped, p_row_places, p_shards, p_types, p_eids, p_dues, p_kinds,
        p_bodies) r;
  end if;
  if not p_joining then
    select v_gone || coalesce(jsonb_object_agg(p.place, starling.snapshot_absent_2(p_tick, p.shard, p.after_eid,
          p.after_type, case when p.visited then repeat(chr(1114111), 257) else p.eid end, p.type)), '{}') into v_gone
      from jsonb_to_recordset(v_pages) p(place int, shard int, after_eid text, after_type text, eid text, type text,
        visited boolean, whole boolean) where not p.whole;
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
        was = v.links, body = excluded.body;
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


create function starling.tick_page_2(p_shard int, p_tick bigint, p_eid text, p_type text, p_limit int, p_bytes bigint,
  p_since bigint, p_due bigint, p_always text)
  returns table (eid text, type text, present boolean, created bigint, created_at timestamptz, applied bigint, state text,
    large text, history text, fresh text, folded boolean, more boolean) language plpgsql stable
set enable_seqscan = off set enable_bitmapscan = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
begin
  if p_since is null then
    return query with e as (
      select e.eid, e.type, e.created, e.created_at, e.applied, e.tombstone, e.state from starling.entity e where e.shard = p_shard and (e.eid, e.type) > (p_eid, p_type)
        order by e.eid, e.type limit p_limit
    ), i as (
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
        where h.shard = p_shard and (h.eid, h.type) > (p_eid, p_type) and h.eid <= (select max(k.eid) from k) group by h.eid, h.type
    ), m as (
      select k.*, not k.imaged and left(k.state, 11) = '{"#large":{' as marked from k
    ), s as materialized (
      select m.*, h.bytes is not null as rows, row_number() over (order by m.eid, m.type) as place,
          sum(coalesce(octet_length(m.state), 0) + coalesce(octet_length(m.history), h.bytes, 0) + case when m.marked then (
            select sum(octet_length(v.body)) from starling.large_value v
              where v.shard = p_shard and v.eid = m.eid and v.type = m.type
          ) else 0 end) over (order by m.eid, m.type) as upto
        from m left join h on h.eid = m.eid and h.type = m.type
    ), f as materialized (
      select * from s where s.upto <= p_bytes or s.place = 1
    ), r as materialized (
      select h.eid, h.type, string_agg(h.seq || ' ' || h.body, e'\x1e' order by h.seq) as rows from starling.history h
        where h.shard = p_shard and (h.eid, h.type) > (p_eid, p_type) and h.eid <= (select max(f.eid) from f) group by h.eid, h.type
    )
    select f.eid, f.type, f.present, f.created, f.created_at, f.applied, f.state,
        case when f.present and f.marked then starling.large_values_1(p_shard, f.type, f.eid) end,
        f.history,
        case when f.present and f.history is null and f.rows then case when f.imaged then (
          select string_agg(h.seq || ' ' || h.body, e'\x1e' order by h.seq) from starling.history h where h.shard = p_shard and h.eid = f.eid and h.type = f.type and h.seq <= f.applied
        ) else r.rows end end,
        f.present and f.history is null and (
          select true from starling.history_page p where p.shard = p_shard and p.eid = f.eid and p.type = f.type limit 1
        ) is true,
        (select count(*) >= p_limit or count(*) > (select count(*) from f) from s)
      from f left join r on r.eid = f.eid and r.type = f.type order by f.eid, f.type;
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
      (select e.eid, e.type, e.created, e.created_at, e.applied, e.tombstone, e.state from starling.entity e where e.shard = p_shard and (e.eid, e.type) > (p_eid, p_type)
        and (e.applied > p_since or e.type = any(string_to_array(p_always, ',')))
        order by e.eid, e.type limit p_limit)
      union all
      select d.eid, d.type, e.created, e.created_at, e.applied, e.tombstone, e.state
        from d left join starling.entity e on e.shard = p_shard and e.eid = d.eid and e.type = d.type
        where e.eid is null or not (e.applied > p_since or e.type = any(string_to_array(p_always, ',')))
    ), i as (
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
      select k.eid, k.type, h.bytes from k, lateral (
        select sum(octet_length(h.body)) as bytes from starling.history h where h.shard = p_shard and h.eid = k.eid and h.type = k.type offset 0
      ) h where h.bytes is not null
    ), m as (
      select k.*, not k.imaged and left(k.state, 11) = '{"#large":{' as marked from k
    ), s as materialized (
      select m.*, h.bytes is not null as rows, row_number() over (order by m.eid, m.type) as place,
          sum(coalesce(octet_length(m.state), 0) + coalesce(octet_length(m.history), h.bytes, 0) + case when m.marked then (
            select sum(octet_length(v.body)) from starling.large_value v
              where v.shard = p_shard and v.eid = m.eid and v.type = m.type
          ) else 0 end) over (order by m.eid, m.type) as upto
        from m left join h on h.eid = m.eid and h.type = m.type
    ), f as materialized (
      select * from s where s.upto <= p_bytes or s.place = 1
    ), r as materialized (
      select f.eid, f.type, h.rows from f, lateral (
        select string_agg(h.seq || ' ' || h.body, e'\x1e' order by h.seq) as rows from starling.history h where h.shard = p_shard and h.eid = f.eid and h.type = f.type offset 0
      ) h where f.rows
    )
    select f.eid, f.type, f.present, f.created, f.created_at, f.applied, f.state,
        case when f.present and f.marked then starling.large_values_1(p_shard, f.type, f.eid) end,
        f.history,
        case when f.present and f.history is null and f.rows then case when f.imaged then (
          select string_agg(h.seq || ' ' || h.body, e'\x1e' order by h.seq) from starling.history h where h.shard = p_shard and h.eid = f.eid and h.type = f.type and h.seq <= f.applied
        ) else r.rows end end,
        f.present and f.history is null and (
          select true from starling.history_page p where p.shard = p_shard and p.eid = f.eid and p.type = f.type limit 1
        ) is true,
        (select count(*) >= p_limit or count(*) > (select count(*) from f) from s)
      from f left join r on r.eid = f.eid and r.type = f.type order by f.eid, f.type;
  end if;
end
$$;


create or replace function starling.flush_seen_links_1(p_escaped boolean, p_links text) returns void language plpgsql
set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off set plan_cache_mode = force_generic_plan
as $$
begin
  delete from starling.reference l using starling.seen_rows_1(p_escaped, p_links) n
    where n.spans is null and l.shard = n.shard and l.eid = n.eid and l.type = n.type and l.attr = n.attr
      and l.target_type = n.target_type and l.target = n.target and (n.at is null or l.seen <= n.at);
  insert into starling.reference as l (shard, eid, type, attr, target_type, target, seen, spans)
    select n.shard, n.eid, n.type, n.attr, n.target_type, n.target, n.at, starling.bounded_spans_1(n.spans)
      from starling.seen_rows_1(p_escaped, p_links) n where n.spans is not null
    on conflict (shard, eid, type, attr, target_type, target)
      do update set seen = excluded.seen, spans = starling.bounded_spans_1(coalesce(l.spans, '{}') + excluded.spans)
      where l.spans is null or l.seen < excluded.seen or not l.spans @> excluded.spans;
end
$$;


create function starling.tick_page_3(p_shard int, p_tick bigint, p_eid text, p_type text, p_limit int, p_bytes bigint,
  p_since bigint, p_due bigint, p_always text, p_eids text[], p_types text[])
  returns table (eid text, type text, present boolean, created bigint, created_at timestamptz, applied bigint, state text,
    large text, history text, fresh text, folded boolean, more boolean) language plpgsql stable
set enable_seqscan = off set enable_bitmapscan = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
begin
  if p_since is null and p_eids is null then
    return query with e as (
      select e.eid, e.type, e.created, e.created_at, e.applied, e.tombstone, e.state from starling.entity e where e.shard = p_shard and (e.eid, e.type) > (p_eid, p_type)
        order by e.eid, e.type limit p_limit
    ), i as (
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
        where h.shard = p_shard and (h.eid, h.type) > (p_eid, p_type) and h.eid <= (select max(k.eid) from k) group by h.eid, h.type
    ), m as (
      select k.*, not k.imaged and left(k.state, 11) = '{"#large":{' as marked from k
    ), s as materialized (
      select m.*, h.bytes is not null as rows, row_number() over (order by m.eid, m.type) as place,
          sum(coalesce(octet_length(m.state), 0) + coalesce(octet_length(m.history), h.bytes, 0) + case when m.marked then (
            select sum(octet_length(v.body)) from starling.large_value v
              where v.shard = p_shard and v.eid = m.eid and v.type = m.type
          ) else 0 end) over (order by m.eid, m.type) as upto
        from m left join h on h.eid = m.eid and h.type = m.type
    ), f as materialized (
      select * from s where s.upto <= p_bytes or s.place = 1
    ), r as materialized (
      select h.eid, h.type, string_agg(h.seq || ' ' || h.body, e'\x1e' order by h.seq) as rows from starling.history h
        where h.shard = p_shard and (h.eid, h.type) > (p_eid, p_type) and h.eid <= (select max(f.eid) from f) group by h.eid, h.type
    )
    select f.eid, f.type, f.present, f.created, f.created_at, f.applied, f.state,
        case when f.present and f.marked then starling.large_values_1(p_shard, f.type, f.eid) end,
        f.history,
        case when f.present and f.history is null and f.rows then case when f.imaged then (
          select string_agg(h.seq || ' ' || h.body, e'\x1e' order by h.seq) from starling.history h where h.shard = p_shard and h.eid = f.eid and h.type = f.type and h.seq <= f.applied
        ) else r.rows end end,
        f.present and f.history is null and (
          select true from starling.history_page p where p.shard = p_shard and p.eid = f.eid and p.type = f.type limit 1
        ) is true,
        (select count(*) >= p_limit or count(*) > (select count(*) from f) from s)
      from f left join r on r.eid = f.eid and r.type = f.type order by f.eid, f.type;
  elsif p_eids is not null then
    return query with n as materialized (
      select * from unnest(p_eids, p_types) n(eid, type)
    ), e as (
      select n.eid, n.type, e.created, e.created_at, e.applied, e.tombstone, e.state from n left join lateral (
        select e.* from starling.entity e where e.shard = p_shard and e.eid = n.eid and e.type = n.type offset 0
      ) e on true
    ), i as (
      select i.* from n cross join lateral (
        select i.* from starling.snapshot_image i
          where i.shard = p_shard and i.eid = n.eid and i.type = n.type and i.tick = p_tick offset 0
      ) i
    ), k as materialized (
      select coalesce(i.eid, e.eid) as eid, coalesce(i.type, e.type) as type, i.eid is not null as imaged,
          case when i.eid is null then e.tombstone is false else i.state is not null end as present,
          coalesce(i.created, e.created) as created, coalesce(i.created_at, e.created_at) as created_at,
          coalesce(i.applied, e.applied) as applied, case when i.eid is null then e.state else i.state end as state,
          i.history
        from e full join i on i.eid = e.eid and i.type = e.type order by 1, 2 limit p_limit
    ), h as materialized (
      select k.eid, k.type, h.bytes, h.rows from k, lateral (
        select sum(octet_length(h.body)) as bytes, string_agg(h.seq || ' ' || h.body, e'\x1e' order by h.seq) as rows from starling.history h where h.shard = p_shard and h.eid = k.eid and h.type = k.type offset 0
      ) h where h.bytes is not null
    ), m as (
      select k.*, not k.imaged and left(k.state, 11) = '{"#large":{' as marked from k
    ), s as materialized (
      select m.*, h.bytes is not null as rows, row_number() over (order by m.eid, m.type) as place,
          sum(coalesce(octet_length(m.state), 0) + coalesce(octet_length(m.history), h.bytes, 0) + case when m.marked then (
            select sum(octet_length(v.body)) from starling.large_value v
              where v.shard = p_shard and v.eid = m.eid and v.type = m.type
          ) else 0 end) over (order by m.eid, m.type) as upto
        from m left join h on h.eid = m.eid and h.type = m.type
    ), f as materialized (
      select * from s where s.upto <= p_bytes or s.place = 1
    ), r as materialized (
      select h.eid, h.type, h.rows from h
    )
    select f.eid, f.type, f.present, f.created, f.created_at, f.applied, f.state,
        case when f.present and f.marked then starling.large_values_1(p_shard, f.type, f.eid) end,
        f.history,
        case when f.present and f.history is null and f.rows then case when f.imaged then (
          select string_agg(h.seq || ' ' || h.body, e'\x1e' order by h.seq) from starling.history h where h.shard = p_shard and h.eid = f.eid and h.type = f.type and h.seq <= f.applied
        ) else r.rows end end,
        f.present and f.history is null and (
          select true from starling.history_page p where p.shard = p_shard and p.eid = f.eid and p.type = f.type limit 1
        ) is true,
        (select count(*) >= p_limit or count(*) > (select count(*) from f) from s)
      from f left join r on r.eid = f.eid and r.type = f.type order by f.eid, f.type;
  else
    return query with d as materialized (
      (select s.eid, s.type from starling.snapshot s
        where s.shard = p_shard and (s.eid, s.type) > (p_eid, p_type) and s.to_tick is null and s.due <= p_due
        order by s.eid, s.type limit p_limit)
      union
      (select v.eid, v.type from starling.snapshot_value v
        where v.shard = p_shard and (v.eid, v.type) > (p_eid, p_type) and v.due <= p_due
        order by v.eid, v.type limit p_limit)
    ), w as materialized (
      select d.eid, d.type from d order by d.eid, d.type offset p_limit - 1 limit 1
    ), e as (
      (select e.eid, e.type, e.created, e.created_at, e.applied, e.tombstone, e.state from starling.entity e where e.shard = p_shard and (e.eid, e.type) > (p_eid, p_type)
        and (e.eid, e.type) <= (coalesce((select w.eid from w), repeat(chr(1114111), 257)), coalesce((select w.type from w), ''))
        and (e.applied > p_since or e.type = any(string_to_array(p_always, ',')))
        order by e.eid, e.type limit p_limit)
      union all
      select d.eid, d.type, e.created, e.created_at, e.applied, e.tombstone, e.state
        from d left join starling.entity e on e.shard = p_shard and e.eid = d.eid and e.type = d.type
        where e.eid is null or not (e.applied > p_since or e.type = any(string_to_array(p_always, ',')))
    ), i as (
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
      select k.eid, k.type, h.bytes, h.rows from k, lateral (
        select sum(octet_length(h.body)) as bytes, string_agg(h.seq || ' ' || h.body, e'\x1e' order by h.seq) as rows from starling.history h where h.shard = p_shard and h.eid = k.eid and h.type = k.type offset 0
      ) h where h.bytes is not null
    ), m as (
      select k.*, not k.imaged and left(k.state, 11) = '{"#large":{' as marked from k
    ), s as materialized (
      select m.*, h.bytes is not null as rows, row_number() over (order by m.eid, m.type) as place,
          sum(coalesce(octet_length(m.state), 0) + coalesce(octet_length(m.history), h.bytes, 0) + case when m.marked then (
            select sum(octet_length(v.body)) from starling.large_value v
              where v.shard = p_shard and v.eid = m.eid and v.type = m.type
          ) else 0 end) over (order by m.eid, m.type) as upto
        from m left join h on h.eid = m.eid and h.type = m.type
    ), f as materialized (
      select * from s where s.upto <= p_bytes or s.place = 1
    ), r as materialized (
      select h.eid, h.type, h.rows from h
    )
    select f.eid, f.type, f.present, f.created, f.created_at, f.applied, f.state,
        case when f.present and f.marked then starling.large_values_1(p_shard, f.type, f.eid) end,
        f.history,
        case when f.present and f.history is null and f.rows then case when f.imaged then (
          select string_agg(h.seq || ' ' || h.body, e'\x1e' order by h.seq) from starling.history h where h.shard = p_shard and h.eid = f.eid and h.type = f.type and h.seq <= f.applied
        ) else r.rows end end,
        f.present and f.history is null and (
          select true from starling.history_page p where p.shard = p_shard and p.eid = f.eid and p.type = f.type limit 1
        ) is true,
        (select count(*) >= p_limit or count(*) > (select count(*) from f) from s)
      from f left join r on r.eid = f.eid and r.type = f.type order by f.eid, f.type;
  end if;
end
$$;


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

create function starling.snapshot_pages_3(p_node text, p_tick bigint, p_joining boolean, p_pages text, p_escaped boolean,
  p_row_places int[], p_shards int[], p_types text, p_eids text, p_dues bigint[], p_kinds text, p_bodies text,
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
      from starling.snapshot_gone_3(p_tick, v_pages, p_escaped, p_row_places, p_types, p_eids) g;
  end if;
  if p_shards <> '{}' then
    select coalesce(jsonb_object_agg(r.place, r.written), '{}'), coalesce(jsonb_object_agg(r.place, r.closed), '{}')
      into v_written, v_closed
      from starling.snapshot_rows_2(p_tick, v_places, p_escaped, p_row_places, p_shards, p_types, p_eids, p_dues, p_kinds,
        p_bodies) r;
  end if;
  if not p_joining then
    select v_gone || coalesce(jsonb_object_agg(p.place, starling.snapshot_absent_2(p_tick, p.shard, p.after_eid,
          p.after_type, case when p.visited then repeat(chr(1114111), 257) else p.eid end, p.type)), '{}') into v_gone
      from jsonb_to_recordset(v_pages) p(place int, shard int, after_eid text, after_type text, eid text, type text,
        visited boolean, whole boolean, listed boolean) where not p.whole and not p.listed;
    perform starling.snapshot_closed_3(p_tick, v_pages, p_escaped, p_row_places, p_types, p_eids, p_kinds);
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
        was = v.links, body = excluded.body;
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


-- Null: the entity has none, or, in a row of step 8 and before, they stand in the body.
alter table starling.snapshot add column confidences jsonb;
alter table starling.snapshot alter confidences set statistics 0;
-- Pages keep room for what is written anew in them.
alter table starling.snapshot set (fillfactor = 75);

-- What hooks of a large group changed of a value so far: it stands behind the body, which is never written again for it.
alter table starling.snapshot_value add column changes text collate "C" not null default '';
alter table starling.snapshot_value alter changes set statistics 0;
alter table starling.snapshot_value set (fillfactor = 75);


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

create function starling.snapshot_pages_4(p_node text, p_tick bigint, p_joining boolean, p_pages text, p_escaped boolean,
  p_row_places int[], p_shards int[], p_types text, p_eids text, p_dues bigint[], p_kinds text, p_bodies text, p_confidences text,
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
      from starling.snapshot_gone_3(p_tick, v_pages, p_escaped, p_row_places, p_types, p_eids) g;
  end if;
  if p_shards <> '{}' then
    select coalesce(jsonb_object_agg(r.place, r.written), '{}'), coalesce(jsonb_object_agg(r.place, r.closed), '{}')
      into v_written, v_closed
      from starling.snapshot_rows_3(p_tick, v_places, p_escaped, p_row_places, p_shards, p_types, p_eids, p_dues, p_kinds,
        p_bodies, p_confidences) r;
  end if;
  if not p_joining then
    select v_gone || coalesce(jsonb_object_agg(p.place, starling.snapshot_absent_2(p_tick, p.shard, p.after_eid,
          p.after_type, case when p.visited then repeat(chr(1114111), 257) else p.eid end, p.type)), '{}') into v_gone
      from jsonb_to_recordset(v_pages) p(place int, shard int, after_eid text, after_type text, eid text, type text,
        visited boolean, whole boolean, listed boolean) where not p.whole and not p.listed;
    perform starling.snapshot_closed_3(p_tick, v_pages, p_escaped, p_row_places, p_types, p_eids, p_kinds);
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
        was = v.links, body = excluded.body, changes = '';
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


alter table starling.session add column hash text, add column used_at timestamptz not null default now();
alter table starling.session alter column used_at set default clock_timestamp();
create index session_by_use on starling.session (used_at) where not named;
create index key_by_age on starling.session (opened_at) where session like 'key:%';

create function starling.open_session_4(p_session text, p_named boolean, p_holder text, p_hash text, p_begins boolean,
  p_life_ms float8) returns table (session text, named boolean, closed boolean, opening int, number float8,
    refused text) language plpgsql as $$
#variable_conflict use_column
declare
  v_since timestamptz := clock_timestamp() - make_interval(secs => p_life_ms / 1000);
begin
  delete from starling.session s where s.session = p_session and s.opened_at < v_since and s.session like 'key:%';
  update starling.session s set closed = true
    where s.session = p_session and s.used_at < v_since and not s.named and not s.closed;
  if p_begins then
    insert into starling.session (session, named, closed, opening, hash) values (p_session, p_named, false, 0, p_hash)
      on conflict do nothing;
  end if;
  return query update starling.session s
    set opening = s.opening + 1, used_at = clock_timestamp(), holder = coalesce(s.holder, p_holder)
    where s.session = p_session and (s.holder is null or p_holder is null or s.holder = p_holder)
      and (s.hash is null or p_hash is null or s.hash = p_hash)
    returning s.session, s.named, s.closed, s.opening,
      case when s.hash is null then 1 else floor(date_part('epoch', s.opened_at)) end, null::text;
  if not found then
    return query select s.session, s.named, s.closed, s.opening, 0::float8,
        case when s.holder <> p_holder then 'held' else 'changed' end
      from starling.session s where s.session = p_session;
  end if;
end
$$;

-- Replaced: nodes of the version before number the batch of every key 1. One that this version has begun they leave to it.
create or replace function starling.open_session_3(p_session text, p_named boolean, p_holder text)
  returns table (session text, named boolean, closed boolean, opening int) language plpgsql as $$
#variable_conflict use_column
begin
  if exists (select from starling.session s where s.session = p_session and s.hash is not null) then
    raise exception 'an idempotency key that a newer node has begun: send again, to that one' using errcode = '55000';
  end if;
  return query insert into starling.session as s (session, named, closed, opening, holder)
    values (p_session, p_named, false, 1, p_holder)
    on conflict (session) do update
      set opening = s.opening + 1, used_at = clock_timestamp(), holder = coalesce(s.holder, p_holder)
      where s.holder is null or p_holder is null or s.holder = p_holder
    returning s.session, s.named, s.closed, s.opening;
end
$$;

create function starling.use_session_1(p_session text) returns void language sql begin atomic
  update starling.session set used_at = clock_timestamp() where session = p_session;
end;

alter table starling.channel add column at timestamptz not null default now();
alter table starling.channel alter column at set default clock_timestamp();

create function starling.forget_sessions_1(p_life_ms float8, p_limit int) returns int language sql begin atomic
  with old as (
    select s.session from starling.session s
      where not s.named and s.used_at < clock_timestamp() - make_interval(secs => p_life_ms / 1000)
      limit p_limit for update skip locked
  ), aged as (
    select s.session from starling.session s
      where s.session like 'key:%' and s.opened_at < clock_timestamp() - make_interval(secs => p_life_ms / 1000)
      limit p_limit for update skip locked
  ), gone as (
    delete from starling.session s using (select session from old union select session from aged) o
      where s.session = o.session returning 1
  )
  select count(*)::int from gone;
end;

create function starling.forget_channels_1(p_shard int, p_life_ms float8) returns int language sql begin atomic
  with gone as (
    delete from starling.channel c
      where c.shard = p_shard and c.at < clock_timestamp() - make_interval(secs => p_life_ms / 1000)
        and (c.channel like 'c:key:%' or c.channel like 'c:drawn:%')
      returning 1
  )
  select count(*)::int from gone;
end;

-- Replaced, not a new one: nodes of the version before call it as they did.
create or replace function starling.flush_progress_1(p_escaped boolean, p_progress text, p_channels text) returns void
language sql begin atomic
  insert into starling.progress (shard, watermark, delivered, at)
    select f[1]::int, f[2]::bigint, f[3]::bigint, starling.to_time_1(f[4]::bigint)
      from (select string_to_array(r, e'\x1f') from string_to_table(p_progress, e'\x1e') r offset 0) s(f)
    on conflict (shard) do update set watermark = greatest(progress.watermark, excluded.watermark),
      delivered = greatest(progress.delivered, excluded.delivered), at = greatest(progress.at, excluded.at);
  insert into starling.channel (shard, channel, number)
    select f[1]::int, starling.unpack_1(f[2], p_escaped), f[3]::bigint
      from (select string_to_array(r, e'\x1f') from string_to_table(p_channels, e'\x1e') r offset 0) s(f)
    on conflict (shard, channel) do update set number = excluded.number, at = excluded.at
      where channel.number < excluded.number;
  delete from starling.entity e using starling.progress p
    where e.tombstone and p.shard = e.shard and e.applied <= p.watermark
      and e.shard in (select split_part(r, e'\x1f', 1)::int from string_to_table(p_progress, e'\x1e') r);
end;


alter table starling.attempt add column until_seq bigint;

-- Replaced, not a new one: flushes of both versions call it. Of the version before the fields are four.
create or replace function starling.flush_attempts_1(p_attempts text) returns void
language sql begin atomic
  insert into starling.attempt (shard, from_seq, to_seq, deaths, until_seq)
    select f[1], f[2], f[3], f[4], f[5]
      from (select string_to_array(r, e'\x1f')::bigint[] from string_to_table(p_attempts, e'\x1e') r offset 0) s(f)
      where f[2] > 0
    on conflict (shard) do update set from_seq = excluded.from_seq, to_seq = excluded.to_seq, deaths = excluded.deaths,
      until_seq = excluded.until_seq;
  delete from starling.attempt a
    using (select string_to_array(r, e'\x1f')::bigint[] from string_to_table(p_attempts, e'\x1e') r offset 0) s(f)
    where f[2] = 0 and a.shard = f[1];
end;

-- After an acquiring: volatile, so that it sees what the owner before wrote last.
create function starling.attempt_1(p_shard int) returns json language plpgsql volatile as $$
begin
  return (
    select json_build_array(a.from_seq, a.to_seq, a.deaths, coalesce(a.until_seq, a.to_seq)) from starling.attempt a
      where a.shard = p_shard
  );
end
$$;


comment on column starling.entity.state is
  'JSON by attribute: {"v", "t1", "t2", "c", "n"}, or short [v, t1, n, t2, c] without what is n = 1, t2 = t1, c = 1 at its end';

update starling.meta set value = '12' where key = 'schema_version';
select starling.ensure_partition_1('2026-11-23');
insert into starling.attribute (type, attr, kind, data_type, fingerprint) values ('device', '', 'id', 'string', 'string');
insert into starling.attribute (type, attr, kind, data_type, fingerprint) values ('device', 'echo', 'plain', 'int', 'int');
insert into starling.attribute (type, attr, kind, data_type, fingerprint) values ('device', 'label', 'plain', 'string', 'string');
insert into starling.attribute (type, attr, kind, data_type, fingerprint) values ('device', 'level', 'observations', 'int', 'int');
insert into starling.attribute (type, attr, kind, data_type, fingerprint) values ('device', 'near', 'plain', 'link<device>', 'link<device: string,None>');
insert into starling.attribute (type, attr, kind, data_type, fingerprint) values ('site', '', 'id', 'int', 'int');
insert into starling.attribute (type, attr, kind, data_type, fingerprint) values ('site', 'total', 'plain', 'int64', 'int');
insert into starling.channel (shard, channel, number, at) values ('0', 'c:old-database', '1', '2026-11-23 21:16:04.178393+00');
insert into starling.channel (shard, channel, number, at) values ('1', 's:0', '8', '2026-11-23 21:16:04.221011+00');
insert into starling.channel (shard, channel, number, at) values ('3', 'c:old-database', '1', '2026-11-23 21:16:04.17849+00');
insert into starling.dead_letter (shard, seq, number, kind, hook, type, eid, code, error, at, status, task) values ('3', '2', '1', 'hook', 'derive/on_new_attr/device.label/fail', 'device', 'b', 'HOOK_FAILED', 'hook derive/on_new_attr/device.label/fail failed: no echo yet', '2026-11-23 21:16:04.045+00', 'open', '{"type":"device","eid":"b","delete":false,"datapoints":[{"attr":"label","v":"throw","t1":null,"t2":null,"c":1,"src":null}]}');
insert into starling.entity (shard, type, eid, created, created_at, applied, tombstone, state) values ('0', 'device', 'a', '1', '2026-11-23 21:16:04.045+00', '7', 'false', E'{"label":["tab\\t, line\\n, backslash \\\\ and é",1795468564045],"level":[9,3000,2],"echo":[10,1795468564109,2],"near":[{"eid":"b"},1795468564045]}');
insert into starling.entity (shard, type, eid, created, created_at, applied, tombstone, state) values ('0', 'site', '1', '6', '2026-11-23 21:16:04.109+00', '6', 'false', '{"total":[7,1795468564109]}');
insert into starling.entity (shard, type, eid, created, created_at, applied, tombstone, state) values ('1', 'site', '0', '1', '2026-11-23 21:16:04.116+00', '1', 'false', '{"total":[9,1795468564116]}');
insert into starling.entity (shard, type, eid, created, created_at, applied, tombstone, state) values ('3', 'device', 'b', '2', '2026-11-23 21:16:04.045+00', '2', 'false', '{"label":["throw",1795468564045]}');
insert into starling.entity (shard, type, eid, created, created_at, applied, tombstone, state) values ('3', 'device', 'large', '1', '2026-11-23 21:16:04.045+00', '1', 'false', '{"#large":{"label":{"t1":1795468564045,"t2":1795468564045,"c":1,"n":1}}}');
insert into starling.flushed (node, lane, number, at) values ('c21bcc71-4298-49da-adab-2d9de4ce1486', '0', '2', '2026-11-23 21:16:04.221374+00');
insert into starling.history (shard, type, eid, seq, body) values ('0', 'device', 'a', '3', 'level		1000	1500	0.5	7
level		3000	3000	1	9');
insert into starling.large_value (shard, eid, type, attr, body) values ('3', 'large', 'device', 'label', '"long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long "');
insert into starling.log (shard, seq, last_seq, at, brief, keys, head, body) values ('0', '1', '4', '2026-11-23 21:16:04.045+00', E'\\x8dbffd48', '', '{"p":[["c:old-database",1,null,"ed29185a05fdf98b",0,4]],"a":[],"c":[]}', E'd	device	a	label	old			1	"tab\\t, line\\n, backslash \\\\ and é"
+	device	a	level		1000	1500	0.5	7
+	device	a	level		3000	3000	1	9
+	device	a	near				1	{"eid":"b"}');
insert into starling.log (shard, seq, last_seq, at, brief, keys, head, body) values ('0', '11', '12', '2026-11-23 21:16:06.814+00', E'\\x8dbffd48', '', '{"p":[],"a":[[9,"derive/on_new_attr/device.level/derive",1,0,2]],"c":[]}', 'd	device	a	echo				1	12
o	2	9	derive/on_new_attr/device.level/derive	1	1	d	site	2	total				1	11');
insert into starling.log (shard, seq, last_seq, at, brief, keys, head, body) values ('0', '5', '8', '2026-11-23 21:16:04.109+00', E'\\x8dbffd482060abac8dbffd48', '', '{"p":[],"a":[[2,"derive/on_new_attr/device.level/derive",1,0,2],[3,"derive/on_new_attr/device.level/derive",1,2,2]],"c":[]}', 'd	device	a	echo				1	8
d	site	1	total				1	7
d	device	a	echo				1	10
o	1	3	derive/on_new_attr/device.level/derive	1	1	d	site	0	total				1	9');
insert into starling.log (shard, seq, last_seq, at, brief, keys, head, body) values ('0', '9', '10', '2026-11-23 21:16:06.758+00', E'\\x8dbffd48e1f48a18', '', '{"p":[["c:old-database",2,null,"d8199dbe776ae231",0,2]],"a":[],"c":[]}', 'd	device	a	level		5000	5000	1	11
d	device	c	label				1	"late"');
insert into starling.log (shard, seq, last_seq, at, brief, keys, head, body) values ('1', '1', '1', '2026-11-23 21:16:04.116+00', E'\\x123fa86d', '', '{"p":[["s:0",8,null,"",0,1]],"a":[],"c":[[0,0,3,"derive/on_new_attr/device.level/derive",1,1]]}', 'd	site	0	total				1	9');
insert into starling.log (shard, seq, last_seq, at, brief, keys, head, body) values ('2', '1', '1', '2026-11-23 21:16:06.832+00', E'\\x608e1ae6', '', '{"p":[["s:0",12,null,"",0,1]],"a":[],"c":[[0,0,9,"derive/on_new_attr/device.level/derive",1,1]]}', 'd	site	2	total				1	11');
insert into starling.log (shard, seq, last_seq, at, brief, keys, head, body) values ('3', '1', '3', '2026-11-23 21:16:04.045+00', E'\\xc207b3f741978653e8be53a7', '', '{"p":[["c:old-database",1,null,"ed29185a05fdf98b",0,3]],"a":[],"c":[]}', 'd	device	large	label				1	"long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long "
d	device	b	label				1	"throw"
d	device	refused-1	label				1	"no"');
insert into starling.membership (one, revision) values ('true', '0');
insert into starling.meta (key, value) values ('cluster_id', 'c64621ab-934a-494f-adb5-3fa31d14a126');
insert into starling.meta (key, value) values ('shards/entity', '4');
insert into starling.meta (key, value) values ('shards/system', '1');
insert into starling.progress (shard, watermark, delivered, at) values ('0', '8', '8', '2026-11-23 21:16:04.109+00');
insert into starling.progress (shard, watermark, delivered, at) values ('1', '1', '1', '2026-11-23 21:16:04.116+00');
insert into starling.progress (shard, watermark, delivered, at) values ('3', '3', '3', '2026-11-23 21:16:04.045+00');
insert into starling.reference (shard, eid, type, attr, target_type, target, seen, spans) values ('0', 'a', 'device', 'near', 'device', 'b', NULL, NULL);
insert into starling.refused (shard, seq, type, eid) values ('3', '3', 'device', 'refused-1');
insert into starling.session (session, named, closed, opened_at, opening, holder, hash, used_at) values ('old-database', 'true', 'false', '2026-11-23 21:16:04.01802+00', '2', NULL, NULL, '2026-11-23 21:16:06.746452+00');
insert into starling.shard (shard, epoch, owner) values ('0', '2', '920fb398-fd47-4992-a568-44753782a7d5');
insert into starling.shard (shard, epoch, owner) values ('1', '2', '920fb398-fd47-4992-a568-44753782a7d5');
insert into starling.shard (shard, epoch, owner) values ('2', '2', '920fb398-fd47-4992-a568-44753782a7d5');
insert into starling.shard (shard, epoch, owner) values ('3', '2', '920fb398-fd47-4992-a568-44753782a7d5');
insert into starling.shard (shard, epoch, owner) values ('4096', '2', '920fb398-fd47-4992-a568-44753782a7d5');
insert into starling.world (shard, system_identifier, timeline) values ('0', '7711267354681383326', '1');
insert into starling.world (shard, system_identifier, timeline) values ('1', '7711267354681383326', '1');
insert into starling.world (shard, system_identifier, timeline) values ('2', '7711267354681383326', '1');
insert into starling.world (shard, system_identifier, timeline) values ('3', '7711267354681383326', '1');
insert into starling.world (shard, system_identifier, timeline) values ('4096', '7711267354681383326', '1');
