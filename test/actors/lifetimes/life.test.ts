import { expect, test } from "vitest";
import type { HookCall } from "../../../actors/hooks/hook-call.ts";
import type { HookOutcome } from "../../../actors/hooks/hook-outcome.ts";
import type { Store } from "../../../actors/store/store.ts";
import type { CheckedTask } from "../../../modules/datapoint.ts";
import type { Hook, HookTable } from "../../../modules/hook.ts";
import { shardOf } from "../../../proto/shard-of.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { createMemoryStore } from "../../support/memory-store.ts";
import { type SimulationOptions, startSimulatedNode } from "../../support/simulated-node.ts";
import { createClient } from "../lane/protocol-client.ts";
import { hook, inspect, model, removal, shards, task } from "../lane/protocol-script.ts";
import { newestRows } from "../store/samples.ts";

/** The life of an entity, from its creation (R18) to its end (R19), over the deaths of its owners. */
const noHooks: HookTable = {
  onTaskStart: [],
  allowEntityCreation: new Map(),
  onEntityCreation: new Map(),
  onNewAttr: new Map(),
};
const onCreation: HookTable = {
  ...noHooks,
  onEntityCreation: new Map([["src", [hook("on_entity_creation", "src", null, "greet")]]]),
};
const onAllow: HookTable = {
  ...noHooks,
  allowEntityCreation: new Map([["src", [hook("allow_entity_creation", "src", null, "allow")]]]),
};
const onAttr: HookTable = {
  ...noHooks,
  onNewAttr: new Map([["src", new Map([["o", [hook("on_new_attr", "src", "o", "late")]]])]]),
};

const empty: HookOutcome = { kind: "answer", tasks: [] };
const key = { shard: shardOf("entity", "src", "e", shards), type: "src", eid: "e" };
const observe = (v: number): CheckedTask => task("src", "e", "o", v, 1000 + v);

async function start(store: Store, rest: Partial<SimulationOptions> = {}) {
  const runHook = (): HookOutcome => empty;
  const all = { store, model, hooks: noHooks, runHook, shards, name: "node", dies: () => false, ...rest };
  const node = await startSimulatedNode(all);
  await node.run();
  return node;
}

/** The store while appends of answers do not come through; flushes do. */
function withoutAnswers(store: Store): Store {
  return {
    ...store,
    append: (node, request) => {
      if (!request.segments.some(({ body }) => body.includes("\town\t"))) return store.append(node, request);
      return Promise.reject(new StarlingError("STORE", "connection closed"));
    },
  };
}

test("a creation that is stored runs its hooks again when their answer was lost (R18)", async () => {
  const store = createMemoryStore();
  const greet = (): HookOutcome => ({ kind: "answer", tasks: [task("src", "e", "own", 9)] });
  const dies = (effect: string): boolean => effect === "flush" && store.shards.get(key.shard)?.entities.size === 1;
  const first = await start(withoutAnswers(store), { hooks: onCreation, runHook: greet, dies });
  createClient([[task("src", "e", "a", 1)]]).offer(first, 0, 1);
  await first.run();
  expect(first.status).toBe("dead");
  expect((await store.load([key])).map(({ created }) => created)).toEqual([1]);
  await start(store, { name: "next", hooks: onCreation, runHook: greet });
  expect([...(await inspect(store)).logged]).toEqual([
    ["src e a 1", 1],
    ["src e own 9", 1],
  ]);
});

test("a creation stands once it was answered to, whatever the hook says the next time (R18)", async () => {
  const store = createMemoryStore();
  const hooks: HookTable = { ...onAllow, onEntityCreation: onCreation.onEntityCreation };
  const judge =
    (allowed: boolean) =>
    ({ name }: Hook): HookOutcome =>
      name === "allow" ? { kind: "decision", allowed } : { kind: "answer", tasks: [task("src", "e", "own", 9)] };
  const withoutFlushes: Store = {
    ...store,
    flush: () => Promise.reject(new StarlingError("STORE", "connection closed")),
  };
  let flushes = 0;
  const dies = (effect: string): boolean => effect === "flush" && ++flushes === 2;
  const first = await start(withoutFlushes, { hooks, runHook: judge(true), dies });
  createClient([[task("src", "e", "a", 1)]]).offer(first, 0, 1);
  await first.run();
  expect(await store.load([key])).toEqual([]);
  await start(store, { name: "next", hooks, runHook: judge(false) });
  const { logged, state } = await inspect(store);
  expect([...logged.keys()]).toEqual(["src e a 1", "src e own 9"]);
  expect([...state.keys()].sort()).toEqual(["src e a", "src e own"]);
});

