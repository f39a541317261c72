import { allShards } from "../cluster/shards.ts";
import type { Eid } from "../modules/datapoint.ts";
import { readEid } from "../modules/eid.ts";
import type { Hook, HookTable } from "../modules/hook.ts";
import type { Model } from "../modules/model.ts";
import type { Clock } from "../proto/clock.ts";
import { withDeadline } from "../proto/deadline.ts";
import { type NodeId, type ShardId, toSessionId } from "../proto/ids.ts";
import { shardOf } from "../proto/shard-of.ts";
import { StarlingError } from "../proto/starling-error.ts";
import { startCellSystem } from "./cell.ts";
import type { Counters } from "./counters.ts";
import type { Engine, OwnedRecord } from "./engine.ts";
import { noFailPoint, type OnFailPoint, withHookFailPoints } from "./fail-point.ts";
import { createFollowers } from "./follow.ts";
import type { HookCall } from "./hook-call.ts";
import type { HookOutcome } from "./hook-outcome.ts";
import { createLane, type LaneLimits, type Offer, type ReplayLog } from "./lane.ts";
import { type LaneCell, startLaneCell } from "./lane-cell.ts";
import type { Part } from "./part.ts";
import { runLetter } from "./run-letter.ts";
import { createShard, replayAfter, type Shard } from "./shard.ts";
import type { AcquiredShard, Queries, Segment, Store, StoredDeadLetter } from "./store/store.ts";
import { createTurn } from "./turn.ts";

export interface EngineOptions {
  readonly node: NodeId;
  readonly store: Store;
  readonly queries: Queries;
  readonly model: Model;
  readonly hooks: HookTable;
  readonly runHook: (hook: Hook, call: HookCall) => HookOutcome | Promise<HookOutcome>;
  readonly limits: LaneLimits;
  readonly entityShards: number;
  readonly systemShards: number;
  /** Appends in flight per database, and databases: a lane never spans two (R2). */
  readonly lanes: number;
  readonly databases: number;
  readonly counters: Counters;
  readonly clock: Clock;
  /** The wall clock, Unix ms: it labels, it never orders (R6). */
  readonly wall: () => number;
  readonly newSessionId: () => string;
  readonly log: EngineLog;
  /** Where tests end the process; default nothing. */
  readonly onFailPoint?: OnFailPoint;
}

export interface EngineLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** Takes all shards, replays what stands above their watermarks, and serves. */
export async function startEngine(options: EngineOptions): Promise<Engine> {
  const { model, store, entityShards } = options;
  const ids = allShards({ entity: entityShards, system: options.systemShards });
  const acquired = await acquireAll(options, ids);
  const shards = acquired.map((one) => createShard(one, model));
  const replay = await readLogs(store, shards);
  options.onFailPoint?.("acquired");
  return createEngine(options, shards, replay);
}

async function acquireAll(options: EngineOptions, ids: readonly ShardId[]): Promise<AcquiredShard[]> {
  const { store, node, log, clock } = options;
  const acquired = new Map<ShardId, AcquiredShard>();
  for (let attempt = 0; acquired.size < ids.length; attempt++) {
    if (attempt > 0) await new Promise<void>((resolve) => clock.after(Math.min(1000, 100 * attempt), resolve));
    const missing = ids.filter((id) => !acquired.has(id));
    for (const one of await store.acquire(node, missing)) acquired.set(one.shard, one);
    if (attempt === 20) log.warn({ missing: ids.length - acquired.size }, "shards are claimed by another node");
    if (attempt > 100) throw new StarlingError("UNAVAILABLE", "another node keeps claiming shards of this cluster");
  }
  log.info(
    { shards: acquired.size, epoch: Math.max(...[...acquired.values()].map((a) => a.epoch)) },
    "shards acquired",
  );
  const jumped = [...acquired.values()].filter((one) => one.jumped).length;
  if (jumped > 0) log.warn({ shards: jumped }, "postgresql is another server or timeline than it was: epochs jumped");
  return [...acquired.values()];
}

const replayPage = 1000;
const drainWithinMs = 20_000;

