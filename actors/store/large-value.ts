import assert from "node:assert";

/*
 * A value whose JSON text is long has a row of its own in starling.large_value, which is written only when the value
 * changes. The record's state has the rest of such attributes, and nothing of others, in its first member:
 *
 *   {"#large":{"attr":{"t1":…,"t2":…,"c":…,"n":…},…},"attr":{"v":…,"t1":…,"t2":…,"c":…,"n":…},…}
 *
 * No attribute can have that name, and no value of a user comes before it: the first characters tell whether there are
 * rows.
 */

/** A longer JSON text (characters) has a row of its own. */
export const smallMaxChars = 1024;

/** A value that has a row of its own. */
export interface LargeValue {
  readonly attr: string;
  /** JSON text; null, in a flush: it has none any more. */
  readonly body: string | null;
}

const mark = '{"#large":{';

/** Whether values of a record have rows of their own. */
export function isMarked(state: string): boolean {
  return state.startsWith(mark);
}

/** The same in SQL; `left` reads no more than the beginning of a state that stands apart. */
export function markedSql(state: string): string {
  return `left(${state}, ${mark.length}) = '${mark}'`;
}

/** Puts the attributes of large values, `"attr":{…}` each, into a state: a brace, then its members. */
export function markState(large: string, state: string): string {
  return `${mark}${large}}${state === "" ? "" : ","}${state.slice(1)}`;
}

/** The attributes with large values, and where the other members begin; without a mark none, and 1. */
export function splitState(state: string): { large: string; at: number } {
  if (!isMarked(state)) return { large: "", at: 1 };
  const end = state.indexOf("}}", mark.length) + 1;
  return { large: state.slice(mark.length, end), at: end + 2 };
}

/** A record's state with all values in their places. */
export function wholeState(state: string, large: readonly LargeValue[] = []): string {
  const { large: marked, at } = splitState(state);
  if (marked === "") return state;
  const bodies = new Map(large.map(({ attr, body }) => [attr, body]));
  const members = marked.replace(/"([^"]+)":\{/g, (head, attr: string) => {
    const body = bodies.get(attr);
    assert(typeof body === "string", `the row of the large value ${attr} is missing`);
    return `${head}"v":${body},`;
  });
  return `{${members}${state.slice(at - 1)}`;
}

/** The columns of one row are few and the bodies long: to look for the keys costs nothing beside writing those. */
export const largeFunctions = String.raw`
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
`;
