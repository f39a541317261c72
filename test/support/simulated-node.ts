import { setImmediate } from "node:timers/promises";
import { createCounters } from "../../actors/counters.ts";
import type { HookCall } from "../../actors/hooks/hook-call.ts";
import type { HookOutcome } from "../../actors/hooks/hook-outcome.ts";
import { owns } from "../../actors/lane/commit.ts";
import {
  createLane,
  type Effect,
  type Lane,
  type LaneLimits,
  type LaneMessage,
  type ReplayLog,
} from "../../actors/lane/lane.ts";
import type { Part, PartListener } from "../../actors/lane/part.ts";
import { createShard, replayAfter } from "../../actors/lane/shard.ts";
import { step } from "../../actors/lane/step.ts";
import { createTurn } from "../../actors/lane/turn.ts";
import type { OpenCut } from "../../actors/snapshots/tick-mark.ts";
import type { AcquiredShard, Store } from "../../actors/store/store.ts";
import type { Hook, HookTable } from "../../modules/hook.ts";
import type { Model } from "../../modules/model.ts";
import { type ShardId, shardId, toNodeId } from "../../proto/ids.ts";
import { shardOf } from "../../proto/shard-of.ts";
import { toStarlingError } from "../../proto/starling-error.ts";

/**
 * One node of one lane, with its effects performed one by one on a store that survives, so that it can die after any of
 * them. Time stands still but for `elapse`.
 */
export interface SimulatedNode {
  readonly lane: Lane;
  offer(parts: readonly Part[], listener: PartListener): void;
  tell(message: LaneMessage): void;
  /** Performs effects until nothing is left to do but to wait for hooks, or until it dies. */
  run(): Promise<void>;
  /** One message or effect; false: there is nothing left to do but to wait for hooks. */
  next(): Promise<boolean>;
  /** Takes shards of the store, with what stands in their logs. */
  own(shards: readonly ShardId[]): Promise<readonly AcquiredShard[]>;
  /** Time passes, and the lane looks what is due. */
  elapse(ms: number): void;
  /** Dies at once. */
  kill(): void;
  readonly status: "running" | "dead";
}

export interface SimulationOptions {
  readonly store: Store;
  readonly model: Model;
  readonly hooks: HookTable;
  readonly runHook: (hook: Hook, call: HookCall) => HookOutcome | Promise<HookOutcome>;
  readonly shards: number;
  /** Those that the node takes at its start; default all. */
  readonly owns?: readonly ShardId[];
  /** Brings outbox parts to their targets' owners; default the node itself. */
  readonly offer?: (parts: readonly Part[], listener: PartListener) => void;
  /** Aborts the hooks of a shard. */
  readonly abandon?: (shard: ShardId) => void;
  /** Told when entities of a shard can be read as they were at its mark. */
  readonly onCutOpen?: (cut: OpenCut) => Promise<void> | undefined;
  readonly name: string;
  readonly limits?: Partial<LaneLimits>;
  /** The world is slow at effects of this kind: up to twenty others come before each, if there are any. */
  readonly slow?: Effect["kind"] | null;
  /** Called after each effect; true kills the node there. */
  readonly dies: (effect: Effect["kind"]) => boolean;
}

export const simulationLimits: LaneLimits = {
  appendMaxDatapoints: 1000,
  flushIntervalMs: 1000,
  flushMaxEntities: 2,
  flushMaxBytes: 1e9,
  lagMaxEntries: 10_000,
  lagMaxBytes: 1e9,
  backlogMaxBytes: 1e9,
  residentMaxEntities: 1000,
  residentMaxBytes: 1e9,
  passivateAfterMs: 60_000,
  chainMaxDepth: 4,
  obligationAfterMs: 5000,
  obligationAfterSeqs: 10_000,
};

/** Messages and effects between two rests: what never ends is an error at once, not a test that hangs. */
const stepsMax = 20_000;

const overtakenMax = 20;

/** Tells of each addition to a set, so that a step that goes round in itself can be stopped. */
function boundSet<T>(set: Set<T>, onAdd: () => void): void {
  const add = set.add.bind(set);
  set.add = (value) => {
    onAdd();
    return add(value);
  };
}

