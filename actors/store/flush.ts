import type { NodeId } from "../../proto/ids.ts";
import { packFences, toWriteResult } from "./append.ts";
import type { Connection, Pool } from "./connection.ts";
import { largeFunctions } from "./large-value.ts";
import { packLooks } from "./lifetime.ts";
import { linkedFlushText, linkParameters, packLinks } from "./link.ts";
import { packObituaries } from "./obituary.ts";
import { packObligations } from "./obligation.ts";
import { type Packer, packAll, packKeys, packNumbers } from "./pack.ts";
import { imagedCall, packImages } from "./snapshot-image.ts";
import type { EntityKey, FlushRequest, StoredEntity, WriteResult } from "./store.ts";

/**
 * Fence, entities, history, refused seqs, dead letters, obligations and progress in one call. An entity changes only
 * upwards (`applied < new`), its large values with it; a tombstone takes these and the history of its life along, and
 * goes when the watermark has passed it (R19).
 *
 * Entities and history come column by column: one array each costs PostgreSQL less than one per row. It spends the rest
 * of its time in indexes, so every row goes down each index once. MERGE does; INSERT ON CONFLICT looks first and then
 * inserts, and locks a row before it updates it. Rejected as well: COPY into a staging table, JSON, an array of
 * composites (measured: reference/performance.md).
 */
export const flushFunctions = String.raw`${largeFunctions}
create function starling.flush_1(p_node text, p_shards int[], p_epochs bigint[], p_escaped boolean,
  p_entity_shards int[], p_entity_types text, p_entity_eids text, p_created bigint[], p_created_at bigint[],
  p_applied bigint[], p_tombstones boolean[], p_states text, p_history_shards int[], p_history_types text,
  p_history_eids text, p_seqs bigint[], p_bodies text, p_progress text, p_channels text, p_refused text, p_letters text,
  p_obligations text, p_attempts text, p_large text, p_large_bodies text) returns text language plpgsql as $$
declare
  v_lost text := starling.fence_1(p_node, p_shards, p_epochs);
begin
  if v_lost is not null then
    return v_lost;
  end if;
  for v_attempt in 1 .. 2 loop
    begin
      if p_entity_shards <> '{}' then
        perform starling.flush_entities_1(p_escaped, p_entity_shards, p_entity_types, p_entity_eids, p_created,
          p_created_at, p_applied, p_tombstones, p_states);
      end if;
      if p_large <> '' then
        perform starling.flush_large_1(p_escaped, p_large, p_large_bodies);
      end if;
      if p_history_shards <> '{}' then
        perform starling.flush_history_1(p_escaped, p_history_shards, p_history_types, p_history_eids, p_seqs, p_bodies,
          v_attempt > 1);
      end if;
      exit;
    exception when unique_violation then
      -- A repeat of a flush whose answer was lost, perhaps beside its first attempt, which has ended now.
      if v_attempt > 1 then
        raise;
      end if;
    end;
  end loop;
  if true = any(p_tombstones) then
    perform starling.flush_tombstones_1(p_escaped, p_entity_shards, p_entity_types, p_entity_eids, p_applied,
      p_tombstones);
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

-- The plan is made once and before the table has its size: without the settings it might read the whole table for ever.
create function starling.flush_entities_1(p_escaped boolean, p_shards int[], p_types text, p_eids text,
  p_created bigint[], p_created_at bigint[], p_applied bigint[], p_tombstones boolean[], p_states text) returns void
language sql set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan begin atomic
  merge into starling.entity e
    using (
      select unnest(p_shards), unnest(starling.split_1(p_types, p_escaped)),
          unnest(starling.split_1(p_eids, p_escaped)),
          unnest(p_created), unnest(p_created_at), unnest(p_applied), unnest(p_tombstones),
          unnest(starling.split_1(p_states, p_escaped))
    ) n(shard, type, eid, created, created_at, applied, tombstone, state)
    on e.shard = n.shard and e.type = n.type and e.eid = n.eid
    when matched and e.applied < n.applied then
      update set created = n.created, created_at = starling.to_time_1(n.created_at), applied = n.applied,
        tombstone = n.tombstone, state = n.state
    when not matched then
      insert (shard, type, eid, created, created_at, applied, tombstone, state)
        values (n.shard, n.type, n.eid, n.created, starling.to_time_1(n.created_at), n.applied, n.tombstone, n.state);
end;

-- Raises unique_violation for rows that are there, unless told that they may be: to look first costs as much as to
-- insert.
create function starling.flush_history_1(p_escaped boolean, p_shards int[], p_types text, p_eids text, p_seqs bigint[],
  p_bodies text, p_repeated boolean) returns void language plpgsql as $$
begin
  if p_repeated then
    insert into starling.history (shard, type, eid, seq, body)
      select unnest(p_shards), unnest(starling.split_1(p_types, p_escaped)),
          unnest(starling.split_1(p_eids, p_escaped)),
          unnest(p_seqs), unnest(starling.split_1(p_bodies, p_escaped))
      on conflict do nothing;
  else
    insert into starling.history (shard, type, eid, seq, body)
      select unnest(p_shards), unnest(starling.split_1(p_types, p_escaped)),
          unnest(starling.split_1(p_eids, p_escaped)),
          unnest(p_seqs), unnest(starling.split_1(p_bodies, p_escaped));
  end if;
end
$$;

create function starling.flush_tombstones_1(p_escaped boolean, p_shards int[], p_types text, p_eids text,
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

/**
 * In step 3: a flush knows its place among those of its lane. The row of the lane is locked until the end, so an attempt waits
 * for one that was begun before, and then sees what that has written: the number is read with the lock.
 */
export const orderedFlushFunctions = String.raw`
create table starling.flushed (
  node text not null,
  lane int not null,
  number bigint not null,
  at timestamptz not null default clock_timestamp(),
  primary key (node, lane)
) with (fillfactor = 50);

