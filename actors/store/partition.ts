import type { Connection, Pool } from "./connection.ts";
import { clusterLockClass, daysAhead } from "./schema.ts";
import type { Segment } from "./store.ts";

/** A partition holds one day, UTC, and is named after it. It is filled before it is attached, so no append waits. */
export const partitionFunctions = String.raw`
create function starling.ensure_partition_1(p_day date) returns void language plpgsql set lock_timeout = '5s' as $$
declare
  v_name text := 'log_' || to_char(p_day, 'YYYYMMDD');
  v_pending boolean;
begin
  perform pg_advisory_xact_lock(${clusterLockClass}, 1);
  if to_regclass('starling.' || v_name) is null then
    execute format('create table starling.%I (like starling.log including defaults including constraints including storage)', v_name);
  end if;
  select i.inhdetachpending into v_pending from pg_inherits i where i.inhrelid = ('starling.' || v_name)::regclass;
  if v_pending then
    execute format('alter table starling.log detach partition starling.%I finalize', v_name);
  end if;
  if v_pending is distinct from false then
    execute format('alter table starling.log attach partition starling.%I for values from (%L) to (%L)', v_name,
      p_day::timestamp at time zone 'UTC', (p_day + 1)::timestamp at time zone 'UTC');
  end if;
end
$$;

-- Whether every shard has passed the last row of a partition, also one that is detached already.
create function starling.partition_passed_1(p_name text) returns boolean language plpgsql as $$
declare
  v_passed boolean;
begin
  execute format($q$
    select coalesce(bool_and(coalesce(least(p.watermark, p.delivered, o.passed), -1) >= m.last_seq), true)
      from (select shard, max(last_seq) as last_seq from starling.%I group by shard) m
        left join starling.progress p on p.shard = m.shard
        left join (select shard, min(first_waiting) - 1 as passed from starling.obligation group by shard) o
          on o.shard = m.shard
  $q$, p_name) into v_passed;
  return v_passed;
end
$$;

-- What only made sense beside the partition's rows.
create function starling.forget_refused_1(p_name text) returns void language plpgsql as $$
begin
  execute format($q$
    delete from starling.refused r using (select shard, max(last_seq) as last_seq from starling.%I group by shard) m
      where r.shard = m.shard and r.seq <= m.last_seq
  $q$, p_name);
end
$$;
`;

const dayMs = 86_400_000;

/** The partitions that this process knows to exist. */
export interface Partitions {
  /** Makes those that the segments need; those ahead of them are made in the background. */
  ensure(segments: readonly Segment[]): Promise<void>;
  /** Makes those of a day and the days ahead. */
  ensureAhead(at: number): Promise<void>;
  forget(): void;
}

export function createPartitions(control: Pool): Partitions {
  const known = new Map<number, Promise<void>>();
  let newest = 0;
  const ensureDay = (day: number): Promise<void> => {
    const making = known.get(day);
    if (making !== undefined) return making;
    const made = control.query("select starling.ensure_partition_1($1)", [dateOf(day)]).then(
      () => undefined,
      (error) => {
        known.delete(day);
        throw error;
      },
    );
    known.set(day, made);
    return made;
  };
  const ensureAhead = async (at: number): Promise<void> => {
    newest = Math.max(newest, dayOf(at));
    for (let day = dayOf(at); day <= dayOf(at) + daysAhead; day++) await ensureDay(day);
  };
  return {
    ensureAhead,
    forget: () => known.clear(),
    ensure: async (segments) => {
      for (const day of new Set(segments.map((segment) => dayOf(segment.at)))) {
        await ensureDay(day);
        // A failure is not lost: the append that needs the partition makes it, or fails with the reason.
        if (day > newest) void ensureAhead(day * dayMs).catch(() => undefined);
      }
    },
  };
}

function dayOf(at: number): number {
  return Math.floor(at / dayMs);
}

function dateOf(day: number): string {
  return new Date(day * dayMs).toISOString().slice(0, 10);
}

/**
 * Drops the partitions that end at or before `before` (Unix ms) and that every shard has passed, by watermark, by
 * outbox and by what entities owe (R8). Detaching first and concurrently: a plain drop waits behind long readers, and every append behind it.
 * Returns the days that went, as `YYYY-MM-DD`. Raises STORE if the lock is not had in time; then try again later.
 */
export async function dropPartitions(maintenance: Connection, before: number): Promise<string[]> {
  await maintenance.query("select set_config('lock_timeout', '2s', false)");
  await maintenance.query("select pg_advisory_lock($1, 1)", [clusterLockClass]);
  try {
    const dropped: string[] = [];
    for (const partition of await listPartitions(maintenance, before)) {
      if (await dropPartition(maintenance, partition)) dropped.push(partition.day);
    }
    return dropped;
  } finally {
    await maintenance.query("select pg_advisory_unlock($1, 1)", [clusterLockClass]);
  }
}

interface Partition {
  readonly name: string;
  readonly day: string;
  /** Not there for one that an earlier call detached. */
  readonly attached: boolean;
  readonly pending: boolean;
}

async function listPartitions(maintenance: Connection, before: number): Promise<Partition[]> {
  const text = `select c.relname::text as name, i.inhrelid is not null as attached,
      coalesce(i.inhdetachpending, false) as pending
    from pg_class c left join pg_inherits i on i.inhrelid = c.oid
    where c.relnamespace = 'starling'::regnamespace and c.relkind = 'r' and c.relname ~ '^log_[0-9]{8}$'
    order by c.relname`;
  const rows = await maintenance.query<Omit<Partition, "day">>(text);
  return rows
    .map((row) => ({ ...row, day: `${row.name.slice(4, 8)}-${row.name.slice(8, 10)}-${row.name.slice(10, 12)}` }))
    .filter(({ day }) => Date.parse(`${day}T00:00:00Z`) + dayMs <= before);
}

async function dropPartition(maintenance: Connection, { name, day, attached, pending }: Partition): Promise<boolean> {
  if (!(await hasPassed(maintenance, name))) return false;
  if (pending) await maintenance.script(`alter table starling.log detach partition starling.${name} finalize`);
  else if (attached)
    await maintenance.script(`alter table starling.log detach partition starling.${name} concurrently`);
  // From here on nothing is added. A row that came between the first look and the detaching brings the partition back.
  if (!(await hasPassed(maintenance, name))) {
    await maintenance.query("select starling.ensure_partition_1($1)", [day]);
    return false;
  }
  await maintenance.query("select starling.forget_refused_1($1)", [name]);
  await maintenance.script(`drop table starling.${name}`);
  return true;
}

async function hasPassed(maintenance: Connection, name: string): Promise<boolean> {
  const [row] = await maintenance.query<{ passed: boolean }>("select starling.partition_passed_1($1) as passed", [
    name,
  ]);
  return row?.passed ?? false;
}
