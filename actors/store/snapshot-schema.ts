/**
 * In step 6: the tables of snapshot runs. Each begins its key with the shard, but for those of the run itself, which lie in
 * the database of the coordinator's shard.
 *
 * 1. A tick's rows are seen when its run is `finished`, by one update of one row. Readers take the newest finished tick as
 *    `current`, and of `snapshot` the rows with from_tick <= current and (to_tick is null or to_tick > current).
 * 2. At most one run is `running`.
 * 3. An entity has at most one open row (to_tick null). Rows of a tick that failed are taken back, shard by shard, before a
 *    later one writes there.
 * 4. A shard has one mark per tick. What stands below its cursor is written for the tick and never computed again in it.
 */
export const snapshotTables = String.raw`
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
`;
