import type { ShardId } from "../../proto/ids.ts";
import type { SnapshotSort } from "../filters/snapshot-filter.ts";
import type { DistinctValue, FinishedRun, SnapshotPlace, SnapshotQueries, SortedPlace } from "./snapshot-queries.ts";

/** Snapshots over several databases, each with its own shards; runs lie in one of them, whichever it is. */
export function createShardedSnapshotQueries(
  stores: readonly SnapshotQueries[],
  storeOf: (shard: ShardId) => SnapshotQueries,
): SnapshotQueries {
  const all = async <T>(ask: (store: SnapshotQueries) => Promise<readonly T[]>): Promise<T[]> => {
    return (await Promise.all(stores.map(ask))).flat();
  };
  const newest = (a: FinishedRun, b: FinishedRun): number => b.tick - a.tick;
  return {
    finishedRun: async (at) => {
      const runs = await Promise.all(stores.map((store) => store.finishedRun(at)));
      return runs.filter((run) => run !== null).sort(newest)[0] ?? null;
    },
    listSnapshots: async (request) => {
      const { skip, limit, sort } = request;
      // What is skipped may lie in any of them.
      const found = await all((store) => store.listSnapshots({ ...request, skip: 0, limit: skip + limit }));
      return found.sort(comparePlaces(sort)).slice(skip, skip + limit);
    },
    snapshotBodies: async (places) => {
      const bodies = new Map<SnapshotPlace, string | null | undefined>();
      for (const store of new Set(places.map(({ shard }) => storeOf(shard)))) {
        const here = places.filter(({ shard }) => storeOf(shard) === store);
        for (const [i, body] of (await store.snapshotBodies(here)).entries()) {
          const place = here[i];
          if (place !== undefined) bodies.set(place, body);
        }
      }
      return places.map((place) => bodies.get(place));
    },
    countSnapshots: async (request) => {
      const counts = await Promise.all(stores.map((store) => store.countSnapshots(request)));
      return counts.reduce((sum, count) => sum + count, 0);
    },
    distinctValues: async (request) => {
      const counts = new Map<string, number>();
      for (const { value, count } of await all((store) => store.distinctValues(request))) {
        counts.set(value, (counts.get(value) ?? 0) + count);
      }
      const values = [...counts].map(([value, count]): DistinctValue => ({ value, count }));
      return values.sort((a, b) => b.count - a.count || compareBytes(a.value, b.value)).slice(0, request.limit);
    },
    snapshotSpans: (key, request) => storeOf(key.shard).snapshotSpans(key, request),
    spanMoments: async (spans, request) => (await all((store) => store.spanMoments(spans, request))).sort(newest),
    snapshotPage: (request) => storeOf(request.shard).snapshotPage(request),
  };
}

function comparePlaces(sort: readonly SnapshotSort[]): (a: SortedPlace, b: SortedPlace) => number {
  return (a, b) => {
    for (const [i, { key, descending }] of sort.entries()) {
      const compared = compareKeys(a.keys[i] ?? null, b.keys[i] ?? null, key.kind === "number");
      if (compared !== 0) return descending ? -compared : compared;
    }
    const compared = compareBytes(a.eid, b.eid);
    return sort.at(-1)?.descending === true ? -compared : compared;
  };
}

/** What is missing comes first. */
function compareKeys(a: string | null, b: string | null, numbers: boolean): number {
  if (a === null || b === null) return Number(a !== null) - Number(b !== null);
  return numbers && a !== b ? Number(a) - Number(b) : compareBytes(a, b);
}

function compareBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
