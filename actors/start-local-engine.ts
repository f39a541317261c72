import type { Hook, HookTable } from "../modules/hook.ts";
import type { Model } from "../modules/model.ts";
import type { Clock } from "../proto/clock.ts";
import { type NodeId, type ShardId, toSessionId } from "../proto/ids.ts";
import { StarlingError } from "../proto/starling-error.ts";
import { type CellSystem, startCellSystem } from "./cell.ts";
import type { Counters } from "./counters.ts";
import { createEnding, type Ending, endWithinMs } from "./ending.ts";
import { createFollowers } from "./follow.ts";
import { createHealth, type Health } from "./health.ts";
import type { HookCall } from "./hooks/hook-call.ts";
import type { HookOutcome } from "./hooks/hook-outcome.ts";
import type { StateForm } from "./lane/entity-state.ts";
import { noFailPoint, type OnFailPoint, withHookFailPoints } from "./lane/fail-point.ts";
import { hookGraceMs } from "./lane/hand-off.ts";
import { createHeld } from "./lane/held-shards.ts";
import { inspectShard } from "./lane/inspect-shard.ts";
import { createLane, type LaneLimits, type LaneMessage, type ReplayLog } from "./lane/lane.ts";
import { createOfferer, type LaneCell, startLaneCell } from "./lane/lane-cell.ts";
import type { Part, PartListener } from "./lane/part.ts";
import { pause, readLogs } from "./lane/replay.ts";
import { createShard, type Shard } from "./lane/shard.ts";
import { createTurn } from "./lane/turn.ts";
import type { LocalEngine } from "./local-engine.ts";
import { reportLanes, reportShard } from "./node-report.ts";
import { createReads } from "./owner-reads.ts";
import { shardOfType } from "./shard-of-type.ts";
import type { OpenCut } from "./snapshots/tick-mark.ts";
import { createTicks } from "./snapshots/ticks.ts";
import { drawnPrefix } from "./store/session-life.ts";
import type { AcquiredShard, Fence, Queries, Segment, Store } from "./store/store.ts";
import { type Traces, tracedBy } from "./traces.ts";

export interface LocalEngineOptions {
  /** Whoever calls the store looks at this moment's id: a node that was expelled goes on under a new one. */
  readonly identity: { readonly id: NodeId };
  readonly store: Store;
  readonly queries: Pick<Queries, "deadLetter">;
  readonly model: Model;
  readonly hooks: HookTable;
  readonly runHook: (hook: Hook, call: HookCall) => HookOutcome | Promise<HookOutcome>;
  /** Aborts the hooks that run for a shard: `HookRunner.abandon`. */
  readonly abandon: (shard: ShardId) => void;
  /** Brings outbox parts to the owners of their targets, wherever these are; default: all are here. */
  readonly offer?: (parts: readonly Part[], listener: PartListener) => void;
  readonly limits: LaneLimits;
  /** How records are written; default short: there are no nodes of the version before. */
  readonly stateForm?: () => StateForm;
  readonly entityShards: number;
  /** Where singletons live; default one shard. */
  readonly systemShards?: number;
  /** Appends in flight per database, and databases: a lane never spans two (R2). */
  readonly lanes: number;
  readonly databases: number;
  readonly counters: Counters;
  readonly clock: Clock;
  /** The wall clock, Unix ms: it labels, it never orders (R6). */
  readonly wall: () => number;
  readonly newSessionId: () => string;
  readonly log: EngineLog;
  /** What the lanes run in; default nact's actors. */
  readonly cells?: CellSystem;
  /** Set where tasks are traced. */
  readonly traces?: Traces | undefined;
  /** Where tests end the process; default nothing. */
  readonly onFailPoint?: OnFailPoint;
}

