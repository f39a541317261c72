import type { Counters } from "../../actors/counters.ts";
import { createSnapshotCoordinator, type SnapshotLog } from "../../actors/snapshots/snapshot-coordinator.ts";
import type { ClusterEngine } from "../../actors/start-engine.ts";
import type { ShardWriter, SnapshotStore } from "../../actors/store/snapshot-store.ts";
import type { Clock } from "../../proto/clock.ts";
import type { ShardId } from "../../proto/ids.ts";
import type { RunStore } from "../support/memory-runs.ts";

/** What the coordinator of snapshot runs reads and writes. */
export type CoordinatorStore = RunStore &
  Pick<SnapshotStore, "readProgress" | "readMarks" | "readNodes" | "readOwnerNodes">;

export interface SimCoordinatorOptions {
  readonly store: CoordinatorStore;
  readonly engine: ClusterEngine;
  readonly entityShards: number;
  /** The shard of the coordinator. */
  readonly home: ShardId;
  /** Whether further runs begin. */
  readonly isTicking: () => boolean;
  readonly clock: Clock;
  /** Unix ms. */
  readonly wall: () => number;
  readonly counters: Counters;
  readonly log: SnapshotLog;
}

const lookEveryMs = 100;
const runEveryMs = 400;
/** A run waits for shards that nobody serves: longer than any fault lasts. */
const stallMs = 300_000;

/**
 * The coordinator of snapshot runs, as `actors/snapshots/snapshots.ts` has it on each node: whoever owns its shard begins
 * runs, and notes how far they are. The entities are looked at by `TickLoad`. Returns what ends it.
 */
export function startSimCoordinator(options: SimCoordinatorOptions): () => Promise<void> {
  const { store, engine, home, clock, isTicking } = options;
  const coordinator = createSnapshotCoordinator({
    ...options,
    ...{ store: store as SnapshotStore, isLinked: true, fingerprint: "sim", isRefreshing: () => false, stallMs },
    next: (after) => (isTicking() ? (Math.floor(after / runEveryMs) + 1) * runEveryMs : null),
    now: clock.now,
  });
  const findOwner = (): ShardWriter | null => {
    const own = engine.ownsNow(home) ? engine.held().find(({ shard }) => shard === home) : undefined;
    return own === undefined ? null : { node: engine.self, ...own };
  };
  let status: "open" | "closed" = "open";
  let looking: Promise<void> = Promise.resolve();
  const look = async (): Promise<"changed" | "idle"> => {
    // Others would only read; of them there are many, and a run of the simulation is short.
    if (findOwner() === null) return coordinator.step({ running: null, finished: null, newest: null }, null);
    const ticks = await store.readTicks();
    if (ticks.running !== null) engine.ticks.announce(ticks.running.tick);
    return coordinator.step(ticks, findOwner());
  };
  const begin = (): void => {
    if (status === "closed") return;
    looking = look()
      // Nothing is known of what failed: the next look tells.
      .catch(() => "idle" as const)
      .then((change) => void clock.after(change === "changed" ? 0 : lookEveryMs, begin));
  };
  begin();
  return async () => {
    status = "closed";
    await looking;
  };
}
