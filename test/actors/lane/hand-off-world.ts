import { setImmediate } from "node:timers/promises";
import { expect } from "vitest";
import type { HookCall } from "../../../actors/hooks/hook-call.ts";
import type { HookOutcome } from "../../../actors/hooks/hook-outcome.ts";
import type { Effect, LaneLimits } from "../../../actors/lane/lane.ts";
import type { News, Part, PartListener, PartTask } from "../../../actors/lane/part.ts";
import {
  createSessionState,
  type OpenBatch,
  type SessionMessage,
  stepSession,
} from "../../../actors/sessions/session.ts";
import type { OpenCut } from "../../../actors/snapshots/tick-mark.ts";
import type { AcquiredShard, Fence, FlushRequest } from "../../../actors/store/store.ts";
import type { CheckedTask } from "../../../modules/datapoint.ts";
import type { Hook, HookTable } from "../../../modules/hook.ts";
import type { Model } from "../../../modules/model.ts";
import { type ShardId, shardId, toNodeId, toSeq } from "../../../proto/ids.ts";
import { shardOf } from "../../../proto/shard-of.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { createMemoryStore, type MemoryStore } from "../../support/memory-store.ts";
import { type SimulatedNode, startSimulatedNode } from "../../support/simulated-node.ts";
import * as script from "./protocol-script.ts";
import { batches, hook, inspect, removalAt, shards, task, writeFound } from "./protocol-script.ts";

export const all = Array.from({ length: shards }, (_, index) => shardId("entity", index));
export const names = ["one", "two"];
export type RunHook = (hook: Hook, call: HookCall) => HookOutcome | Promise<HookOutcome>;

export interface WorldOptions {
  readonly hooks?: HookTable;
  readonly model?: Model;
  readonly runHook?: RunHook;
  readonly slow?: Effect["kind"] | null;
  readonly limits?: Partial<LaneLimits>;
  /** Told of cuts that open at either node. */
  readonly onCutOpen?: (cut: OpenCut, store: MemoryStore) => Promise<void>;
  /** Called after each effect of a node. */
  readonly onEffect?: (world: World, count: number) => void;
}

/** Two nodes over one store, the first of which owns all at the start; and a client behind a session. */
export interface World {
  readonly store: MemoryStore;
  readonly nodes: readonly SimulatedNode[];
  readonly acquired: AcquiredShard[];
  readonly flushes: FlushRequest[];
  readonly acked: number[];
  readonly processed: number[];
  readonly aborted: ShardId[];
  /** Gives shards up at one node; what is released the other one takes. Settles with the fences. */
  move(ids: readonly ShardId[], from: number): Promise<readonly (Fence | null)[]>;
  offer(parts: readonly Part[], listener: PartListener): void;
  send(tasks: readonly CheckedTask[], number: number): void;
  /** Until nothing is left to do. */
  rest(): Promise<void>;
}

