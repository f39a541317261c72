import { expect, test } from "vitest";
import type { HookCall } from "../../../actors/hooks/hook-call.ts";
import type { HookOutcome } from "../../../actors/hooks/hook-outcome.ts";
import type { Effect } from "../../../actors/lane/lane.ts";
import type { CheckedTask } from "../../../modules/datapoint.ts";
import type { Hook, HookTable } from "../../../modules/hook.ts";
import { toSeq } from "../../../proto/ids.ts";
import { shardOf } from "../../../proto/shard-of.ts";
import { copyDurable, createMemoryDurable, type MemoryDurable, writeDurable } from "../../support/memory-durable.ts";
import { createMemoryStore, type MemoryStore } from "../../support/memory-store.ts";
import { type SimulatedNode, startSimulatedNode } from "../../support/simulated-node.ts";
import { createClient } from "./protocol-client.ts";
import { type DeathScript, playDeaths } from "./protocol-deaths.ts";
import { type Found, hook, inspect, model, removal, shards, task, writeFound } from "./protocol-script.ts";

/** As in `protocol.test.ts`: nothing is left out; `npm run crashes` goes one death deeper. */
const nested = process.env.STARLING_TEST_DEATHS === "3" ? 3 : 2;

type Kind = Hook["kind"];

/** One task with two datapoints: the hook of the second is slow, or that of the whole task. */
function pair(v: number): CheckedTask {
  const first = task("src", "e", "a", v);
  return { ...first, datapoints: [...first.datapoints, ...task("src", "e", "a", v + 1).datapoints] };
}

const batches: readonly (readonly CheckedTask[])[] = [
  [task("src", "e", "a", 10), task("src", "f", "a", 20)],
  [pair(11), task("src", "g", "a", 30)],
  [task("src", "e", "a", 13)],
  [task("src", "e", "a", 14), task("src", "f", "a", 21)],
  [removal("src", "e")],
  [task("src", "e", "a", 16)],
  [task("src", "e", "a", 17), task("src", "g", "a", 31)],
];

/** What happens, in order; a batch's number offers all up to it. */
const script = [3, "wait", 6, "wait", "answer", "wait", "answer", 7] as const;

function createHooks(slowKind: Kind): HookTable {
  const slow = hook(slowKind, "src", slowKind === "on_new_attr" ? "a" : null, "slow");
  const own = hook("on_new_attr", "src", "a", "own");
  const seen = hook("on_new_attr", "src", "a", "seen");
  const again = hook("on_new_attr", "src", "a", "slow-again");
  const attrs = slowKind === "on_new_attr" ? [own, slow, again, seen] : [own, seen];
  return {
    onTaskStart: slowKind === "on_task_start" ? [slow] : [],
    allowEntityCreation: new Map(slowKind === "allow_entity_creation" ? [["src", [slow]]] : []),
    onEntityCreation: new Map(slowKind === "on_entity_creation" ? [["src", [slow]]] : []),
    onNewAttr: new Map([["src", new Map([["a", attrs]])]]),
  };
}

/**
 * The slow hook of `e`'s datapoint 12, of its pair, or of its creation, answers when it is let; `again` at the second time.
 * `answers`: how many of the two may by now.
 */
function createRunner(kind: Kind, answers: number) {
  let answering = answers;
  let waiting: (() => void)[] = [];
  const isSlow = (call: HookCall): boolean => {
    if (kind === "on_new_attr") return call.datapoint?.v === 12;
    if (kind === "on_task_start") return call.task.datapoints[0]?.v === 11;
    return call.eid === "e";
  };
  const answerOf = (called: Hook, call: HookCall): HookOutcome => {
    if (called.kind === "allow_entity_creation") return { kind: "decision", allowed: call.eid !== "g" };
    if (called.kind === "on_task_start") return { kind: "answer", tasks: [] };
    const v = Number((call.datapoint ?? call.task.datapoints[0])?.v);
    if (called.name === "own") return { kind: "answer", tasks: [task("src", String(call.eid), "own", v + 1000)] };
    const eid = called.name === "slow" ? "late" : `d${v % 2}`;
    return { kind: "answer", tasks: [task("dst", eid, "seen", v + 2000 * called.name.length, 5_000_000 + v)] };
  };
  return {
    run: (called: Hook, call: HookCall): HookOutcome | Promise<HookOutcome> => {
      const answer = answerOf(called, call);
      const place = ["slow", "slow-again"].indexOf(called.name);
      if (place < answering || !isSlow(call)) return answer;
      return new Promise((resolve) => waiting.push(() => resolve(answer)));
    },
    answer: (): number => {
      answering = Math.min(2, answering + 1);
      for (const each of waiting) each();
      waiting = [];
      return answering;
    },
  };
}

