import { type NodeId, type ShardId, toNodeId } from "../../proto/ids.ts";
import type { Pool } from "./connection.ts";
import type {
  BegunRun,
  NewSnapshotRequest,
  NewSnapshotRun,
  ShardWriter,
  SnapshotEnd,
  SnapshotNodeNote,
  SnapshotProgress,
  SnapshotRun,
  SnapshotTasks,
  SnapshotTicks,
} from "./snapshot-store.ts";

/**
 * In step 6: the run's row, every change of which is fenced by the shard of the coordinator, and what nodes say of their own
 * hooks. A tick's number never comes back: the newest run is not dropped.
 */
export const snapshotRunFunctions = String.raw`
create function starling.snapshot_begin_1(p_node text, p_shard int, p_epoch bigint, p_at bigint, p_kind text,
  p_cause text, p_fingerprint text, p_requests text) returns table (lost text, tick float8, begun boolean) language plpgsql as $$
declare
  v_lost text := starling.fence_1(p_node, array[p_shard], array[p_epoch]);
  v_tick bigint;
begin
  if v_lost is not null then
    return query select v_lost, 0::float8, false;
    return;
  end if;
  select r.tick into v_tick from starling.snapshot_run r where r.status = 'running';
  if found then
    return query select null::text, v_tick::float8, false;
    return;
  end if;
  insert into starling.snapshot_run as r (tick, at, kind, cause, status, phase, base, fingerprint, started_at)
    select coalesce(max(o.tick), 0) + 1, starling.to_time_1(p_at), p_kind, p_cause, 'running', 'visit',
        coalesce(max(o.tick) filter (where o.status = 'finished'), 0), p_fingerprint, clock_timestamp()
      from starling.snapshot_run o
    returning r.tick into v_tick;
  update starling.snapshot_request q set tick = v_tick where q.id = any(string_to_array(p_requests, ','));
  delete from starling.snapshot_request q where q.at < clock_timestamp() - interval '1 day';
  return query select null::text, v_tick::float8, true;
end
$$;

-- An ended run stays as it is: what comes late changes nothing.
create function starling.snapshot_note_1(p_node text, p_shard int, p_epoch bigint, p_tick bigint, p_status text,
  p_phase text, p_counts text, p_hooks text, p_error text) returns text language plpgsql as $$
declare
  v_lost text := starling.fence_1(p_node, array[p_shard], array[p_epoch]);
begin
  if v_lost is null then
    update starling.snapshot_run set status = p_status, phase = p_phase, counts = p_counts::jsonb,
        hooks = coalesce(p_hooks::jsonb, hooks), error = p_error,
        ended_at = case when p_status <> 'running' then clock_timestamp() end
      where tick = p_tick and status = 'running';
  end if;
  return v_lost;
end
$$;

create function starling.snapshot_forget_1(p_node text, p_shard int, p_epoch bigint, p_before bigint) returns int
language plpgsql as $$
declare
  v_count int;
begin
  if starling.fence_1(p_node, array[p_shard], array[p_epoch]) is not null then
    return 0;
  end if;
  delete from starling.snapshot_run r
    where r.ended_at < starling.to_time_1(p_before)
      and r.tick < (select max(o.tick) from starling.snapshot_run o where o.status = 'finished');
  get diagnostics v_count = row_count;
  delete from starling.snapshot_answer a
    where a.body = '' and not exists (select from starling.snapshot_run r where r.tick = a.tick);
  delete from starling.snapshot_node n where not exists (select from starling.snapshot_run r where r.tick = n.tick);
  return v_count;
end
$$;

-- The tasks of one answer have a number of their own within the tick: it is that of their batch.
create function starling.snapshot_node_1(p_tick bigint, p_node text, p_step text, p_hooks text, p_answers text)
returns void language plpgsql as $$
begin
  perform from starling.snapshot_run r where r.tick = p_tick and r.status = 'running' for share;
  if not found then
    return;
  end if;
  insert into starling.snapshot_node (tick, node, step, hooks) values (p_tick, p_node, p_step, p_hooks::jsonb)
    on conflict do nothing;
  if not found then
    return;
  end if;
  lock table starling.snapshot_answer in share row exclusive mode;
  insert into starling.snapshot_answer (tick, hook, number, body)
    select p_tick, a.hook, (select count(*) from starling.snapshot_answer o where o.tick = p_tick) + row_number() over (),
        a.body
      from jsonb_to_recordset(p_answers::jsonb) a(hook text, body text)
      where not exists (select from starling.snapshot_answer o where o.tick = p_tick and o.hook = a.hook);
end
$$;
`;