test("a refusal stands once a later task was answered to as the entity's creation, and one life is begun once (R18)", async () => {
  const store = createMemoryStore();
  const hooks: HookTable = { ...onAllow, onEntityCreation: onCreation.onEntityCreation };
  const judge =
    (isAllowed: (v: unknown) => boolean) =>
    ({ name }: Hook, { task: cause }: HookCall): HookOutcome => {
      const v = Number(cause.datapoints[0]?.v);
      if (name === "allow") return { kind: "decision", allowed: v > 9 || isAllowed(v) };
      return v > 9 ? empty : { kind: "answer", tasks: [task("src", "e", "own", 10 + v)] };
    };
  const withoutFlushes: Store = {
    ...store,
    flush: () => Promise.reject(new StarlingError("STORE", "connection closed")),
  };
  let flushes = 0;
  const dies = (effect: string): boolean => effect === "flush" && ++flushes === 2;
  const first = await start(withoutFlushes, { hooks, runHook: judge((v) => v !== 1), dies });
  createClient([[task("src", "e", "a", 1)], [task("src", "e", "a", 2)]]).offer(first, 0, 2);
  await first.run();
  expect(await store.load([key])).toEqual([]);
  const next = await start(store, { name: "next", hooks, runHook: judge(() => true) });
  const { logged, state } = await inspect(store);
  expect([...logged.keys()]).toEqual(["src e a 1", "src e a 2", "src e own 12"]);
  expect(state.get("src e a")).toBe("2 of 1");
  expect((await store.raw({ ...key, attr: "a", limit: 9 })).map(({ json }) => json)).toEqual(["2"]);
  expect(next.lane.world.counters.read()).toMatchObject({ record_created: 1, creation_refused: 1 });
});

test("a refusal stands, whatever the hook says the next time, and what was refused is no raw data (R18)", async () => {
  const store = createMemoryStore();
  const allow = (allowed: boolean) => (): HookOutcome => ({ kind: "decision", allowed });
  // A slow hook of another entity of the shard holds the watermark below the refusal.
  const hooks: HookTable = { ...onAllow, onNewAttr: onAttr.onNewAttr };
  const other = neighbourOf("e");
  const slow = (allowed: boolean) => (called: Hook, call: HookCall) => {
    if (called.name === "late") return call.eid === other ? new Promise<HookOutcome>(() => {}) : empty;
    return call.eid === other ? allow(true)() : allow(allowed)();
  };
  const first = await start(store, { hooks, runHook: slow(false) });
  createClient([[task("src", other, "o", 1, 1000)], [observe(2)]]).offer(first, 0, 2);
  await first.run();
  first.elapse(1);
  await first.run();
  const seen: string[] = [];
  await start(store, {
    name: "next",
    hooks,
    runHook: (called, call) => {
      if (called.name === "allow") seen.push(String(call.eid));
      return slow(true)(called, call);
    },
  });
  expect(seen).not.toContain("e");
  expect(await store.load([key])).toEqual([]);
  expect(await store.raw({ ...key, attr: null, limit: 9 })).toEqual([]);
});

test("what a deleted entity was does not come back with what follows, nor its history (R19)", async () => {
  const store = createMemoryStore();
  const tasks = [[task("src", "e", "a", 1)], [observe(2)], [removal("src", "e")], [observe(4)]];
  const node = await start(store);
  const client = createClient(tasks);
  client.offer(node, 0, 2);
  await node.run();
  expect(await newestRows(store, key, 9)).toHaveLength(1);
  client.offer(node, 0, 4);
  await node.run();
  expect([...(await inspect(store)).state]).toEqual([["src e o", "4 of 1"]]);
  expect((await newestRows(store, key, 9)).map(({ seq }) => seq)).toEqual([4]);
});

test("a deletion is flushed only when the answers of all earlier hooks are recorded (R19)", async () => {
  const store = createMemoryStore();
  const late = (): HookOutcome => ({ kind: "answer", tasks: [task("src", "e", "own", 9)] });
  let flushTimers = 0;
  const dies = (effect: string): boolean => effect === "flush-timer" && ++flushTimers === 20;
  const first = await start(withoutAnswers(store), { hooks: onAttr, runHook: late, dies });
  createClient([[removal("src", "e")], [observe(2)], [removal("src", "e")]]).offer(first, 0, 3);
  await first.run();
  expect((await store.load([key])).filter(({ tombstone }) => tombstone)).toEqual([]);
  await start(store, { name: "next", hooks: onAttr, runHook: late });
  // What the hook derived comes after the deletion, and makes the entity anew.
  expect([...(await inspect(store)).state]).toEqual([["src e own", "9 of 1"]]);
});

test("a deletion above the watermark leaves a tombstone: replay applies nothing that was before it (R19)", async () => {
  const store = createMemoryStore();
  const other = neighbourOf("e");
  const hooks = onAttr;
  const slow = (_: Hook, call: HookCall) => (call.eid === other ? new Promise<HookOutcome>(() => {}) : empty);
  const node = await start(store, { hooks, runHook: slow });
  const tasks = [[task("src", other, "o", 1, 1000)], [observe(2)], [removal("src", "e")]];
  createClient(tasks).offer(node, 0, 3);
  await node.run();
  expect((await store.load([key])).map(({ tombstone }) => tombstone)).toEqual([true]);
  const seen: unknown[] = [];
  const runHook = (_: Hook, call: HookCall): HookOutcome => {
    seen.push(call.eid);
    return empty;
  };
  const next = await start(store, { name: "next", hooks, runHook });
  expect(seen, "hooks of the life that has ended do not run again").toEqual([other]);
  expect(next.lane.world.counters.read().record_created ?? 0).toBe(0);
  expect(await store.load([key])).toEqual([]);
  expect(await newestRows(store, key, 9)).toEqual([]);
});

/** Another entity of the same shard. */
function neighbourOf(eid: string): string {
  const shard = shardOf("entity", "src", eid, shards);
  const found = Array.from({ length: 99 }, (_, i) => `n${i}`).find(
    (n) => shardOf("entity", "src", n, shards) === shard,
  );
  if (found === undefined) throw new Error("no other entity in the shard");
  return found;
}