async function readLogs(store: Store, shards: readonly Shard[]): Promise<ReplayLog[]> {
  const logs: ReplayLog[] = [];
  for (const shard of shards) {
    const from = replayAfter(shard);
    if (shard.lastSeq <= from) continue;
    const segments: Segment[] = [];
    for (let after = from; ; ) {
      const page = await store.readLog(shard.id, after, replayPage);
      segments.push(...page);
      const last = page.at(-1);
      if (last === undefined || page.length < replayPage) break;
      after = last.lastSeq;
    }
    logs.push({ shard, segments });
  }
  return logs;
}

function createEngine(options: EngineOptions, shards: readonly Shard[], replay: readonly ReplayLog[]): Engine {
  const { model, entityShards, store, counters, clock, log, onFailPoint = noFailPoint } = options;
  const cells = startCellSystem();
  const followers = createFollowers(model);
  const health = createHealth(log);
  const turn = createTurn();
  const laneCount = options.lanes * options.databases;
  const drained = Array.from({ length: laneCount }, () => deferred());
  const lanes: LaneCell[] = drained.map((done, index) =>
    startLaneCell(
      cells,
      (post) =>
        createLane(index, options.node, {
          model,
          hooks: options.hooks,
          limits: options.limits,
          counters,
          now: options.wall,
          monotonic: clock.now,
          shardOf: (type, eid) => shardOf("entity", type, eid, entityShards),
          turn,
          runHook: withHookFailPoints(options.runHook, onFailPoint),
          post,
        }),
      {
        store,
        clock,
        offer: (parts, listener) => offer(parts, listener),
        onAppended: (segments) => followers.publish(segments),
        onLost: (lost) => {
          log.error({ shards: lost }, "shards were taken over by another node: this one may no longer write them");
          health.report(new StarlingError("FENCED", `${lost.length} shards were taken over by another node`));
        },
        onHealth: (problem) => health.report(problem),
        onDrained: done.resolve,
        onFailPoint,
        onCrash: (error) => {
          log.error({ err: error, lane: index }, "a lane failed: this is a bug");
          health.report(new StarlingError("INTERNAL", `lane ${index} failed: ${String(error)}`, { cause: error }));
        },
      },
    ),
  );
  const laneOf = (shard: ShardId): LaneCell => {
    const lane = lanes[shard % laneCount];
    if (lane === undefined) throw new Error(`no lane for shard ${shard}`);
    return lane;
  };
  const offer = createOfferer(laneOf);
  for (const cell of lanes) {
    const mine = shards.filter((shard) => laneOf(shard.id) === cell);
    cell.tell({ kind: "own", shards: mine, replay: replay.filter((log) => mine.includes(log.shard)) });
  }
  const get: Engine["get"] = (type, eid, atLeast) => {
    const spec = model.entities.get(type);
    if (spec === undefined)
      return Promise.reject(new StarlingError("UNKNOWN_TYPE", `no entity type ${type} in the model`));
    const eidValue: Eid = readEid(spec, eid);
    const shard = shardOf("entity", type, eid, entityShards);
    return new Promise<OwnedRecord | null>((resolve, reject) => {
      const reply = (record: OwnedRecord | null | StarlingError): void =>
        record instanceof StarlingError ? reject(record) : resolve(record);
      const message = { kind: "get", key: { shard, type, eid }, eidValue, atLeast, reply } as const;
      if (!laneOf(shard).tell(message)) reply(new StarlingError("UNAVAILABLE", "the node is closing"));
    });
  };
  const replayDeadLetter = async (id: string): Promise<StoredDeadLetter> => {
    const letter = await options.queries.deadLetter(id);
    if (letter === null) throw new StarlingError("NOT_FOUND", `there is no dead letter ${id}`);
    if (letter.status !== "open") throw new StarlingError("NOT_FOUND", `dead letter ${id} is ${letter.status} already`);
    const { runHook, hooks } = options;
    const getRecord = async (type: string, eid: string) => (await get(type, eid, null))?.view ?? null;
    const tasks = await runLetter(letter, { model, hooks, runHook, getRecord });
    return new Promise((resolve, reject) => {
      const reply = (error: StarlingError | null): void =>
        error === null ? resolve({ ...letter, status: "replayed" }) : reject(error);
      const told = laneOf(letter.shard).tell({ kind: "replay-letter", letter, tasks, reply });
      if (!told) reply(new StarlingError("UNAVAILABLE", "the node is closing"));
    });
  };
  return {
    entityShards,
    offer,
    queries: options.queries,
    counters,
    openSession: (session, named) =>
      store.openSession(toSessionId(session === "" ? options.newSessionId() : session), named),
    closeSession: (session) => store.closeSession(session),
    get,
    follow: (filter, signal) => followers.follow(filter, signal),
    replayDeadLetter,
    flushedUpTo: () => flushedUpTo(lanes, clock, options.wall),
    status: () => ({
      problem: health.problem(),
      shards: lanes.flatMap(({ lane }) => [...lane.shards.values()].map(statusOf)),
    }),
    onHealth: health.on,
    close: async () => {
      for (const cell of lanes) cell.tell({ kind: "close" });
      const everything = Promise.all(drained.map((one) => one.promise));
      const text = "the lanes did not flush everything they hold";
      await withDeadline(everything, { clock, deadlineMs: drainWithinMs, text }).catch((error: unknown) => {
        // Nothing is lost: what was not flushed stands in the log, and the next owner replays it.
        log.warn({ problem: String(error) }, "stopped before everything was flushed");
      });
      for (const cell of lanes) await cell.stop();
      await cells.close();
      const fences = lanes.flatMap(({ lane }) =>
        [...lane.shards.values()].map(({ id, epoch }) => ({ shard: id, epoch })),
      );
      await store.release(fences, options.node);
    },
  };
}

