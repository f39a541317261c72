import { type NodeId, type ShardId, toEpoch, toNodeId, toSeq, toShardId } from "../../proto/ids.ts";
import { packFences } from "./append.ts";
import type { Pool } from "./connection.ts";
import { type AttemptFields, type ObligationFields, toAttempt, toObligation } from "./obligation.ts";
import { packNumbers } from "./pack.ts";
import { fenceLockClass } from "./schema.ts";
import { type MarkFields, toMark } from "./snapshot-image.ts";
import type { AcquiredShard, AcquireTerms, Fence, OwnersReading, ShardOwner } from "./store.ts";

/*
 * Taking shards (R22):
 *
 * 1. A claim, committed on its own: from then on no new transaction of the old owner begins, so that the lock is had soon
 *    also under load. It lapses by itself.
 * 2. The lock of every shard alone, which waits for transactions in flight. After a second the sessions that block this
 *    one, and only those, are ended: a client that froze in mid-transaction holds its locks for ever.
 * 3. The epoch grows, if the claim still holds.
 * 4. In a later statement, what the log holds: in the same one the old owner's last rows would be missing (R5).
 */
export const acquireFunctions = String.raw`
create function starling.claim_1(p_node text, p_shards int[]) returns setof int language sql begin atomic
  insert into starling.claim as c (shard, claimant, until)
    select s.shard, p_node, clock_timestamp() + interval '2 s' from unnest(p_shards) s(shard) order by s.shard
    on conflict (shard) do update set claimant = excluded.claimant, until = excluded.until
      where c.claimant = p_node or c.until <= clock_timestamp()
    returning shard;
end;

create function starling.acquire_1(p_node text, p_shards int[])
  returns table (shard int, epoch float8, watermark float8, last_seq float8, delivered float8, last_at float8,
    channels json, refused json, letters json, clean boolean, obligations json, attempt json) language plpgsql as $$
#variable_conflict use_column
declare
  v_taken int[];
  v_owned int[];
begin
  perform pg_advisory_xact_lock(${fenceLockClass}, f.shard) from unnest(p_shards) f(shard);
  insert into starling.shard (shard, epoch, owner) select f.shard, 0, null from unnest(p_shards) f(shard)
    on conflict do nothing;
  v_owned := array(select s.shard from starling.shard s where s.shard = any(p_shards) and s.owner is not null);
  with bumped as (
    update starling.shard s set epoch = s.epoch + 1, owner = p_node from starling.claim c
      where s.shard = any(p_shards) and c.shard = s.shard and c.claimant = p_node and c.until > clock_timestamp()
      returning s.shard
  ) select array_agg(b.shard) into v_taken from bumped b;
  delete from starling.claim c where c.shard = any(p_shards) and c.claimant = p_node;
  return query select s.shard, s.epoch::float8, coalesce(p.watermark, 0)::float8,
      greatest(l.last_seq, p.watermark, 0)::float8, coalesce(p.delivered, 0)::float8,
      coalesce(starling.to_ms_1(greatest(l.at, p.at)), 0),
      (select json_agg(json_build_array(c.channel, c.number)) from starling.channel c where c.shard = s.shard),
      (select json_agg(r.seq) from starling.refused r where r.shard = s.shard and r.seq > b.floor),
      (select json_agg(json_build_array(d.seq, d.hook)) from starling.dead_letter d
        where d.shard = s.shard and d.seq > b.floor and d.kind = 'hook'),
      not s.shard = any(v_owned), starling.obligations_1(s.shard),
      (select json_build_array(a.from_seq, a.to_seq, a.deaths) from starling.attempt a where a.shard = s.shard)
    from unnest(v_taken) f(shard)
      join starling.shard s on s.shard = f.shard
      left join starling.progress p on p.shard = f.shard
      cross join lateral (select starling.floor_1(f.shard) offset 0) b(floor)
      left join lateral (
        select g.last_seq, g.at from starling.log g where g.shard = f.shard order by g.seq desc limit 1
      ) l on true
    order by s.shard;
end
$$;

create function starling.unblock_1(p_pid int) returns int language sql begin atomic
  select count(pg_terminate_backend(b.pid))::int from unnest(pg_blocking_pids(p_pid)) b(pid) where b.pid > 0;
end;

create function starling.release_1(p_node text, p_shards int[], p_epochs bigint[]) returns void
language sql begin atomic
  update starling.shard s set owner = null from unnest(p_shards, p_epochs) f(shard, epoch)
    where s.shard = f.shard and s.epoch = f.epoch and s.owner = p_node;
end;
`;

