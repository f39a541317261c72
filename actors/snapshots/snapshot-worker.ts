import { toStorableText } from "../../modules/value-limits.ts";
import type { Clock } from "../../proto/clock.ts";
import { groupOf, type NodeId, type ShardId } from "../../proto/ids.ts";
import { StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import type { Counters } from "../counters.ts";
import type {
  EntityPlace,
  ShardWriter,
  SnapshotRun,
  SnapshotStore,
  SnapshotTasks,
  SnapshotTicks,
} from "../store/snapshot-store.ts";
import type { Fence } from "../store/store.ts";
import type { TickReads } from "../store/tick.ts";
import { createByteRoom } from "./byte-room.ts";
import { createSnapshotChanges, type SnapshotChanges } from "./snapshot-changes.ts";
import type { SnapshotCleaner } from "./snapshot-cleaner.ts";
import type { SnapshotComputer } from "./snapshot-computer.ts";
import type { SnapshotLog } from "./snapshot-coordinator.ts";
import { findGroups, type SnapshotGroups } from "./snapshot-groups.ts";
import { type JoinLimits, joinShard } from "./snapshot-join.ts";
import type { SnapshotPace } from "./snapshot-pace.ts";
import { type SendSnapshotTasks, writeSnapshotTasks } from "./snapshot-tasks.ts";
import { visitShard } from "./snapshot-visit.ts";

/**
 * What every node does for a running tick: its hooks at the beginning, the visits of its shards, their components, its hooks
 * at the end, and, at any time, the tasks of its shards' hooks. Nothing here has to survive: the store says how far all is,
 * and what was lost half-way is begun again from there.
 *
 * A hook that never yields ends its node, by the watchdog (R17). So that it ends each node at most once, whoever goes on with
 * what another process has begun is careful: it ends such a hook itself, and gives it up for this tick. That costs some time
 * at every call, which a node without a death does not pay.
 */
export interface SnapshotWorkerOptions {
  readonly store: SnapshotStore;
  readonly reads: TickReads;
  /** Brings shards to their marks, and hears what is visited. */
  readonly ticks: LocalTicks;
  readonly computer: SnapshotComputer;
  readonly pace: SnapshotPace;
  readonly fingerprint: string;
  readonly shards: () => readonly Fence[];
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
  readonly clock: Clock;
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
  /** Changed entities of a node that are kept in memory: see {@link SnapshotChanges}. */
  readonly changesMax: number;
}

export interface SnapshotWorker {
  /** Begins what is to be done and not on its way. */
  look(ticks: SnapshotTicks): void;
  /** Whether something is on its way. */
  readonly busy: boolean;
  /** Aborts all, and waits for what is with the store. */
  close(): Promise<void>;
}

/** Groups of the greatest size that are computed at once; of smaller ones more. */
const largestGroupsAtOnce = 2;
/** Rows of tasks that are looked for at once. */
const taskRowsMax = 100;
/** How long nothing is looked for where nothing was found. */
const restMs = 10_000;
/** Jobs that only look for something to do. */
const looks: ReadonlySet<string> = new Set(["tasks", "answers", "cleaning"]);

/** What this node knows of a running tick. */
interface Round {
  readonly tick: number;
  /** Aborted when the tick is over. */
  readonly abort: AbortController;
  /** Whether this process came to it when it was running already. */
  readonly isLate: boolean;
  /** Shards that were here from the beginning, by their epochs: nobody else has computed anything of them. */
  readonly own: ReadonlyMap<ShardId, number>;
  /** What is done and need not be looked at again. */
  readonly ended: Set<string>;
  /** Of the last look: what may begin as soon as there is room. */
  queue: ShardWork[];
  /** Found once; a failed attempt is forgotten. */
  finding: Promise<SnapshotGroups> | null;
  groups: SnapshotGroups | null;
  changes: SnapshotChanges | null;
}

type Work = () => Promise<"done" | "again">;

interface ShardWork {
  readonly name: string;
  readonly work: Work;
  /** Whether it is known that there is nothing in it to compute: then a page without rows is written, with those of others. */
  readonly isEmpty: () => boolean;
}

/** A worker without work. `kick`: something has ended, look again. */
export function createSnapshotWorker(options: SnapshotWorkerOptions, kick: () => void): SnapshotWorker {
  const { store, computer, clock, log, counters } = options;
  const stop = new AbortController();
  const room = createByteRoom(largestGroupsAtOnce * options.limits.groupMaxBytes);
  const jobs = new Map<string, Promise<void>>();
  /** Of them those of shards; and of those again the ones with entities to compute. */
  let active = 0;
  let visits = 0;
  let round = createRound(0, null);
  /** A tick that is running at the first look began before this process did. */
  let hasLooked = false;
  /** At the last look. */
  let areTasksLeft = false;
  const tasksRest = createRest(clock);
  const answersRest = createRest(clock);
  const placesOf = createPlaces();

  /** Runs work under a name unless it runs already, or is done with in its round; null: it belongs to none. */
  const start = (name: string, of: Round | null, work: Work, onDone = kick): void => {
    if (jobs.has(name) || of?.ended.has(name)) return;
    const job = work()
      .then((outcome) => {
        if (outcome === "again") return;
        of?.ended.add(name);
        onDone();
      })
      .catch((error: unknown) => {
        // What is over does not matter any more.
        if (stop.signal.aborted || of?.abort.signal.aborted) return;
        const { code, message, retryable } = toStarlingError(error);
        counters.add("snapshot_failures");
        log.warn(
          { tick: of?.tick ?? null, work: name, code, problem: message },
          "a part of snapshot runs is tried again",
        );
        if (!retryable && of !== null) return giveUp(of.tick, `${name}: ${message} (${code})`);
      })
      .finally(() => jobs.delete(name));
    jobs.set(name, job);
  };

  /** What another attempt does not mend ends the run. */
  const giveUp = async (tick: number, error: string): Promise<void> => {
    const request = { id: `end-${tick}-${options.self()}`, kind: "end", tick, error: toStorableText(error) } as const;
    await store.addRequest(request).catch(() => {}); // it fails again, and says so again
  };

  const signalOf = ({ abort }: Round): AbortSignal => AbortSignal.any([stop.signal, abort.signal]);
  const writerOf = ({ shard, epoch }: Fence): ShardWriter => ({ node: options.self(), shard, epoch });

  const runForNode = async (run: SnapshotRun, of: Round, step: "init" | "finalize"): Promise<"done"> => {
    const instant = { tick: run.tick, atMs: run.at, shard: options.home, careful: of.isLate, signal: signalOf(of) };
    const { hooks, answers } = await computer.runForNode(step, instant);
    const bodies = answers.map(({ hook, tasks }) => ({ hook, body: writeSnapshotTasks(tasks) }));
    await store.noteNode({ tick: run.tick, node: options.self(), step, hooks, answers: bodies });
    return "done";
  };

  const visit = async (run: SnapshotRun, of: Round, own: Fence): Promise<"done" | "again"> => {
    const onPassed = (place: EntityPlace | null): void => options.ticks.passed(own.shard, run.tick, place);
    const careful = isCareful(of, own);
    const open = (): ReadonlySet<ShardId> => options.ticks.open(run.tick);
    // Where hooks look at more than they declare, whole types are visited anyway.
    if (computer.impure.length === 0)
      of.changes ??= createSnapshotChanges({ store, run, open, max: options.limits.changesMax, log });
    const outcome = await visitShard(
      { ...options, careful, onPassed, changes: of.changes },
      writerOf(own),
      run,
      signalOf(of),
    );
    return outcome === "visited" ? "done" : "again";
  };

  const join = async (run: SnapshotRun, of: Round, own: Fence): Promise<"done" | "again"> => {
    const signal = signalOf(of);
    const changedIn = run.kind === "changed" ? run.tick : null;
    of.finding ??= findGroups({ store, links: computer.linked, changedIn, signal }).catch((error: unknown) => {
      of.finding = null;
      throw error;
    });
    const groups = await of.finding;
    of.groups = groups;
    const careful = isCareful(of, own);
    const outcome = await joinShard({ ...options, room, careful }, writerOf(own), run, { groups, signal });
    return outcome === "done" ? "done" : "again";
  };

  const lookAtRun = (run: SnapshotRun): void => {
    if (run.tick !== round.tick) {
      end(round);
      round = createRound(run.tick, hasLooked ? options.shards() : null);
    }
    const of = round;
    if (run.fingerprint !== options.fingerprint) {
      // Nodes are being replaced by others: the coordinator, or whoever comes after it, has to say what it wants.
      return void giveUp(run.tick, `node ${options.self()} has another model, other modules or another configuration`);
    }
    options.ticks.learn(run.tick, run.at);
    // A node that was given up and has joined again owns its shards by another id, and is waited for by that.
    if (run.phase === "finalize") return start(`end as ${options.self()}`, of, () => runForNode(run, of, "finalize"));
    if (!of.ended.has("init")) return start("init", of, () => runForNode(run, of, "init"));
    const open = run.phase === "visit" ? options.ticks.open(run.tick) : null;
    of.queue = options.shards().flatMap((own): ShardWork[] => {
      const name = `shard ${own.shard} of epoch ${own.epoch} in ${run.phase}`;
      if (groupOf(own.shard) !== "entity" || jobs.has(name) || of.ended.has(name)) return [];
      if (open !== null && !open.has(own.shard)) return [];
      if (open === null)
        return [{ name, work: () => join(run, of, own), isEmpty: () => of.groups?.of(own.shard).length === 0 }];
      return [{ name, work: () => visit(run, of, own), isEmpty: () => of.changes?.isEmpty(own.shard) === true }];
    });
    pull(of);
  };

  /**
   * Begins what there is room for, and all that is known to be empty: one shard follows another without a look at the store, which
   * is due after the last one. What fails waits for the next look, and so does all behind it.
   */
  const pull = (of: Round): void => {
    if (stop.signal.aborted || of.abort.signal.aborted) return;
    const empty = of.queue.filter((one) => one.isEmpty());
    if (empty.length > 0) of.queue = of.queue.filter((one) => !one.isEmpty());
    for (const one of empty) begin(of, one, 0);
    while (visits < options.limits.visitsMax) {
      const next = of.queue.shift();
      if (next === undefined) return;
      begin(of, next, 1);
    }
  };

  /** `room`: what it takes of that for visits. */
  const begin = (of: Round, next: ShardWork, room: 0 | 1): void => {
    const work = async (): Promise<"done" | "again"> => {
      active++;
      visits += room;
      const outcome = await next.work().finally(() => {
        active--;
        visits -= room;
      });
      pull(of);
      return outcome;
    };
    start(next.name, of, work, () => (active === 0 ? kick() : undefined));
  };

  /** Of a tick that failed, nobody reads the entities as they were at its marks. */
  const end = ({ tick, abort }: Round): void => {
    if (abort.signal.aborted) return;
    abort.abort(new StarlingError("UNAVAILABLE", `snapshot run ${tick} is over`));
    for (const shard of options.ticks.open(tick)) options.ticks.passed(shard, tick, null);
  };

  /** Each shard's rows one after another; a shard whose tasks nobody takes just now holds up no other one. */
  const findTasks = async (at: string | null): Promise<"again"> => {
    const own = options.shards().filter(({ shard }) => !jobs.has(`tasks of shard ${shard}`));
    const rows = await store.readTasks(
      own.map(({ shard }) => shard),
      taskRowsMax,
    );
    for (const owner of own) {
      const some = rows.filter(({ shard }) => shard === owner.shard);
      if (some.length > 0) start(`tasks of shard ${owner.shard}`, null, () => sendTasks(owner, some));
    }
    areTasksLeft = rows.length > 0;
    if (own.length === options.shards().length && !areTasksLeft) tasksRest.begin(at);
    return "again";
  };

  const sendTasks = async (owner: Fence, rows: readonly SnapshotTasks[]): Promise<"again"> => {
    for (const row of rows) {
      await options.send(row, stop.signal);
      await store.dropTasks(writerOf(owner), row.tick, row.page);
    }
    return "again";
  };

  /** Of hooks that ran on every node: the owner of the coordinator's shard sends them. */
  const sendAnswers = async (at: string | null): Promise<"again"> => {
    const rows = await store.readAnswers();
    for (const row of rows) {
      await options.send(row, stop.signal);
      await store.dropAnswer(row.tick, row.page);
    }
    if (rows.length === 0) answersRest.begin(at);
    return "again";
  };

  return {
    look: ({ running, newest }) => {
      if (stop.signal.aborted) return;
      if (running === null) end(round);
      else lookAtRun(running);
      hasLooked = true;
      const at = (places: string): string | null => (running === null ? `${newest?.tick} ${places}` : null);
      const own = at(placesOf(options.shards()));
      if (tasksRest.isOver(own)) start("tasks", null, () => findTasks(own));
      const owner = options.coordinates();
      if (owner === null) return;
      const home = at(placeOf(owner));
      if (answersRest.isOver(home)) start("answers", null, () => sendAnswers(home));
      start("cleaning", null, () => options.cleaner.look(owner, stop.signal).then(() => "again"));
    },
    get busy() {
      return areTasksLeft || [...jobs.keys()].some((name) => !looks.has(name));
    },
    close: async () => {
      stop.abort(new StarlingError("UNAVAILABLE", "the node stops"));
      await Promise.allSettled(jobs.values());
    },
  };
}

function placeOf({ shard, epoch }: Fence): string {
  return `${shard}.${epoch}`;
}

/** As one text, made anew only for another list. */
function createPlaces(): (shards: readonly Fence[]) => string {
  let known: readonly Fence[] = [];
  let text = "";
  return (shards) => {
    if (shards !== known) text = shards.map(placeOf).join();
    known = shards;
    return text;
  };
}

/** Left tasks come by a run, or with a shard: where there were none there is nothing to look for until either has changed. */
function createRest(clock: Clock) {
  let rested: string | null = null;
  let endsMs = 0;
  return {
    /** `at`: which runs and shards there are; null: a run is going on, and brings some at any time. */
    isOver: (at: string | null): boolean => at === null || at !== rested || clock.now() >= endsMs,
    begin: (at: string | null): void => {
      rested = at;
      endsMs = clock.now() + restMs;
    },
  };
}

/** `shards`: those that are here as it begins; null: it began before. */
function createRound(tick: number, shards: readonly Fence[] | null): Round {
  const own = new Map((shards ?? []).map(({ shard, epoch }) => [shard, epoch]));
  return {
    tick,
    abort: new AbortController(),
    isLate: shards === null,
    own,
    ended: new Set(),
    queue: [],
    finding: null,
    groups: null,
    changes: null,
  };
}

/** Whether the owner before may have died of what is to be computed. */
function isCareful({ own }: Round, { shard, epoch }: Fence): boolean {
  return own.get(shard) !== epoch;
}