/** Offers of one turn reach each lane as one message. */
function createOfferer(laneOf: (shard: ShardId) => LaneCell): Engine["offer"] {
  const turn = new Map<LaneCell, Offer[]>();
  const send = (): void => {
    const all = [...turn];
    turn.clear();
    for (const [cell, offers] of all) {
      if (cell.tell({ kind: "offer", offers })) continue;
      const error = new StarlingError("BUSY", "the node's mailbox is full, or it is closing");
      for (const { parts, listener } of offers) {
        listener(parts.map(({ position }) => ({ kind: "refused", position, error })));
      }
    }
  };
  return (parts, listener) => {
    if (turn.size === 0) queueMicrotask(send);
    const byLane = new Map<LaneCell, Part[]>();
    for (const part of parts) {
      const cell = laneOf(part.shard);
      const known = byLane.get(cell);
      if (known === undefined) byLane.set(cell, [part]);
      else known.push(part);
    }
    for (const [cell, own] of byLane) {
      const offers = turn.get(cell);
      if (offers === undefined) turn.set(cell, [{ parts: own, listener }]);
      else offers.push({ parts: own, listener });
    }
  };
}

function statusOf(shard: Shard) {
  return {
    shard: shard.id,
    epoch: shard.epoch,
    lastSeq: shard.durableSeq,
    watermark: shard.watermark,
    residentEntities: shard.residents,
    undelivered: shard.outbox.sent.length - shard.outbox.first,
  };
}

/** Everything that changed before the oldest change not yet in PostgreSQL. */
function flushedUpTo(lanes: readonly LaneCell[], clock: Clock, wall: () => number): number {
  const monotonic = clock.now();
  let oldest = monotonic;
  for (const { lane } of lanes) {
    for (const { dirtySince } of lane.dirty) oldest = Math.min(oldest, dirtySince);
    if (lane.flush !== null) oldest = Math.min(oldest, lane.flush.since);
  }
  return wall() - (monotonic - oldest);
}

function createHealth(log: EngineLog) {
  const listeners = new Set<(problem: StarlingError | null) => void>();
  let problem: StarlingError | null = null;
  return {
    problem: () => problem,
    report: (next: StarlingError | null): void => {
      // What the store cannot mend stays; the same trouble is said once.
      if (problem !== null && !problem.retryable) return;
      if (problem?.code === "FENCED" || (problem === null) === (next === null)) return;
      problem = next;
      if (next === null) log.info({}, "serving again");
      else log.warn({ code: next.code, problem: next.message }, "not serving");
      for (const listener of listeners) listener(next);
    },
    on: (listener: (problem: StarlingError | null) => void): (() => void) => {
      listeners.add(listener);
      listener(problem);
      return () => void listeners.delete(listener);
    },
  };
}

function deferred() {
  let resolve: () => void = () => {};
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}
