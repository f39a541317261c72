import type { ShardId } from "../../proto/ids.ts";
import { shardOf } from "../../proto/shard-of.ts";
import { unreachable } from "../../proto/unreachable.ts";
import type { Counters } from "../counters.ts";
import type { NextDeadline } from "../schedules/schedule-cron.ts";
import type {
  NewSnapshotRequest,
  ShardWriter,
  SnapshotCounts,
  SnapshotEnd,
  SnapshotMark,
  SnapshotPhase,
  SnapshotRun,
  SnapshotStore,
  SnapshotTicks,
  TickProgress,
} from "../store/snapshot-store.ts";
import { addReports } from "./snapshot-computer.ts";

/**
 * The coordinator: whoever owns its shard. All that it knows stands in the store, so that the next owner goes on with what it
 * reads; what it does is planned by a pure function of that, and every change is fenced by the shard's epoch.
 *
 * C1  One run at a time: a deadline that passes meanwhile is skipped, and said; a run that is asked for waits.
 * C2  A run is finished when every shard is done and every node that owns shards has run its hooks at the end; and seen
 *     then, by one change of one row.
 * C3  A run that cannot go on is failed: its hooks are others than the coordinator's, nothing of it moves any more, or
 *     somebody ends it.
 */
export interface CoordinatorOptions {
  readonly store: SnapshotStore;
  /** How many shards of entities there are. */
  readonly entityShards: number;
  /** Whether hooks reach over links. */
  readonly isLinked: boolean;
  /** Of the model, the hooks and their configuration: a run is one of equals. */
  readonly fingerprint: string;
  /** Whether hooks wait for a run in which everything is computed. */
  readonly isRefreshing: () => boolean;
  /** When runs begin by themselves; null: never. */
  readonly next: NextDeadline | null;
  /** How long a run may stand still. */
  readonly stallMs: number;
  /** Unix ms. */
  readonly wall: () => number;
  readonly now: () => number;
  readonly counters: Counters;
  readonly log: SnapshotLog;
}

export interface SnapshotLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** The shard of the coordinator. */
export function coordinatorShard(systemShards: number): ShardId {
  return shardOf("system", "starling", "snapshots", systemShards);
}

/** Coordinates as long as its node owns the shard. */
export interface SnapshotCoordinator {
  /** Does what is due. `owner` writes; null: the shard is another node's. Raises what the store raises. */
  step(ticks: SnapshotTicks, owner: ShardWriter | null): Promise<"changed" | "idle">;
}

/** How late a deadline still is on time: owners change, and nodes are busy. */
const graceMs = 10_000;

/** A coordinator that knows nothing yet. */
export function createSnapshotCoordinator(options: CoordinatorOptions): SnapshotCoordinator {
  const { store, wall, now, next, counters, log } = options;
  /** Up to where deadlines are settled, Unix ms; null: the shard is elsewhere, or has just come. */
  let settled: number | null = null;
  const seconds = counters.histogram("snapshot_run_seconds", runBounds);
  let moved: { readonly text: string; readonly atMs: number } = { text: "", atMs: now() };

  const begin = async (ticks: SnapshotTicks, owner: ShardWriter): Promise<"changed" | "idle"> => {
    const requests = (await store.readRequests()).filter(isRun);
    const at = wall();
    const isDue = countDue(next, settled ?? at, at) > 0;
    if (!isDue && requests.length === 0) {
      settled = at;
      return "idle";
    }
    const isFull = options.isRefreshing() || requests.some(({ full }) => full);
    const kind = planKind(ticks, { at, fingerprint: options.fingerprint, full: isFull });
    const cause = requests.length > 0 ? "demand" : "schedule";
    if (ticks.newest !== null && at <= ticks.newest.at)
      log.warn(
        { at, last: ticks.newest.at },
        "the clock stands before the last snapshot: its order is that of the ticks",
      );
    const ids = requests.map(({ id }) => id);
    const begun = await store.beginRun(owner, { at, kind, cause, fingerprint: options.fingerprint, requests: ids });
    if (begun === "lost") return "idle";
    settled = at;
    moved = { text: "", atMs: now() };
    if (begun.begun) log.info({ tick: begun.tick, at, kind, cause }, "snapshot run began");
    return "changed";
  };

  const end = async (owner: ShardWriter, run: SnapshotRun, plan: EndPlan) => {
    const marks = await store.readMarks(run.tick);
    const hooks = addReports(
      ...marks.map(({ counts }) => counts.hooks ?? {}),
      ...(await store.readNodes(run.tick)).map((note) => note.hooks),
    );
    const counts = sumCounts(marks, options.entityShards);
    const outcome: SnapshotEnd = { status: plan.status, error: plan.error, counts, hooks };
    if ((await store.endRun(owner, run.tick, outcome)) === "lost") return;
    counters.add(`snapshot_runs/${plan.status}`);
    const tookMs = Math.max(0, wall() - run.startedAt);
    seconds.observe(tookMs / 1000);
    if (plan.status === "finished") log.info({ tick: run.tick, tookMs, ...counts }, "snapshot run finished");
    else log.error({ tick: run.tick, tookMs, problem: plan.error }, "snapshot run failed");
  };

  const advance = async (run: SnapshotRun, owner: ShardWriter): Promise<"changed" | "idle"> => {
    const [progress, requests] = await Promise.all([store.readProgress(run.tick), store.readRequests()]);
    const isEnding = run.phase === "finalize";
    const [nodes, notes] = isEnding ? await Promise.all([store.readOwnerNodes(), store.readNodes(run.tick)]) : [[], []];
    const finalized = new Set(notes.flatMap(({ node, step }) => (step === "finalize" ? [node] : [])));
    const text = JSON.stringify([run.tick, run.phase, finalized.size, progress.text]);
    if (text !== moved.text) moved = { text, atMs: now() };
    const missed = countDue(next, Math.max(settled ?? 0, run.startedAt), wall());
    settled = wall();
    if (missed > 0) {
      counters.add("snapshot_runs_skipped", missed);
      log.warn({ skipped: missed, tick: run.tick }, "snapshot run still goes on: what was due meanwhile is skipped");
    }
    const plan = planRun(run, progress, {
      ...{ entityShards: options.entityShards, isLinked: options.isLinked, fingerprint: options.fingerprint },
      waiting: nodes.filter((node) => !finalized.has(node)).length,
      ended: requests.find((request) => request.kind === "end" && request.tick === run.tick) ?? null,
      stalledMs: now() - moved.atMs,
      stallMs: options.stallMs,
    });
    switch (plan.kind) {
      case "wait":
        return "idle";
      case "phase": {
        const counts = sumCounts(await store.readMarks(run.tick), options.entityShards);
        await store.noteRun(owner, run.tick, { phase: plan.phase, counts });
        return "changed";
      }
      case "end":
        await end(owner, run, plan);
        return "changed";
      default:
        return unreachable(plan);
    }
  };

  return {
    step: async (ticks, owner) => {
      if (owner === null) {
        settled = null;
        return "idle";
      }
      // Of a shard that has just come: what was due a moment ago still is.
      settled = Math.min(settled ?? Math.max(ticks.newest?.startedAt ?? 0, wall() - graceMs), wall());
      return ticks.running === null ? begin(ticks, owner) : advance(ticks.running, owner);
    },
  };
}