interface World {
  readonly durable: MemoryDurable;
  /** What the client has seen acknowledged. */
  readonly acked: Set<number>;
  /** How many of the slow hooks may answer. */
  answers: number;
}

interface Result {
  readonly found: Found;
  /** Values of `own` of the entity `e`, in the order of the log. */
  readonly order: readonly number[];
}

type Look = (at: { step: (typeof script)[number]; node: SimulatedNode; store: MemoryStore; said: Said }) => void;
type Said = ReadonlyMap<number, number>;

function createScript(kind: Kind, slow: Effect["kind"] | null, look: Look = () => {}): DeathScript<World, Result> {
  const hooks = createHooks(kind);
  return {
    begin: () => ({ durable: createMemoryDurable(), acked: new Set(), answers: 0 }),
    copy: (world) => ({ ...world, durable: copyDurable(world.durable), acked: new Set(world.acked) }),
    write: ({ durable, acked, answers }) => `${answers} ${[...acked].sort()} ${writeDurable(durable)}`,
    live: async (world, life, onEffect) => {
      const store = createMemoryStore(world.durable);
      const client = createClient(batches, world.acked);
      const runner = createRunner(kind, world.answers);
      const dies = (): boolean => {
        onEffect();
        return false;
      };
      const name = `node-${life}`;
      const node = await startSimulatedNode({ store, model, hooks, runHook: runner.run, shards, name, slow, dies });
      if (life > 0) client.reconnect();
      await node.run();
      // What an earlier life has begun comes first: offers, and the time that has passed.
      for (const step of script) {
        if (step === "wait") node.elapse(6000);
        else if (step !== "answer") client.offer(node, 0, step);
        else world.answers = runner.answer();
        await node.run();
        look({ step, node, store, said: client.processed });
      }
      expectQuiet(node, store);
      expect(client.acked.size).toBe(batches.length);
      return { found: await inspect(store), order: await orderOf(store) };
    },
  };
}

function expectQuiet(node: SimulatedNode, store: MemoryStore): void {
  for (const shard of node.lane.shards.values()) {
    expect(shard.watermark, `watermark of shard ${shard.id}`).toBe(shard.durableSeq);
    expect(shard.backlog.tasks, "tasks that wait").toBe(0);
    expect(store.shards.get(shard.id)?.obligations.size, "rows of obligations").toBe(0);
    expect(store.shards.get(shard.id)?.attempt, "attempt mark").toBe(null);
  }
}

async function orderOf(store: MemoryStore): Promise<number[]> {
  const log = await store.readLog(shardOf("entity", "src", "e", shards), toSeq(0), 100_000);
  const fields = log.flatMap(({ body }) => body.split("\n").map((line) => line.split("\t")));
  return fields
    .filter(([, type, eid, attr]) => type === "src" && eid === "e" && attr === "own")
    .map((f) => Number(f[8]));
}

const kinds: readonly Kind[] = ["on_new_attr", "on_task_start", "allow_entity_creation", "on_entity_creation"];
const ordered = [1010, 1011, 1012, 1013, 1014, 1016, 1017];

