import { toSeq } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Pool } from "./connection.ts";
import { createGather } from "./gather.ts";
import { readHistoryPages } from "./history.ts";
import { type LargeValue, markedSql, wholeState } from "./large-value.ts";
import type { HistoryPage, HistorySegment } from "./store.ts";
import type { TickPage, TickPageRequest, TickReads, TickRecord, TickWindows } from "./tick.ts";

/**
 * How the history of the entities of a page is found: in one go along its key where all are wanted, else one by one; `once`:
 * with its bytes, instead of after them.
 */
type HistoryReach = "range" | "each" | "once";
/** Which images are told: those of all entities of the range, or of the ones that are asked for. */
type ImageReach = "range" | "listed";

const range = (until: string): string =>
  `h.shard = p_shard and (h.eid, h.type) > (p_eid, p_type) and h.eid <= (${until})`;
const rowsSql = "string_agg(h.seq || ' ' || h.body, e'\\x1e' order by h.seq)";
const ofEntity = (row: string): string => `h.shard = p_shard and h.eid = ${row}.eid and h.type = ${row}.type`;

const bytesSql = (reach: HistoryReach): string =>
  reach === "range"
    ? `select h.eid, h.type, sum(octet_length(h.body)) as bytes from starling.history h
        where ${range("select max(k.eid) from k")} group by h.eid, h.type`
    : `select k.eid, k.type, h.bytes${reach === "once" ? ", h.rows" : ""} from k, lateral (
        select sum(octet_length(h.body)) as bytes${reach === "once" ? `, ${rowsSql} as rows` : ""} from starling.history h where ${ofEntity("k")} offset 0
      ) h where h.bytes is not null`;

const freshSql = (reach: HistoryReach): string => {
  if (reach === "once") return "select h.eid, h.type, h.rows from h";
  return reach === "range"
    ? `select h.eid, h.type, ${rowsSql} as rows from starling.history h
        where ${range("select max(f.eid) from f")} group by h.eid, h.type`
    : `select f.eid, f.type, h.rows from f, lateral (
        select ${rowsSql} as rows from starling.history h where ${ofEntity("f")} offset 0
      ) h where f.rows`;
};

const imagesSql = (images: ImageReach): string =>
  images === "range"
    ? `select i.* from starling.snapshot_image i
        where i.shard = p_shard and (i.eid, i.type) > (p_eid, p_type) and i.tick = p_tick
        order by i.eid, i.type limit p_limit`
    : `select i.* from n cross join lateral (
        select i.* from starling.snapshot_image i
          where i.shard = p_shard and i.eid = n.eid and i.type = n.type and i.tick = p_tick offset 0
      ) i`;

/** Of rows `e` of the entities, none twice, and the images. What is over the bytes is left out, but for the first. */
const pageTail = (reach: HistoryReach, images: ImageReach = "range"): string => `i as (
      ${imagesSql(images)}
    ), k as materialized (
      select coalesce(i.eid, e.eid) as eid, coalesce(i.type, e.type) as type, i.eid is not null as imaged,
          case when i.eid is null then e.tombstone is false else i.state is not null end as present,
          coalesce(i.created, e.created) as created, coalesce(i.created_at, e.created_at) as created_at,
          coalesce(i.applied, e.applied) as applied, case when i.eid is null then e.state else i.state end as state,
          i.history
        from e full join i on i.eid = e.eid and i.type = e.type order by 1, 2 limit p_limit
    ), h as materialized (
      ${bytesSql(reach)}
    ), m as (
      select k.*, not k.imaged and ${markedSql("k.state")} as marked from k
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
      ${freshSql(reach)}
    )
    select f.eid, f.type, f.present, f.created, f.created_at, f.applied, f.state,
        case when f.present and f.marked then starling.large_values_1(p_shard, f.type, f.eid) end,
        f.history,
        case when f.present and f.history is null and f.rows then case when f.imaged then (
          select ${rowsSql} from starling.history h where ${ofEntity("f")} and h.seq <= f.applied
        ) else r.rows end end,
        f.present and f.history is null and (
          select true from starling.history_page p where p.shard = p_shard and p.eid = f.eid and p.type = f.type limit 1
        ) is true,
        (select count(*) >= p_limit or count(*) > (select count(*) from f) from s)
      from f left join r on r.eid = f.eid and r.type = f.type order by f.eid, f.type`;

