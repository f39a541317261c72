import type { ShardId } from "../../proto/ids.ts";
import { toStarlingError } from "../../proto/starling-error.ts";
import type { EntityPlace, SnapshotRun, SnapshotStore } from "../store/snapshot-store.ts";
import type { SnapshotLog } from "./snapshot-coordinator.ts";

/** What a tick that builds on another one has to look at in this node's shards. */
export interface SnapshotChanges {
  /** A shard's, in the order of its visit; null: it has to be looked for, page by page. The shard's mark is passed. */
  of(shard: ShardId): Promise<readonly EntityPlace[] | null>;
  /** Whether it is known already that there is nothing. */
  isEmpty(shard: ShardId): boolean;
}

export interface SnapshotChangesOptions {
  readonly store: Pick<SnapshotStore, "readChanges">;
  readonly run: Pick<SnapshotRun, "tick" | "base" | "at">;
  /** Shards of this node whose marks are passed. */
  readonly open: () => ReadonlySet<ShardId>;
  /** So many are kept in memory: where more has changed, little is saved by not looking at the rest. */
  readonly max: number;
  readonly log: SnapshotLog;
}

/**
 * Reads once for all shards that are open when the first one asks, and once more for those that were not yet. What changes
 * after that has changed since the tick's mark: it is none of its business.
 */
export function createSnapshotChanges({ store, run, open, max, log }: SnapshotChangesOptions): SnapshotChanges {
  const known = new Map<ShardId, EntityPlace[] | null>();
  let reading: Promise<void> | null = null;

  const read = async (asking: ShardId): Promise<void> => {
    const shards = [...new Set([asking, ...open()])].filter((shard) => !known.has(shard));
    const found = await store
      .readChanges({ shards, base: run.base, at: run.at, limit: max })
      .catch((error: unknown): null => {
        const { code, message } = toStarlingError(error);
        log.warn({ tick: run.tick, code, problem: message }, "what has changed is looked for page by page");
        return null;
      });
    for (const shard of shards) known.set(shard, found === null ? null : []);
    for (const { shard, eid, type } of found ?? []) known.get(shard)?.push({ eid, type });
  };

  return {
    of: async (shard) => {
      while (!known.has(shard)) {
        reading ??= read(shard).finally(() => {
          reading = null;
        });
        await reading;
      }
      return known.get(shard) ?? null;
    },
    isEmpty: (shard) => known.get(shard)?.length === 0,
  };
}
