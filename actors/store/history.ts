import { toSeq } from "../../proto/ids.ts";
import type { Pool } from "./connection.ts";
import { packAll, packKeys, packNumbers } from "./pack.ts";
import type { EntityKey, HistoryFold, HistoryPage, HistorySegment, PageWindow } from "./store.ts";

/**
 * In step 4: merged histories. A flush adds to `history`, in the order of arrival, what is new; a fold takes these rows and
 * writes pages of merged runs, in the order of time. So the flush costs what it did, and a fold what is new and near to that.
 *
 * 1. A fold takes an entity's rows oldest first, and all of it happens or nothing: it compares what it replaces with what it
 *    read. Any node may fold at any time, without a fence.
 * 2. A page names the highest seq folded into it. Rows at or below are in the pages, whoever read them before.
 * 3. Pages go with the life of the entity, also when a node of the version before deletes it.
 * 4. A page whose last run is too old is dropped as a whole, found by an index: cleaning costs what it removes. What is too
 *    old in others is not told, and goes with them.
 */
export const historyFunctions = String.raw`
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
`;

/** See {@link Queries.historyRows}. */
export async function readHistoryRows(
  reads: Pool,
  keys: readonly EntityKey[],
  max: number | null,
): Promise<HistorySegment[]> {
  const { packed, escaped } = packAll((packer) => packKeys(packer, keys));
  const text = `select k.i - 1 as i, h.seq::float8 as seq, h.body from (
      select generate_series(1, cardinality($2::int[])), unnest($2::int[]), unnest(starling.split_1($3, $1)),
        unnest(starling.split_1($4, $1))
    ) k(i, shard, type, eid), lateral (
      select * from starling.history h where h.shard = k.shard and h.type = k.type and h.eid = k.eid
        order by h.seq limit $5::int
    ) h order by k.i, h.seq`;
  const rows = await reads.query<{ i: number; seq: number; body: string }>(text, [escaped, ...packed, max]);
  return rows.map(({ i, seq, body }) => {
    const { shard, type, eid } = keys[i] as EntityKey;
    return { shard, type, eid, seq: toSeq(seq), body };
  });
}

/** See {@link Queries.historyPages}. */
export async function readHistoryPages(reads: Pool, windows: readonly PageWindow[]): Promise<HistoryPage[]> {
  const { packed, escaped } = packAll((packer) => [
    ...packKeys(packer, windows),
    packer.column(windows.map(({ attr }) => attr)),
    packNumbers(windows.map(({ from }) => from)),
    packNumbers(windows.map(({ until }) => until)),
    packNumbers(windows.map(({ below }) => below)),
    `{${windows.map(({ max }) => max ?? "null").join(",")}}`,
  ]);
  const text = `select w.i - 1 as i, p.t2, p.seq::float8 as seq, p.place, p.t1, p.cut, p.body from (
      select generate_series(1, cardinality($2::int[])), unnest($2::int[]), unnest(starling.split_1($3, $1)),
        unnest(starling.split_1($4, $1)), unnest(starling.split_1($5, $1)), unnest($6::float8[]), unnest($7::float8[]),
        unnest($8::float8[]), unnest($9::int[])
    ) w(i, shard, type, eid, attr, lo, hi, below, max), lateral (
      select * from starling.history_page p
        where p.shard = w.shard and p.eid = w.eid and p.type = w.type and p.attr = w.attr and p.t2 >= w.lo
          and p.t2 < w.below and p.t1 <= w.hi
        order by p.t2 desc, p.seq desc, p.place desc limit w.max
    ) p`;
  type Row = Omit<HistoryPage, keyof EntityKey | "attr"> & { readonly i: number };
  const overlaps = findOverlaps(windows);
  const pages: HistoryPage[] = [];
  for (const { i, t2, seq, place, t1, cut, body } of await reads.query<Row>(text, [escaped, ...packed])) {
    const { shard, type, eid, attr } = windows[i] as PageWindow;
    const known = overlaps[i] ?? null;
    if (known !== null) {
      const name = `${t2}\t${seq}\t${place}`;
      if (known.has(name)) continue;
      known.add(name);
    }
    pages.push({ shard, type, eid, attr, t2, seq, place, t1, cut, body });
  }
  return pages;
}

/** For each window of a history that has several of them: which of its pages are found already. Most have one. */
function findOverlaps(windows: readonly PageWindow[]): (Set<string> | null)[] {
  const first = new Map<string, number>();
  const sets: (Set<string> | null)[] = windows.map(() => null);
  for (const [i, { shard, type, eid, attr }] of windows.entries()) {
    const name = `${shard}\t${type}\t${attr}\t${eid}`;
    const known = first.get(name);
    if (known === undefined) first.set(name, i);
    else {
      sets[known] ??= new Set();
      sets[i] = sets[known] ?? null;
    }
  }
  return sets;
}

/** See {@link Queries.historyHorizons}. */
export async function readHorizons(reads: Pool, type: string): Promise<Map<string, number>> {
  const text = "select attr, t2 from starling.history_horizon where type = $1";
  const rows = await reads.query<{ attr: string; t2: number }>(text, [type]);
  return new Map(rows.map(({ attr, t2 }) => [attr, t2]));
}

/** See {@link Histories.unfolded}. */
export async function listUnfolded(reads: Pool, { shard, type, eid }: EntityKey, limit: number): Promise<EntityKey[]> {
  const text = `select h.eid, h.type from starling.history h where h.shard = $1 and (h.eid, h.type) > ($2, $3)
    group by h.eid, h.type having not starling.imaged_1($1, h.eid, h.type) order by h.eid, h.type limit $4`;
  const rows = await reads.query<{ eid: string; type: string }>(text, [shard, eid, type, limit]);
  return rows.map((row) => ({ shard, type: row.type, eid: row.eid }));
}

/** See {@link Histories.fold}. */
export async function foldHistory(pool: Pool, { rows, remove, add }: HistoryFold): Promise<boolean> {
  const { packed, escaped } = packAll((packer) => {
    const pageKeys = (pages: readonly HistoryPage[]) => [
      ...packKeys(packer, pages),
      packer.column(pages.map(({ attr }) => attr)),
      packNumbers(pages.map(({ t2 }) => t2)),
      packNumbers(pages.map(({ seq }) => seq)),
      packNumbers(pages.map(({ place }) => place)),
    ];
    return [
      ...packKeys(packer, rows),
      packNumbers(rows.map(({ seq }) => seq)),
      ...pageKeys(remove),
      ...pageKeys(add),
      packNumbers(add.map(({ t1 }) => t1)),
      packNumbers(add.map(({ cut }) => cut)),
      packer.column(add.map(({ body }) => body)),
    ];
  });
  const places = Array.from({ length: packed.length + 1 }, (_, i) => `$${i + 1}`).join(", ");
  const text = `select starling.fold_history_1(${places}) as folded`;
  const [row] = await pool.query<{ folded: boolean }>(text, [escaped, ...packed]);
  return row?.folded === true;
}

/** See {@link Histories.clean}. */
export async function cleanHistory(
  pool: Pool,
  request: { readonly type: string; readonly attr: string; readonly before: number; readonly limit: number },
): Promise<number> {
  const { type, attr, before, limit } = request;
  const text = "select starling.clean_history_1($1, $2, $3, $4) as gone";
  const [row] = await pool.query<{ gone: number }>(text, [type, attr, before, limit]);
  return row?.gone ?? 0;
}