const pageColumns = "e.eid, e.type, e.created, e.created_at, e.applied, e.tombstone, e.state";

/**
 * What of the entities written since the base is looked at: in step 8 those that are listed, and where they are not, nothing
 * beyond a page that is full of others.
 */
type WrittenReach = "rest" | "page";

const listedSql = `elsif p_eids is not null then
    return query with n as materialized (
      select * from unnest(p_eids, p_types) n(eid, type)
    ), e as (
      select n.eid, n.type, e.created, e.created_at, e.applied, e.tombstone, e.state from n left join lateral (
        select e.* from starling.entity e where e.shard = p_shard and e.eid = n.eid and e.type = n.type offset 0
      ) e on true
    ), ${pageTail("once", "listed")};
  `;

const beyond = `(coalesce((select w.eid from w), repeat(chr(1114111), 257)), coalesce((select w.type from w), ''))`;

const tickPageText = (name: string, written: WrittenReach): string => String.raw`
create function starling.${name}(p_shard int, p_tick bigint, p_eid text, p_type text, p_limit int, p_bytes bigint,
  p_since bigint, p_due bigint, p_always text${written === "page" ? ", p_eids text[], p_types text[]" : ""})
  returns table (eid text, type text, present boolean, created bigint, created_at timestamptz, applied bigint, state text,
    large text, history text, fresh text, folded boolean, more boolean) language plpgsql stable
set enable_seqscan = off set enable_bitmapscan = off set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
begin
  if p_since is null${written === "page" ? " and p_eids is null" : ""} then
    return query with e as (
      select ${pageColumns} from starling.entity e where e.shard = p_shard and (e.eid, e.type) > (p_eid, p_type)
        order by e.eid, e.type limit p_limit
    ), ${pageTail("range")};
  ${written === "page" ? listedSql : ""}else
    return query with d as ${written === "page" ? "materialized " : ""}(
      (select s.eid, s.type from starling.snapshot s
        where s.shard = p_shard and (s.eid, s.type) > (p_eid, p_type) and s.to_tick is null and s.due <= p_due
        order by s.eid, s.type limit p_limit)
      union
      (select v.eid, v.type from starling.snapshot_value v
        where v.shard = p_shard and (v.eid, v.type) > (p_eid, p_type) and v.due <= p_due
        order by v.eid, v.type limit p_limit)
    ), ${
      written === "page"
        ? `w as materialized (
      select d.eid, d.type from d order by d.eid, d.type offset p_limit - 1 limit 1
    ), `
        : ""
    }e as (
      (select ${pageColumns} from starling.entity e where e.shard = p_shard and (e.eid, e.type) > (p_eid, p_type)
        ${
          written === "page"
            ? `and (e.eid, e.type) <= ${beyond}
        `
            : ""
        }and (e.applied > p_since or e.type = any(string_to_array(p_always, ',')))
        order by e.eid, e.type limit p_limit)
      union all
      select d.eid, d.type, e.created, e.created_at, e.applied, e.tombstone, e.state
        from d left join starling.entity e on e.shard = p_shard and e.eid = d.eid and e.type = d.type
        where e.eid is null or not (e.applied > p_since or e.type = any(string_to_array(p_always, ',')))
    ), ${pageTail(written === "page" ? "once" : "each")};
  end if;
end
$$;
`;

/**
 * In step 7: `tick_page_1`, read with less effort. fresh: seq and body of each row of the history, in a text; folded: there are
 * pages of it, too; more: this page is not the last one.
 */
export const tickPageFunctions = tickPageText("tick_page_2", "rest");

/** In step 8: of entities that are listed no others are read, and where they are not, no more of the shard than is told. */
export const boundedTickPage = tickPageText("tick_page_3", "page");

