import { toStarlingError } from "../../proto/starling-error.ts";
import type { Counters } from "../counters.ts";
import type {
  EntityPlace,
  ShardWriter,
  SnapshotMark,
  SnapshotPage,
  SnapshotRow,
  SnapshotRun,
  SnapshotStore,
} from "../store/snapshot-store.ts";
import type { TickChanges, TickPage, TickReads, TickRecord } from "../store/tick.ts";
import type { SnapshotChanges } from "./snapshot-changes.ts";
import { addReports, type SnapshotComputer, type SnapshotInstant } from "./snapshot-computer.ts";
import type { SnapshotPace } from "./snapshot-pace.ts";
import { writeSnapshotTasks } from "./snapshot-tasks.ts";
import { comparePlaces } from "./tick-image.ts";

/**
 * The visit: a shard's owner goes over its entities as they were at the mark, page by page in the order of eid and type.
 *
 * V1  A page, its tasks and the cursor behind it are one transaction, fenced by the shard's epoch: an entity is written once
 *     per tick, whoever goes on after whoever died.
 * V2  What the store refuses as bad data is looked for one by one: a snapshot that cannot be stored is counted, and the one
 *     before stands.
 */
export interface VisitOptions {
  readonly store: Pick<SnapshotStore, "openVisit" | "writePage" | "findRefused">;
  readonly reads: TickReads;
  /** Told of places up to which nothing has to be kept any more; null: the shard is visited. */
  readonly onPassed: (place: EntityPlace | null) => void;
  readonly computer: SnapshotComputer;
  readonly pace: SnapshotPace;
  /** Of a tick that builds on another one; null: nothing is known of it. */
  readonly changes: SnapshotChanges | null;
  /** See {@link SnapshotInstant}. */
  readonly careful: boolean;
  readonly limits: VisitLimits;
  readonly counters: Counters;
}

export interface VisitLimits {
  /** Entities of one page, and roughly their bytes. */
  readonly pageMaxEntities: number;
  readonly pageMaxBytes: number;
}

/** `waiting`: the shard has no mark yet that its watermark has passed. */
export type VisitOutcome = "visited" | "waiting" | "lost";

/** Visits a shard from where its cursor stands. Raises what the store raises. */
export async function visitShard(
  options: VisitOptions,
  writer: ShardWriter,
  run: SnapshotRun,
  signal: AbortSignal,
): Promise<VisitOutcome> {
  const opened = await options.store.openVisit(writer, run.tick, run.base);
  if (opened === null) return "waiting";
  if (opened === "lost") return "lost";
  let place: VisitPlace = { cursor: opened.mark.cursor, counts: opened.mark.counts };
  if (opened.mark.visited) {
    options.onPassed(null);
    return "visited";
  }
  const instant = { tick: run.tick, atMs: run.at, shard: writer.shard, careful: options.careful, signal };
  const { baseSeq } = opened;
  const changed =
    run.kind === "full" || baseSeq === null ? null : { since: baseSeq, at: run.at, always: options.computer.impure };
  const listed = changed === null ? null : ((await options.changes?.of(writer.shard)) ?? null);
  for (;;) {
    const from = { ...place, changed, listed };
    const make = async () => (signal.aborted ? "lost" : visitPage(options, writer, from, instant));
    // A page on which nothing is computed gives way to nobody.
    const next = await (listed?.length === 0 ? make() : options.pace.page(make));
    if (next === "lost") return "lost";
    options.onPassed(next.isLast ? null : next.cursor);
    if (next.isLast) return "visited";
    place = next;
  }
}

/** Where a visit is, and what it has counted so far. */
interface VisitPlace {
  readonly cursor: EntityPlace;
  readonly counts: SnapshotMark["counts"];
}

/** What of a shard is visited: all of it, or what has changed, which may be listed in the order of the places. */
interface VisitReach {
  readonly changed: TickChanges | null;
  readonly listed: readonly EntityPlace[] | null;
}

const start: EntityPlace = { eid: "", type: "" };

