import { expect, test } from "vitest";
import type { HookCall } from "../../../actors/hooks/hook-call.ts";
import type { HookOutcome } from "../../../actors/hooks/hook-outcome.ts";
import { createTurn } from "../../../actors/lane/turn.ts";
import type { AttemptMark, FlushRequest, Store } from "../../../actors/store/store.ts";
import type { CheckedTask } from "../../../modules/datapoint.ts";
import type { Hook, HookTable } from "../../../modules/hook.ts";
import { toNodeId } from "../../../proto/ids.ts";
import { createMemoryStore, type MemoryStore } from "../../support/memory-store.ts";
import { type SimulatedNode, startSimulatedNode } from "../../support/simulated-node.ts";
import { createClient } from "./protocol-client.ts";
import { hook, inspect, model, shards, task } from "./protocol-script.ts";

const hooks: HookTable = {
  onTaskStart: [],
  allowEntityCreation: new Map(),
  onEntityCreation: new Map(),
  onNewAttr: new Map([["src", new Map([["a", [hook("on_new_attr", "src", "a", "own")]]])]]),
};

/** Forty datapoints in batches of four tasks, one of them with two datapoints. */
const count = 40;
const batches: readonly (readonly CheckedTask[])[] = Array.from({ length: count / 5 }, (_, i) => {
  const tasks = [0, 1, 2, 3].map((j) => task("src", `e${(i * 4 + j) % 7}`, "a", i * 5 + j));
  const [first, ...rest] = tasks;
  if (first === undefined) return [];
  return [
    { ...first, datapoints: [...first.datapoints, ...task("src", first.eid, "a", i * 5 + 4).datapoints] },
    ...rest,
  ];
});

const answerOf = (call: HookCall): HookOutcome => {
  return { kind: "answer", tasks: [task("src", String(call.eid), "own", Number(call.datapoint?.v) + 1000)] };
};

type Run = (node: SimulatedNode, hook: Hook, call: HookCall) => HookOutcome | Promise<HookOutcome>;

/** A hook that ends its process as soon as it sees one of the values. */
function killer(poison: readonly number[]): Run {
  return (node, _, call) => {
    if (poison.includes(Number(call.datapoint?.v))) node.kill();
    return answerOf(call);
  };
}

/** Runs nodes one after another until one survives; how many died. */
async function survive(store: Store, run: Run, deathsAllowed: number): Promise<number> {
  const client = createClient(batches);
  for (let deaths = 0; ; deaths++) {
    expect(deaths, "deaths").toBeLessThanOrEqual(deathsAllowed);
    const node = await startNode(store, `node-${deaths}`, run);
    if (deaths > 0) client.reconnect();
    await node.run();
    client.offer(node, 0, batches.length);
    await node.run();
    if (node.status === "running") return deaths;
  }
}

async function startNode(store: Store, name: string, run: Run): Promise<SimulatedNode> {
  let node: SimulatedNode | null = null;
  const runHook = (called: Hook, call: HookCall) => {
    if (node === null) throw new Error("a hook ran before its node");
    return run(node, called, call);
  };
  node = await startSimulatedNode({ store, model, hooks, runHook, shards, name, dies: () => false });
  return node;
}

/** All but the poisoned are processed, once; those are dead letters; nothing is left over. */
async function expectOnlyLost(store: MemoryStore, poison: readonly number[]): Promise<void> {
  const { logged } = await inspect(store);
  const derived = [...logged].filter(([key]) => key.includes(" own "));
  expect(derived.map(([key]) => Number(key.split(" ").at(-1)) - 1000).sort((a, b) => a - b)).toEqual(
    Array.from({ length: count }, (_, v) => v).filter((v) => !poison.includes(v)),
  );
  expect(derived.every(([, times]) => times === 1)).toBe(true);
  const letters = await store.deadLetters({ after: "", limit: 100, status: "open" });
  const values = letters.map((letter) => (JSON.parse(letter.task) as { datapoints: { v: number }[] }).datapoints[0]?.v);
  expect(values.sort()).toEqual([...poison].sort());
  for (const letter of letters) {
    expect(letter).toMatchObject({ kind: "hook", code: "HOOK_FAILED", hook: "test/on_new_attr/src.a/own" });
    expect(letter.error).toContain("the process died 3 times there");
  }
  for (const shard of store.shards.values()) {
    expect(shard.attempt).toBe(null);
    expect(shard.obligations.size).toBe(0);
    expect(shard.watermark).toBe(shard.log.at(-1)?.lastSeq ?? 0);
  }
}

/** One death without a mark, one for each halving, three on the datapoint. */
const deathsMax = 1 + Math.ceil(Math.log2(count)) + 3;

test.each([0, 3, 4, 17, 39])(
  "a datapoint (%i) that kills each process becomes a dead letter, all else goes on (R17)",
  async (v) => {
    const store = createMemoryStore();
    const deaths = await survive(store, killer([v]), deathsMax);
    expect(deaths).toBeGreaterThan(3);
    await expectOnlyLost(store, [v]);
  },
);

test("so do several, one after the other", async () => {
  const store = createMemoryStore();
  await survive(store, killer([5, 6, 30]), 3 * deathsMax);
  await expectOnlyLost(store, [5, 6, 30]);
});

test("and one whose hook kills later, from its promise", async () => {
  const store = createMemoryStore();
  const later: Run = (node, _, call) => {
    return Promise.resolve().then(() => {
      if (call.datapoint?.v === 12) node.kill();
      return answerOf(call);
    });
  };
  await survive(store, later, deathsMax);
  await expectOnlyLost(store, [12]);
});