interface RunRow extends Omit<SnapshotRun, "counts" | "hooks"> {
  readonly counts: string;
  readonly hooks: string;
}

const columns = `tick::float8 as tick, starling.to_ms_1(at) as at, kind, cause, status, phase, base::float8 as base,
  fingerprint, starling.to_ms_1(started_at) as "startedAt", starling.to_ms_1(ended_at) as "endedAt", counts::text as counts,
  hooks::text as hooks, error`;

/** See {@link SnapshotStore.readRuns}. */
export async function readRuns(
  reads: Pool,
  { before, limit }: { readonly before: number | null; readonly limit: number },
): Promise<SnapshotRun[]> {
  const text = `select ${columns} from starling.snapshot_run where $1::bigint is null or tick < $1 order by tick desc limit $2`;
  return (await reads.query<RunRow>(text, [before, limit])).map(toRun);
}

/** See {@link SnapshotStore.readTicks}. */
export async function readTicks(reads: Pool): Promise<SnapshotTicks> {
  const text = `select ${columns} from starling.snapshot_run where tick in (
    (select max(tick) from starling.snapshot_run), (select max(tick) from starling.snapshot_run where status = 'finished'))
    order by tick desc`;
  const runs = (await reads.query<RunRow>(text)).map(toRun);
  const find = (status: string) => runs.find((run) => run.status === status) ?? null;
  return { running: find("running"), finished: find("finished"), newest: runs[0] ?? null };
}

function toRun({ counts, hooks, ...run }: RunRow): SnapshotRun {
  return { ...run, counts: JSON.parse(counts), hooks: JSON.parse(hooks) };
}

function fields({ node, shard, epoch }: ShardWriter) {
  return [node, shard, epoch] as const;
}

/** See {@link SnapshotStore.beginRun}. */
export async function beginRun(pool: Pool, owner: ShardWriter, run: NewSnapshotRun): Promise<BegunRun | "lost"> {
  const text = "select * from starling.snapshot_begin_1($1, $2, $3, $4, $5, $6, $7, $8)";
  const { kind, cause, fingerprint, requests } = run;
  const values = [...fields(owner), Math.floor(run.at), kind, cause, fingerprint, requests.join(",")];
  const [row] = await pool.query<BegunRun & { lost: string | null }>(text, values);
  if (row === undefined || row.lost !== null) return "lost";
  return { tick: row.tick, begun: row.begun };
}

const noteText = "select starling.snapshot_note_1($1, $2, $3, $4, $5, $6, $7, $8, $9) as lost";

/** See {@link SnapshotStore.noteRun}. */
export async function noteRun(
  pool: Pool,
  owner: ShardWriter,
  tick: number,
  { phase, counts }: SnapshotProgress,
): Promise<"written" | "lost"> {
  const values = [...fields(owner), tick, "running", phase, JSON.stringify(counts), null, null];
  return outcomeOf(await pool.query<{ lost: string | null }>(noteText, values));
}

/** See {@link SnapshotStore.endRun}. */
export async function endRun(
  pool: Pool,
  owner: ShardWriter,
  tick: number,
  { status, counts, hooks, error }: SnapshotEnd,
): Promise<"written" | "lost"> {
  const values = [...fields(owner), tick, status, "ended", JSON.stringify(counts), JSON.stringify(hooks), error];
  return outcomeOf(await pool.query<{ lost: string | null }>(noteText, values));
}

/** What a fenced function said. */
export function outcomeOf(rows: readonly { readonly lost: string | null }[]): "written" | "lost" {
  return rows[0]?.lost === null ? "written" : "lost";
}

