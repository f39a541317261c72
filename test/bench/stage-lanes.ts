import { createCounters } from "../../actors/counters.ts";
import { createHookRunner, hookRunnerLimits } from "../../actors/hooks/hook-runner.ts";
import { createLane, type Effect, type Lane, type LaneMessage, type Offer } from "../../actors/lane/lane.ts";
import { createShard } from "../../actors/lane/shard.ts";
import { step } from "../../actors/lane/step.ts";
import { createTurn } from "../../actors/lane/turn.ts";
import { append } from "../../actors/store/append.ts";
import type { Pool } from "../../actors/store/connection.ts";
import { flush } from "../../actors/store/flush.ts";
import type { Partitions } from "../../actors/store/partition.ts";
import type { PostgresStore } from "../../actors/store/postgres-store.ts";
import type { AppendRequest, FlushRequest, WriteResult } from "../../actors/store/store.ts";
import type { HookTable } from "../../modules/hook.ts";
import type { Model } from "../../modules/model.ts";
import type { Settings } from "../../node/config/settings.ts";
import { systemClock } from "../../proto/clock.ts";
import { toNodeId, toShardId } from "../../proto/ids.ts";
import { shardOf } from "../../proto/shard-of.ts";
import { readProcessClock, secondsBetween } from "./process-clock.ts";
import type { StageMeter } from "./stage-meter.ts";

/** The lanes of a node without the node: one message after another, each measured, and a store that is asked twice. */
export interface StageLanes {
  /** Appends all that is offered as one group for each lane, and processes it. */
  offer(offers: readonly Offer[]): Promise<void>;
  /** Flushes until at most so many entities are dirty. */
  flushDownTo(entities: number): Promise<void>;
  /** What went to the store since `reset`. */
  readonly written: Written;
  reset(): void;
}

/** What went to the store, and what PostgreSQL spent on it. */
export interface Written {
  readonly bytes: { log: number; state: number; history: number };
  readonly rows: { log: number; state: number; history: number };
  /** µs of PostgreSQL's processes while it answered, and in between. */
  readonly postgresUs: { append: number; flush: number; other: number };
}

/** What lanes are made of. */
export interface StageLanesOptions {
  readonly model: Model;
  readonly hooks: HookTable;
  readonly settings: Settings;
  readonly store: PostgresStore;
  readonly postgresPid: number;
  readonly meter: StageMeter;
}

const node = toNodeId("bench");
/** So much passes before a flush: it is always due. */
const flushAfterMs = 60_000;

