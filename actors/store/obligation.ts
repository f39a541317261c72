import { toSeq, toShardId } from "../../proto/ids.ts";
import type { Packer } from "./pack.ts";
import type { AttemptMark, FlushRequest, StoredObligation } from "./store.ts";

/** Obligations (R16) and attempt marks (R17) as a flush writes them; the next owner reads them as it acquires. */
export const obligationFunctions = String.raw`
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
`;

/** In step 11: what attempt marks know beyond their window. Nodes of the version before write nothing of it. */
export const attemptRanges = String.raw`
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
`;

/** The two last parameters of a flush. */
export function packObligations({ rows, text }: Packer, request: FlushRequest): [obligations: string, marks: string] {
  const { obligations = [], attempts = [] } = request;
  return [
    rows(obligations, ({ shard, type, eid, held, firstWaiting }) => {
      const numbers = held === null ? ["", "", ""] : [held.seq, held.lastSeq, held.at];
      const texts = held === null ? ["", "", ""] : [held.hook, held.place, held.task].map(text);
      return [shard, text(type), text(eid), ...numbers, ...texts, firstWaiting ?? ""].join("\x1f");
    }),
    rows(attempts, ({ shard, mark }) =>
      (mark === null ? [shard, 0, 0, 0, 0] : [shard, mark.from, mark.to, mark.deaths - 1, mark.until]).join("\x1f"),
    ),
  ];
}

/** A row of `obligations_1`. */
export type ObligationFields = [
  type: string,
  eid: string,
  seq: number | null,
  lastSeq: number,
  at: number,
  hook: string,
  place: string,
  task: string,
  firstWaiting: number | null,
];

/** What `obligations_1` said of a shard. */
export function toObligation(shard: number, fields: ObligationFields): StoredObligation {
  const [type, eid, seq, lastSeq, at, hook, place, task, firstWaiting] = fields;
  const held = seq === null ? null : { seq: toSeq(seq), lastSeq: toSeq(lastSeq), at, hook, place, task };
  return { shard: toShardId(shard), type, eid, held, firstWaiting: firstWaiting === null ? null : toSeq(firstWaiting) };
}

/** A mark as `attempt_1` says it. */
export function toAttempt(fields: AttemptFields | null): AttemptMark | null {
  if (fields === null) return null;
  const [from, to, deaths, until] = fields;
  // As in the version before: without the one whose window it is.
  return { from: toSeq(from), to: toSeq(to), until: toSeq(until), deaths: to > from ? 0 : deaths + 1 };
}

export type AttemptFields = readonly [from: number, to: number, deaths: number, until: number];