/** See {@link SnapshotStore.dropRuns}. */
export async function dropRuns(pool: Pool, owner: ShardWriter, before: number): Promise<number> {
  const text = "select starling.snapshot_forget_1($1, $2, $3, $4) as gone";
  const [row] = await pool.query<{ gone: number }>(text, [...fields(owner), Math.floor(before)]);
  return row?.gone ?? 0;
}

/** See {@link SnapshotStore.addRequest}. */
export async function addRequest(pool: Pool, request: NewSnapshotRequest): Promise<void> {
  const text = `insert into starling.snapshot_request (id, kind, whole, tick, error) values ($1, $2, $3, $4, $5)
    on conflict do nothing`;
  const end = request.kind === "end" ? request : { tick: null, error: null };
  const whole = request.kind === "run" && request.full;
  await pool.query(text, [request.id, request.kind, whole, end.tick, end.error]);
}

/** See {@link SnapshotStore.readRequests}. */
export async function readRequests(reads: Pool): Promise<NewSnapshotRequest[]> {
  const text = `select q.id, q.kind, q.whole, q.tick::float8 as tick, q.error from starling.snapshot_request q
    where (q.kind = 'run' and q.tick is null)
      or (q.kind = 'end' and exists (select from starling.snapshot_run r where r.tick = q.tick and r.status = 'running'))
    order by q.at limit 1000`;
  type Row = { id: string; kind: "run" | "end"; whole: boolean; tick: number | null; error: string | null };
  return (await reads.query<Row>(text)).map(({ id, kind, whole, tick, error }) =>
    kind === "run" ? { id, kind, full: whole } : { id, kind, tick: tick ?? 0, error: error ?? "" },
  );
}

/** See {@link SnapshotStore.readRequest}. */
export async function readRequest(reads: Pool, id: string): Promise<number | null> {
  const text = "select tick::float8 as tick from starling.snapshot_request where id = $1";
  const [row] = await reads.query<{ tick: number | null }>(text, [id]);
  return row?.tick ?? null;
}

/** See {@link SnapshotStore.readOwnerNodes}. */
export async function readOwnerNodes(reads: Pool): Promise<NodeId[]> {
  const text = "select distinct owner from starling.shard where owner is not null";
  return (await reads.query<{ owner: string }>(text)).map(({ owner }) => toNodeId(owner));
}

/** See {@link SnapshotStore.noteNode}. */
export async function noteNode(pool: Pool, { tick, node, step, hooks, answers }: SnapshotNodeNote): Promise<void> {
  const values = [tick, node, step, JSON.stringify(hooks), JSON.stringify(answers)];
  await pool.query("select starling.snapshot_node_1($1, $2, $3, $4, $5)", values);
}

/** See {@link SnapshotStore.readNodes}. */
export async function readNodes(reads: Pool, tick: number): Promise<Omit<SnapshotNodeNote, "answers">[]> {
  const text =
    "select node, step, hooks::text as hooks from starling.snapshot_node where tick = $1 order by node, step";
  const rows = await reads.query<{ node: string; step: "init" | "finalize"; hooks: string }>(text, [tick]);
  return rows.map(({ node, step, hooks }) => ({
    tick,
    node: toNodeId(node) as NodeId,
    step,
    hooks: JSON.parse(hooks),
  }));
}

/** See {@link SnapshotStore.readAnswers}. */
export async function readAnswers(reads: Pool): Promise<SnapshotTasks[]> {
  const text = `select tick::float8 as tick, number::int as page, body from starling.snapshot_answer where body <> ''
    order by tick, number limit 100`;
  const rows = await reads.query<{ tick: number; page: number; body: string }>(text);
  return rows.map((row) => ({ shard: null as ShardId | null, ...row }));
}

/** See {@link SnapshotStore.dropAnswer}: the row stays, so that no other answer of the hook counts. */
export async function dropAnswer(pool: Pool, tick: number, page: number): Promise<void> {
  await pool.query("update starling.snapshot_answer set body = '' where tick = $1 and number = $2", [tick, page]);
}
