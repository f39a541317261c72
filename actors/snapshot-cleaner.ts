import type { ShardId } from "../proto/ids.ts";
import type { Counters } from "./counters.ts";
import type { NextDeadline } from "./schedule-cron.ts";
import type { SnapshotLog } from "./snapshot-coordinator.ts";
import type { ShardWriter, SnapshotRun, SnapshotStore } from "./store/snapshot-store.ts";

export interface SnapshotCleanerOptions {
  readonly store: Pick<SnapshotStore, "readRuns" | "dropRuns" | "cleanSnapshots">;
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

/** Drops runs and snapshots that are too old; the newest finished run is never. */
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
      const before = now - options.olderThanMs;
      const oldest = await findOldest(store, before);
      if (oldest === null) return;
      let rows = 0;
      for (const shard of options.entityShards) {
        for (let gone = rowsMax; gone === rowsMax && !signal.aborted; rows += gone) {
          gone = await store.cleanSnapshots(shard, oldest.tick, rowsMax);
        }
      }
      const runs = signal.aborted ? 0 : await store.dropRuns(owner, Math.min(before, oldest.at));
      counters.add("snapshot_cleaned", rows);
      if (rows > 0 || runs > 0) log.info({ rows, runs }, "old snapshots dropped");
    },
  };
}

/** The oldest finished run that stays: what ended with it or before is seen by none that stays. Null: nothing is too old. */
async function findOldest(store: SnapshotCleanerOptions["store"], before: number): Promise<SnapshotRun | null> {
  let oldest: SnapshotRun | null = null;
  for (let place: number | null = null; ; ) {
    const runs: readonly SnapshotRun[] = await store.readRuns({ before: place, limit: runsMax });
    for (const run of runs) {
      if (run.status !== "finished") continue;
      if (oldest !== null && run.at < before) return oldest;
      oldest = run;
    }
    const last = runs.at(-1);
    if (last === undefined || runs.length < runsMax) return null;
    place = last.tick;
  }
}
