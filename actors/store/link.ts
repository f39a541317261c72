import type { Pool } from "./connection.ts";
import { type Packer, packNumbers } from "./pack.ts";
import type { EntityKey } from "./store.ts";
import type { LinkAt, LinkEnd, LinkRow, LinkSegment, LinksQuery, ReferredQuery, SeenLink } from "./stored-link.ts";

/*
 * Links, a row each in the shard of the source. A flush writes them with the entity's record; what comes late has an older
 * number than what the lane has flushed, and writes nothing (so rows need no number of their own). Who links to an entity is asked of an index over the targets,
 * in every database, since sources may be anywhere.
 */

/** Of more times apart the shortest gaps between them are closed: a row's size has a bound. */
export const linkSpansMax = 64;

/** Step 5: a row at each end of a link. */
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

/**
 * Step 6: one row for a link. A node of step 5 writes, and reads, the rows of sources alone: who links to an entity it cannot
 * tell any more, nor that an entity was deleted to which others link.
 */
export const referenceFunctions = String.raw`
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
`;

/** Step 7: what was observed before, and is again, is as new as the last time: else it is forgotten with a target of before. */
export const seenLinkFunctions = String.raw`
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
`;

/** How many parameters a flush has for links, obituaries and lifetimes, after its own. */
export const linkParameters = 9;

/** The same flush with these: `call` is that without, and gives `lost`; its `count` parameters come first. */
export function linkedFlushText(call: string, count: number, ordered: boolean): string {
  const fresh = ordered ? "starling.next_flush_1($3, $1, $2)" : "true";
  const escaped = `$${ordered ? 6 : 4}`;
  const links = Array.from({ length: linkParameters - 1 }, (_, index) => `$${count + 1 + index}`).join(", ");
  return `with n as materialized (select ${fresh} as fresh),
    f as materialized (select n.fresh, ${call} as lost from n)
    select f.lost, case when f.fresh and f.lost is null
      then case when starling.flush_links_2(${escaped}, ${links}) then starling.flush_looks_1(${escaped}, $${count + linkParameters}) end
      end from f`;
}

/** A flush's links as `flush_links_2` takes them from its second parameter on; obituaries follow. */
export function packLinks(packer: Packer, links: readonly LinkSegment[]): string[] {
  const { rows, text } = packer;
  const keyText = ({ shard, type, eid }: EntityKey) => `${shard}\x1f${text(type)}\x1f${text(eid)}`;
  const of = <Kind extends LinkRow["kind"]>(...kinds: readonly Kind[]) =>
    links.flatMap((segment) =>
      segment.rows.flatMap((row) =>
        kinds.some((kind) => kind === row.kind) ? { segment, row: row as Extract<LinkRow, { kind: Kind }> } : [],
      ),
    );
  const cleared = links.filter((segment) => segment.cleared);
  return [
    rows(cleared, keyText),
    ...packColumns(packer, of("gone")),
    ...packColumns(packer, of("plain")),
    rows(of("forgotten", "seen"), ({ segment, row }) => {
      const end = `${text(row.attr)}\x1f${text(row.type)}\x1f${text(row.eid)}`;
      const rest = row.kind === "seen" ? `${row.at}\x1f${spansText(row)}` : `${row.before ?? ""}\x1f`;
      return `${keyText(segment)}\x1f${end}\x1f${rest}`;
    }),
  ];
}

function packColumns(
  { rows, text }: Packer,
  entries: readonly { readonly segment: EntityKey; readonly row: LinkEnd }[],
): [shards: string, columns: string] {
  const column = (value: (segment: EntityKey, row: LinkEnd) => string) =>
    rows(entries, ({ segment, row }) => text(value(segment, row)));
  return [
    packNumbers(entries.map(({ segment }) => segment.shard)),
    [
      column(({ type }) => type),
      column(({ eid }) => eid),
      column((_, { attr }) => attr),
      column((_, { type }) => type),
      column((_, { eid }) => eid),
    ].join("\x1f"),
  ];
}

function spansText({ spans }: SeenLink): string {
  return `{${spans.map(({ from, to }) => `[${from},${to}]`).join(",")}}`;
}

