import { atBeat, type Clock } from "../../proto/clock.ts";
import { withDeadline } from "../../proto/deadline.ts";
import { type ShardId, shardId } from "../../proto/ids.ts";
import { StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import type { ShardWriter, SnapshotRun } from "../store/snapshot-store.ts";
import { createSnapshotCleaner, type SnapshotCleanerOptions } from "./snapshot-cleaner.ts";
import {
  type CoordinatorOptions,
  coordinatorShard,
  createSnapshotCoordinator,
  sumCounts,
} from "./snapshot-coordinator.ts";
import { createSnapshotWorker, type SnapshotWorkerOptions } from "./snapshot-worker.ts";

/** Snapshot runs, as the faces of a node see them. Any node may be asked: what it wants stands in the store. */
export interface Snapshots {
  /**
   * Asks for a run, and resolves with its tick when it has begun; while one is running, after that. Without `full`, what did
   * not change since the last one is not computed again. Raises DEADLINE, STORE.
   */
  runNow(request: RunRequest): Promise<number>;
  /** Lets a running tick fail. Raises NOT_FOUND when it is not running. */
  cancel(tick: number): Promise<void>;
  /** Runs, newest first, of ticks below `before`; the one that goes on with what its shards have counted by now. */
  runs(request: { readonly before: number | null; readonly limit: number }): Promise<SnapshotRun[]>;
  /** Ends this node's part of what is running. Idempotent. */
  close(): Promise<void>;
}

export interface RunRequest {
  readonly full: boolean;
  readonly deadlineMs: number;
  readonly signal?: AbortSignal;
}

export interface SnapshotsOptions
  extends Omit<SnapshotWorkerOptions, "store" | "coordinates" | "cleaner" | "home">,
    Omit<CoordinatorOptions, "now"> {
  readonly systemShards: number;
  readonly cleanAt: SnapshotCleanerOptions["cleanAt"];
  readonly olderThanMs: number;
  /** Whether a shard is here, and this node has read lately that it is (R24). */
  readonly owns: (shard: ShardId) => boolean;
  readonly clock: Clock;
}

/** How often the table is looked at: when nothing is running, while a run is, and at most. */
const idleEveryMs = 1_000;
const busyEveryMs = 100;
const closeWithinMs = 10_000;

/** Takes part in snapshot runs until it is closed. */
export function startSnapshots(options: SnapshotsOptions): Snapshots {
  const { store, clock, log, counters } = options;
  const coordinator = createSnapshotCoordinator({ ...options, now: clock.now });
  const shards = Array.from({ length: options.entityShards }, (_, index) => shardId("entity", index));
  const cleaner = createSnapshotCleaner({ ...options, entityShards: shards });
  const home = coordinatorShard(options.systemShards);
  let status: "open" | "closed" = "open";
  let looking: Promise<void> | null = null;
  let cancel = (): void => {};
  let again = false;
  let failing = false;

  const look = async (): Promise<boolean> => {
    const ticks = await store.readTicks();
    worker.look(ticks);
    const change = await coordinator.step(ticks, findOwner(options, home));
    if (change === "changed") again = true;
    return ticks.running !== null;
  };
  const loop = async (): Promise<void> => {
    let isRunning = false;
    try {
      isRunning = await look();
      failing = false;
    } catch (error) {
      const { code, message } = toStarlingError(error);
      counters.add("snapshot_failures");
      if (!failing && status === "open") log.warn({ code, problem: message }, "snapshot runs have to wait");
      failing = true;
    }
    looking = null;
    if (status === "closed") return;
    const afterMs = again ? 0 : isRunning || worker.busy ? busyEveryMs : idleEveryMs;
    again = false;
    cancel = afterMs === idleEveryMs ? atBeat(clock, afterMs, begin) : clock.after(afterMs, begin);
  };
  const begin = (): void => {
    looking = loop();
  };
  /** Looks at once, or once more after the look at hand. */
  const kick = (): void => {
    if (status === "closed") return;
    if (looking !== null) {
      again = true;
      return;
    }
    cancel();
    begin();
  };
  const worker = createSnapshotWorker({ ...options, cleaner, home, coordinates: () => findOwner(options, home) }, kick);
  begin();

  return {
    runNow: (request) => askForRun(options, kick, request),
    cancel: async (tick) => {
      const { running } = await store.readTicks();
      if (running?.tick !== tick) throw new StarlingError("NOT_FOUND", `snapshot run ${tick} is not running`);
      await store.addRequest({ id: options.newId(), kind: "end", tick, error: "cancelled" });
      kick();
    },
    runs: (request) => readRuns(options, request),
    close: async () => {
      if (status === "closed") return;
      status = "closed";
      cancel();
      const rest = { clock, deadlineMs: closeWithinMs, text: "the snapshots' last writes did not end" };
      // What is with the store happens as a whole or not at all.
      await withDeadline(Promise.all([worker.close(), looking]), rest).catch(() => {});
    },
  };
}

/** Null: the coordinator's shard is not here. */
function findOwner({ owns, shards, self }: SnapshotsOptions, shard: ShardId): ShardWriter | null {
  const own = owns(shard) ? shards().find((one) => one.shard === shard) : undefined;
  return own === undefined ? null : { node: self(), shard, epoch: own.epoch };
}

const askEveryMs = 100;

async function askForRun(options: SnapshotsOptions, kick: () => void, request: RunRequest): Promise<number> {
  const { store, clock, newId } = options;
  const id = newId();
  await store.addRequest({ id, kind: "run", full: request.full });
  kick();
  const until = clock.now() + request.deadlineMs;
  for (;;) {
    const tick = await store.readRequest(id);
    if (tick !== null) return tick;
    if (request.signal?.aborted) throw new StarlingError("UNAVAILABLE", "the call was cancelled: the run will begin");
    if (clock.now() > until) {
      const { running } = await store.readTicks();
      const why = running === null ? "nobody coordinates runs just now" : `run ${running.tick} still goes on`;
      throw new StarlingError(
        "DEADLINE",
        `the run has not begun within ${request.deadlineMs} ms, it will later: ${why}`,
      );
    }
    await new Promise<void>((resolve) => clock.after(askEveryMs, resolve));
  }
}

async function readRuns(
  { store, entityShards }: SnapshotsOptions,
  request: { readonly before: number | null; readonly limit: number },
): Promise<SnapshotRun[]> {
  const runs = await store.readRuns(request);
  const [newest] = runs;
  if (newest?.status !== "running") return runs;
  const counts = sumCounts(await store.readMarks(newest.tick), entityShards);
  return [{ ...newest, counts }, ...runs.slice(1)];
}