export async function startWorld(options: WorldOptions = {}): Promise<World> {
  const { hooks = script.hooks, runHook = script.runHook, model = script.model } = options;
  const memory = createMemoryStore();
  const flushes: FlushRequest[] = [];
  const store: MemoryStore = {
    ...memory,
    flush: (node, request) => {
      flushes.push(request);
      return memory.flush(node, request);
    },
  };
  const owners = new Map(all.map((id) => [id, 0]));
  const runs = new Set<{ readonly node: number; readonly shard: ShardId; status: "running" | "aborted" }>();
  const moves: Promise<void>[] = [];
  let effects = 0;
  let rested: ShardId[] = [];
  const nodes: SimulatedNode[] = [];
  const offer = (parts: readonly Part[], listener: PartListener): void => {
    for (const part of parts) {
      const { shard, position } = part;
      const node = nodes[owners.get(shard) ?? -1];
      if (node !== undefined) node.offer([part], listener);
      else listener([{ kind: "refused", position, error: new StarlingError("MOVED", `nobody owns ${shard}`) }]);
    }
  };
  const world: World = {
    ...{ store, nodes, acquired: [], flushes, acked: [], processed: [], aborted: [], offer },
    move: async (ids, from) => {
      const fences = await new Promise<(Fence | null)[]>((resolve) => {
        const given: (Fence | null)[] = [];
        const reply = (shard: ShardId, fence: Fence | null): void => {
          if (fence !== null) moves.push(hand(shard, fence, from));
          if (given.push(fence) === ids.length) resolve(given);
        };
        nodes[from]?.tell({ kind: "give-up", shards: ids, hookGraceMs: 50, reply });
      });
      return fences;
    },
    send: (tasks, number) => session({ kind: "batch", batch: split(tasks, number) }),
    rest: async () => {
      for (let idle = 0, steps = 0; idle < 2; steps++) {
        if (steps > 50_000) throw new Error("the world does not come to rest");
        await Promise.all(moves.splice(0));
        const went = [];
        for (const node of nodes) went.push(await node.next());
        for (const message of heard.splice(0)) session(message);
        if (went.includes(true)) {
          idle = 0;
          if (steps % 20 > 0) continue;
        } else {
          idle++;
          await setImmediate();
        }
        for (const shard of rested.splice(0)) {
          idle = 0;
          session({ kind: "rested", shard });
        }
      }
    },
  };
  const hand = async (shard: ShardId, fence: Fence, from: number): Promise<void> => {
    owners.delete(shard);
    await store.release([fence], toNodeId(names[from] ?? ""));
    world.acquired.push(...((await nodes[1 - from]?.own([shard])) ?? []));
    owners.set(shard, 1 - from);
  };
  const heard: SessionMessage[] = [];
  const state = createSessionState(true);
  const session = (message: SessionMessage): void => {
    for (const effect of stepSession(state, message)) {
      const hear = (batch: OpenBatch, number: number) => (news: News) =>
        void heard.push({ kind: "news", batch, offer: number, news });
      if (effect.kind === "offer") offer(effect.parts, hear(effect.batch, effect.offer));
      if (effect.kind === "rest") rested = [...rested, effect.shard];
      if (effect.kind === "durable") world.acked.push(effect.batch.number);
      if (effect.kind === "processed") world.processed.push(effect.batch.number);
      if (effect.kind === "failed") throw effect.error;
    }
  };
  for (const [node, name] of names.entries()) {
    nodes.push(
      await startSimulatedNode({
        ...{ store, model, hooks, shards, name, offer, slow: options.slow ?? null, limits: options.limits ?? {} },
        owns: node === 0 ? all : [],
        onCutOpen: (cut) => options.onCutOpen?.(cut, store),
        runHook: (called, call) => {
          const outcome = runHook(called, call);
          if (!(outcome instanceof Promise)) return outcome;
          const run: typeof runs extends Set<infer R> ? R : never = { node, shard: call.shard, status: "running" };
          runs.add(run);
          return new Promise((resolve) => {
            void outcome.then((ended) => {
              runs.delete(run);
              if (run.status === "running") resolve(ended);
            });
          });
        },
        abandon: (shard) => {
          world.aborted.push(shard);
          for (const run of runs) if (run.node === node && run.shard === shard) run.status = "aborted";
        },
        dies: () => {
          options.onEffect?.(world, ++effects);
          return false;
        },
      }),
    );
  }
  return world;
}

/** A batch as the edge would have split it. */
export function split(tasks: readonly CheckedTask[], number: number) {
  const parts: Part[] = [];
  const partOf: number[] = [];
  for (const each of tasks) {
    const shard = shardOf("entity", each.entity.id, each.eid, shards);
    let part = parts.find((known) => known.shard === shard);
    if (part === undefined) {
      const at = { position: parts.length, shard, channel: "c:test", number, predecessor: null, hash: `h${number}` };
      part = { kind: "part", ...at, tasks: [], rejections: [], bytes: 100 };
      parts.push(part);
    }
    const own: PartTask = { ...each, cause: null };
    part.tasks = [...part.tasks, own];
    for (const _ of each.datapoints) partOf.push(part.position);
  }
  const items = partOf.length;
  const rest = { bytes: 100, items, accepted: items, rejections: [], whole: false };
  return { number, parts, partOf: Int32Array.from(partOf), ...rest };
}

export const phases = [0, 5, removalAt, removalAt + 1, batches.length];

/** Sends the thirty batches, each phase when the one before is quiet. */
export async function play(world: World): Promise<string> {
  await world.rest();
  for (let phase = 1; phase < phases.length; phase++) {
    for (let i = phases[phase - 1] ?? 0; i < (phases[phase] ?? 0); i++) world.send(batches[i] ?? [], i + 1);
    await world.rest();
  }
  expectQuiet(world);
  const numbers = batches.map((_, i) => i + 1);
  expect([...world.acked].sort((a, b) => a - b)).toEqual(numbers);
  expect([...world.processed].sort((a, b) => a - b)).toEqual(numbers);
  expect(world.acquired.every(({ clean, attempt }) => clean && attempt === null)).toBe(true);
  const letters = [...world.store.shards.values()].flatMap((shard) => [...shard.letters.values()]);
  return `${writeFound(await inspect(world.store))}\n${await orders(world.store)}\nletters ${letters.length}`;
}

