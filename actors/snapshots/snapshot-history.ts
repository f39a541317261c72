import type { FinishedRun, SnapshotQueries, TicksBefore } from "../store/snapshot-queries.ts";
import type { EntityKey } from "../store/store.ts";

/** An entity's snapshot of one finished run. */
export interface SnapshotMoment extends FinishedRun {
  /** JSON text; null: that of the moment before in the list, which is a later one. */
  readonly body: string | null;
}

/**
 * One entity's snapshots, newest first, of the finished runs before a tick: one that equals the run's before is listed at
 * its own time all the same. Ends early where bodies get too large.
 */
export async function readSnapshotHistory(
  queries: SnapshotQueries,
  key: EntityKey,
  request: TicksBefore,
): Promise<SnapshotMoment[]> {
  const spans = await queries.snapshotSpans(key, request);
  const moments = spans.length === 0 ? [] : await queries.spanMoments(spans, request);
  const begins = [...new Set(moments.map(({ from }) => from))];
  const bodies = await queries.snapshotBodies(begins.map((from) => ({ ...key, from })));
  const told: SnapshotMoment[] = [];
  for (const [i, { tick, at, from }] of moments.entries()) {
    const again = from === moments[i - 1]?.from;
    const body = bodies[begins.indexOf(from)];
    if (body === null) break;
    // What retention has just taken is not told.
    if (body !== undefined) told.push({ tick, at, body: again ? null : body });
  }
  return told;
}
