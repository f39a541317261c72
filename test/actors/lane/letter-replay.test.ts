import { expect, test } from "vitest";
import type { HookOutcome } from "../../../actors/hooks/hook-outcome.ts";
import { runLetter } from "../../../actors/lane/run-letter.ts";
import type { StoredDeadLetter } from "../../../actors/store/store.ts";
import type { CheckedTask } from "../../../modules/datapoint.ts";
import type { Hook, HookTable } from "../../../modules/hook.ts";
import { shardOf } from "../../../proto/shard-of.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { createMemoryStore, type MemoryStore } from "../../support/memory-store.ts";
import { type SimulatedNode, startSimulatedNode } from "../../support/simulated-node.ts";
import { createClient } from "./protocol-client.ts";
import { hook, inspect, model, shards, task } from "./protocol-script.ts";

const own = hook("on_new_attr", "src", "a", "own");
const other = hook("on_new_attr", "src", "a", "other");
const hooks: HookTable = {
  onTaskStart: [],
  allowEntityCreation: new Map(),
  onEntityCreation: new Map(),
  onNewAttr: new Map([["src", new Map([["a", [own, other]]])]]),
};
const calls: string[] = [];

/** `own` fails until it is mended. */
function createRunner(mended: boolean) {
  return (called: Hook): HookOutcome => {
    calls.push(called.name);
    if (called.name === "other") return { kind: "answer", tasks: [] };
    if (mended) return { kind: "answer", tasks: [task("src", "e", "own", 7)] };
    return { kind: "failed", error: new StarlingError("HOOK_FAILED", "not yet"), attempts: 1 };
  };
}

function start(store: MemoryStore, mended: boolean, dies: (effect: string) => boolean = () => false) {
  const name = mended ? "mended" : "failing";
  return startSimulatedNode({ store, model, hooks, runHook: createRunner(mended), shards, name, dies });
}

/** A store with the dead letter of a failed hook. */
async function fail(): Promise<{ store: MemoryStore; node: SimulatedNode; letter: StoredDeadLetter }> {
  const store = createMemoryStore();
  const node = await start(store, false);
  createClient([[task("src", "e", "a", 1)]]).offer(node, 0, 1);
  await node.run();
  const [letter] = await store.deadLetters({ after: "", limit: 9, status: "open" });
  if (letter === undefined) throw new Error("there is no dead letter");
  calls.length = 0;
  return { store, node, letter };
}

const replay = (letter: StoredDeadLetter, mended = true): Promise<readonly CheckedTask[]> =>
  runLetter(letter, { model, hooks, runHook: createRunner(mended), getRecord: async () => null });

const statusOf = async (store: MemoryStore, { id }: StoredDeadLetter) => (await store.deadLetter(id))?.status;

async function close(node: SimulatedNode, letter: StoredDeadLetter, tasks: readonly CheckedTask[]): Promise<unknown[]> {
  const said: unknown[] = [];
  node.tell({ kind: "replay-letter", letter, tasks, reply: (error) => said.push(error?.code ?? null) });
  await node.run();
  return said;
}

test("the replay of a hook's letter runs that hook alone, and changes nothing but by its answer (R20)", async () => {
  const { store, node, letter } = await fail();
  await expect(replay(letter, false)).rejects.toMatchObject({ code: "HOOK_FAILED" });
  calls.length = 0;
  const tasks = await replay(letter);
  expect(calls).toEqual(["own"]);
  expect(await close(node, letter, tasks)).toEqual([null]);
  expect(calls).toEqual(["own"]);
  const { logged, state } = await inspect(store);
  expect([...logged]).toEqual([
    ["src e a 1", 1],
    ["src e own 7", 1],
  ]);
  expect([...state]).toEqual([
    ["src e a", "1 of 1"],
    ["src e own", "7 of 1"],
  ]);
  expect(await statusOf(store, letter)).toBe("replayed");
});

test("what a replay answers is appended and its letter closed in one, never twice (R20)", async () => {
  const { store, letter } = await fail();
  const tasks = await replay(letter);
  const dying = await start(store, true, (effect) => effect === "append");
  expect(await close(dying, letter, tasks)).toEqual([]);
  expect(dying.status).toBe("dead");
  expect(await statusOf(store, letter)).toBe("replayed");
  const next = await start(store, true);
  await next.run();
  expect(await close(next, letter, tasks)).toEqual(["STORE_REFUSED"]);
  const { logged } = await inspect(store);
  expect(logged.get("src e own 7")).toBe(1);
});

test("the replay of an unapplied task appends the task itself (R20)", async () => {
  const { store, node, letter } = await fail();
  const unapplied: StoredDeadLetter = { ...letter, kind: "unapplied", hook: "" };
  const tasks = await replay(unapplied);
  expect(calls).toEqual([]);
  expect(await close(node, unapplied, tasks)).toEqual([null]);
  const { state } = await inspect(store);
  expect(state.get("src e a")).toBe("1 of 2");
  expect(shardOf("entity", "src", "e", shards)).toBe(letter.shard);
});

test("the letter of an answer that PostgreSQL refused is replayed with what its hook was called with (R4, R20)", async () => {
  const memory = createMemoryStore();
  let refuses = true;
  const store: MemoryStore = {
    ...memory,
    append: async (node, request) => {
      const { segments } = request;
      if (!refuses || !segments.some(({ body }) => body.includes("own"))) return await memory.append(node, request);
      throw new StarlingError("STORE_REFUSED", "no such text");
    },
  };
  const node = await start(store, true);
  const { datapoints: later } = task("src", "e", "a", 2);
  const first = task("src", "e", "a", 1);
  createClient([[{ ...first, datapoints: [...first.datapoints, ...later] }]]).offer(node, 0, 1);
  await node.run();
  refuses = false;
  const letters = await store.deadLetters({ after: "", limit: 9, status: "open" });
  expect(letters.map(({ code, seq }) => [code, seq])).toEqual([
    ["STORE_REFUSED", 1],
    ["STORE_REFUSED", 2],
  ]);
  for (const [index, letter] of letters.entries()) {
    expect((JSON.parse(letter.task) as CheckedTask).datapoints).toMatchObject([{ attr: "a", v: index + 1 }]);
    expect(await close(node, letter, await replay(letter))).toEqual([null]);
  }
  expect((await inspect(store)).logged.get("src e own 7")).toBe(2);
});
