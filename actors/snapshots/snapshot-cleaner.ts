import type { ShardId } from "../../proto/ids.ts";
import type { Counters } from "../counters.ts";
import type { NextDeadline } from "../schedules/schedule-cron.ts";
import type { ShardWriter, SnapshotRun, SnapshotStore } from "../store/snapshot-store.ts";
import type { SnapshotLog } from "./snapshot-coordinator.ts";

export interface SnapshotCleanerOptions {
  readonly store: Pick<SnapshotStore, "readRuns" | "dropRuns" | "cleanSnapshots" | "dropMarks">;
  /** All shards of entities. */
  readonly entityShards: readonly ShardId[];
  /** When to drop what is too old; null: never. */
  readonly cleanAt: NextDeadline | null;
  readonly olderThanMs: number;
  /** Unix ms. */
  readonly wall: () => number;
  readonly counters: Counters;
  readonly log: SnapshotLog;
}

/**
 * Drops runs that are too old, but for the newest finished one, and the snapshots that are seen by no run that is left. Runs go
 * first: so whoever reads as of a run finds all of it.
 */
export interface SnapshotCleaner {
  /** Cleans if it is due. Raises what the store raises. */
  look(owner: ShardWriter, signal: AbortSignal): Promise<void>;
}

const rowsMax = 1_000;
const runsMax = 200;

export function createSnapshotCleaner(options: SnapshotCleanerOptions): SnapshotCleaner {
  const { store, cleanAt, wall, counters, log } = options;
  let due = cleanAt?.(wall()) ?? null;
  return {
    look: async (owner, signal) => {
      const now = wall();
      if (due === null || now < due) return;
      due = cleanAt?.(now) ?? null;
      await store.dropMarks();
      const first = await findFirst(store, now - options.olderThanMs);
      if (first === null) return;
      // One run goes on at a time: those before it ended before it began.
      const runs = await store.dropRuns(owner, first.startedAt);
      // Which may be an older one, if the coordinator's shard was lost meanwhile.
      const left = await findFirst(store, Number.NEGATIVE_INFINITY);
      let rows = 0;
      for (const shard of options.entityShards) {
        for (let gone = rowsMax; gone === rowsMax && !signal.aborted; rows += gone) {
          gone = await store.cleanSnapshots(shard, left?.tick ?? 0, rowsMax);
        }
      }
      counters.add("snapshot_cleaned", rows);
      if (rows > 0 || runs > 0) log.info({ rows, runs }, "old snapshots dropped");
    },
  };
}

/** The oldest finished run of an instant or after it, or else the newest finished one; null: none has finished. */
async function findFirst(store: SnapshotCleanerOptions["store"], from: number): Promise<SnapshotRun | null> {
  let first: SnapshotRun | null = null;
  for (let place: number | null = null; ; ) {
    const runs: readonly SnapshotRun[] = await store.readRuns({ before: place, limit: runsMax });
    for (const run of runs) {
      if (run.status !== "finished") continue;
      if (first !== null && run.at < from) return first;
      first = run;
    }
    const last = runs.at(-1);
    if (last === undefined || runs.length < runsMax) return first;
    place = last.tick;
  }
}
