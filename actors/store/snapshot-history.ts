import type { Pool } from "./connection.ts";
import type { SnapshotQueries, SnapshotSpan, SpanMoment } from "./snapshot-queries.ts";
import type { EntityKey } from "./store.ts";

/*
 * The history of one entity's snapshots, in questions apart: rows lie in the database of the shard, runs in that of the
 * coordinator.
 */

type Answer<K extends keyof SnapshotQueries> = ReturnType<SnapshotQueries[K]>;
type TicksBefore = Parameters<SnapshotQueries["snapshotSpans"]>[1];

/** See {@link SnapshotQueries.snapshotSpans}. */
export async function readSpans(
  reads: Pool,
  { shard, type, eid }: EntityKey,
  { before, limit }: TicksBefore,
): Answer<"snapshotSpans"> {
  const spans = (end: string) => `(select from_tick, to_tick from starling.snapshot
    where shard = $1 and eid = $2 and type = $3 and to_tick is ${end} and ($4::text is null or from_tick < $4::text::int8)
    order by to_tick desc limit $5)`;
  const text = `select from_tick::float8 as "from", to_tick::float8 as "to"
    from (${spans("null")} union all ${spans("not null")}) s order by s.from_tick desc limit $5`;
  return await reads.query<SnapshotSpan>(text, [shard, eid, type, textOf(before), limit]);
}

/** See {@link SnapshotQueries.spanMoments}. */
export async function readMoments(
  reads: Pool,
  spans: readonly SnapshotSpan[],
  { before, limit }: TicksBefore,
): Answer<"spanMoments"> {
  const text = `select r.tick::float8 as tick, starling.to_ms_1(r.at) as at, s."from"::float8 as "from"
    from starling.snapshot_run r join jsonb_to_recordset($1::text::jsonb) s("from" int8, "to" int8)
      on r.tick >= s."from" and (s."to" is null or r.tick < s."to")
    where r.status = 'finished' and ($2::text is null or r.tick < $2::text::int8) order by r.tick desc limit $3`;
  return await reads.query<SpanMoment>(text, [JSON.stringify(spans), textOf(before), limit]);
}

function textOf(tick: number | null): string | null {
  return tick === null ? null : String(tick);
}