/** Shards that are read together, each up to the bytes of its request. */
const shardsMax = 8;
/** How often a page is read anew because an entity of it was deleted in between. */
const readsMax = 20;

/** See {@link TickReads.readTickPage}: calls for several shards go together. */
export function createTickReads(reads: Pool): TickReads {
  const read = createGather<TickPageCall, TickPage>({
    run: (calls) => readTickPages(reads, calls),
    ...{ groupsMax: 1, keyOf: () => "", weightOf: () => 1, weightMax: shardsMax },
  });
  return { readTickPage: (request, windowsOf) => read({ request, windowsOf }) };
}

export interface TickPageCall {
  readonly request: TickPageRequest;
  readonly windowsOf: TickWindows;
}

/** Pages in the order of the calls. */
export async function readTickPages(reads: Pool, calls: readonly TickPageCall[]): Promise<TickPage[]> {
  const pages = new Map<TickPageCall, TickPage>();
  let left = calls;
  for (let tries = 0; tries < readsMax && left.length > 0; tries++) {
    for (const [index, page] of (await readOnce(reads, left)).entries()) {
      if (page !== null) pages.set(left[index] as TickPageCall, page);
    }
    left = left.filter((call) => !pages.has(call));
  }
  if (left.length > 0) {
    const shards = left.map(({ request }) => request.shard).join();
    throw new StarlingError("STORE", `entities of shard ${shards} were deleted while they were read`);
  }
  return calls.map((call) => pages.get(call) as TickPage);
}

interface PageRow {
  readonly place: number;
  readonly eid: string;
  readonly type: string;
  readonly present: boolean;
  readonly created: number;
  readonly created_at: number;
  readonly applied: number;
  readonly state: string;
  readonly large: string | null;
  readonly history: string | null;
  readonly fresh: string | null;
  readonly folded: boolean;
  readonly more: boolean;
}

const pagesText = `select r.place, t.eid, t.type, t.present, t.created::float8 as created,
    starling.to_ms_1(t.created_at) as created_at, t.applied::float8 as applied, t.state, t.large, t.history, t.fresh, t.folded, t.more
  from jsonb_to_recordset($1::text::jsonb) r(place int, shard int, tick bigint, eid text, type text, entities int,
    bytes bigint, since bigint, due bigint, always text, eids text[], types text[])
  cross join lateral starling.tick_page_3(r.shard, r.tick, r.eid, r.type, r.entities, r.bytes, r.since, r.due, r.always,
    r.eids, r.types) t`;

/** A page of one call, as it was read. */
interface OpenPage {
  readonly request: TickPageRequest;
  readonly rows: PageRow[];
  readonly records: Map<string, GrowingRecord>;
}

/** Null: the history of an entity became that of its image between the statements. */
async function readOnce(reads: Pool, calls: readonly TickPageCall[]): Promise<(TickPage | null)[]> {
  const wanted = calls.map(({ request }, place) => {
    const { shard, tick, after, limit, maxBytes, changed, listed } = request;
    const only = changed && { since: changed.since, due: Math.floor(changed.at), always: changed.always.join(",") };
    const these = listed && { eids: listed.map(({ eid }) => eid), types: listed.map(({ type }) => type) };
    return { place, shard, tick, eid: "", type: "", ...after, entities: limit, bytes: maxBytes, ...only, ...these };
  });
  const pages = calls.map(({ request }): OpenPage => ({ request, rows: [], records: new Map() }));
  for (const row of await reads.query<PageRow>(pagesText, [JSON.stringify(wanted)])) {
    const page = pages[row.place] as OpenPage;
    page.rows.push(row);
    if (row.present) page.records.set(keyOf(row), toRecord(page.request, row));
  }
  const windows = pages.map(({ rows, records }, place) => {
    const own = rows.flatMap((row) => (row.folded ? (records.get(keyOf(row)) ?? []) : []));
    return own.length === 0 ? [] : (calls[place]?.windowsOf(own) ?? []);
  });
  const all = windows.flat();
  if (all.length > 0) {
    for (const found of await readHistoryPages(reads, all)) {
      for (const { request, records } of pages) {
        if (request.shard === found.shard) records.get(keyOf(found))?.pages.push(found);
      }
    }
  }
  const copies = all.length > 0 ? await countCopies(reads, pages) : [];
  return pages.map(({ rows, records }, place) => {
    const known = rows.filter(({ history }) => history !== null).length;
    if ((windows[place]?.length ?? 0) > 0 && (copies[place] ?? 0) > known) return null;
    const last = rows.at(-1);
    const next = last?.more === true ? { eid: last.eid, type: last.type } : null;
    const absent = rows.flatMap(({ present, eid, type }) => (present ? [] : [{ eid, type }]));
    return { records: [...records.values()], absent, last: next };
  });
}

