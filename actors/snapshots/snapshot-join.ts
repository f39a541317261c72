import type {
  EntityPlace,
  ShardWriter,
  SnapshotMark,
  SnapshotPage,
  SnapshotRun,
  SnapshotStore,
} from "../store/snapshot-store.ts";
import type { EntityKey } from "../store/store.ts";
import type { ByteRoom } from "./byte-room.ts";
import { addReports, type Computed, type SnapshotInstant } from "./snapshot-computer.ts";
import type { SnapshotGroup, SnapshotGroups } from "./snapshot-groups.ts";
import { writeSnapshotTasks } from "./snapshot-tasks.ts";
import { type VisitLimits, type VisitOptions, writeGood } from "./snapshot-visit.ts";
import { comparePlaces } from "./tick-image.ts";

/**
 * The computing of linked entities, when all shards are visited: each shard's owner goes over the groups that belong to the
 * shard, in the order of their places. Members may live in other shards: their rows are written here all the same, in one
 * transaction with the cursor; nobody else writes them in this tick.
 */
export interface JoinOptions extends Omit<VisitOptions, "store" | "reads" | "onPassed" | "changes"> {
  readonly store: Pick<SnapshotStore, "openVisit" | "writePage" | "findRefused" | "readValues" | "writeValues">;
  readonly limits: JoinLimits;
  /** What this node's groups may take together. */
  readonly room: ByteRoom;
  /** Names an attempt as no other one. */
  readonly newId: () => string;
}

export interface JoinLimits extends VisitLimits {
  /** A group whose values are more is computed in pieces of that size. */
  readonly groupMaxBytes: number;
}

/** `waiting`: the shard has no mark, or is not visited. */
export type JoinOutcome = "done" | "waiting" | "lost";

const start: EntityPlace = { eid: "", type: "" };

/** Computes the groups of a shard from where its cursor stands. Raises what the store raises. */
export async function joinShard(
  options: JoinOptions,
  writer: ShardWriter,
  run: SnapshotRun,
  { groups, signal }: { readonly groups: SnapshotGroups; readonly signal: AbortSignal },
): Promise<JoinOutcome> {
  const opened = await options.store.openVisit(writer, run.tick, run.base);
  if (opened === null) return "waiting";
  if (opened === "lost") return "lost";
  const { mark } = opened;
  if (mark.done) return "done";
  if (!mark.visited) return "waiting";
  const all = groups.of(writer.shard);
  let { cursor, counts } = mark;
  let next = all.findIndex(({ place }) => comparePlaces(place, cursor) > 0);
  if (next < 0) next = all.length;
  for (;;) {
    const batch = takeBatch(all, next, options.limits);
    next += batch.length;
    const page = { batch, isLast: next >= all.length, cursor, counts };
    const bytes = Math.min(
      options.limits.groupMaxBytes,
      batch.reduce((sum, group) => sum + group.bytes, 0),
    );
    const make = () => joinPage(options, writer, run, { ...page, groups, signal });
    const inRoom = async () => (signal.aborted ? "lost" : options.room.with(bytes, make));
    const written = await (all.length === 0 ? inRoom() : options.pace.page(inRoom));
    if (written === "lost" || signal.aborted) return "lost";
    if (page.isLast) return "done";
    ({ cursor, counts } = written);
  }
}

/** Groups that are computed and written together: at least one. */
function takeBatch(all: readonly SnapshotGroup[], from: number, limits: VisitLimits): readonly SnapshotGroup[] {
  let entities = 0;
  let bytes = 0;
  let to = from;
  for (const group of all.slice(from)) {
    entities += group.members.length;
    bytes += group.bytes;
    if (to > from && (entities > limits.pageMaxEntities || bytes > limits.pageMaxBytes)) break;
    to++;
  }
  return all.slice(from, to);
}

interface JoinPage {
  readonly batch: readonly SnapshotGroup[];
  readonly isLast: boolean;
  readonly cursor: EntityPlace;
  readonly counts: SnapshotMark["counts"];
  readonly groups: SnapshotGroups;
  readonly signal: AbortSignal;
}

async function joinPage(
  options: JoinOptions,
  writer: ShardWriter,
  run: SnapshotRun,
  { batch, isLast, cursor, counts, groups, signal }: JoinPage,
): Promise<{ readonly cursor: EntityPlace; readonly counts: SnapshotMark["counts"] } | "lost"> {
  const { computer, store, limits } = options;
  const instant = { tick: run.tick, atMs: run.at, shard: writer.shard, careful: options.careful, signal };
  const isLarge = batch.some(({ bytes }) => bytes > limits.groupMaxBytes);
  const keys = batch.flatMap(({ members }) => members);
  const made = isLarge
    ? await joinLarge(options, writer, { run, keys, cursor, counts, groups, instant })
    : await computer.join(keys.length === 0 ? [] : await store.readValues(keys), groups, instant);
  if (made === "lost") return "lost";
  const components = batch.filter(({ members }) => members.length > 1).length;
  const last = batch.at(-1)?.place ?? start;
  const page: SnapshotPage = {
    tick: run.tick,
    stage: "components",
    after: cursor,
    cursor: isLast ? start : { eid: last.eid, type: last.type },
    visited: true,
    done: isLast,
    gone: "unknown",
    rows: made.snapshots,
    values: [],
    tasks: made.tasks.length === 0 ? null : writeSnapshotTasks(made.tasks),
    counts: {
      ...counts,
      tasks: (counts.tasks ?? 0) + made.tasks.length,
      components: (counts.components ?? 0) + components,
      componentMax: Math.max(counts.componentMax ?? 0, ...batch.map(({ members }) => members.length)),
      hooks: addReports(counts.hooks ?? {}, made.hooks),
    },
  };
  const outcome = await writeGood(options, writer, page);
  if (outcome === "lost") return "lost";
  options.counters.add("snapshot_components", components);
  return { cursor: page.cursor, counts: outcome.counts };
}

interface LargeJoin extends Pick<JoinPage, "cursor" | "counts" | "groups"> {
  readonly run: SnapshotRun;
  readonly keys: readonly EntityKey[];
  readonly instant: SnapshotInstant;
}

/**
 * A group in pieces. Its snapshots are written as they come, at the cursor where it stands; the page that moves that comes with
 * the last of them, and with the tasks. Who begins anew finds rows of the tick, and leaves them as they are.
 */
async function joinLarge(
  options: JoinOptions,
  writer: ShardWriter,
  { run, keys, cursor, counts, groups, instant }: LargeJoin,
): Promise<Computed | "lost"> {
  const { computer, store, limits } = options;
  const lost = new AbortController();
  const signal = AbortSignal.any([instant.signal, lost.signal]);
  const orLost = (outcome: unknown): void => {
    if (outcome === "lost") lost.abort();
  };
  try {
    const made = await computer.joinLarge(
      keys,
      {
        ...{ attempt: options.newId(), bytesMax: limits.groupMaxBytes, groups },
        readValues: store.readValues,
        writeValues: async (rows) => orLost(await store.writeValues(writer, run.tick, rows)),
        onSnapshots: async (rows) => {
          const page = {
            tick: run.tick,
            stage: "components",
            after: cursor,
            cursor,
            visited: true,
            done: false,
          } as const;
          const rest = { gone: "unknown" as const, rows, values: [], tasks: null, counts };
          orLost(await writeGood(options, writer, { ...page, ...rest }));
        },
      },
      { ...instant, signal },
    );
    return { snapshots: [], ...made };
  } catch (error) {
    if (lost.signal.aborted) return "lost";
    throw error;
  }
}
