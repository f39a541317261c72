import type { Connection } from "./connection.ts";

/** Before an idempotency key, which is a session of one batch. */
export const keyPrefix = "key:";

/**
 * How long sessions and channels are kept. A session that is over (`session.ts`) may be forgotten at any time after; of a name
 * it is kept that it is closed. A channel goes a day after the last session that could use it: no part of one can be on its way by
 * then (R5, R11). Only its owner and its row know a channel, and each forgets by itself: who knows more refuses more.
 */
export const forgetFunctions = String.raw`
create function starling.forget_sessions_1(p_before timestamptz, p_limit int) returns int language sql begin atomic
  with old as (
    select s.session, s.named and s.session not like '${keyPrefix}%' as stays from starling.session s
      where s.used_at < p_before and (not s.closed or not s.named or s.session like '${keyPrefix}%')
      limit p_limit for update skip locked
  ), closed as (
    update starling.session s set closed = true from old where s.session = old.session and old.stays returning 1
  ), gone as (
    delete from starling.session s using old where s.session = old.session and not old.stays returning 1
  )
  select ((select count(*) from closed) + (select count(*) from gone))::int;
end;

create function starling.forget_channels_1(p_shard int, p_before timestamptz) returns int language sql begin atomic
  with gone as (
    delete from starling.channel c where c.shard = p_shard and c.at < p_before and c.channel like 'c:%' returning 1
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

const channelGraceMs = 24 * 3_600_000;

/** How long a channel that nobody uses is kept, where a session is kept for `sessionLifeMs`. */
export function channelLifeMs(sessionLifeMs: number): number {
  return sessionLifeMs + channelGraceMs;
}

/** Sessions forgotten by one statement. */
const forgottenAtOnce = 10_000;

/** Forgets the sessions that were last used before then (Unix ms); how many. Raises STORE. */
export async function forgetSessions(maintenance: Connection, before: number): Promise<number> {
  const text = "select starling.forget_sessions_1(starling.to_time_1($1), $2) as count";
  for (let total = 0; ; ) {
    const [row] = await maintenance.query<{ count: number }>(text, [before, forgottenAtOnce]);
    const count = row?.count ?? 0;
    total += count;
    if (count < forgottenAtOnce) return total;
  }
}

/** Forgets clients' channels that were last used before then (Unix ms), shard by shard; how many. Raises STORE. */
export async function forgetChannels(maintenance: Connection, before: number): Promise<number> {
  const shards = await maintenance.query<{ shard: number }>("select shard from starling.progress order by shard");
  const text = "select starling.forget_channels_1($1, starling.to_time_1($2)) as count";
  let total = 0;
  for (const { shard } of shards) {
    const [row] = await maintenance.query<{ count: number }>(text, [shard, before]);
    total += row?.count ?? 0;
  }
  return total;
}
