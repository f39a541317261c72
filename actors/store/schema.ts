/*
 * The tables of step 1. Every table that grows with entities begins its key with the shard (R2). Rows that a flush
 * updates are kept apart from `shard`, whose rows fence (R22). Large texts are stored EXTERNAL: the server's own
 * compression costs more of its time than the bytes save (measured: reference/performance.md).
 */

/** Class of the advisory locks that appends hold shared and that a change of the epoch takes alone. */
export const fenceLockClass = 0x5354_4152;
/** Class of the cluster-wide advisory locks: 1 migrations and partitions, 2 the exclusive node. */
export const clusterLockClass = 0x5354_4153;

/** How many keys of a segment stand in its index entry; above, a query for raw datapoints looks at the row. */
export const briefKeysMax = 16;

/** How many partitions (days, UTC) ahead are made. */
export const daysAhead = 2;

export const tables = String.raw`
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
`;

/** Functions that several families use. */
export const commonFunctions = String.raw`
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
    perform pg_advisory_xact_lock_shared(${fenceLockClass}, f.shard) from unnest(p_shards) f(shard);
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
`;

/* The tables of step 2. */

export const modelTables = String.raw`
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
`;

export const worldTable = String.raw`
-- The server and the timeline in which each shard was last acquired (R25).
create table starling.world (
  shard int primary key,
  system_identifier text not null,
  timeline int not null
);
`;

/**
 * In step 12, which no version can start on that reads long states only (`actors/lane/entity-state.ts`). Those that run already are
 * members: as long as there is one, states are written long.
 */
export const shortStates = String.raw`
comment on column starling.entity.state is
  'JSON by attribute: {"v", "t1", "t2", "c", "n"}, or short [v, t1, n, t2, c] without what is n = 1, t2 = t1, c = 1 at its end';
`;