export interface EngineLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** The engine of a node that owns no shards yet. */
export function startLocalEngine(options: LocalEngineOptions): LocalEngine {
  const { model, store, clock, log } = options;
  const cells = options.cells ?? startCellSystem();
  const followers = createFollowers(model);
  const health = createHealth(log);
  const losses = new Set<(shards: readonly ShardId[]) => void>();
  const lanes = startLanes(options, cells, {
    offer: (parts, listener) => (options.offer ?? offer)(parts, listener),
    onAppended: followers.publish,
    onLost: (lost) => {
      log.warn({ shards: lost }, "shards were lost");
      for (const shard of lost) options.abandon(shard);
      for (const listener of losses) listener(lost);
    },
    onKeptBack: (shard, error) => {
      const text = "postgresql refuses what a shard has to write: it is kept back until it has another owner";
      log.error({ shard, code: error.code, problem: error.message }, text);
    },
    onCutOpen: (cut) => ticks.publish(cut),
    health,
  });
  const tell = (cell: LaneCell, message: LaneMessage) => void lanes.tell(cell, message);
  const ticks = createTicks({ lanes: lanes.all, laneOf: lanes.of, tell });
  const offer = createOfferer(lanes.of);
  const residence = createResidence(options, lanes);
  let closing: Promise<Fence[]> | null = null;
  const close = async (ending: Ending): Promise<Fence[]> => {
    ending.begin();
    const given = giveUpSuspects();
    const text = "shards whose hooks are tried one after another were not given up";
    await ending.wait(given, { text }).catch((error: unknown) => {
      log.warn({ problem: String(error) }, "stopped before everything was given up");
    });
    residence.close();
    await lanes.drain(ending);
    await cells.close();
    // The next owner has to know of what may end a process (R17): a shard that could not leave it is not given up.
    const left = lanes.shards().filter(({ suspect }) => suspect === null);
    const fences = [...residence.fences(), ...left.map(({ fence }) => fence)];
    // Nothing that is still to be given up is waited for any more.
    return [...(await given), ...fences];
  };
  const giveUpSuspects = (): Promise<Fence[]> => {
    const suspects = lanes.shards().filter(({ suspect }) => suspect !== null);
    return residence.giveUp(
      suspects.map(({ id }) => id),
      hookGraceMs,
    );
  };
  return {
    own: residence.own,
    giveUp: residence.giveUp,
    drop: residence.drop,
    owns: (shard) => lanes.of(shard).lane.shards.has(shard),
    onLost: (listener) => {
      losses.add(listener);
      return () => void losses.delete(listener);
    },
    offer,
    ...createReads({ ...options, laneOf: lanes.of, shardOf: shardsOf(options) }),
    openSession: (session, opening) => {
      const isNew = session === "";
      const id = isNew ? `${drawnPrefix}${options.newSessionId()}` : session;
      return store.openSession(toSessionId(id), { ...opening, begins: isNew || opening.named });
    },
    useSession: (session) => store.useSession(session),
    closeSession: (session) => store.closeSession(session),
    findClosed: (sessions) => store.findClosed(sessions),
    follow: (filter, signal) => followers.follow(filter, signal),
    flushedUpTo: () => flushedUpTo(lanes.all, clock, options.wall),
    held: createHeld(lanes.all),
    status: () => ({ problem: health.problem(), shards: lanes.shards().map(reportShard) }),
    report: () =>
      reportLanes(
        lanes.all.map(({ lane }) => lane),
        residence.arriving(),
      ),
    inspect: (shard, entity) =>
      inspectShard(lanes.of(shard).lane, shard, { entity, arriving: residence.arriving(), clock }),
    ...{ onHealth: health.on, ticks, counters: options.counters },
    close: (ending = createEnding({ clock, withinMs: endWithinMs, pings: [] })) => {
      closing ??= close(ending);
      return closing;
    },
  };
}

/** The node's lanes, by shard. */
interface Lanes {
  readonly all: readonly LaneCell[];
  of(shard: ShardId): LaneCell;
  shards(): Shard[];
  /** Tells a lane even if its mailbox is full now; false: it will never take it. */
  tell(lane: LaneCell, message: LaneMessage): Promise<boolean>;
  /** Finishes what is in hand, each lane as long as its database answers, and stops. */
  drain(ending: Ending): Promise<void>;
}

