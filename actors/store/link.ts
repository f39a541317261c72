import type { Pool } from "./connection.ts";
import type { Packer } from "./pack.ts";
import type { EntityKey, FlushRequest, LinkAt, LinkRow, LinkSegment, LinksQuery, StoredLink } from "./store.ts";

/*
 * Links, a row at each of their two ends: in the shard of the source under its own key, and in that of the target, reversed,
 * under the target's. A flush writes them with the entity's record; what comes late has an older number than what the lane
 * has flushed, and writes nothing.
 */

/** Of more times apart the shortest gaps between them are closed: a row's size has a bound. */
export const linkSpansMax = 64;

export const linkFunctions = String.raw`
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
  select case when p_spans is null or (select count(*) from unnest(p_spans)) <= ${linkSpansMax} then p_spans
    else p_spans + (
      select range_agg(g.gap) from (
        select s.gap from (
          select int8range(upper(r.span), lead(lower(r.span)) over (order by r.span)) as gap from unnest(p_spans) r(span)
        ) s where not upper_inf(s.gap)
          order by upper(s.gap) - lower(s.gap) limit (select count(*) - ${linkSpansMax} from unnest(p_spans))
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
`;

/** The same flush with links: `call` is that without, and gives `lost`; its parameters begin at number `first`. */
export function linkedFlushText(call: string, ordered: boolean): string {
  const fresh = ordered ? "starling.next_flush_1($3, $1, $2)" : "true";
  return `with n as materialized (select ${fresh} as fresh),
    f as materialized (select n.fresh, ${call} as lost from n)
    select f.lost, case when f.fresh and f.lost is null then starling.flush_links_1($${ordered ? 6 : 4}, $${
      ordered ? 28 : 26
    }) end from f`;
}

/** A flush's links as `flush_links_1` takes them. */
export function packLinks({ rows, text }: Packer, { links = [] }: FlushRequest): string {
  const entries = links.flatMap(entriesOf);
  return rows(entries, ({ segment: { shard, type, eid }, row }) => {
    const key = `${shard}\x1f${text(type)}\x1f${text(eid)}`;
    if (row === null) return `${key}\x1fc\x1ff\x1f\x1f\x1f\x1f`;
    const other = `${row.reverse ? "t" : "f"}\x1f${text(row.attr)}\x1f${text(row.type)}\x1f${text(row.eid)}`;
    return `${key}\x1f${actionOf(row)}\x1f${other}\x1f${spansText(row)}`;
  });
}

interface LinkEntry {
  readonly segment: LinkSegment;
  /** Null: all rows go. */
  readonly row: LinkRow | null;
}

function entriesOf(segment: LinkSegment): LinkEntry[] {
  const rows = segment.rows.map((row): LinkEntry => ({ segment, row }));
  return segment.cleared ? [{ segment, row: null }, ...rows] : rows;
}

function actionOf(row: LinkRow): string {
  if (row.kind !== "observed") return row.kind === "gone" ? "d" : "p";
  return row.fresh ? "r" : "s";
}

function spansText(row: LinkRow): string {
  if (row.kind !== "observed") return "";
  return `{${row.spans.map(({ from, to }) => `[${from},${to}]`).join(",")}}`;
}

interface LinkColumns {
  readonly reverse: boolean;
  readonly attr: string;
  readonly other_type: string;
  readonly other: string;
}

/** See {@link Store.readLinks}. */
export async function readLinks(reads: Pool, key: EntityKey, offset: number, limit: number): Promise<StoredLink[]> {
  const text = `select reverse, attr, other_type, other from starling.link where shard = $1 and eid = $2 and type = $3
    order by reverse, attr, other_type, other offset $4 limit $5`;
  const rows = await reads.query<LinkColumns>(text, [key.shard, key.eid, key.type, offset, limit]);
  return rows.map(toLink);
}

/**
 * See {@link Queries.links}. An observation holds from before t1 to after t2, without the ends of what its validity adds; of
 * several times the last one that holds at the instant is told.
 */
export async function findLinks(reads: Pool, query: LinksQuery): Promise<LinkAt[]> {
  const { attributes, after, at } = query;
  const text = `select l.reverse, l.attr, l.other_type, l.other, lower(s.span)::float8 as t1, upper(s.span)::float8 - 1 as t2
    from starling.link l
    join jsonb_to_recordset($5::text::jsonb) a(type text, attr text, first bigint, last bigint)
      on a.attr = l.attr and a.type = case when l.reverse then l.other_type else l.type end
    left join lateral (
      select span from unnest(l.spans) span where span && int8range(a.first, a.last, '[]') order by span desc limit 1
    ) s on true
    where l.shard = $1 and l.eid = $2 and l.type = $3 and l.reverse = $4 and (l.spans is null or s.span is not null)
      and ($6::text is null or (l.attr, l.other_type, l.other) > ($6, $7, $8))
    order by l.attr, l.other_type, l.other limit $9`;
  type Row = LinkColumns & { readonly t1: number | null; readonly t2: number | null };
  const rows = await reads.query<Row>(text, [
    ...[query.shard, query.eid, query.type, query.reverse],
    JSON.stringify(
      attributes.map(({ type, attr, preValidityMs, postValidityMs }) => {
        return { type, attr, first: firstEnd(at, postValidityMs), last: lastStart(at, preValidityMs) };
      }),
    ),
    ...[after?.attr ?? null, after?.type ?? null, after?.eid ?? null, query.limit],
  ]);
  return rows.map((row) => ({
    ...toLink(row),
    span: row.t1 === null || row.t2 === null ? null : { from: row.t1, to: row.t2 },
  }));
}

/** The first millisecond in which what holds at `at` may have ended. */
export function firstEnd(at: number, postValidityMs: number): number {
  return Math.floor(at) - Math.max(0, Math.ceil(postValidityMs) - 1);
}

/** The last millisecond in which what holds at `at` may begin. */
export function lastStart(at: number, preValidityMs: number): number {
  return Math.ceil(at) + Math.max(0, Math.ceil(preValidityMs) - 1);
}

function toLink({ reverse, attr, other_type: type, other: eid }: LinkColumns): StoredLink {
  return { reverse, attr, type, eid };
}
