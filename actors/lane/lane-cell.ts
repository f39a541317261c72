import { type Clock, untilBeat } from "../../proto/clock.ts";
import type { NodeId, Seq, ShardId } from "../../proto/ids.ts";
import { StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import { unreachable } from "../../proto/unreachable.ts";
import type { Cell, CellSystem } from "../cell.ts";
import type { Counters } from "../counters.ts";
import type { OpenCut } from "../snapshots/tick-mark.ts";
import type { Segment, Store } from "../store/store.ts";
import { owns } from "./commit.ts";
import { createDeliverer } from "./deliverer.ts";
import { noFailPoint, type OnFailPoint } from "./fail-point.ts";
import type { Effect, Lane, LaneMessage, Offer } from "./lane.ts";
import { createLaneTimers, type LaneTimers } from "./lane-timers.ts";
import type { Part, PartListener } from "./part.ts";
import type { Shard } from "./shard.ts";
import { step } from "./step.ts";

/** What a lane's effects need of the world beside the store. */
export interface LaneSurroundings {
  readonly store: Store;
  /** Who writes, looked at with each call; default the lane's node for ever. */
  readonly identity?: { readonly id: NodeId };
  readonly clock: Clock;
  /** Offers an outbox part to its target's owner. */
  readonly offer: (parts: readonly Part[], listener: PartListener) => void;
  readonly onAppended: (segments: readonly Segment[]) => void;
  readonly onLost: (shards: readonly ShardId[]) => void;
  /** PostgreSQL refuses what a shard has to write; default nobody wants to know. */
  readonly onKeptBack?: (shard: ShardId, error: StarlingError) => void;
  /** Entities of a shard can be read as they were at its mark; default nobody wants to. */
  readonly onCutOpen?: (cut: OpenCut) => void;
  /** Aborts the hooks that run for a shard; default nothing. */
  readonly abandon?: (shard: ShardId) => void;
  readonly onHealth: (work: string, problem: StarlingError | null) => void;
  readonly onDrained: () => void;
  readonly onCrash: (error: unknown) => void;
  /** Where tests end the process; default nothing. */
  readonly onFailPoint?: OnFailPoint;
}

/** A lane in an actor: messages in, effects performed, their outcome in as messages again. */
export interface LaneCell {
  readonly lane: Lane;
  tell(message: LaneMessage): boolean;
  stop(): Promise<void>;
}

/** Bound on what others send to a lane: batches, of which credits bound how many there are. */
const mailboxMax = 100_000;
const sweepEveryMs = 1000;

/** Starts a lane's actor; `create` is given the way back in. */
export function startLaneCell(
  cells: CellSystem,
  create: (post: (message: LaneMessage) => void) => Lane,
  world: LaneSurroundings,
): LaneCell {
  const timers = createLaneTimers(world.clock);
  const post = (message: LaneMessage): void => {
    if (status === "running") cell.report(message);
  };
  const lane = create(post);
  const { onFailPoint = noFailPoint } = world;
  let status: "running" | "stopped" = "running";
  /** Shards that were taken over, and the place at which their replay ends. */
  let recovering: { readonly shard: Shard; readonly end: Seq }[] = [];
  const { identity = { id: lane.node }, abandon = () => {}, onCutOpen = () => {}, onKeptBack = () => {} } = world;
  const perform = createPerformer(
    lane,
    { ...world, identity, abandon, onCutOpen, onKeptBack, onFailPoint },
    post,
    timers,
  );
  const cell: Cell<LaneMessage> = cells.spawn({
    name: `lane-${lane.index}`,
    mailboxMax,
    handle: (message) => {
      if (message.kind === "own") {
        for (const { shard } of message.replay) recovering.push({ shard, end: shard.lastSeq });
      }
      for (const effect of step(lane, message)) {
        if (recovering.length > 0) onFailPoint("in-recovery");
        perform(effect);
      }
      if (message.kind === "flushed" && recovering.length > 0)
        recovering = recovering.filter(({ shard, end }) => owns(lane, shard) && shard.watermark < end);
    },
    onCrash: world.onCrash,
  });
  const sweepAgain = (): void =>
    timers.after(untilBeat(world.clock, sweepEveryMs), () => {
      post({ kind: "sweep" });
      sweepAgain();
    });
  sweepAgain();
  return {
    lane,
    tell: (message) => cell.tell(message),
    stop: async () => {
      status = "stopped";
      timers.end();
      await cell.stop();
    },
  };
}

/** Offers of one turn reach each lane as one message. */
export function createOfferer(
  laneOf: (shard: ShardId) => LaneCell,
): (parts: readonly Part[], listener: PartListener) => void {
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

type Post = (message: LaneMessage) => void;

function createPerformer(
  lane: Lane,
  world: Required<LaneSurroundings>,
  post: Post,
  timers: LaneTimers,
): (effect: Effect) => void {
  const { store, identity, onFailPoint } = world;
  const { after } = timers;
  const flushAfter = timers.slot();
  /** Runs a store call and posts what came of it; what the store did not raise is a bug, INTERNAL. Never rejects. */
  const call = <T>(delayMs: number, run: () => Promise<T>, ok: (value: T) => void, fail: (e: StarlingError) => void) =>
    after(delayMs, () => void run().then(ok, (error: unknown) => fail(toStarlingError(error))));
  const timed = createTimer(lane.world.counters, world.clock);
  const deliver = createDeliverer({ owns: (shard) => owns(lane, shard), offer: world.offer, onFailPoint, post, after });
  return (effect) => {
    switch (effect.kind) {
      case "append":
        return call(
          effect.delayMs,
          () => {
            onFailPoint("before-append");
            return timed("append_seconds", store.append(identity.id, effect.request));
          },
          (result) => {
            onFailPoint("committed-not-acknowledged");
            if (result.lost.length === 0) world.onAppended(effect.request.segments);
            post({ kind: "committed", result });
          },
          (error) => post({ kind: "commit-failed", error }),
        );
      case "flush":
        return call(
          effect.delayMs,
          () => {
            onFailPoint("before-flush");
            return timed("flush_seconds", store.flush(identity.id, effect.request));
          },
          (result) => {
            onFailPoint("between-flush-and-watermark");
            post({ kind: "flushed", result });
          },
          (error) => post({ kind: "flush-failed", error }),
        );
      case "load": {
        const { wanted } = effect;
        const keys = wanted.map(({ shard, entity }) => ({ shard: shard.id, type: entity.spec.id, eid: entity.eid }));
        return call(
          effect.delayMs,
          () => timed("load_seconds", store.load(keys)),
          (found) => post({ kind: "loaded", wanted, found }),
          (error) => post({ kind: "load-failed", wanted, error }),
        );
      }
      case "look-up": {
        const { asked } = effect;
        return call(
          0,
          () => store.findParts(asked.map(({ place }) => place)),
          (found) => post({ kind: "looked-up", asked, found }),
          (error) => {
            for (const { listener, position } of asked) listener([{ kind: "refused", position, error }]);
          },
        );
      }
      case "deliver":
        return deliver(effect.shard, effect.part);
      case "tell":
        return effect.listener(effect.news);
      case "reply":
        return effect.reply(effect.record);
      case "result":
        return effect.listener(effect.result);
      case "closed":
        return effect.reply(effect.error);
      case "flush-timer":
        return flushAfter(Math.max(1, effect.afterMs), () => post({ kind: "flush-due" }));
      case "cut-open":
        return world.onCutOpen(effect.cut);
      case "lost":
        return world.onLost(effect.shards);
      case "kept-back":
        return world.onKeptBack(effect.shard, effect.error);
      case "owned":
        return effect.reply();
      case "hook-grace":
        return after(effect.afterMs, () => post({ kind: "grace-over", shard: effect.shard }));
      case "abandon":
        return world.abandon(effect.shard);
      case "given-up":
        return effect.reply(effect.shard, effect.fence);
      case "health":
        return world.onHealth(effect.work, effect.problem);
      case "drained":
        return world.onDrained();
      default:
        return unreachable(effect);
    }
  };
}

/** Notes how long store calls take that succeed. */
function createTimer(counters: Counters, clock: Clock) {
  return async <T>(name: string, started: Promise<T>): Promise<T> => {
    const sinceMs = clock.now();
    const value = await started;
    counters.histogram(name).observe((clock.now() - sinceMs) / 1000);
    return value;
  };
}
