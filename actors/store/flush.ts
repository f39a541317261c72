import type { NodeId } from "../../proto/ids.ts";
import { packFences, toWriteResult } from "./append.ts";
import type { Pool } from "./connection.ts";
import { packObligations } from "./obligation.ts";
import { type Packer, packAll } from "./pack.ts";
import type { EntityKey, FlushRequest, WriteResult } from "./store.ts";

/**
 * Fence, entities, history, refused seqs, dead letters, obligations and progress in one call. An entity changes only upwards
 * (`applied < new`); a tombstone takes the history of its life along, and goes when the watermark has passed it (R19).
 */
export const flushFunctions = String.raw`
create function starling.flush_1(p_node text, p_shards int[], p_epochs bigint[], p_escaped boolean,
  p_entities text, p_states text, p_history text, p_bodies text, p_progress text, p_channels text, p_refused text,
  p_letters text, p_obligations text, p_attempts text) returns text language plpgsql as $$
declare
  v_lost text := starling.fence_1(p_node, p_shards, p_epochs);
begin
  if v_lost is not null then
    return v_lost;
  end if;
  if p_entities <> '' then
    perform starling.flush_entities_1(p_escaped, p_entities, p_states);
  end if;
  if p_history <> '' then
    insert into starling.history (shard, type, eid, seq, body)
      select f[1]::int, f[2], starling.unpack_1(f[3], p_escaped), f[4]::bigint,
          starling.unpack_1(coalesce(r.body, ''), p_escaped)
        from rows from (string_to_table(p_history, e'\x1e'), string_to_table(p_bodies, e'\x1e')) r(fields, body),
          lateral (select string_to_array(r.fields, e'\x1f') offset 0) s(f)
      on conflict do nothing;
  end if;
  if position(e'\x1f1\x1e' in p_entities || e'\x1e') > 0 then
    perform starling.flush_tombstones_1(p_escaped, p_entities);
  end if;
  if p_refused <> '' then
    insert into starling.refused (shard, seq, type, eid)
      select f[1]::int, f[4]::bigint, f[2], starling.unpack_1(f[3], p_escaped)
        from (select string_to_array(r, e'\x1f') from string_to_table(p_refused, e'\x1e') r offset 0) s(f)
      on conflict do nothing;
  end if;
  if p_letters <> '' then
    perform starling.flush_letters_1(p_escaped, p_letters);
  end if;
  if p_obligations <> '' then
    perform starling.flush_obligations_1(p_escaped, p_obligations);
  end if;
  if p_attempts <> '' then
    perform starling.flush_attempts_1(p_attempts);
  end if;
  if p_progress <> '' then
    perform starling.flush_progress_1(p_escaped, p_progress, p_channels);
  end if;
  return null;
end
$$;

create function starling.flush_entities_1(p_escaped boolean, p_entities text, p_states text) returns void
language sql begin atomic
  insert into starling.entity (shard, type, eid, created, created_at, applied, tombstone, state)
    select f[1]::int, f[2], starling.unpack_1(f[3], p_escaped), f[4]::bigint, starling.to_time_1(f[5]::bigint),
        f[6]::bigint, f[7] = '1', starling.unpack_1(coalesce(r.state, ''), p_escaped)
      from rows from (string_to_table(p_entities, e'\x1e'), string_to_table(p_states, e'\x1e')) r(fields, state),
        lateral (select string_to_array(r.fields, e'\x1f') offset 0) s(f)
    on conflict (shard, type, eid) do update set created = excluded.created, created_at = excluded.created_at,
        applied = excluded.applied, tombstone = excluded.tombstone, state = excluded.state
      where entity.applied < excluded.applied;
end;

create function starling.flush_tombstones_1(p_escaped boolean, p_entities text) returns void
language sql begin atomic
  delete from starling.history h
    using (select string_to_array(r, e'\x1f') from string_to_table(p_entities, e'\x1e') r offset 0) s(f)
    where f[7] = '1' and h.shard = f[1]::int and h.type = f[2] and h.eid = starling.unpack_1(f[3], p_escaped)
      and h.seq <= f[6]::bigint;
end;

create function starling.flush_letters_1(p_escaped boolean, p_letters text) returns void
language sql begin atomic
  insert into starling.dead_letter (shard, seq, number, kind, hook, type, eid, code, error, at, task)
    select n.shard, n.seq, (select count(*) from starling.dead_letter d where d.shard = n.shard and d.seq = n.seq)
        + row_number() over (partition by n.shard, n.seq order by n.ordinal), n.f[5], n.hook, n.f[2],
        starling.unpack_1(n.f[3], p_escaped), n.f[8], starling.unpack_1(n.f[9], p_escaped),
        starling.to_time_1(n.f[6]::bigint), starling.unpack_1(n.f[10], p_escaped)
      from (
        select f, f[1]::int, f[4]::bigint, starling.unpack_1(f[7], p_escaped), ordinal from (
          select string_to_array(r, e'\x1f'), i from string_to_table(p_letters, e'\x1e') with ordinality t(r, i) offset 0
        ) s(f, ordinal)
      ) n(f, shard, seq, hook, ordinal)
      where not exists (
        select from starling.dead_letter d where d.shard = n.shard and d.seq = n.seq and d.kind = n.f[5]
          and d.hook = n.hook
      )
    on conflict do nothing;
end;

create function starling.flush_progress_1(p_escaped boolean, p_progress text, p_channels text) returns void
language sql begin atomic
  insert into starling.progress (shard, watermark, delivered, at)
    select f[1]::int, f[2]::bigint, f[3]::bigint, starling.to_time_1(f[4]::bigint)
      from (select string_to_array(r, e'\x1f') from string_to_table(p_progress, e'\x1e') r offset 0) s(f)
    on conflict (shard) do update set watermark = greatest(progress.watermark, excluded.watermark),
      delivered = greatest(progress.delivered, excluded.delivered), at = greatest(progress.at, excluded.at);
  insert into starling.channel (shard, channel, number)
    select f[1]::int, starling.unpack_1(f[2], p_escaped), f[3]::bigint
      from (select string_to_array(r, e'\x1f') from string_to_table(p_channels, e'\x1e') r offset 0) s(f)
    on conflict (shard, channel) do update set number = excluded.number where channel.number < excluded.number;
  delete from starling.entity e using starling.progress p
    where e.tombstone and p.shard = e.shard and e.applied <= p.watermark
      and e.shard in (select split_part(r, e'\x1f', 1)::int from string_to_table(p_progress, e'\x1e') r);
end;
`;

