import { groupOf, type NodeId, type ShardId } from "../proto/ids.ts";
import { toStarlingError } from "../proto/starling-error.ts";
import type { Counters } from "./counters.ts";
import type { EngineStatus } from "./engine.ts";
import type { SnapshotCleaner } from "./snapshot-cleaner.ts";
import type { SnapshotComputer } from "./snapshot-computer.ts";
import type { SnapshotLog } from "./snapshot-coordinator.ts";
import { findGroups, type SnapshotGroups } from "./snapshot-groups.ts";
import { type JoinLimits, joinShard } from "./snapshot-join.ts";
import { type SendSnapshotTasks, writeSnapshotTasks } from "./snapshot-tasks.ts";
import { visitShard } from "./snapshot-visit.ts";
import type { EntityPlace, ShardWriter, SnapshotRun, SnapshotStore } from "./store/snapshot-store.ts";
import type { TickReads } from "./store/tick.ts";

/**
 * What every node does for a running tick: its hooks at the beginning, the visits of its shards, their components, its hooks
 * at the end, and, at any time, the tasks of its shards' hooks. Nothing here has to survive: the store says how far all is,
 * and what was lost half-way is begun again from there.
 */
export interface SnapshotWorkerOptions {
  readonly store: SnapshotStore;
  readonly reads: TickReads;
  /** Brings shards to their marks, and hears what is visited. */
  readonly ticks: LocalTicks;
  readonly computer: SnapshotComputer;
  readonly fingerprint: string;
  readonly shards: () => EngineStatus["shards"];
  /** This node's id of now. */
  readonly self: () => NodeId;
  readonly cleaner: SnapshotCleaner;
  /** The coordinator's shard. */
  readonly home: ShardId;
  /** Who coordinates; null: another node. */
  readonly coordinates: () => ShardWriter | null;
  readonly send: SendSnapshotTasks;
  /** Ids that nobody else has. */
  readonly newId: () => string;
  readonly limits: SnapshotLimits;
  readonly counters: Counters;
  readonly log: SnapshotLog;
}

/** The marks of this node's shards. */
export interface LocalTicks {
  /** A tick is running: shards of this node that have no mark of it get one. */
  learn(tick: number, atMs: number): void;
  /** Shards here whose entities can be read as they were at their mark of a tick. */
  open(tick: number): ReadonlySet<ShardId>;
  /** The visit of a shard is durable up to a place; null: it is over. */
  passed(shard: ShardId, tick: number, place: EntityPlace | null): void;
}

export interface SnapshotLimits extends JoinLimits {
  /** Shards of a node that are visited at once. */
  readonly visitsMax: number;
}

export interface SnapshotWorker {
  /** Begins what is to be done and not on its way. */
  look(run: SnapshotRun | null): void;
  /** Whether something is on its way. */
  readonly busy: boolean;
  /** Aborts all, and waits for what is with the store. */
  close(): Promise<void>;
}

/** Rows of tasks that are looked for at once. */
const taskRowsMax = 100;

