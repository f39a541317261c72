import { shardId, toSeq, toShardId } from "../../proto/ids.ts";
import type { Pool } from "./connection.ts";
import { type Packer, packAll, packKeys } from "./pack.ts";
import { outcomeOf } from "./snapshot-run.ts";
import type { ShardWriter, SnapshotMark, SnapshotRow, TickProgress, ValueChanges } from "./snapshot-store.ts";

/**
 * In step 6: what the owner of a shard writes of a tick. A page, the cursor behind it and the tasks of its hooks are one
 * transaction. A page that comes again finds another cursor and writes nothing; the row of the mark is locked until the end,
 * so of two attempts the later one sees what the first has done.
 */
export const snapshotWriteFunctions = String.raw`
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
`;

/** A mark as it is read. */
export interface MarkRow {
  readonly shard: number;
  readonly tick: number;
  readonly seq: number;
  readonly eid: string;
  readonly type: string;
  readonly page: number;
  readonly visited: boolean;
  readonly done: boolean;
  readonly counts: string;
}

const markColumns = `shard, tick::float8 as tick, seq::float8 as seq, eid, type, page, visited, done, counts::text as counts`;

/** See {@link SnapshotStore.readProgress}. */
export async function readProgress(reads: Pool, tick: number): Promise<TickProgress> {
  const text = `select count(*) filter (where visited)::int as visited, count(*) filter (where done)::int as done,
      count(*) || coalesce(md5(string_agg(concat_ws(' ', shard, eid, type, visited, done, counts->>'entities'), ','
        order by shard)), '') as text
    from starling.snapshot_mark where tick = $1`;
  const [row] = await reads.query<TickProgress>(text, [tick]);
  return row ?? { visited: 0, done: 0, text: "" };
}

/** See {@link SnapshotStore.readMarks}. */
export async function readMarks(reads: Pool, tick: number): Promise<SnapshotMark[]> {
  const text = `select ${markColumns} from starling.snapshot_mark where tick = $1 order by shard`;
  return (await reads.query<MarkRow>(text, [tick])).map(toMark);
}

/** See {@link MarkRow}. */
export function toMark({ shard, seq, eid, type, counts, ...mark }: MarkRow): SnapshotMark {
  return { ...mark, shard: toShardId(shard), seq: toSeq(seq), cursor: { eid, type }, counts: JSON.parse(counts) };
}

/** See {@link SnapshotStore.writeForeign}. */
export async function writeForeign(pool: Pool, tick: number, rows: readonly SnapshotRow[]): Promise<void> {
  const { packed, escaped } = packAll((packer) => packRows(packer, rows));
  await pool.query("select starling.snapshot_foreign_2($1, $2, $3, $4, $5, $6, $7, $8, $9)", [
    tick,
    escaped,
    ...packed,
  ]);
}

/** See {@link SnapshotStore.findRefused}. */
export async function findRefused(pool: Pool, rows: readonly SnapshotRow[]): Promise<SnapshotRow[]> {
  const { packed, escaped } = packAll(({ column }) => column(rows.map((row) => ("body" in row ? row.body : "null"))));
  const text = `select i::int - 1 as i from unnest(starling.split_1($2, $1)) with ordinality t(body, i)
    where not pg_input_is_valid(body, 'jsonb')`;
  const found = await pool.query<{ i: number }>(text, [escaped, packed]);
  return found.flatMap(({ i }) => rows[i] ?? []);
}

/** What is to stand of entities, column by column. */
export function packRows(packer: Packer, rows: readonly SnapshotRow[]): string[] {
  return [
    ...packKeys(packer, rows),
    packDues(rows.map((row) => ("due" in row ? row.due : null))),
    rows.map(({ kind }) => letters[kind]).join(""),
    packer.column(rows.map((row) => ("body" in row ? row.body : ""))),
    packer.column(rows.map((row) => ("confidences" in row ? (row.confidences ?? "") : ""))),
  ];
}

const letters: Readonly<Record<SnapshotRow["kind"], string>> = { body: "b", closed: "c", kept: "k" };

/** Unix ms, or null, as the text of a PostgreSQL array. */
export function packDues(dues: readonly (number | null)[]): string {
  return `{${dues.map((due) => (due === null ? "null" : Math.floor(due))).join(",")}}`;
}

/** See {@link SnapshotStore.writeValues}. */
export async function writeValues(
  pool: Pool,
  writer: ShardWriter | null,
  tick: number,
  rows: readonly ValueChanges[],
): Promise<"written" | "lost"> {
  const { packed, escaped } = packAll((packer) => [
    ...packKeys(packer, rows),
    packer.column(rows.map(({ changes }) => changes)),
  ]);
  const fence = writer === null ? [null, null, null] : [writer.node, writer.shard, writer.epoch];
  const text = "select starling.snapshot_values_2($1, $2, $3, $4, $5, $6, $7, $8, $9) as lost";
  return outcomeOf(await pool.query<{ lost: string | null }>(text, [...fence, tick, escaped, ...packed]));
}

/** See {@link SnapshotStore.dropTasks}. */
export async function dropTasks(pool: Pool, writer: ShardWriter, tick: number, page: number): Promise<void> {
  const { node, shard, epoch } = writer;
  await pool.query("select starling.snapshot_sent_1($1, $2, $3, $4, $5)", [node, shard, epoch, tick, page]);
}

/** See {@link SnapshotStore.dropMarks}. */
export async function dropMarks(pool: Pool): Promise<void> {
  const text = `delete from starling.snapshot_mark m where m.shard >= $1
    and exists (select from starling.snapshot_mark later where later.shard = m.shard and later.tick > m.tick)`;
  await pool.query(text, [shardId("system", 0)]);
}

/** See {@link SnapshotStore.cleanSnapshots}. */
export async function cleanSnapshots(pool: Pool, shard: number, upTo: number, limit: number): Promise<number> {
  const text = `with gone as (
    delete from starling.snapshot where ctid = any(array(
      select ctid from starling.snapshot where shard = $1 and to_tick <= $2 order by to_tick limit $3
    )) returning 1
  ) select count(*)::int as gone from gone`;
  const [row] = await pool.query<{ gone: number }>(text, [shard, upTo, limit]);
  return row?.gone ?? 0;
}