test("and one that had become an obligation", async () => {
  const store = createMemoryStore();
  const slow: Run = (_, __, call) => (call.datapoint?.v === 17 ? new Promise(() => {}) : answerOf(call));
  const node = await startNode(store, "first", slow);
  const client = createClient(batches);
  client.offer(node, 0, batches.length);
  await node.run();
  node.elapse(6000);
  await node.run();
  expect([...store.shards.values()].flatMap(({ obligations }) => [...obligations.values()])).toHaveLength(1);
  for (let deaths = 0; ; deaths++) {
    expect(deaths).toBeLessThanOrEqual(deathsMax);
    const next = await startNode(store, `node-${deaths}`, killer([17]));
    await next.run();
    if (next.status === "running") break;
  }
  await expectOnlyLost(store, [17]);
});

/** Hooks that take longer than anybody waits, and then answer. */
function createSlow(values: readonly number[], then: Run) {
  let waiting: (() => void)[] = [];
  const run: Run = (node, called, call) => {
    if (!values.includes(Number(call.datapoint?.v))) return then(node, called, call);
    return new Promise((resolve) => waiting.push(() => resolve(answerOf(call))));
  };
  const end = (): void => {
    for (const resume of waiting.splice(0)) resume();
  };
  const forget = (): void => {
    waiting = [];
  };
  return { run, end, forget };
}

test.each([
  ["of its entity", 8, 17, 0],
  ["of its entity, where processes die of something else, too", 8, 17, 2],
  ["of its own task", 5, 9, 0],
])("one behind a slow hook %s has a window of its own, when it is its turn (R17)", async (_, before, v, others) => {
  const store = createMemoryStore();
  const slow = createSlow([before], killer([v]));
  const client = createClient(batches);
  for (let deaths = 0; ; deaths++) {
    expect(deaths, "deaths").toBeLessThanOrEqual(deathsMax + 5 * others);
    slow.forget();
    const node = await startNode(store, `node-${deaths}`, slow.run);
    if (deaths > 0) client.reconnect();
    await node.run();
    client.offer(node, 0, batches.length);
    await node.run();
    if (node.status === "running") node.elapse(6000);
    if (node.status === "running") await node.run();
    if (deaths % 3 === 2 && deaths < 3 * others) node.kill();
    slow.end();
    await node.run();
    if (node.status === "running") break;
  }
  await expectOnlyLost(store, [v]);
});

test("one that is given up waits for no slow hook of another entity, and nothing waits for it", async () => {
  const store = createMemoryStore();
  const client = createClient(batches);
  // The first ones of the other entities of its shard.
  const slow = createSlow([2, 6, 7], killer([17]));
  for (let deaths = 0; ; deaths++) {
    expect(deaths, "deaths").toBeLessThanOrEqual(deathsMax);
    slow.forget();
    const node = await startNode(store, `node-${deaths}`, slow.run);
    if (deaths > 0) client.reconnect();
    await node.run();
    client.offer(node, 0, batches.length);
    await node.run();
    for (let i = 0; node.status === "running" && node.lane.gate !== null && i < 3; i++) {
      node.elapse(6000);
      await node.run();
    }
    if (node.status === "dead") continue;
    expect(node.lane.gate).toBe(null);
    slow.end();
    await node.run();
    break;
  }
  await expectOnlyLost(store, [17]);
});

/** The store, and every mark that was written to it. */
function watchMarks(store: MemoryStore): { watched: Store; marks: (AttemptMark | null)[] } {
  const marks: (AttemptMark | null)[] = [];
  const flush = (node: Parameters<Store["flush"]>[0], request: FlushRequest) => {
    marks.push(...(request.attempts ?? []).map(({ mark }) => mark));
    return store.flush(node, request);
  };
  return { watched: { ...store, flush }, marks };
}

test("a mark is durable before the first hook of its window, and a clean take-over writes none", async () => {
  const store = createMemoryStore();
  const { watched, marks } = watchMarks(store);
  await survive(watched, killer([]), 0);
  expect(marks).toEqual([]);
  const stuck = await startNode(watched, "stuck", (node, _, call) => {
    node.kill();
    return answerOf(call);
  });
  const again = createClient([...batches, [task("src", "x", "a", 99)]]);
  again.reconnect();
  again.offer(stuck, 0, batches.length + 1);
  await stuck.run();
  expect(stuck.status).toBe("dead");
  const seen: unknown[] = [];
  const next = await startNode(watched, "next", (_, __, call) => {
    seen.push([call.datapoint?.v, [...store.shards.values()].some(({ attempt }) => attempt?.from === call.seq)]);
    return answerOf(call);
  });
  await next.run();
  expect(seen).toEqual([[99, true]]);
  expect(marks.at(-1)).toBe(null);
  marks.length = 0;
  const fences = [...next.lane.shards.values()].map(({ id, epoch }) => ({ shard: id, epoch }));
  await store.release(fences, toNodeId("next"));
  await (await startNode(watched, "last", killer([]))).run();
  expect(marks).toEqual([]);
});

test("one lane of a process at a time has the turn, and the others are woken when it passes", () => {
  const turn = createTurn();
  const [first, second] = [{}, {}];
  const woken: string[] = [];
  expect(turn.take(first, () => woken.push("first"))).toBe(true);
  expect(turn.take(second, () => woken.push("second"))).toBe(false);
  turn.pass(second);
  expect(turn.take(second, () => woken.push("second"))).toBe(false);
  turn.pass(first);
  expect(woken).toEqual(["second"]);
  expect(turn.take(second, () => woken.push("second"))).toBe(true);
  turn.pass(second);
  expect(turn.take(first, () => woken.push("first"))).toBe(true);
});
