import assert from "node:assert";
import { toSeq } from "../../proto/ids.ts";
import type { Pool } from "./connection.ts";
import { createGather } from "./gather.ts";
import { type Packer, packAll, packKeys, packNumbers } from "./pack.ts";
import { goneFunction } from "./snapshot-gone.ts";
import { pagesFunction } from "./snapshot-page-function.ts";
import { snapshotRowFunctions, snapshotRowTables, valueChangeFunctions } from "./snapshot-rows.ts";
import type { OpenedVisit, ShardWriter, SnapshotPage, SnapshotStore } from "./snapshot-store.ts";
import { type MarkRow, packDues, packRows, toMark } from "./snapshot-write.ts";

/**
 * In step 7: what owners of shards write of a tick, for many shards at once; each shard's page stands or falls by its own mark,
 * and all that are written are one transaction. A page that comes again finds another cursor and writes nothing; the rows of
 * the marks are locked until the end, in the order of the shards, so of two attempts the later one sees what the first has done.
 *
 * Where a shard is lost, nothing is written, and the answer names all that are: the group comes again without them (R2).
 */
export const snapshotPageFunctions = String.raw`
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

${pagesFunction(2)}`;

/** In step 8: who has gone is found page by page. */
export const seenGonePages = `${goneFunction}\n${pagesFunction(3)}`;

/** In step 9: confidences come apart from all else. */
export const confidentPages = [snapshotRowTables, snapshotRowFunctions, valueChangeFunctions, pagesFunction(4)].join(
  "\n",
);

/** Shards, and bytes of their pages, that go together. */
const shardsMax = 64;
const bytesMax = 8 * 1024 * 1024;
/** Statements at once: one is computed for, one is written. */
const groupsMax = 2;

/** See {@link SnapshotStore.openVisit} and {@link SnapshotStore.writePage}: calls for several shards go together. */
export function createPageWriter(pool: Pool): Pick<SnapshotStore, "openVisit" | "writePage"> {
  const open = createGather<OpenCall, OpenedVisit | "lost" | null>({
    run: (calls) => withoutLost(calls, (some) => openVisits(pool, some)),
    keyOf: ({ writer, tick, base }) => `${writer.node} ${tick} ${base}`,
    ...{ groupsMax: 1, weightOf: () => 1, weightMax: shardsMax },
  });
  const write = createGather<PageCall, "written" | "lost">({
    run: (calls) => withoutLost(calls, (some) => writePages(pool, some)),
    keyOf: ({ writer, page }) => `${writer.node} ${page.tick} ${page.stage}`,
    weightOf: ({ page }) => bytesMax / shardsMax + bytesOf(page),
    ...{ groupsMax, weightMax: bytesMax },
  });
  return {
    openVisit: (writer, tick, base) => open({ writer, tick, base }),
    writePage: (writer, page) => write({ writer, page }),
  };
}

interface OpenCall {
  readonly writer: ShardWriter;
  readonly tick: number;
  readonly base: number;
}

interface PageCall {
  readonly writer: ShardWriter;
  readonly page: SnapshotPage;
}

function bytesOf({ rows, values }: SnapshotPage): number {
  const ofRows = rows.reduce((sum, row) => sum + row.eid.length + ("body" in row ? row.body.length : 0), 0);
  return values.reduce((sum, { body, links }) => sum + body.length + links.length, ofRows);
}

/** Runs calls until none of their shards is lost; `run` answers with the lost shards' ids, or in the order of the calls. */
async function withoutLost<Call extends { readonly writer: ShardWriter }, Result>(
  calls: readonly Call[],
  run: (calls: readonly Call[]) => Promise<readonly Result[] | string>,
): Promise<(Result | "lost")[]> {
  const results = new Map<Call, Result>();
  for (let left = calls; left.length > 0; ) {
    const outcome = await run(left);
    if (typeof outcome !== "string") {
      for (const [index, result] of outcome.entries()) results.set(left[index] as Call, result);
      break;
    }
    const lost = new Set(outcome.split(",").map(Number));
    const kept = left.filter(({ writer }) => !lost.has(writer.shard));
    assert(kept.length < left.length, `shards ${outcome} are lost, which nobody has asked for`);
    left = kept;
  }
  return calls.map((call) => (results.has(call) ? (results.get(call) as Result) : "lost"));
}

type OpenedRow = MarkRow & { readonly lost: string | null; readonly base_seq: number | null };

async function openVisits(pool: Pool, calls: readonly OpenCall[]): Promise<(OpenedVisit | null)[] | string> {
  const [first] = calls;
  if (first === undefined) return [];
  const { writer, tick, base } = first;
  const text = `select lost, shard, tick::float8 as tick, seq::float8 as seq, eid, type, page, visited, done, counts,
      base_seq::float8 as base_seq from starling.snapshot_open_2($1, $2, $3, $4, $5)`;
  const shards = packNumbers(calls.map((call) => call.writer.shard));
  const epochs = packNumbers(calls.map((call) => call.writer.epoch));
  const rows = await pool.query<OpenedRow>(text, [writer.node, shards, epochs, tick, base]);
  const lost = rows[0]?.lost ?? null;
  if (lost !== null) return lost;
  return calls.map((call) => {
    const row = rows.find(({ shard }) => shard === call.writer.shard);
    if (row === undefined) return null;
    const { lost: _, base_seq, ...mark } = row;
    return { mark: toMark(mark), baseSeq: base_seq === null ? null : toSeq(base_seq) };
  });
}

async function writePages(pool: Pool, calls: readonly PageCall[]): Promise<"written"[] | string> {
  const [first] = calls;
  if (first === undefined) return [];
  const { packed, escaped } = packAll((packer) => packPages(packer, calls));
  const pages = calls.map(({ writer, page }, place) => {
    const { after, cursor, visited, done, gone, counts, tasks } = page;
    const from = { after_eid: after.eid, after_type: after.type };
    const ways = { whole: gone === "others", listed: gone === "closed" };
    return {
      place,
      shard: writer.shard,
      epoch: writer.epoch,
      ...from,
      ...cursor,
      visited,
      done,
      ...ways,
      counts,
      tasks,
    };
  });
  const { writer, page } = first;
  const values = [writer.node, page.tick, page.stage === "components", JSON.stringify(pages), escaped, ...packed];
  const [row] = await pool.query<{ lost: string | null }>(pagesText, values);
  return row?.lost ?? calls.map(() => "written" as const);
}

const pagesText = `select starling.snapshot_pages_4(${Array.from({ length: 20 }, (_, i) => `$${i + 1}`).join(", ")}) as lost`;

function packPages(packer: Packer, calls: readonly PageCall[]): string[] {
  const rows = calls.flatMap(({ page }) => page.rows);
  const values = calls.flatMap(({ page }) => page.values);
  const placesOf = (count: (page: SnapshotPage) => number) =>
    packNumbers(calls.flatMap(({ page }, place) => Array.from({ length: count(page) }, () => place)));
  return [
    ...[placesOf((page) => page.rows.length), ...packRows(packer, rows)],
    ...[placesOf((page) => page.values.length), ...packKeys(packer, values), packDues(values.map(({ due }) => due))],
    packer.rows(values, ({ links }) => packer.text(links)),
    packer.column(values.map(({ body }) => body)),
  ];
}