/** See {@link Store.flush}. */
export async function flush(pool: Pool, node: NodeId, request: FlushRequest): Promise<WriteResult> {
  const { packed, escaped } = packAll((packer) => packFlush(packer, request));
  const parameters = [node, ...packFences(request.fences), escaped, ...packed];
  return toWriteResult(await pool.query<{ lost: string | null }>(flushText, parameters));
}

const flushText = "select starling.flush_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) as lost";

function packFlush(packer: Packer, request: FlushRequest): string[] {
  const { entities, history, progress, refused, deadLetters } = request;
  const { rows, text } = packer;
  const channels = progress.flatMap((p) => p.channels.map((c) => ({ shard: p.shard, ...c })));
  const key = (k: EntityKey) => `${k.shard}\x1f${text(k.type)}\x1f${text(k.eid)}`;
  return [
    rows(entities, (e) => {
      return `${key(e)}\x1f${e.created}\x1f${e.createdAt}\x1f${e.applied}\x1f${e.tombstone ? 1 : 0}`;
    }),
    rows(entities, (e) => text(e.state)),
    rows(history, (h) => `${key(h)}\x1f${h.seq}`),
    rows(history, (h) => text(h.body)),
    rows(progress, (p) => `${p.shard}\x1f${p.watermark}\x1f${p.delivered}\x1f${p.at}`),
    rows(channels, (c) => `${c.shard}\x1f${text(c.channel)}\x1f${c.number}`),
    rows(refused, (r) => `${key(r)}\x1f${r.seq}`),
    rows(deadLetters, (d) => {
      const names = [d.hook, d.code, d.error, d.task].map(text).join("\x1f");
      return `${key(d)}\x1f${d.seq}\x1f${d.kind}\x1f${d.at}\x1f${names}`;
    }),
    ...packObligations(packer, request),
  ];
}