/** How much the epoch of a shard grows that comes from another world; `acquire_1` adds the last one. */
export const worldEpochs = 1_000;

/*
 * The acquiring in a world, which may be another than the last owner's: see world.ts. The order is acquire_1's, which then
 * finds the locks its own: what the old owner wrote is there, and the claim still holds.
 */
export const acquireWorldFunctions = String.raw`
create function starling.acquire_2(p_node text, p_shards int[])
  returns table (shard int, epoch float8, watermark float8, last_seq float8, delivered float8, last_at float8,
    channels json, refused json, letters json, clean boolean, obligations json, attempt json, jumped boolean)
  language plpgsql as $$
#variable_conflict use_column
declare
  v_world record;
  v_claimed int[];
  v_jumped int[];
begin
  perform pg_advisory_xact_lock(${fenceLockClass}, f.shard) from unnest(p_shards) f(shard);
  select * into v_world from starling.world_1();
  v_claimed := array(select c.shard from starling.claim c
    where c.shard = any(p_shards) and c.claimant = p_node and c.until > clock_timestamp());
  v_jumped := array(select w.shard from starling.world w where w.shard = any(v_claimed)
    and (w.system_identifier, w.timeline) is distinct from (v_world.system_identifier, v_world.timeline));
  update starling.shard s set epoch = s.epoch + ${worldEpochs - 1} where s.shard = any(v_jumped);
  insert into starling.world as w (shard, system_identifier, timeline)
    select f.shard, v_world.system_identifier, v_world.timeline from unnest(v_claimed) f(shard)
    on conflict (shard) do update
      set system_identifier = excluded.system_identifier, timeline = excluded.timeline
      where (w.system_identifier, w.timeline) is distinct from (excluded.system_identifier, excluded.timeline);
  return query select a.*, a.shard = any(v_jumped) from starling.acquire_1(p_node, p_shards) a;
end
$$;
`;

/**
 * How far above the last seq a shard goes on that comes from another world. What that one gave out and the database has not must not
 * come again (R5): hooks' keys, numbers of the outbox and tokens are made of it.
 */
export const worldSeqs = 100_000_000;

/**
 * In step 13. As before, for nodes of the version before, too; and seqs jump with the epoch: what lies between `below` and `above` was
 * never given out in the world of now.
 */
export const acquireAboveFunctions = String.raw`
alter table starling.world add column below bigint not null default 0, add column above bigint not null default 0;

create or replace function starling.acquire_2(p_node text, p_shards int[])
  returns table (shard int, epoch float8, watermark float8, last_seq float8, delivered float8, last_at float8,
    channels json, refused json, letters json, clean boolean, obligations json, attempt json, jumped boolean)
  language plpgsql as $$
#variable_conflict use_column
declare
  v_world record;
  v_claimed int[];
  v_jumped int[];
begin
  perform pg_advisory_xact_lock(${fenceLockClass}, f.shard) from unnest(p_shards) f(shard);
  select * into v_world from starling.world_1();
  v_claimed := array(select c.shard from starling.claim c
    where c.shard = any(p_shards) and c.claimant = p_node and c.until > clock_timestamp());
  v_jumped := array(select w.shard from starling.world w where w.shard = any(v_claimed)
    and (w.system_identifier, w.timeline) is distinct from (v_world.system_identifier, v_world.timeline));
  update starling.shard s set epoch = s.epoch + ${worldEpochs - 1} where s.shard = any(v_jumped);
  update starling.world w set below = greatest(w.above, l.last_seq, p.watermark),
      above = greatest(w.above, l.last_seq, p.watermark) + ${worldSeqs}
    from unnest(v_jumped) f(shard)
      left join starling.progress p on p.shard = f.shard
      left join lateral (
        select g.last_seq from starling.log g where g.shard = f.shard order by g.seq desc limit 1
      ) l on true
    where w.shard = f.shard;
  insert into starling.world as w (shard, system_identifier, timeline)
    select f.shard, v_world.system_identifier, v_world.timeline from unnest(v_claimed) f(shard)
    on conflict (shard) do update
      set system_identifier = excluded.system_identifier, timeline = excluded.timeline
      where (w.system_identifier, w.timeline) is distinct from (excluded.system_identifier, excluded.timeline);
  return query select a.shard, a.epoch, a.watermark, greatest(a.last_seq, w.above::float8), a.delivered, a.last_at,
      a.channels, a.refused, a.letters, a.clean, a.obligations, a.attempt, a.shard = any(v_jumped)
    from starling.acquire_1(p_node, p_shards) a join starling.world w on w.shard = a.shard
    order by a.shard;
end
$$;

-- Volatile: called beside acquire_2 it sees what that has written.
create function starling.lost_seqs_1(p_shard int) returns json language sql volatile begin atomic
  select json_build_array(w.below, w.above) from starling.world w where w.shard = p_shard and w.above > 0;
end;
`;