create function starling.flush_2(p_lane int, p_number bigint, p_node text, p_shards int[], p_epochs bigint[],
  p_escaped boolean, p_entity_shards int[], p_entity_types text, p_entity_eids text, p_created bigint[],
  p_created_at bigint[], p_applied bigint[], p_tombstones boolean[], p_states text, p_history_shards int[],
  p_history_types text, p_history_eids text, p_seqs bigint[], p_bodies text, p_progress text, p_channels text,
  p_refused text, p_letters text, p_obligations text, p_attempts text, p_large text, p_large_bodies text)
  returns text language plpgsql as $$
declare
  v_number bigint;
  v_lost text;
begin
  insert into starling.flushed (node, lane, number) values (p_node, p_lane, 0) on conflict do nothing;
  select f.number into v_number from starling.flushed f where f.node = p_node and f.lane = p_lane for update;
  if v_number >= p_number then
    return starling.fence_1(p_node, p_shards, p_epochs);
  end if;
  v_lost := starling.flush_1(p_node, p_shards, p_epochs, p_escaped, p_entity_shards, p_entity_types, p_entity_eids,
    p_created, p_created_at, p_applied, p_tombstones, p_states, p_history_shards, p_history_types, p_history_eids, p_seqs,
    p_bodies, p_progress, p_channels, p_refused, p_letters, p_obligations, p_attempts, p_large, p_large_bodies);
  if v_lost is null then
    update starling.flushed f set number = p_number, at = clock_timestamp() where f.node = p_node and f.lane = p_lane;
  end if;
  return v_lost;