/** A worker without work. `kick`: something has ended, look again. */
export function createSnapshotWorker(options: SnapshotWorkerOptions, kick: () => void): SnapshotWorker {
  const { store, computer, log, counters } = options;
  const stop = new AbortController();
  const jobs = new Map<string, Promise<void>>();
  /** Of the newest tick: what is done and need not be looked at again. */
  let tick = 0;
  let ended = new Set<string>();
  let abortTick = new AbortController();
  let groups: { readonly tick: number; readonly found: Promise<SnapshotGroups> } | null = null;

  const start = (name: string, work: () => Promise<"done" | "again">): void => {
    if (jobs.has(name) || ended.has(name)) return;
    const of = tick;
    const job = work()
      .then((outcome) => {
        if (outcome === "done" && of === tick) ended.add(name);
        return outcome;
      })
      .catch((error: unknown) => {
        const { code, message, retryable } = toStarlingError(error);
        if (stop.signal.aborted) return;
        counters.add("snapshot_failures");
        log.warn({ tick: of, work: name, code, problem: message }, "a part of a snapshot run is tried again");
        if (!retryable) return giveUp(of, `${name}: ${message} (${code})`);
      })
      .then((outcome) => {
        jobs.delete(name);
        if (outcome === "done") kick();
      });
    jobs.set(name, job);
  };

  /** What another attempt does not mend ends the run. */
  const giveUp = async (of: number, error: string): Promise<undefined> => {
    const request = { id: `end-${of}-${options.self()}`, kind: "end", tick: of, error } as const;
    await store.addRequest(request).catch(() => {}); // it fails again, and says so again
  };

  const writerOf = ({ shard, epoch }: EngineStatus["shards"][number]): ShardWriter => {
    return { node: options.self(), shard, epoch };
  };

  const runForNode = async (run: SnapshotRun, step: "init" | "finalize"): Promise<"done"> => {
    const signal = AbortSignal.any([stop.signal, abortTick.signal]);
    const instant = { tick: run.tick, atMs: run.at, shard: options.home, signal };
    const { hooks, answers } = await computer.runForNode(step, instant);
    const bodies = answers.map(({ hook, tasks }) => ({ hook, body: writeSnapshotTasks(tasks) }));
    await store.noteNode({ tick: run.tick, node: options.self(), step, hooks, answers: bodies });
    return "done";
  };

  const visit = async (run: SnapshotRun, own: EngineStatus["shards"][number]): Promise<"done" | "again"> => {
    const { shard } = own;
    const onPassed = (place: EntityPlace | null): void => options.ticks.passed(shard, run.tick, place);
    const signal = AbortSignal.any([stop.signal, abortTick.signal]);
    const outcome = await visitShard({ ...options, onPassed }, writerOf(own), run, signal);
    return outcome === "visited" ? "done" : "again";
  };

  const join = async (run: SnapshotRun, own: EngineStatus["shards"][number]): Promise<"done" | "again"> => {
    const signal = AbortSignal.any([stop.signal, abortTick.signal]);
    const outcome = await joinShard(options, writerOf(own), run, { groups: await groupsOf(run), signal });
    return outcome === "done" ? "done" : "again";
  };

  /** Found once for a tick; a failed attempt is forgotten. */
  const groupsOf = (run: SnapshotRun): Promise<SnapshotGroups> => {
    if (groups?.tick === run.tick) return groups.found;
    const changedIn = run.kind === "changed" ? run.tick : null;
    const found = findGroups({ store, links: computer.linked, changedIn, signal: abortTick.signal });
    groups = { tick: run.tick, found };
    found.catch(() => {
      groups = null;
    });
    return found;
  };

  const lookAtRun = (run: SnapshotRun): void => {
    if (run.tick !== tick) {
      abortTick.abort();
      abortTick = new AbortController();
      tick = run.tick;
      ended = new Set();
      groups = null;
    }
    if (run.fingerprint !== options.fingerprint) {
      // Nodes are being replaced by others: the coordinator, or whoever comes after it, has to say what it wants.
      return void giveUp(run.tick, `node ${options.self()} has another model, other modules or another configuration`);
    }
    options.ticks.learn(run.tick, run.at);
    if (run.phase === "finalize") return start("finalize", () => runForNode(run, "finalize"));
    if (!ended.has("init")) return start("init", () => runForNode(run, "init"));
    const running = [...jobs.keys()].filter((name) => name.startsWith("shard ")).length;
    let left = options.limits.visitsMax - running;
    const open = run.phase === "visit" ? options.ticks.open(run.tick) : null;
    for (const own of options.shards()) {
      if (left <= 0) break;
      const name = `shard ${own.shard} of epoch ${own.epoch} in ${run.phase}`;
      if (groupOf(own.shard) !== "entity" || jobs.has(name) || ended.has(name)) continue;
      if (open !== null && !open.has(own.shard)) continue;
      start(name, () => (run.phase === "visit" ? visit(run, own) : join(run, own)));
      left--;
    }
  };

  const sendTasks = async (): Promise<"again"> => {
    const own = new Map(options.shards().map((shard) => [shard.shard, shard]));
    const rows = await store.readTasks([...own.keys()], taskRowsMax);
    const ways = [...own.values()].map(async (owner) => {
      for (const row of rows) {
        if (row.shard !== owner.shard) continue;
        await options.send(row, stop.signal);
        await store.dropTasks(writerOf(owner), row.tick, row.page);
      }
    });
    await Promise.all(ways);
    return "again";
  };

  /** Of hooks that ran on every node: the owner of the coordinator's shard sends them. */
  const sendAnswers = async (): Promise<"again"> => {
    for (const row of await store.readAnswers()) {
      await options.send(row, stop.signal);
      await store.dropAnswer(row.tick, row.page);
    }
    return "again";
  };

  return {
    look: (run) => {
      if (stop.signal.aborted) return;
      if (run !== null) lookAtRun(run);
      start("tasks", sendTasks);
      const owner = options.coordinates();
      if (owner === null) return;
      start("answers", sendAnswers);
      start("cleaning", () => options.cleaner.look(owner, stop.signal).then(() => "again"));
    },
    get busy() {
      return jobs.size > 0;
    },
    close: async () => {
      stop.abort();
      await Promise.allSettled(jobs.values());
    },
  };
}