/** In step 3. As claim_1, of shards that fit the terms. */
export const claimFunctions = String.raw`
-- The newest membership by which somebody acquired (R22).
create table starling.membership (
  one boolean primary key default true check (one),
  revision bigint not null
);

create function starling.claim_2(p_node text, p_shards int[], p_epochs bigint[], p_revision bigint) returns setof int
language sql begin atomic
  with newest as (
    insert into starling.membership as m (revision) values (coalesce(p_revision, 0))
      on conflict (one) do update set revision = greatest(m.revision, excluded.revision) returning revision
  )
  insert into starling.claim as c (shard, claimant, until)
    select f.shard, p_node, clock_timestamp() + interval '2 s'
      from newest cross join unnest(p_shards, p_epochs) f(shard, epoch)
      left join starling.shard s on s.shard = f.shard
      where coalesce(s.epoch, 0) = f.epoch and (p_revision is null or p_revision = newest.revision) order by f.shard
    on conflict (shard) do update set claimant = excluded.claimant, until = excluded.until
      where c.claimant = p_node or c.until <= clock_timestamp()
    returning shard;
end;
`;

const patienceMs = 1_000;
const unblockEveryMs = 100;

interface AcquiredRow {
  readonly shard: number;
  readonly epoch: number;
  readonly watermark: number;
  readonly last_seq: number;
  readonly delivered: number;
  readonly last_at: number;
  readonly channels: readonly (readonly [string, number])[] | null;
  readonly refused: readonly number[] | null;
  readonly letters: readonly (readonly [number, string])[] | null;
  readonly clean: boolean;
  readonly obligations: readonly ObligationFields[] | null;
  readonly tried: AttemptFields | null;
  readonly jumped: boolean;
  readonly mark: MarkFields | null;
  readonly lost: readonly [below: number, above: number] | null;
}

/** See {@link Store.acquire}. `guard` ends what blocks: a pool of its own, since `control` may be in use. */
export async function acquire(
  pools: { readonly control: Pool; readonly guard: Pool },
  node: NodeId,
  shards: readonly ShardId[],
  terms?: AcquireTerms,
): Promise<AcquiredShard[]> {
  if (shards.length === 0) return [];
  const wanted = [...shards].sort((a, b) => a - b);
  const claimed = await claim(pools.control, node, wanted, terms);
  if (claimed.length === 0) return [];
  const sorted = packNumbers([...claimed].sort((a, b) => a - b));
  const rows = await pools.control.alone(async (connection) => {
    const [backend] = await connection.query<{ pid: number }>("select pg_backend_pid() as pid");
    const stop = unblockLater(pools.guard, backend?.pid ?? 0);
    try {
      return await connection.query<AcquiredRow>(acquireText, [node, sorted]);
    } finally {
      stop();
    }
  });
  return rows.map(toAcquired);
}

const acquireText = `select a.*, starling.newest_mark_1(a.shard) as mark, starling.attempt_1(a.shard) as tried,
    starling.lost_seqs_1(a.shard) as lost
  from starling.acquire_2($1, $2) a`;