const runBounds = [0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3_600];

function isRun(request: NewSnapshotRequest): request is Extract<NewSnapshotRequest, { kind: "run" }> {
  return request.kind === "run";
}

/** Deadlines after `from`, up to `to`; counted up to a hundred. */
export function countDue(next: NextDeadline | null, from: number, to: number): number {
  let count = 0;
  for (let at = next?.(from) ?? null; at !== null && at <= to && count < 100; at = next?.(at) ?? null) count++;
  return count;
}

/** What a run may leave out is what the finished one before it, by the same hooks and at an earlier instant, has said. */
export function planKind(
  { finished, newest }: SnapshotTicks,
  wanted: { readonly at: number; readonly fingerprint: string; readonly full: boolean },
): SnapshotRun["kind"] {
  if (wanted.full || finished === null || newest === null || newest.tick !== finished.tick) return "full";
  return finished.fingerprint === wanted.fingerprint && finished.at < wanted.at ? "changed" : "full";
}

type EndPlan = { readonly kind: "end"; readonly status: "finished" | "failed"; readonly error: string | null };

type RunPlan = { readonly kind: "wait" } | { readonly kind: "phase"; readonly phase: SnapshotPhase } | EndPlan;

export interface RunSurroundings {
  readonly entityShards: number;
  readonly isLinked: boolean;
  readonly fingerprint: string;
  /** Nodes that own shards and have not run their hooks at the end. */
  readonly waiting: number;
  /** Somebody wants the run to fail. */
  readonly ended: NewSnapshotRequest | null;
  readonly stalledMs: number;
  readonly stallMs: number;
}

/** The next step of a running tick. Pure. */
export function planRun(run: SnapshotRun, { visited, done }: TickProgress, around: RunSurroundings): RunPlan {
  const fail = (error: string): EndPlan => ({ kind: "end", status: "failed", error });
  if (around.ended?.kind === "end") return fail(around.ended.error);
  if (run.fingerprint !== around.fingerprint)
    return fail("the model, the modules or their configuration changed while it ran");
  const open = around.entityShards - (run.phase === "visit" ? visited : done);
  if (around.stalledMs > around.stallMs) {
    const what = run.phase === "finalize" ? `${around.waiting} nodes` : `${open} shards`;
    return fail(`nothing moved for ${Math.round(around.stallMs / 1000)} s in phase ${run.phase}: ${what} are not done`);
  }
  switch (run.phase) {
    case "visit":
      if (open > 0) return { kind: "wait" };
      return { kind: "phase", phase: around.isLinked ? "components" : "finalize" };
    case "components":
      return open > 0 ? { kind: "wait" } : { kind: "phase", phase: "finalize" };
    case "finalize":
      return around.waiting > 0 ? { kind: "wait" } : { kind: "end", status: "finished", error: null };
    case "ended":
      return { kind: "wait" };
    default:
      return unreachable(run.phase);
  }
}

/** The shards' counts together. */
export function sumCounts(marks: readonly SnapshotMark[], shards: number): SnapshotCounts {
  const sums: Record<string, number> = { shards, shardsDone: marks.filter(({ done }) => done).length };
  for (const { counts } of marks) {
    for (const [name, count] of Object.entries(counts)) {
      if (typeof count !== "number") continue;
      sums[name] = name === "componentMax" ? Math.max(sums[name] ?? 0, count) : (sums[name] ?? 0) + count;
    }
  }
  return sums;
}