interface LaneListeners {
  readonly offer: (parts: readonly Part[], listener: PartListener) => void;
  readonly onAppended: (segments: readonly Segment[]) => void;
  readonly onLost: (shards: readonly ShardId[]) => void;
  readonly onKeptBack: (shard: ShardId, error: StarlingError) => void;
  readonly onCutOpen: (cut: OpenCut) => void;
  readonly health: Health;
}

const mailboxPauseMs = 20;

function startLanes(options: LocalEngineOptions, cells: CellSystem, on: LaneListeners): Lanes {
  const { identity, model, store, clock, log, abandon, onFailPoint = noFailPoint } = options;
  const world = {
    ...{ model, hooks: options.hooks, limits: options.limits, counters: options.counters },
    ...{ now: options.wall, monotonic: clock.now, turn: createTurn() },
    shardOf: shardsOf(options),
    stateForm: options.stateForm ?? (() => "short" as const),
    runHook: withHookFailPoints(tracedBy(options.traces, options.runHook), onFailPoint),
    traces: options.traces,
  };
  const surroundings = { store, identity, clock, abandon, onFailPoint, ...on };
  const crashed = new Set<number>();
  const drained = Array.from({ length: options.lanes * options.databases }, deferred);
  const all = drained.map(({ resolve }, index) =>
    startLaneCell(cells, (post) => createLane(index, identity.id, { ...world, post }), {
      ...surroundings,
      onHealth: (work, problem) => on.health.report(`${work}s of lane ${index}`, problem),
      onDrained: resolve,
      onCrash: (error) => {
        log.error({ err: error, lane: index }, "a lane failed: this is a bug");
        on.health.report(
          `lane ${index}`,
          new StarlingError("INTERNAL", `lane ${index} failed: ${String(error)}`, { cause: error }),
        );
        crashed.add(index);
        resolve();
      },
    }),
  );
  let status: "running" | "stopped" = "running";
  return {
    all,
    of: (shard) => {
      const cell = all[shard % all.length];
      if (cell === undefined) throw new Error(`no lane for shard ${shard}`);
      return cell;
    },
    shards: () => all.flatMap(({ lane }) => [...lane.shards.values()]),
    tell: async (cell, message) => {
      while (!cell.tell(message)) {
        if (status === "stopped" || crashed.has(cell.lane.index)) return false;
        await pause(clock, mailboxPauseMs);
      }
      return true;
    },
    drain: async (ending) => {
      for (const cell of all) cell.tell({ kind: "close" });
      const text = "the lane did not flush everything that it holds";
      const ends = drained.map(({ promise }, lane) =>
        ending.wait(promise, { text, database: lane % options.databases }).catch((error: unknown) => {
          // Nothing is lost: what was not flushed stands in the log, and the next owner replays it.
          log.warn({ lane, problem: String(error) }, "stopped before everything was flushed");
        }),
      );
      await Promise.all(ends);
      status = "stopped";
      for (const cell of all) await cell.stop();
    },
  };
}

/** How shards come and go. */
interface Residence extends Pick<LocalEngine, "own" | "giveUp" | "drop"> {
  /** Ends what waits: shards that are still coming, or going, stay as they are. */
  close(): void;
  arriving(): ShardId[];
  /** Of shards that were acquired and never reached a lane. */
  fences(): Fence[];
}

/** A shard whose log is being read. */
interface Arrival {
  readonly acquired: AcquiredShard;
  readonly settled: Promise<unknown>;
}