/** Takes shards of the store, replays, and is ready to `run`. */
export async function startSimulatedNode(options: SimulationOptions): Promise<SimulatedNode> {
  const { store, model } = options;
  const node = toNodeId(options.name);
  const inbox: LaneMessage[] = [];
  const own = async (ids: readonly ShardId[]): Promise<readonly AcquiredShard[]> => {
    const acquired = await store.acquire(node, ids);
    const shards = acquired.map((one) => createShard(one, model));
    const replay: ReplayLog[] = [];
    for (const shard of shards) {
      const segments = await store.readLog(shard.id, replayAfter(shard), 10_000);
      if (segments.length > 0) replay.push({ shard, segments });
    }
    inbox.push({ kind: "own", shards, replay });
    return acquired;
  };
  await own(options.owns ?? Array.from({ length: options.shards }, (_, index) => shardId("entity", index)));
  const offer = (parts: readonly Part[], listener: PartListener): void => {
    inbox.push({ kind: "offer", offers: [{ parts, listener }] });
  };
  const effects: Effect[] = [];
  let clock = 1000;
  let hooksRunning = 0;
  let status: "running" | "dead" = "running";
  const lane = createLane(0, node, {
    model,
    hooks: options.hooks,
    limits: { ...simulationLimits, ...options.limits },
    counters: createCounters(),
    now: () => 1_700_000_000_000 + clock,
    monotonic: () => clock,
    shardOf: (type, eid): ShardId => shardOf("entity", type, eid, options.shards),
    stateForm: () => "short" as const,
    turn: createTurn(),
    runHook: (hook, call) => {
      const outcome = options.runHook(hook, call);
      if (outcome instanceof Promise) hooksRunning++;
      return outcome;
    },
    post: (message) => {
      if (message.kind === "hook-ended") hooksRunning--;
      inbox.push(message);
    },
  });

  let added = 0;
  for (const set of [lane.dirty, lane.touched]) {
    boundSet(set, () => {
      if (++added > stepsMax) throw new Error("a step does not end");
    });
  }

  const perform = async (effect: Effect): Promise<void> => {
    switch (effect.kind) {
      case "append":
        return tryStore(
          () => store.append(node, effect.request).then((result) => ({ kind: "committed", result })),
          "commit-failed",
        );
      case "flush":
        return tryStore(
          () => store.flush(node, effect.request).then((result) => ({ kind: "flushed", result })),
          "flush-failed",
        );
      case "load": {
        const { wanted } = effect;
        const keys = wanted.map(({ shard, entity }) => ({ shard: shard.id, type: entity.spec.id, eid: entity.eid }));
        inbox.push({ kind: "loaded", wanted, found: await store.load(keys) });
        return;
      }
      case "look-up": {
        const { asked } = effect;
        inbox.push({ kind: "looked-up", asked, found: await store.findParts(asked.map(({ place }) => place)) });
        return;
      }
      case "deliver": {
        const { shard, part } = effect;
        const listener: PartListener = (news) => {
          const seqs = [part.number];
          for (const { kind } of news) {
            if (kind === "durable") inbox.push({ kind: "delivered", shard, seqs });
            if (kind === "processed") inbox.push({ kind: "lines-done", shard, seqs });
            if (kind === "refused") effects.push(effect);
          }
        };
        if (owns(lane, shard)) (options.offer ?? offer)([part], listener);
        return;
      }
      case "tell":
        return effect.listener(effect.news);
      case "reply":
        return effect.reply(effect.record);
      case "result":
        return effect.listener(effect.result);
      case "closed":
        return effect.reply(effect.error);
      case "flush-timer":
        clock += effect.afterMs;
        inbox.push({ kind: "flush-due" });
        return;
      case "hook-grace":
        clock += effect.afterMs;
        inbox.push({ kind: "grace-over", shard: effect.shard });
        return;
      case "abandon":
        return options.abandon?.(effect.shard);
      case "given-up":
        return effect.reply(effect.shard, effect.fence);
      case "owned":
        return effect.reply();
      case "cut-open":
        return options.onCutOpen?.(effect.cut);
      case "lost":
      case "kept-back":
      case "health":
      case "drained":
        return;
    }
  };

  const tryStore = async (run: () => Promise<LaneMessage>, failed: "commit-failed" | "flush-failed"): Promise<void> => {
    try {
      inbox.push(await run());
    } catch (error) {
      inbox.push({ kind: failed, error: toStarlingError(error, "STORE") });
    }
  };

  let overtaken = 0;
  const takeEffect = (): Effect | undefined => {
    const index = effects.findIndex(({ kind }) => kind !== options.slow);
    overtaken = index > 0 && overtaken < overtakenMax ? overtaken + 1 : 0;
    return effects.splice(overtaken > 0 ? index : 0, 1)[0];
  };

  const next = async (): Promise<boolean> => {
    const message = inbox.shift();
    if (message !== undefined) {
      added = 0;
      effects.push(...step(lane, message));
      return true;
    }
    const effect = takeEffect();
    if (effect === undefined) return false;
    await perform(effect);
    if (options.dies(effect.kind)) status = "dead";
    return true;
  };

  return {
    lane,
    get status() {
      return status;
    },
    offer,
    own,
    next,
    tell: (message) => {
      inbox.push(message);
    },
    kill: () => {
      status = "dead";
    },
    elapse: (ms) => {
      clock += ms;
      inbox.push({ kind: "sweep" });
    },
    run: async () => {
      for (let steps = 0; status === "running"; steps++) {
        if (steps > stepsMax) throw new Error("the node does not come to rest");
        if (await next()) continue;
        if (hooksRunning === 0) return;
        await setImmediate();
        if (inbox.length === 0) return;
      }
    },
  };
}