/** What was sent for each entity, in the order of the log. */
export async function orders(store: MemoryStore): Promise<string> {
  const found = new Map<string, string[]>();
  for (const id of all) {
    for (const { body } of await store.readLog(id, toSeq(0), 100_000)) {
      for (const line of body.split("\n")) {
        const [kind, type, eid = "", attr = "", , , , , json = ""] = line.split("\t");
        if (kind === "d" && type === "src" && attr !== "own") found.set(eid, [...(found.get(eid) ?? []), json]);
      }
    }
  }
  return [...found]
    .map(([eid, values]) => `order ${eid} ${values}`)
    .sort()
    .join("\n");
}

export function expectQuiet({ nodes, store }: World): void {
  for (const { lane } of nodes) {
    const { leaving, waiting, dirtyEntities, backlogBytes, outboxBytes, commit, flush, gate } = lane;
    expect({ leaving: leaving.size, waiting: waiting.size, dirtyEntities, backlogBytes, outboxBytes }).toEqual({
      ...{ leaving: 0, waiting: 0, dirtyEntities: 0, backlogBytes: 0, outboxBytes: 0 },
    });
    expect([commit, flush, gate]).toEqual([null, null, null]);
    for (const { id, watermark, durableSeq, outbox } of lane.shards.values()) {
      expect(watermark, `watermark of shard ${id}`).toBe(durableSeq);
      expect([outbox.undone.size, outbox.taken.size, outbox.tasks], `outbox of shard ${id}`).toEqual([0, 0, 0]);
      expect(store.shards.get(id)?.obligations.size, `obligations of shard ${id}`).toBe(0);
    }
  }
}

export const failing: RunHook = (called, call) => {
  const v = Number(call.datapoint?.v);
  if (called.name !== "late") return script.runHook(called, call);
  // Some take long enough to be found at a seal, and to be aborted.
  if (v % 7 !== 3) return setImmediate().then(() => script.runHook(called, call));
  return Promise.resolve({ kind: "failed", error: new StarlingError("HOOK_FAILED", "no"), attempts: 1 });
};

export const eids = [0, 1, 2, 3].map((index) => eidIn(shardId("entity", index)));
export const home = shardOf("entity", "src", eids[0] ?? "", shards);

export function eidIn(shard: ShardId): string {
  for (let i = 0; ; i++) if (shardOf("entity", "src", `e${i}`, shards) === shard) return `e${i}`;
}

/** Entities of the first shard. */
export function eidsAtHome(count: number): string[] {
  const found: string[] = [];
  for (let i = 0; found.length < count; i++)
    if (shardOf("entity", "src", `h${i}`, shards) === home) found.push(`h${i}`);
  return found;
}

export const hooksOfA: HookTable = {
  onTaskStart: [],
  allowEntityCreation: new Map(),
  onEntityCreation: new Map(),
  onNewAttr: new Map([["src", new Map([["a", [hook("on_new_attr", "src", "a", "own")]]])]]),
};
export const noHooks: HookTable = { ...hooksOfA, onNewAttr: new Map() };

/** Lets one node alone go on until something holds. */
export async function until(node: SimulatedNode | undefined, holds: () => boolean): Promise<void> {
  for (let steps = 0; !holds(); steps++) {
    if (steps > 1000) throw new Error("it never comes to that");
    if (!(await node?.next())) await setImmediate();
  }
}

export async function untilSettled<T>(node: SimulatedNode | undefined, promise: Promise<T>): Promise<T> {
  let status: "open" | "settled" = "open";
  void promise.then(() => {
    status = "settled";
  });
  await until(node, () => status === "settled");
  return promise;
}

export const isSealedAt = (node: SimulatedNode | undefined): boolean =>
  node?.lane.shards.get(home)?.handOff?.status === "sealed";

/** A hook that answers when it is let. */
export function createHeldHook() {
  const waiting: (() => void)[] = [];
  let calls = 0;
  const runHook: RunHook = (_, call) => {
    calls++;
    const tasks = [task("src", String(call.eid), "own", Number(call.datapoint?.v) + 1000)];
    return new Promise((resolve) => waiting.push(() => resolve({ kind: "answer", tasks })));
  };
  return { runHook, calls: () => calls, letGo: () => waiting.splice(0).map((go) => go()) };
}

export async function derived(store: MemoryStore): Promise<string[]> {
  return [...(await inspect(store)).logged].filter(([key]) => key.includes(" own ")).map(([key, n]) => `${key} × ${n}`);
}
