import { setImmediate } from "node:timers/promises";
import { expect, test } from "vitest";
import { createCounters } from "../../actors/counters.ts";
import type { HookCall } from "../../actors/hook-call.ts";
import type { HookOutcome } from "../../actors/hook-outcome.ts";
import type { Effect, LaneLimits } from "../../actors/lane.ts";
import type { News, Part, PartListener, PartTask } from "../../actors/part.ts";
import { createSessionState, type OpenBatch, type SessionMessage, stepSession } from "../../actors/session.ts";
import { startLocalEngine } from "../../actors/start-local-engine.ts";
import type { AcquiredShard, Fence, FlushRequest } from "../../actors/store/store.ts";
import type { CheckedTask } from "../../modules/datapoint.ts";
import type { Hook, HookTable } from "../../modules/hook.ts";
import { type ShardId, shardId, toNodeId, toSeq } from "../../proto/ids.ts";
import { shardOf } from "../../proto/shard-of.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { createMemoryStore, type MemoryStore } from "../support/memory-store.ts";
import { type SimulatedNode, simulationLimits, startSimulatedNode } from "../support/simulated-node.ts";
import * as script from "./protocol-script.ts";
import { batches, hook, inspect, model, removalAt, shards, task, writeFound } from "./protocol-script.ts";

const all = Array.from({ length: shards }, (_, index) => shardId("entity", index));
const names = ["one", "two"];
type RunHook = (hook: Hook, call: HookCall) => HookOutcome | Promise<HookOutcome>;

interface WorldOptions {
  readonly hooks?: HookTable;
  readonly runHook?: RunHook;
  readonly slow?: Effect["kind"] | null;
  readonly limits?: Partial<LaneLimits>;
  /** Called after each effect of a node. */
  readonly onEffect?: (world: World, count: number) => void;
}

