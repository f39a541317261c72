import { expect, test } from "vitest";
import type { Effect } from "../../../actors/lane/lane.ts";
import type { MessageResult } from "../../../actors/lane/message-result.ts";
import { taskFrom } from "../../../actors/lane/part.ts";
import { runLetter } from "../../../actors/lane/run-letter.ts";
import { toSeq } from "../../../proto/ids.ts";
import { shardOf } from "../../../proto/shard-of.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { copyDurable, createMemoryDurable, type MemoryDurable, writeDurable } from "../../support/memory-durable.ts";
import { createMemoryStore, type MemoryStore } from "../../support/memory-store.ts";
import { type SimulatedNode, startSimulatedNode } from "../../support/simulated-node.ts";
import { fieldsOf } from "../../support/state-fields.ts";
import { batches, checkStore, createScript, keys, message, script, shards } from "./behaviour-script.ts";
import { all, expectQuiet, type World as HandOffWorld, startWorld } from "./hand-off-world.ts";
import { createClient } from "./protocol-client.ts";
import { type DeathScript, playDeaths } from "./protocol-deaths.ts";

interface World {
  readonly durable: MemoryDurable;
  readonly acked: Set<number>;
}

type Checked = Awaited<ReturnType<typeof checkStore>>;

const createPlay = (slow: Effect["kind"] | null): DeathScript<World, Checked> => ({
  begin: () => ({ durable: createMemoryDurable(), acked: new Set() }),
  copy: ({ durable, acked }) => ({ durable: copyDurable(durable), acked: new Set(acked) }),
  write: ({ durable, acked }) => `${[...acked].sort()} ${writeDurable(durable)}`,
  live: async ({ durable, acked }, life, onEffect) => {
    const store = createMemoryStore(durable);
    const client = createClient(batches, acked);
    const dies = (): boolean => {
      onEffect();
      return false;
    };
    const node = await startSimulatedNode({ store, ...script, shards, name: `node-${life}`, slow, dies });
    if (life > 0) client.reconnect();
    await node.run();
    client.offer(node, 0, batches.length);
    await node.run();
    for (const shard of node.lane.shards.values()) {
      expect(shard.watermark, `watermark of shard ${shard.id}`).toBe(shard.durableSeq);
      expect([shard.backlog.tasks, shard.recorded.results.size, shard.replies?.waiters ?? 0]).toEqual([0, 0, 0]);
    }
    return checkStore(store);
  },
});

test.each([null, "append", "flush", "deliver"] as const)(
  "each message changes its actor once, in order, and what it sends exists once, after a death at any effect (slow: %s)",
  async (slow) => {
    const found = new Set<string>();
    const { deaths } = await playDeaths(createPlay(slow), 1, (checked) => found.add(JSON.stringify(checked)));
    expect([...found]).toHaveLength(1);
    expect(deaths).toBeGreaterThan(100);
  },
  300_000,
);

async function start(store: MemoryStore, of: Partial<Parameters<typeof startSimulatedNode>[0]> = {}) {
  return startSimulatedNode({ store, ...script, shards, name: "node", dies: () => false, ...of });
}

/** Asks what a message came to, as its sender does. */
async function ask(node: SimulatedNode, key: string, seq: number, untilMs = 1e9) {
  const told: (MessageResult | StarlingError | null)[] = [];
  const shard = shardOf("entity", "@tally", key, shards);
  node.tell({ kind: "await-reply", shard, seq: toSeq(seq), untilMs, listener: (result) => told.push(result) });
  await node.next();
  return told;
}

test("a reply is told when it is durable, not before; later it is known from memory, then from the log", async () => {
  const store = createMemoryStore();
  const expected = { kind: "change", reply: '{"count":1,"key":"a"}' };
  const node = await start(store, { slow: "append" });
  await node.run();
  createClient([[message("a", 2002)]]).offer(node, 0, 1);
  const shard = node.lane.shards.get(shardOf("entity", "@tally", "a", shards));
  for (let steps = 0; steps < 100 && shard?.durableSeq !== 1; steps++) await node.next();
  const told = await ask(node, "a", 1);
  for (let steps = 0; steps < 100 && shard?.durableSeq === 1; steps++) {
    expect(told).toEqual([]);
    await node.next();
  }
  expect(shard?.durableSeq).toBeGreaterThan(1);
  await node.run();
  expect(told).toMatchObject([expected]);
  const again = await ask(node, "a", 1);
  await node.run();
  expect(again).toMatchObject([expected]);
  const second = await start(store, { name: "second" });
  await second.run();
  const late = await ask(second, "a", 1);
  await second.run();
  // The watermark had passed it: `reply-reader.ts` finds it in the log.
  expect(late).toEqual([null]);
});

test("a shard that leaves tells who waits that it moved, and one that waited too long is forgotten", async () => {
  const never = () => new Promise<never>(() => {});
  const node = await start(createMemoryStore(), { runHook: never });
  const at = { position: 0, shard: shardOf("entity", "@tally", "a", shards), channel: "c:x", number: 1, hash: "h" };
  const tasks = [taskFrom(message("a", 2002), null)];
  node.offer([{ kind: "part", ...at, predecessor: 0, tasks, rejections: [], bytes: 9 }], () => {});
  await node.run();
  const short = await ask(node, "a", 1, 2000);
  const long = await ask(node, "a", 1);
  node.elapse(3000);
  await node.run();
  const { shard } = at;
  expect(node.lane.shards.get(shard)?.replies?.waiters).toBe(1);
  node.tell({ kind: "give-up", shards: [shard], hookGraceMs: 50, reply: () => {} });
  await node.run();
  expect(short).toEqual([]);
  expect(long).toMatchObject([{ code: "MOVED" }]);
  const moved: unknown[] = await ask(node, "a", 1);
  await node.run();
  expect(moved).toMatchObject([{ code: "MOVED" }]);
});