/** See `Obituaries.referrers`. */
export async function findReferrers(
  reads: Pool,
  target: Omit<EntityKey, "shard">,
  after: LinkEnd | null,
  limit: number,
): Promise<LinkEnd[]> {
  const text = `select attr, type, eid from starling.reference where target = $1 and target_type = $2
      and ($3::text is null or (attr, type, eid) > ($3, $4, $5))
    order by attr, type, eid limit $6`;
  return reads.query<{ attr: string; type: string; eid: string }>(text, [
    ...[target.eid, target.type, after?.attr ?? null, after?.type ?? null, after?.eid ?? null, limit],
  ]);
}

/** See `Lifetimes.referred`. For each by the index alone, and of many links no more than one that holds. */
export async function findReferred(pool: Pool, { type, eids, at, attributes }: ReferredQuery): Promise<string[]> {
  if (eids.length === 0) return [];
  const text = `select t.eid from json_array_elements_text($1::text::json) t(eid) cross join lateral (
      select from starling.reference l
        join json_to_recordset($3::text::json) a(type text, attr text, first bigint)
          on a.attr = l.attr and a.type = l.type
        where l.target = t.eid and l.target_type = $2 and (l.spans is null or upper(l.spans) > a.first)
        limit 1
    ) l`;
  const rules = attributes.map((rule) => {
    return { type: rule.type, attr: rule.attr, first: firstEnd(at, rule.postValidityMs) };
  });
  const rows = await pool.query<{ eid: string }>(text, [JSON.stringify(eids), type, JSON.stringify(rules)]);
  return rows.map(({ eid }) => eid);
}

/**
 * See {@link Queries.links}. An observation holds from before t1 to after t2, without the ends of what its validity adds; of
 * several times the last one that holds at the instant is told.
 */
export async function findLinks(reads: Pool, query: LinksQuery): Promise<LinkAt[]> {
  const { attributes, after, at, reverse } = query;
  const [type, eid] = reverse ? ["l.type", "l.eid"] : ["l.target_type", "l.target"];
  const own = reverse ? "l.target = $1 and l.target_type = $2" : "l.eid = $1 and l.type = $2 and l.shard = $8";
  const text = `select l.attr, ${type} as type, ${eid} as eid, lower(s.span)::float8 as t1, upper(s.span)::float8 - 1 as t2
    from starling.reference l
    join jsonb_to_recordset($3::text::jsonb) a(type text, attr text, first bigint, last bigint)
      on a.attr = l.attr and a.type = l.type
    left join lateral (
      select span from unnest(l.spans) span where span && int8range(a.first, a.last, '[]') order by span desc limit 1
    ) s on true
    where ${own} and (l.spans is null or s.span is not null)
      and ($4::text is null or (l.attr, ${type}, ${eid}) > ($4, $5, $6))
    order by l.attr, ${type}, ${eid} limit $7`;
  type Row = LinkEnd & { readonly t1: number | null; readonly t2: number | null };
  const rows = await reads.query<Row>(text, [
    ...[query.eid, query.type],
    JSON.stringify(
      attributes.map(({ type, attr, preValidityMs, postValidityMs }) => {
        return { type, attr, first: firstEnd(at, postValidityMs), last: lastStart(at, preValidityMs) };
      }),
    ),
    ...[after?.attr ?? null, after?.type ?? null, after?.eid ?? null, query.limit],
    ...(reverse ? [] : [query.shard]),
  ]);
  return rows.map(({ t1, t2, ...end }) => ({ ...end, span: t1 === null || t2 === null ? null : { from: t1, to: t2 } }));
}

/** The first millisecond in which what holds at `at` may have ended. */
export function firstEnd(at: number, postValidityMs: number): number {
  return Math.floor(at) - Math.max(0, Math.ceil(postValidityMs) - 1);
}

/** The last millisecond in which what holds at `at` may begin. */
export function lastStart(at: number, preValidityMs: number): number {
  return Math.ceil(at) + Math.max(0, Math.ceil(preValidityMs) - 1);
}