end
$$;
`;

/** So long after a lane's last flush no attempt of it is on its way any more: its node has ended, or begins anew. */
const placesLifeMs = 7 * 86_400_000;

/** Forgets the places of lanes that have ended: each start of a node has its own. How many; raises STORE. */
export async function forgetPlaces(maintenance: Pick<Connection, "query">): Promise<number> {
  const text = `with gone as (
    delete from starling.flushed f where f.at < clock_timestamp() - make_interval(secs => $1::float8 / 1000) returning 1
  ) select count(*)::int as count from gone`;
  const [row] = await maintenance.query<{ count: number }>(text, [placesLifeMs]);
  return row?.count ?? 0;
}

/** See {@link Store.flush}. */
export async function flush(pool: Pool, node: NodeId, request: FlushRequest): Promise<WriteResult> {
  const { packed, escaped } = packAll((packer) => packFlush(packer, request));
  const parameters = [node, ...packFences(request.fences), escaped, ...packed];
  const { order = null } = request;
  const numbered = order === null ? parameters : [order.lane, order.number, ...parameters];
  const isTicked = request.images !== undefined || request.marks !== undefined;
  const text = flushText({ ordered: order !== null, linked: isLinked(request), ticked: isTicked });
  const rows = await pool.query<{ lost: string | null }>(text, numbered);
  return toWriteResult(rows);
}

/** With an order, with links, and with images or marks: in this order their parameters come. */
interface FlushShape {
  readonly ordered: boolean;
  readonly linked: boolean;
  readonly ticked: boolean;
}

function flushText({ ordered, linked, ticked }: FlushShape): string {
  const count = ordered ? 27 : 25;
  const plain = `starling.flush_${ordered ? 2 : 1}(${placeholders(count)})`;
  const call = ticked ? imagedCall(plain, ordered, count + (linked ? linkParameters : 0) + 1) : plain;
  return linked ? linkedFlushText(call, count, ordered) : `select ${call} as lost`;
}

function placeholders(count: number): string {
  return Array.from({ length: count }, (_, index) => `$${index + 1}`).join(", ");
}

function packFlush(packer: Packer, request: FlushRequest): string[] {
  const { entities, history, progress, refused, deadLetters } = request;
  const { rows, column, text } = packer;
  const channels = progress.flatMap((p) => p.channels.map((c) => ({ shard: p.shard, ...c })));
  const key = (k: EntityKey) => `${k.shard}\x1f${text(k.type)}\x1f${text(k.eid)}`;
  return [
    ...packKeys(packer, entities),
    packNumbers(entities.map((e) => e.created)),
    packNumbers(entities.map((e) => e.createdAt)),
    packNumbers(entities.map((e) => e.applied)),
    `{${entities.map((e) => (e.tombstone ? "t" : "f")).join(",")}}`,
    column(entities.map((e) => e.state)),
    ...packKeys(packer, history),
    packNumbers(history.map((h) => h.seq)),
    column(history.map((h) => h.body)),
    rows(progress, (p) => `${p.shard}\x1f${p.watermark}\x1f${p.delivered}\x1f${p.at}`),
    rows(channels, (c) => `${c.shard}\x1f${text(c.channel)}\x1f${c.number}`),
    rows(refused, (r) => `${key(r)}\x1f${r.seq}`),
    rows(deadLetters, (d) => {
      const names = [d.hook, d.code, d.error, d.task].map(text).join("\x1f");
      return `${key(d)}\x1f${d.seq}\x1f${d.kind}\x1f${d.at}\x1f${names}`;
    }),
    ...packObligations(packer, request),
    ...packLarge(packer, entities),
    ...(isLinked(request)
      ? [...packLinks(packer, request.links ?? []), ...packObituaries(packer, request), packLooks(packer, request)]
      : []),
    ...(request.images === undefined && request.marks === undefined ? [] : packImages(packer, request)),
  ];
}

/** Whether the flush is the longer one, with what only some have to write. */
function isLinked({ links, obituaries, looks }: FlushRequest): boolean {
  return links !== undefined || obituaries !== undefined || looks !== undefined;
}

/** Keys row by row, bodies as a column: they are few and long. */
function packLarge({ rows, text }: Packer, entities: readonly StoredEntity[]): [keys: string, bodies: string] {
  const large = entities.flatMap(largeOf);
  const key = ({ entity: e, attr }: LargeRow) =>
    `${e.shard}\x1f${text(e.type)}\x1f${text(e.eid)}\x1f${e.applied}\x1f${text(attr)}`;
  return [rows(large, key), rows(large, ({ body }) => text(body))];
}

interface LargeRow {
  readonly entity: StoredEntity;
  readonly attr: string;
  readonly body: string;
}

const none: readonly LargeRow[] = [];

/** As `flush_large_1` takes them: an empty body takes the row away, an empty attr stands for all. */
function largeOf(entity: StoredEntity): readonly LargeRow[] {
  if (entity.tombstone) return [{ entity, attr: "", body: "" }];
  return entity.large?.map(({ attr, body }) => ({ entity, attr, body: body ?? "" })) ?? none;
}