test("a message that runs for long becomes an obligation; after a take-over it is received again and counts once", async () => {
  const store = createMemoryStore();
  const never = () => new Promise<never>(() => {});
  const slow = await start(store, { runHook: never });
  createClient([[message("a", 2002)], [message("a", 2004)]]).offer(slow, 0, 2);
  await slow.run();
  slow.elapse(6000);
  await slow.run();
  const shard = slow.lane.shards.get(shardOf("entity", "@tally", "a", shards));
  expect(store.shards.get(shard?.id ?? (0 as never))?.obligations.size).toBe(1);
  expect(shard?.watermark).toBe(shard?.durableSeq);
  for (const name of ["second", "third"]) {
    const node = await start(store, { name });
    await node.run();
    const stored = store.shards.get(shard?.id ?? (0 as never));
    expect(stored?.obligations.size).toBe(0);
    const [row] = await store.load([{ shard: shard?.id ?? (0 as never), type: "@tally", eid: "a" }]);
    expect(fieldsOf(row?.state ?? "{}").state?.v).toEqual({ seen: [2002, 2004] });
  }
});

test("the dead letter of a message is replayed as the message, once, and changes the state then", async () => {
  const store = createMemoryStore();
  const node = await start(store);
  createClient([[message("a", 2005)], [message("a", 2002)]]).offer(node, 0, 2);
  await node.run();
  const [letter] = await store.deadLetters({ after: "", limit: 9, status: "open" });
  if (letter === undefined) throw new Error("there is no dead letter");
  expect(letter).toMatchObject({ type: "@tally", eid: "a", kind: "hook", code: "HOOK_FAILED" });
  const mended = createScript(true);
  const second = await start(store, { name: "second", ...mended });
  await second.run();
  const tasks = await runLetter(letter, { ...mended, getRecord: async () => null });
  const said: unknown[] = [];
  second.tell({ kind: "replay-letter", letter, tasks, reply: (error) => said.push(error) });
  await second.run();
  expect(said).toEqual([null]);
  const [row] = await store.load([{ shard: letter.shard, type: "@tally", eid: "a" }]);
  expect(fieldsOf(row?.state ?? "{}").state?.v).toEqual({ seen: [2002, 2005] });
  const third = await start(store, { name: "third", ...mended });
  await third.run();
  expect(await store.deadLetters({ after: "", limit: 9, status: "open" })).toEqual([]);
});

test("messages that send each other on for ever end as a dead letter of the one that was too deep", async () => {
  const store = createMemoryStore();
  const { hooks, model } = script;
  const task = message(keys[0] ?? "", 1);
  const runHook = () =>
    ({ kind: "message", change: { kind: "change", state: "1", reply: "null" }, tasks: [task] }) as const;
  const node = await start(store, { hooks, model, runHook, limits: { chainMaxDepth: 3 } });
  createClient([[task]]).offer(node, 0, 1);
  await node.run();
  const letters = await store.deadLetters({ after: "", limit: 9, status: "open" });
  expect(letters).toMatchObject([{ code: "CHAIN_TOO_DEEP", type: "@tally" }]);
  const second = await start(store, { name: "second", hooks, model, runHook, limits: { chainMaxDepth: 3 } });
  await second.run();
  expect(await store.deadLetters({ after: "", limit: 9, status: "open" })).toHaveLength(1);
});

test("an outcome that PostgreSQL refuses is the message's failure, and its actor goes on", async () => {
  const memory = createMemoryStore();
  let refused = 0;
  const store: MemoryStore = {
    ...memory,
    append: async (node, request) => {
      if (!request.segments.some(({ body }) => body.includes('{"seen":[2002]}'))) return memory.append(node, request);
      refused++;
      throw new StarlingError("STORE_REFUSED", "no such text");
    },
  };
  const node = await start(store);
  createClient([[message("a", 2002)], [message("a", 2004)]]).offer(node, 0, 2);
  await node.run();
  expect(refused).toBeGreaterThan(0);
  const [row] = await memory.load([{ shard: shardOf("entity", "@tally", "a", shards), type: "@tally", eid: "a" }]);
  expect(fieldsOf(row?.state ?? "{}").state?.v).toEqual({ seen: [2004] });
  expect(await memory.deadLetters({ after: "", limit: 9, status: "open" })).toMatchObject([{ code: "STORE_REFUSED" }]);
});

test.each([null, "append", "deliver"] as const)(
  "shards that move after any effect, and back, change no message's once, order or reply (slow: %s)",
  async (slow) => {
    let count = 0;
    const play = async (onEffect: (world: HandOffWorld, now: number) => void): Promise<string> => {
      const world = await startWorld({ ...script, slow, onEffect });
      await world.rest();
      for (const [index, batch] of batches.entries()) world.send(batch, index + 1);
      // A slow `receive` takes some turns of the event loop, in which the world seems to rest.
      for (let turns = 0; turns < 10; turns++) await world.rest();
      expectQuiet(world);
      expect(world.acked).toHaveLength(batches.length);
      return JSON.stringify(await checkStore(world.store));
    };
    const expected = await play(() => void count++);
    expect(count).toBeGreaterThan(50);
    for (const set of [all.slice(0, 1), all]) {
      for (let at = 1; at <= count; at += 5) {
        const back = 3 + (at % 11) * 5;
        const found = await play((world, now) => {
          if (now === at) void world.move(set, 0);
          if (now === at + back) void world.move(set, 1);
        });
        expect(found, `${set} moved after effect ${at}, and back after ${back} more`).toBe(expected);
      }
    }
  },
  300_000,
);
