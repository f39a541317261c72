import type { Connection } from "./connection.ts";

/** Before an idempotency key, which is a session of one batch; and before the id that a node draws for a session without a name. */
export const keyPrefix = "key:";
export const drawnPrefix = "drawn:";

const dayMs = 86_400_000;

/**
 * How long sessions and channels are kept. What is over (`session.ts`) may be forgotten at any time after. Of a key or of a drawn
 * session a channel goes when it has had nothing new for a day longer: of a key there is one batch, which came while it lived; and a
 * drawn session is not noted to be in use while a batch of it waits, so that all that could be repeated is as new as that. So its
 * session is over, and no part of one can be on its way (R5, R11). Channel and session are forgotten each by itself, the channel by
 * its owner's memory and by the table: who knows more refuses more. Names and their channels stay: there are few.
 */
export const sessionLifeMs = 7 * dayMs;
export const channelLifeMs = sessionLifeMs + dayMs;

/** Whether a channel can be forgotten: not that of a name, nor another shard's outbox. */
export function isMortal(channel: string): boolean {
  return channel.startsWith(`c:${keyPrefix}`) || channel.startsWith(`c:${drawnPrefix}`);
}

export const forgetFunctions = String.raw`
alter table starling.channel add column at timestamptz not null default now();
alter table starling.channel alter column at set default clock_timestamp();

create function starling.forget_sessions_1(p_life_ms float8, p_limit int) returns int language sql begin atomic
  with old as (
    select s.session from starling.session s
      where not s.named and s.used_at < clock_timestamp() - make_interval(secs => p_life_ms / 1000)
      limit p_limit for update skip locked
  ), aged as (
    select s.session from starling.session s
      where s.session like '${keyPrefix}%' and s.opened_at < clock_timestamp() - make_interval(secs => p_life_ms / 1000)
      limit p_limit for update skip locked
  ), gone as (
    delete from starling.session s using (select session from old union select session from aged) o
      where s.session = o.session returning 1
  )
  select count(*)::int from gone;
end;

create function starling.forget_channels_1(p_shard int, p_life_ms float8) returns int language sql begin atomic
  with gone as (
    delete from starling.channel c
      where c.shard = p_shard and c.at < clock_timestamp() - make_interval(secs => p_life_ms / 1000)
        and (c.channel like 'c:${keyPrefix}%' or c.channel like 'c:${drawnPrefix}%')
      returning 1
  )
  select count(*)::int from gone;
end;

-- Replaced, not a new one: nodes of the version before call it as they did.
create or replace function starling.flush_progress_1(p_escaped boolean, p_progress text, p_channels text) returns void
language sql begin atomic
  insert into starling.progress (shard, watermark, delivered, at)
    select f[1]::int, f[2]::bigint, f[3]::bigint, starling.to_time_1(f[4]::bigint)
      from (select string_to_array(r, e'\x1f') from string_to_table(p_progress, e'\x1e') r offset 0) s(f)
    on conflict (shard) do update set watermark = greatest(progress.watermark, excluded.watermark),
      delivered = greatest(progress.delivered, excluded.delivered), at = greatest(progress.at, excluded.at);
  insert into starling.channel (shard, channel, number)
    select f[1]::int, starling.unpack_1(f[2], p_escaped), f[3]::bigint
      from (select string_to_array(r, e'\x1f') from string_to_table(p_channels, e'\x1e') r offset 0) s(f)
    on conflict (shard, channel) do update set number = excluded.number, at = excluded.at
      where channel.number < excluded.number;
  delete from starling.entity e using starling.progress p
    where e.tombstone and p.shard = e.shard and e.applied <= p.watermark
      and e.shard in (select split_part(r, e'\x1f', 1)::int from string_to_table(p_progress, e'\x1e') r);
end;
`;

/** Of each kind, forgotten by one statement. */
const forgottenAtOnce = 10_000;

/** Forgets the sessions that are over; how many. Raises STORE. */
export async function forgetSessions(maintenance: Connection): Promise<number> {
  const text = "select starling.forget_sessions_1($1, $2) as count";
  for (let total = 0; ; ) {
    const [row] = await maintenance.query<{ count: number }>(text, [sessionLifeMs, forgottenAtOnce]);
    const count = row?.count ?? 0;
    total += count;
    if (count === 0) return total;
  }
}

/** Forgets the channels that are over, shard by shard; how many. Raises STORE. */
export async function forgetChannels(maintenance: Connection): Promise<number> {
  const shards = await maintenance.query<{ shard: number }>("select shard from starling.progress order by shard");
  const text = "select starling.forget_channels_1($1, $2) as count";
  let total = 0;
  for (const { shard } of shards) {
    const [row] = await maintenance.query<{ count: number }>(text, [shard, channelLifeMs]);
    total += row?.count ?? 0;
  }
  return total;
}