/** Two nodes over one store, the first of which owns all at the start; and a client behind a session. */
interface World {
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

async function startWorld(options: WorldOptions = {}): Promise<World> {
  const { hooks = script.hooks, runHook = script.runHook } = options;
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
function split(tasks: readonly CheckedTask[], number: number) {
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

const phases = [0, 5, removalAt, removalAt + 1, batches.length];

/** Sends the thirty batches, each phase when the one before is quiet. */
async function play(world: World): Promise<string> {
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
async function orders(store: MemoryStore): Promise<string> {
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

function expectQuiet({ nodes, store }: World): void {
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

const failing: RunHook = (called, call) => {
  const v = Number(call.datapoint?.v);
  if (called.name !== "late") return script.runHook(called, call);
  // Some take long enough to be found at a seal, and to be aborted.
  if (v % 7 !== 3) return setImmediate().then(() => script.runHook(called, call));
  return Promise.resolve({ kind: "failed", error: new StarlingError("HOOK_FAILED", "no"), attempts: 1 });
};

const slows: readonly (Effect["kind"] | null)[] = [null, "append", "flush", "deliver"];
const sets = [...all.map((id) => [id]), all];

test.each(slows)(
  "shards that move after any effect, and back, lose and double nothing (slow: %s)",
  async (slow) => {
    const calm = await startWorld({ runHook: failing, slow, onEffect: () => void count++ });
    let count = 0;
    const expected = await play(calm);
    expect(expected).toContain("letters 3");
    expect(count).toBeGreaterThan(100);
    let moved = 0;
    const seen: Record<string, number> = {};
    for (const set of sets) {
      for (let at = 1; at <= count; at += 1) {
        const back = 3 + (at % 11) * 5;
        const world = await startWorld({
          ...{ runHook: failing, slow },
          onEffect: (here, now) => {
            if (now === at) void here.move(set, 0);
            if (now === at + back) void here.move(set, 1);
          },
        });
        expect(await play(world), `${set} moved after effect ${at}, and back after ${back} more`).toBe(expected);
        moved += world.acquired.length;
        for (const { lane } of world.nodes) {
          for (const [name, value] of Object.entries(lane.world.counters.read()))
            seen[name] = (seen[name] ?? 0) + value;
        }
      }
    }
    expect(moved).toBeGreaterThan(sets.length * count);
    expect(seen.shards_given_up).toBe(moved);
    // Nothing of a shard is written after its last flush (G1): no fence had to refuse it.
    expect(seen.fenced_commits).toBe(undefined);
    // What the moves are to hit: repeats of durable parts, hooks that ran, entries that the next owner replays.
    for (const name of ["repeats", "hooks_given_up", "replayed_tasks", "refused/MOVED"]) {
      expect(seen[name], name).toBeGreaterThan(20);
    }
  },
  300_000,
);

const eids = [0, 1, 2, 3].map((index) => eidIn(shardId("entity", index)));
const home = shardOf("entity", "src", eids[0] ?? "", shards);

function eidIn(shard: ShardId): string {
  for (let i = 0; ; i++) if (shardOf("entity", "src", `e${i}`, shards) === shard) return `e${i}`;
}

/** Entities of the first shard. */
function eidsAtHome(count: number): string[] {
  const found: string[] = [];
  for (let i = 0; found.length < count; i++)
    if (shardOf("entity", "src", `h${i}`, shards) === home) found.push(`h${i}`);
  return found;
}

const hooksOfA: HookTable = {
  onTaskStart: [],
  allowEntityCreation: new Map(),
  onEntityCreation: new Map(),
  onNewAttr: new Map([["src", new Map([["a", [hook("on_new_attr", "src", "a", "own")]]])]]),
};
const noHooks: HookTable = { ...hooksOfA, onNewAttr: new Map() };

/** Lets one node alone go on until something holds. */
async function until(node: SimulatedNode | undefined, holds: () => boolean): Promise<void> {
  for (let steps = 0; !holds(); steps++) {
    if (steps > 1000) throw new Error("it never comes to that");
    if (!(await node?.next())) await setImmediate();
  }
}

async function untilSettled<T>(node: SimulatedNode | undefined, promise: Promise<T>): Promise<T> {
  let status: "open" | "settled" = "open";
  void promise.then(() => {
    status = "settled";
  });
  await until(node, () => status === "settled");
  return promise;
}

const isSealedAt = (node: SimulatedNode | undefined): boolean =>
  node?.lane.shards.get(home)?.handOff?.status === "sealed";

/** A hook that answers when it is let. */
function createHeldHook() {
  const waiting: (() => void)[] = [];
  let calls = 0;
  const runHook: RunHook = (_, call) => {
    calls++;
    const tasks = [task("src", String(call.eid), "own", Number(call.datapoint?.v) + 1000)];
    return new Promise((resolve) => waiting.push(() => resolve({ kind: "answer", tasks })));
  };
  return { runHook, calls: () => calls, letGo: () => waiting.splice(0).map((go) => go()) };
}

async function derived(store: MemoryStore): Promise<string[]> {
  return [...(await inspect(store)).logged].filter(([key]) => key.includes(" own ")).map(([key, n]) => `${key} × ${n}`);
}

test("what was dirty at the beginning is written before the seal; the last flush has only what changed since", async () => {
  const many = eidsAtHome(12);
  let flushes = 0;
  let before = 0;
  const world = await startWorld({
    hooks: noHooks,
    limits: { flushMaxEntities: 5 },
    onEffect: ({ flushes: all, send }) => {
      if (all.length === flushes || leaving === null || flushes >= before + 3) return;
      flushes = all.length;
      // One more change while each of them is on its way.
      send([task("src", many[0] ?? "", "a", 100 + flushes)], 100 + flushes);
    },
  });
  let leaving: Promise<unknown> | null = null;
  world.send(
    many.map((eid, v) => task("src", eid, "a", v)),
    1,
  );
  // The append, and not the timer of a flush.
  await until(world.nodes[0], () => world.nodes[0]?.lane.dirtyEntities === 12);
  before = world.flushes.length;
  flushes = before;
  leaving = world.move([home], 0);
  await world.rest();
  await leaving;
  const counts = world.flushes.slice(before, before + 4).map(({ entities }) => entities.length);
  expect(counts).toEqual([5, 5, 2, 1]);
  expect(world.flushes[before + 3]?.fences).toEqual([{ shard: home, epoch: 1 }]);
  expectQuiet(world);
});

test("parts that wait for the next append are given back, and are new to the next owner, not repeats", async () => {
  const world = await startWorld({ hooks: noHooks });
  world.send([task("src", eids[0] ?? "", "a", 1)], 1);
  for (let i = 0; i < 10 && world.nodes[0]?.lane.commit === null; i++) await world.nodes[0]?.next();
  world.send([task("src", eids[0] ?? "", "a", 2)], 2);
  world.send([task("src", eids[0] ?? "", "a", 3)], 3);
  await world.nodes[0]?.next();
  await world.nodes[0]?.next();
  expect(world.nodes[0]?.lane.shards.get(home)?.blocks.length).toBe(2);
  const former = world.nodes[0]?.lane.shards.get(home);
  const moved = world.move([home], 0);
  await world.rest();
  expect(await moved).toEqual([{ shard: home, epoch: 1 }]);
  expect(former?.lastSeq).toBe(1);
  expect(world.processed).toEqual([1, 2, 3]);
  expect(world.nodes[1]?.lane.world.counters.read().repeats ?? 0).toBeLessThanOrEqual(1);
  expect(await orders(world.store)).toBe(`order ${eids[0]} 1,2,3`);
  expectQuiet(world);
});

test("a hook that ends within its grace is recorded and does not run again", async () => {
  const held = createHeldHook();
  const world = await startWorld({ hooks: hooksOfA, runHook: held.runHook });
  world.send([task("src", eids[0] ?? "", "a", 1)], 1);
  await world.rest();
  const node = world.nodes[0];
  const moved = world.move([home], 0);
  await until(node, () => isSealedAt(node));
  held.letGo();
  await setImmediate();
  await world.rest();
  expect(await moved).toEqual([{ shard: home, epoch: 1 }]);
  expect([held.calls(), world.aborted]).toEqual([1, []]);
  expect(await derived(world.store)).toEqual([`src ${eids[0]} own 1001 × 1`]);
  expectQuiet(world);
});

test("one that runs on is aborted, its late answer is not taken, and it runs again at the next owner", async () => {
  const held = createHeldHook();
  const world = await startWorld({ hooks: hooksOfA, runHook: held.runHook });
  world.send([task("src", eids[0] ?? "", "a", 1), task("src", eids[1] ?? "", "a", 2)], 1);
  await world.rest();
  const moved = world.move([home], 0);
  await world.rest();
  expect(await moved).toEqual([{ shard: home, epoch: 1 }]);
  expect([held.calls(), world.aborted, world.acquired[0]?.clean]).toEqual([3, [home], true]);
  expect(world.nodes[0]?.lane.world.counters.read().hand_off_pause_max_ms).toBe(50);
  held.letGo();
  await world.rest();
  expect((await derived(world.store)).sort()).toEqual([`src ${eids[0]} own 1001 × 1`, `src ${eids[1]} own 1002 × 1`]);
  expect(world.processed).toEqual([1]);
  expectQuiet(world);
});

test("no hook begins after the seal: what the append at hand brings runs at the next owner", async () => {
  const held = createHeldHook();
  const world = await startWorld({ hooks: hooksOfA, runHook: held.runHook });
  const [node] = world.nodes;
  world.send([task("src", eids[0] ?? "", "a", 1)], 1);
  await world.rest();
  held.letGo();
  await world.rest();
  world.send([task("src", eids[0] ?? "", "a", 2)], 2);
  await until(node, () => node?.lane.commit !== null);
  const moved = world.move([home], 0);
  expect(await untilSettled(node, moved)).toEqual([{ shard: home, epoch: 1 }]);
  expect([held.calls(), node?.lane.world.counters.read().hooks_given_up]).toEqual([1, undefined]);
  await world.rest();
  expect(held.calls()).toBe(2);
  held.letGo();
  await world.rest();
  expect(await derived(world.store)).toEqual([`src ${eids[0]} own 1001 × 1`, `src ${eids[0]} own 1002 × 1`]);
  expectQuiet(world);
});

test("an obligation goes with its shard, there and back, and is answered once (R16)", async () => {
  const held = createHeldHook();
  const world = await startWorld({ hooks: hooksOfA, runHook: held.runHook });
  world.send([task("src", eids[0] ?? "", "a", 1)], 1);
  world.send([task("src", eids[0] ?? "", "a", 2)], 2);
  await world.rest();
  world.nodes[0]?.elapse(6000);
  await world.rest();
  expect(world.store.shards.get(home)?.obligations.size).toBe(1);
  expect(world.processed).toEqual([1, 2]);
  for (const from of [0, 1, 0]) {
    const moved = world.move([home], from);
    await world.rest();
    expect((await moved)[0]?.shard).toBe(home);
    expect(world.store.shards.get(home)?.obligations.size).toBe(1);
  }
  for (let i = 0; i < 2; i++) {
    held.letGo();
    await world.rest();
    for (const node of world.nodes) node.elapse(6000);
    await world.rest();
  }
  expect(await derived(world.store)).toEqual([`src ${eids[0]} own 1001 × 1`, `src ${eids[0]} own 1002 × 1`]);
  expectQuiet(world);
});

test("a shard that is lost while it is given up is in no result, the others are", async () => {
  const world = await startWorld({ hooks: noHooks, slow: "flush" });
  world.send(
    eidsAtHome(4).map((eid, v) => task("src", eid, "a", v)),
    1,
  );
  await until(world.nodes[0], () => world.nodes[0]?.lane.dirtyEntities === 4);
  const moved = world.move(all, 0);
  await world.nodes[0]?.next();
  await world.store.acquire(toNodeId("three"), [home]);
  const fences = await untilSettled(world.nodes[0], moved);
  expect(fences.filter((fence) => fence === null)).toEqual([null]);
  expect(fences.flatMap((fence) => fence?.shard ?? []).sort()).toEqual(all.filter((id) => id !== home));
});

test("dropped shards are forgotten at once and write nothing; back under a new epoch, late news of the former are ignored", async () => {
  const held = createHeldHook();
  const world = await startWorld({ hooks: hooksOfA, runHook: held.runHook, slow: "append" });
  const [node] = world.nodes;
  if (node === undefined) throw new Error("no node");
  world.send([task("src", eids[0] ?? "", "a", 1)], 1);
  await world.rest();
  world.send([task("src", eids[0] ?? "", "a", 3), task("src", eids[1] ?? "", "a", 2)], 2);
  for (let i = 0; i < 10 && node.lane.commit === null; i++) await node.next();
  const given = world.move([home], 0);
  const former = node.lane.shards.get(home);
  await node.next();
  node.tell({ kind: "drop", shards: [home] });
  // The append at hand of the former epoch is refused when the shard is here again.
  expect(node.lane.commit).not.toBe(null);
  await node.own([home]);
  expect(await untilSettled(node, given)).toEqual([null]);
  await world.rest();
  expect(world.aborted).toEqual([home]);
  expect(node.lane.shards.get(home)).not.toBe(former);
  expect(node.lane.shards.get(home)?.epoch).toBe(2);
  held.letGo();
  await world.rest();
  held.letGo();
  await world.rest();
  const counters = node.lane.world.counters.read();
  expect([counters.shards_dropped, counters.shards_given_up, counters.fenced_commits]).toEqual([1, undefined, 1]);
  expect((await derived(world.store)).sort()).toEqual([
    `src ${eids[0]} own 1001 × 1`,
    `src ${eids[0]} own 1003 × 1`,
    `src ${eids[1]} own 1002 × 1`,
  ]);
  expect(world.processed).toEqual([1, 2]);
  expectQuiet(world);
});

test("a dead owner's range that was not run through yet is handed on with a mark (R17)", async () => {
  const dead = await startWorld({ hooks: hooksOfA, runHook: () => new Promise(() => {}) });
  dead.send([task("src", eids[0] ?? "", "a", 1)], 1);
  await dead.rest();
  const held = createHeldHook();
  const make = (name: string) =>
    startSimulatedNode({
      ...{ store: dead.store, model, hooks: hooksOfA, shards, name, runHook: held.runHook, owns: [home] },
      dies: () => false,
    });
  const heir = await make("heir");
  const fences: (Fence | null)[] = [];
  const reply = (_: ShardId, fence: Fence | null): void => void fences.push(fence);
  heir.tell({ kind: "give-up", shards: [home], hookGraceMs: 0, reply });
  await heir.run();
  expect(fences).toEqual([{ shard: home, epoch: 2 }]);
  await dead.store.release([{ shard: home, epoch: fences[0]?.epoch as Fence["epoch"] }], toNodeId("heir"));
  const [next] = await dead.store.acquire(toNodeId("next"), [home]);
  expect(next).toMatchObject({ clean: true, attempt: { from: 1, to: 1, deaths: 0 } });
});

test("reads, look-ups and replays of dead letters are refused as moved from the seal on", async () => {
  const world = await startWorld({ hooks: hooksOfA, runHook: () => new Promise(() => {}) });
  const [node] = world.nodes;
  if (node === undefined) throw new Error("no node");
  world.send([task("src", eids[0] ?? "", "a", 1)], 1);
  await world.rest();
  const moved = world.move([home], 0);
  await until(node, () => isSealedAt(node));
  const said: unknown[] = [];
  const key = { shard: home, type: "src", eid: eids[0] ?? "" };
  node.tell({ kind: "get", key, eidValue: key.eid, atLeast: null, reply: (record) => void said.push(record) });
  const letter = { id: "x", seq: toSeq(1), hook: "", ...key, code: "", error: "", at: 0, task: "{}" };
  const replay = { ...letter, kind: "unapplied", status: "open" } as const;
  node.tell({ kind: "replay-letter", letter: replay, tasks: [], reply: (error) => void said.push(error) });
  const [part] = split([task("src", key.eid, "a", 1)], 1).parts;
  if (part === undefined) throw new Error("no part");
  const listener = (news: News): void => {
    for (const event of news) said.push(event.kind === "refused" ? event.error : event);
  };
  node.tell({ kind: "looked-up", part, listener, segment: null });
  node.offer([part], listener);
  for (let i = 0; i < 10; i++) await node.next();
  expect(said.map((error) => (error instanceof StarlingError ? error.code : error))).toEqual(Array(4).fill("MOVED"));
  await world.rest();
  expect(await moved).toEqual([{ shard: home, epoch: 1 }]);
});

test("a local engine takes shards in, gives them up, and loses them; it writes under the identity of the moment", async () => {
  const store = createMemoryStore();
  const clock = createManualClock();
  const identity = { id: toNodeId("first") };
  let failures = 2;
  const aborted: ShardId[] = [];
  const engine = startLocalEngine({
    ...{ identity, queries: store, model, hooks: noHooks, clock, entityShards: shards, lanes: 2, databases: 1 },
    store: {
      ...store,
      readLog: async (...args) => {
        if (failures-- > 0) throw new StarlingError("STORE", "away");
        return store.readLog(...args);
      },
    },
    ...{ counters: createCounters(), limits: simulationLimits, wall: () => 0, newSessionId: () => "s" },
    ...{ log: { info: () => {}, warn: () => {}, error: () => {} }, runHook: script.runHook },
    abandon: (shard) => void aborted.push(shard),
  });
  const settle = async <T>(promise: Promise<T>): Promise<T> => {
    let status: "open" | "settled" = "open";
    const ended = promise.finally(() => {
      status = "settled";
    });
    for (let i = 0; i < 1000 && status === "open"; i++) await clock.advance(10);
    return ended;
  };
  const said: string[] = [];
  const offer = async (number: number): Promise<void> => {
    const { parts } = split(
      eids.map((eid, v) => task("src", eid, "a", number * 10 + v)),
      number,
    );
    engine.offer(parts, (news) => {
      for (const event of news) said.push(event.kind === "refused" ? event.error.code : event.kind);
    });
    await clock.advance(3000);
  };
  await offer(1);
  expect(said.splice(0)).toEqual(Array(4).fill("MOVED"));
  await settle(engine.own(await store.acquire(identity.id, all)));
  await offer(1);
  expect(said.splice(0).sort()).toEqual([...Array(4).fill("durable"), ...Array(4).fill("processed")]);
  expect(await settle(engine.giveUp(all.slice(0, 3), 50))).toHaveLength(3);
  expect(all.map(engine.owns)).toEqual([false, false, false, true]);
  expect(await settle(engine.giveUp(all.slice(0, 1), 50))).toEqual([]);
  await expect(engine.get("src", eids[0] ?? "", null)).rejects.toMatchObject({ code: "MOVED" });
  // The node was expelled: what it still has is another's, and it says so when it writes.
  identity.id = toNodeId("second");
  const lost: ShardId[] = [];
  engine.onLost((ids) => void lost.push(...ids));
  await offer(2);
  expect(said.splice(0).sort()).toEqual(["FENCED", "MOVED", "MOVED", "MOVED"]);
  expect([lost, aborted]).toEqual([all.slice(3), all.slice(3)]);
  // A log that has something to replay, and a store that fails twice.
  await store.append(identity.id, { fences: [], segments: [] });
  for (const id of all) Object.assign(store.shards.get(id) ?? {}, { watermark: 0 });
  await settle(engine.own(await store.acquire(identity.id, all)));
  expect(failures).toBeLessThan(0);
  expect(await settle(engine.get("src", eids[0] ?? "", null))).toMatchObject({ view: { eid: eids[0] } });
  engine.drop(all.slice(0, 1));
  await clock.advance(10);
  expect((await settle(engine.close())).map(({ shard }) => shard).sort()).toEqual(all.slice(1));
  expect(await engine.close()).toHaveLength(3);
});