function keyOf({ type, eid }: { readonly type: string; readonly eid: string }): string {
  return `${type}\t${eid}`;
}

type GrowingRecord = TickRecord & { readonly pages: HistoryPage[] };

/** Member by member: copies of objects cost a multiple, and these are most of what is made for a page. */
function toRecord({ shard }: TickPageRequest, row: PageRow): GrowingRecord {
  const { eid, type, history, fresh, large } = row;
  const copy = history === null ? null : (JSON.parse(history) as CopiedHistory);
  const added = copy === null ? readRows(fresh) : (copy.rows ?? []);
  return {
    shard,
    type,
    eid,
    created: toSeq(row.created),
    createdAt: row.created_at,
    applied: toSeq(row.applied),
    state: large === null ? row.state : wholeState(row.state, readLarge(large)),
    rows: added.map(([seq, body]): HistorySegment => ({ shard, type, eid, seq: toSeq(seq), body })),
    pages: (copy?.pages ?? []).map(([attr, t1, t2, seq, place, cut, body]) => {
      return { shard, type, eid, attr, t1: Number(t1), t2: Number(t2), seq, place, cut: Number(cut), body };
    }),
  };
}

/** Bodies hold JSON texts, in which there is no control character. */
function readRows(fresh: string | null): RowFields[] {
  if (fresh === null) return [];
  return fresh.split("\x1e").map((row) => {
    const end = row.indexOf(" ");
    return [Number(row.slice(0, end)), row.slice(end + 1)];
  });
}

function readLarge(text: string): LargeValue[] {
  return Object.entries(JSON.parse(text) as Record<string, string>).map(([attr, body]) => ({ attr, body }));
}

/** What a deletion copied; times that are infinite are texts. */
interface CopiedHistory {
  readonly rows: readonly RowFields[] | null;
  readonly pages: readonly PageFields[] | null;
}

type RowFields = readonly [seq: number, body: string];
type PageFields = readonly [
  attr: string,
  t1: number | string,
  t2: number | string,
  seq: number,
  place: number,
  cut: number | string,
  body: string,
];

/** Images that have a copy of their history, by page: between its place and its last row. */
async function countCopies(reads: Pool, pages: readonly OpenPage[]): Promise<number[]> {
  const text = `select p.place, (
      select count(*)::int from starling.snapshot_image i where i.shard = p.shard and i.tick = p.tick
        and (i.eid, i.type) > (p.eid, p.type) and (i.eid, i.type) <= (p.last_eid, p.last_type) and i.history is not null
    ) as count from jsonb_to_recordset($1::text::jsonb)
      p(place int, shard int, tick bigint, eid text, type text, last_eid text, last_type text)`;
  const asked = pages.flatMap(({ request: { shard, tick, after }, rows }, place) => {
    const last = rows.at(-1);
    if (last === undefined) return [];
    return [{ place, shard, tick, eid: "", type: "", ...after, last_eid: last.eid, last_type: last.type }];
  });
  const counts: number[] = [];
  for (const { place, count } of await reads.query<{ place: number; count: number }>(text, [JSON.stringify(asked)])) {
    counts[place] = count;
  }
  return counts;
}