/** Takes all shards. */
export async function startStageLanes(options: StageLanesOptions): Promise<StageLanes> {
  const { model, store, meter, settings } = options;
  let now = 1000;
  const lanes = createLanes(options, () => now);
  const acquired = await store.acquire(
    node,
    Array.from({ length: settings.entityShards }, (_, id) => toShardId(id)),
  );
  const shards = acquired.map((one) => createShard(one, model));
  const laneOf = (shard: number): number => shard % lanes.length;
  for (const [index, lane] of lanes.entries()) {
    step(lane, { kind: "own", shards: shards.filter(({ id }) => laneOf(id) === index), replay: [] });
  }
  let written = nothingWritten();
  let clock = readProcessClock(options.postgresPid);
  let told: Extract<Effect, { kind: "tell" }>[] = [];

  const drive = async (lane: Lane, part: string, datapoints: number, message: LaneMessage): Promise<void> => {
    const effects = meter.measure(part, datapoints, () => step(lane, message));
    for (const effect of effects) await perform(lane, effect);
  };
  const perform = async (lane: Lane, effect: Effect): Promise<void> => {
    switch (effect.kind) {
      case "append": {
        const datapoints = countAppend(effect.request, written);
        const pack = () => append(answeringPool, noPartitions, node, effect.request);
        await meter.measureAsync("append: pack", datapoints, pack);
        const result = await ask("append", datapoints, () => store.append(node, effect.request));
        return drive(lane, "process", datapoints, { kind: "committed", result });
      }
      case "flush": {
        const { length } = effect.request.entities;
        countFlush(effect.request, written);
        await meter.measureAsync("flush: pack", length, () => flush(answeringPool, node, effect.request));
        const result = await ask("flush", length, () => store.flush(node, effect.request));
        return drive(lane, "flush: watermarks", length, { kind: "flushed", result });
      }
      case "load":
        return drive(lane, "process: load", 1, { kind: "loaded", wanted: effect.wanted, found: [] });
      case "tell":
        told.push(effect);
        return;
      case "flush-timer":
      case "health":
        return;
      default:
        throw new Error(`nobody expects the effect ${effect.kind} here`);
    }
  };
  const readPostgres = (during: keyof Written["postgresUs"]): void => {
    const read = readProcessClock(options.postgresPid);
    written.postgresUs[during] += secondsBetween(clock, read) * 1e6;
    clock = read;
  };
  /** Asks the real store: packing is done again, and is taken from the client's costs later. */
  const ask = async (call: "append" | "flush", datapoints: number, run: () => Promise<WriteResult>) => {
    readPostgres("other");
    const result = await meter.measureAsync(`client: ${call}`, datapoints, run);
    readPostgres(call);
    return result;
  };
  const tellAll = (): void => {
    const effects = told;
    told = [];
    for (const { listener, news } of effects) meter.measure("acknowledge: parts", news.length, () => listener(news));
  };

  return {
    get written() {
      return written;
    },
    offer: async (offers) => {
      for (const [index, lane] of lanes.entries()) {
        const own = offers
          .map(({ parts, listener }) => ({ parts: parts.filter(({ shard }) => laneOf(shard) === index), listener }))
          .filter(({ parts }) => parts.length > 0);
        const tasks = own.flatMap(({ parts }) => parts.flatMap((part) => part.tasks));
        const datapoints = tasks.reduce((sum, task) => sum + task.datapoints.length, 0);
        if (datapoints > 0) await drive(lane, "append: segments", datapoints, { kind: "offer", offers: own });
      }
      tellAll();
    },
    flushDownTo: async (entities) => {
      now += flushAfterMs;
      for (const lane of lanes) {
        while (lane.dirtyEntities > entities / lanes.length) {
          const { flushMaxEntities } = lane.world.limits;
          await drive(lane, "flush: records", Math.min(lane.dirtyEntities, flushMaxEntities), { kind: "flush-due" });
          now += flushAfterMs;
        }
      }
      tellAll();
    },
    reset: () => {
      written = nothingWritten();
      clock = readProcessClock(options.postgresPid);
    },
  };
}

function createLanes({ model, hooks, settings }: StageLanesOptions, monotonic: () => number): Lane[] {
  const counters = createCounters();
  const runner = createHookRunner({
    hooks,
    model,
    limits: hookRunnerLimits,
    clock: systemClock,
    random: Math.random,
    counters,
    log: () => ({ debug: ignore, info: ignore, warn: ignore, error: ignore }),
    getRecord: () => Promise.resolve(null),
  });
  return Array.from({ length: settings.lanes }, (_, index) =>
    createLane(index, node, {
      model,
      hooks,
      // Nothing is refused here: the other side waits for each answer.
      limits: { ...settings, lagMaxBytes: 1e12, backlogMaxBytes: 1e12 },
      counters,
      now: Date.now,
      monotonic,
      shardOf: (type, eid) => shardOf("entity", type, eid, settings.entityShards),
      stateForm: () => "short",
      turn: createTurn(),
      runHook: (hook, call) => runner.run(hook, call),
      post: () => {
        throw new Error("the benchmark's hook answers at once");
      },
    }),
  );
}

function ignore(): void {}

/** PostgreSQL that answers at once, and with nothing lost. */
const answeringPool: Pool = {
  query: <Row extends object>() => Promise.resolve([{ lost: null } as Row]),
  alone: () => Promise.reject(new Error("nobody is alone here")),
  close: () => Promise.resolve(),
};

const noPartitions: Partitions = {
  ensure: () => Promise.resolve(),
  ensureAhead: () => Promise.resolve(),
  forget: ignore,
};

function nothingWritten(): Written {
  return {
    bytes: { log: 0, state: 0, history: 0 },
    rows: { log: 0, state: 0, history: 0 },
    postgresUs: { append: 0, flush: 0, other: 0 },
  };
}

/** Counts what an append writes; returns its datapoints. */
function countAppend({ segments }: AppendRequest, { bytes, rows }: Written): number {
  let lines = 0;
  for (const { seq, lastSeq, head, body, keys } of segments) {
    lines += lastSeq - seq + 1;
    bytes.log += head.length + body.length + keys.length;
  }
  rows.log += segments.length;
  return lines;
}

function countFlush({ entities, history }: FlushRequest, { bytes, rows }: Written): void {
  for (const { eid, state } of entities) bytes.state += eid.length + state.length;
  for (const { eid, body } of history) bytes.history += eid.length + body.length;
  rows.state += entities.length;
  rows.history += history.length;
}