test("a hook that takes too long lets the watermark pass, with what waits behind it, and goes on (R16)", async () => {
  const shard = shardOf("entity", "src", "e", shards);
  const rows: unknown[] = [];
  const watched = createScript("on_new_attr", null, ({ step, node, store, said }) => {
    const held = [...(store.shards.get(shard)?.obligations.values() ?? [])];
    rows.push(held.map((row) => [row.held?.hook, row.held?.task.split("\n").length, row.firstWaiting !== null]));
    const owned = node.lane.shards.get(shard);
    if (step !== "wait") return;
    expect(owned?.watermark).toBe(owned?.durableSeq);
    expect(owned?.backlog.tasks, "waiting tasks count").toBeGreaterThan(0);
    expect(said.get(1), "processed tells of the slow hook").toBe(1);
    expect(said.get(2), "and of the task behind it").toBe(1);
  });
  const { order } = await watched.live(watched.begin(), 0, () => {});
  const row = [["test/on_new_attr/src.a/slow", 2, true]];
  const next = [["test/on_new_attr/src.a/slow-again", 2, true]];
  expect(rows).toEqual([[], row, row, row, next, next, [], []]);
  expect(order).toEqual(ordered);
});

const cases = kinds.flatMap((kind) => [[kind, "nothing is", null] as const, [kind, "appends are", "append"] as const]);

test.each(cases)(
  "an obligation of %s survives the death of its owner after any effect, and the next one's, while %s slow",
  async (kind, _, slow) => {
    const played = createScript(kind, slow);
    const wanted = await played.live(played.begin(), 0, () => {});
    expect(wanted.order).toEqual(ordered);
    const wantedFound = writeFound(wanted.found);
    const { deaths } = await playDeaths(played, nested, ({ found, order }, after) => {
      const label = `after deaths at ${after.join(", ")}`;
      expect(writeFound(found), label).toBe(wantedFound);
      expect(order, label).toEqual(ordered);
    });
    expect(deaths).toBeGreaterThan(1000);
  },
  1_200_000,
);

test("a hook is passed after so many seqs of its shard too, and `processed` counts no more when it has ended", async () => {
  const store = createMemoryStore();
  const runner = createRunner("on_new_attr", 0);
  const client = createClient(batches);
  const options = { store, model, hooks: createHooks("on_new_attr"), runHook: runner.run, shards, name: "node" };
  const limits = { obligationAfterSeqs: 3 };
  const node = await startSimulatedNode({ ...options, limits, dies: () => false });
  const shard = node.lane.shards.get(shardOf("entity", "src", "e", shards));
  for (const to of [2, 3, 4]) {
    client.offer(node, 0, to);
    await node.run();
  }
  expect(shard?.watermark).toBe(shard?.durableSeq);
  expect(node.lane.world.counters.read().obligations).toBe(1);
  runner.answer();
  runner.answer();
  await node.run();
  client.offer(node, 0, 5);
  await node.run();
  expect(client.processed.get(4)).toBe(0);
  expectQuiet(node, store);
});

test("what a held entry answered below the watermark is not answered again by the next owner (R16, O2)", async () => {
  const store = createMemoryStore();
  const runner = createRunner("on_new_attr", 0);
  const hooks = createHooks("on_new_attr");
  const withoutOwn = (hooks.onNewAttr.get("src")?.get("a") ?? []).filter(({ name }) => name !== "own");
  const onNewAttr = new Map([["src", new Map([["a", withoutOwn]])]]);
  const options = { store, model, hooks: { ...hooks, onNewAttr }, shards, dies: () => false };
  const node = await startSimulatedNode({ ...options, runHook: runner.run, name: "node" });
  // Nothing waits behind the held entry, no `own` of it either: the next owner reads no log below the watermark.
  createClient([[pair(11)]]).offer(node, 0, 1);
  await node.run();
  node.elapse(6000);
  await node.run();
  const answers = runner.answer();
  await node.run();
  const shard = node.lane.shards.get(shardOf("entity", "src", "e", shards));
  expect(shard?.watermark).toBe(shard?.durableSeq);
  expect(shard?.obligations.size).toBe(1);
  const next = await startSimulatedNode({
    ...options,
    runHook: createRunner("on_new_attr", answers + 1).run,
    name: "next",
  });
  await next.run();
  expectQuiet(next, store);
  expect([...(await inspect(store)).logged.values()].every((times) => times === 1)).toBe(true);
});