async function visitPage(
  options: VisitOptions,
  writer: ShardWriter,
  { cursor, counts, changed, listed }: VisitPlace & VisitReach,
  instant: SnapshotInstant,
): Promise<(VisitPlace & { readonly isLast: boolean }) | "lost"> {
  const { reads, computer, limits } = options;
  const after = cursor.eid === "" && cursor.type === "" ? null : cursor;
  const request = { shard: writer.shard, tick: instant.tick, after };
  const limit = limits.pageMaxEntities;
  const next = listed === null ? null : takeNext(listed, after, limit);
  const size = { limit, maxBytes: limits.pageMaxBytes, changed, listed: next };
  const page =
    next?.length === 0
      ? noPage
      : await reads.readTickPage({ ...request, ...size }, (records) => computer.windowsOf(records, instant));
  const gone =
    next === null ? [] : page.absent.map((key): SnapshotRow => ({ kind: "closed", shard: writer.shard, ...key }));
  const made = await computePage(computer, page.records, instant);
  const isLast = page.last === null;
  const isDone = isLast && computer.linked.types.size === 0;
  const written: SnapshotPage = {
    tick: instant.tick,
    stage: "visit",
    after: cursor,
    cursor: page.last ?? start,
    visited: isLast,
    done: isDone,
    gone: listed !== null ? "closed" : changed === null ? "others" : "unknown",
    rows: [...made.rows, ...gone],
    values: made.values,
    tasks: made.tasks.length === 0 ? null : writeSnapshotTasks(made.tasks),
    counts: {
      ...counts,
      entities: (counts.entities ?? 0) + made.computed,
      tasks: (counts.tasks ?? 0) + made.tasks.length,
      hooks: addReports(counts.hooks ?? {}, made.hooks),
    },
  };
  const outcome = await writeGood(options, writer, written);
  if (outcome === "lost") return "lost";
  options.counters.add("snapshot_entities", made.computed);
  return { cursor: written.cursor, counts: outcome.counts, isLast };
}

const noPage: TickPage = { records: [], absent: [], last: null };

/** Of places in order those behind another one. */
function takeNext(places: readonly EntityPlace[], after: EntityPlace | null, limit: number): readonly EntityPlace[] {
  if (after === null) return places.slice(0, limit);
  let low = 0;
  let high = places.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (comparePlaces(places[middle] as EntityPlace, after) > 0) high = middle;
    else low = middle + 1;
  }
  return places.slice(low, low + limit);
}

async function computePage(computer: SnapshotComputer, records: readonly TickRecord[], instant: SnapshotInstant) {
  const { snapshots, values, tasks, hooks } = await computer.compute(records, instant);
  const rows: SnapshotRow[] = [
    ...snapshots,
    // The snapshot is its component's to write; the entity has not gone.
    ...values.map(({ shard, type, eid }): SnapshotRow => ({ kind: "kept", shard, type, eid })),
  ];
  return { rows, values, tasks, hooks, computed: rows.length };
}

/** Writes a page, without what the store refuses of it. */
export async function writeGood(
  { store, counters }: Pick<VisitOptions, "store" | "counters">,
  writer: ShardWriter,
  page: SnapshotPage,
): Promise<{ readonly counts: SnapshotMark["counts"] } | "lost"> {
  try {
    return (await store.writePage(writer, page)) === "lost" ? "lost" : { counts: page.counts };
  } catch (error) {
    const problem = toStarlingError(error, "STORE");
    if (problem.code !== "STORE_REFUSED") throw problem;
    const bad = new Set(await store.findRefused(page.rows));
    if (bad.size === 0) throw problem;
    counters.add("snapshot_refused", bad.size);
    const rows = page.rows.map((row): SnapshotRow => {
      return bad.has(row) ? { kind: "kept", shard: row.shard, type: row.type, eid: row.eid } : row;
    });
    const counts = { ...page.counts, refused: (page.counts.refused ?? 0) + bad.size };
    return (await store.writePage(writer, { ...page, rows, counts })) === "lost" ? "lost" : { counts };
  }
}