function createResidence(options: LocalEngineOptions, lanes: Lanes): Residence {
  const { store, clock, model, onFailPoint = noFailPoint } = options;
  const arriving = new Map<ShardId, Arrival>();
  const closed = deferred();
  let status: "open" | "closed" = "open";

  const own = async (acquired: readonly AcquiredShard[]): Promise<void> => {
    const settled = deferred();
    for (const one of acquired) arriving.set(one.shard, { acquired: one, settled: settled.promise });
    const isComing = ({ shard, epoch }: Fence) => status === "open" && arriving.get(shard)?.acquired.epoch === epoch;
    options.counters.add("shards_acquired", acquired.length);
    try {
      const shards = acquired.map((one) => createShard(one, model));
      const logs = await readLogs({ store, clock }, shards, (shard) =>
        isComing({ shard: shard.id, epoch: shard.epoch }),
      );
      onFailPoint("acquired");
      const here = shards.filter(({ id, epoch }) => isComing({ shard: id, epoch }));
      await Promise.all([...byLane(lanes, here)].map(([cell, own]) => install(cell, own, logs)));
    } finally {
      for (const one of acquired) if (isComing(one)) arriving.delete(one.shard);
      settled.resolve();
    }
  };
  const install = async (cell: LaneCell, shards: readonly Shard[], logs: readonly ReplayLog[]): Promise<void> => {
    const replay = logs.filter(({ shard }) => shards.includes(shard));
    const done = deferred();
    const told = await lanes.tell(cell, { kind: "own", shards, replay, reply: done.resolve });
    if (!told) throw new StarlingError("UNAVAILABLE", "the node is closing");
    await Promise.race([done.promise, closed.promise]);
  };
  const giveUp = async (ids: readonly ShardId[], hookGraceMs: number): Promise<Fence[]> => {
    // One that is still coming may have a mark to hand on (R17): only its lane knows.
    await Promise.all(ids.map((id) => arriving.get(id)?.settled));
    const fences: Fence[] = [];
    const given = [
      ...byLane(
        lanes,
        ids.map((id) => ({ id })),
      ),
    ].map(async ([cell, shards]) => {
      const done = deferred();
      let open = shards.length;
      const reply = (_: ShardId, fence: Fence | null): void => {
        if (fence !== null) fences.push(fence);
        if (--open === 0) done.resolve();
      };
      const message = { kind: "give-up", shards: shards.map(({ id }) => id), hookGraceMs, reply } as const;
      if (await lanes.tell(cell, message)) await Promise.race([done.promise, closed.promise]);
    });
    await Promise.all(given);
    return [...fences];
  };
  return {
    own,
    giveUp,
    drop: (ids) => {
      for (const id of ids) arriving.delete(id);
      for (const [cell, shards] of byLane(
        lanes,
        ids.map((id) => ({ id })),
      )) {
        void lanes.tell(cell, { kind: "drop", shards: shards.map(({ id }) => id) });
      }
    },
    arriving: () => [...arriving.keys()],
    close: () => {
      status = "closed";
    },
    // One that was not given up stays so: its next owner has to know (R17).
    fences: () => {
      closed.resolve();
      return [...arriving.values()].filter(({ acquired }) => acquired.clean).map(({ acquired }) => fenceOf(acquired));
    },
  };
}

function fenceOf({ shard, epoch }: Fence): Fence {
  return { shard, epoch };
}

function byLane<T extends { readonly id: ShardId }>(lanes: Lanes, shards: readonly T[]): Map<LaneCell, T[]> {
  const found = new Map<LaneCell, T[]>();
  for (const shard of shards) {
    const cell = lanes.of(shard.id);
    const known = found.get(cell);
    if (known === undefined) found.set(cell, [shard]);
    else known.push(shard);
  }
  return found;
}

function shardsOf({ entityShards, systemShards = 1 }: LocalEngineOptions) {
  const counts = { entityShards, systemShards };
  return (type: string, eid: string): ShardId => shardOfType(type, eid, counts);
}

/** Everything that changed before the oldest change not yet in PostgreSQL. */
function flushedUpTo(lanes: readonly LaneCell[], clock: Clock, wall: () => number): number {
  const monotonic = clock.now();
  let oldest = monotonic;
  for (const { lane } of lanes) {
    for (const { dirtySince } of lane.dirty) oldest = Math.min(oldest, dirtySince);
    for (const { keptBack } of lane.shards.values()) oldest = Math.min(oldest, keptBack?.since ?? oldest);
    for (const flush of [lane.flush, ...lane.divided, lane.packed]) oldest = Math.min(oldest, flush?.since ?? oldest);
  }
  return wall() - (monotonic - oldest);
}

function deferred() {
  let resolve: () => void = () => {};
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}