async function claim(
  control: Pool,
  node: NodeId,
  shards: readonly ShardId[],
  terms: AcquireTerms | undefined,
): Promise<readonly number[]> {
  const packed = packNumbers(shards);
  if (terms === undefined) {
    const rows = await control.query<{ shard: number }>("select starling.claim_1($1, $2) as shard", [node, packed]);
    return rows.map(({ shard }) => shard);
  }
  const epochs = packNumbers(shards.map(terms.epochOf));
  const text = "select starling.claim_2($1, $2, $3, $4) as shard";
  const rows = await control.query<{ shard: number }>(text, [node, packed, epochs, terms.revision]);
  if (rows.length > 0) await control.query(overtakenText, [node, packed, epochs]);
  return rows.map(({ shard }) => shard);
}

/**
 * Who waited for another's claim to go has read the epoch before that one raised it. In a later statement it stands there, and as
 * long as the claim holds it stays: such claims are given up, and what is acquired then is none of these shards.
 */
const overtakenText = `delete from starling.claim c using unnest($2::int[], $3::bigint[]) f(shard, epoch), starling.shard s
  where c.shard = f.shard and c.claimant = $1 and s.shard = f.shard and s.epoch <> f.epoch`;

function unblockLater(guard: Pool, pid: number): () => void {
  let timer = setTimeout(unblock, patienceMs);
  let stopped = false;
  function unblock(): void {
    const again = () => {
      if (!stopped) timer = setTimeout(unblock, unblockEveryMs);
    };
    // If this fails, the statement's own time-out ends the acquiring, and the caller tries again.
    guard.query("select starling.unblock_1($1)", [pid]).then(again, again);
  }
  return () => {
    stopped = true;
    clearTimeout(timer);
  };
}

function toAcquired(row: AcquiredRow): AcquiredShard {
  return {
    shard: toShardId(row.shard),
    epoch: toEpoch(row.epoch),
    watermark: toSeq(row.watermark),
    lastSeq: toSeq(row.last_seq),
    delivered: toSeq(row.delivered),
    lastAt: row.last_at,
    channels: new Map(row.channels ?? []),
    refused: (row.refused ?? []).map(toSeq),
    deadAnswers: (row.letters ?? []).map(([seq, hook]) => ({ seq: toSeq(seq), hook })),
    clean: row.clean,
    obligations: (row.obligations ?? []).map((fields) => toObligation(row.shard, fields)),
    attempt: toAttempt(row.tried),
    mark: toMark(row.mark),
    ...(row.jumped && { jumped: true }),
    ...(row.lost !== null && { lost: { below: toSeq(row.lost[0]), above: toSeq(row.lost[1]) } }),
  };
}

/** See {@link Store.release}. */
export async function release(control: Pool, fences: readonly Fence[], node: NodeId): Promise<void> {
  if (fences.length === 0) return;
  await control.query("select starling.release_1($1, $2, $3)", [node, ...packFences(fences)]);
}

/**
 * See {@link Store.readOwners}. Asked every second, and hardly ever is there anything new: the table comes as one text, and as
 * long as that is the same, so is the answer.
 */
export function createOwnersReader(control: Pool): () => Promise<OwnersReading> {
  let last = "";
  let owners: readonly ShardOwner[] = [];
  return async () => {
    const [row] = await control.query<{ text: string | null; tick: number; ended: number }>(ownersText);
    const text = row?.text ?? "";
    if (text !== last) {
      owners = text.split(";").map(toOwner);
      last = text;
    }
    return { owners, tick: row?.tick ?? 0, endedTick: row?.ended ?? 0 };
  };
}

const ownersText = `select string_agg(concat_ws(',', shard, epoch, owner), ';' order by shard) as text,
  coalesce((select tick from starling.snapshot_run where status = 'running'), 0)::float8 as tick,
  coalesce((select tick from starling.snapshot_run where status <> 'running' order by tick desc limit 1), 0)::float8 as ended
  from starling.shard`;

function toOwner(text: string): ShardOwner {
  const [shard = "", epoch = "", owner] = text.split(",");
  return {
    shard: toShardId(Number(shard)),
    epoch: toEpoch(Number(epoch)),
    owner: owner === undefined ? null : toNodeId(owner),
  };
}
