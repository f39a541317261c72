import { expect, test } from "vitest";
import { halve } from "../../../actors/lane/flush-shards.ts";
import type { Flush } from "../../../actors/lane/lane.ts";
import type { FlushRequest, Store } from "../../../actors/store/store.ts";
import type { HookTable } from "../../../modules/hook.ts";
import { type ShardId, shardId } from "../../../proto/ids.ts";
import { shardOf } from "../../../proto/shard-of.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { createMemoryStore, type MemoryStore } from "../../support/memory-store.ts";
import { type SimulatedNode, startSimulatedNode } from "../../support/simulated-node.ts";
import { fieldsOf } from "../../support/state-fields.ts";
import { createClient } from "./protocol-client.ts";
import { hook, hooks, model, runHook, shards, task } from "./protocol-script.ts";

/** Entities of `dst`, which have no hooks, in all shards; one of them has a state that PostgreSQL does not take. */
const names = Array.from({ length: 16 }, (_, i) => `n${i}`);
const guilty = "n3";
const home = shardOf("entity", "dst", guilty, shards);
const others = Array.from({ length: shards }, (_, index) => shardId("entity", index)).filter((id) => id !== home);
const batches = [1, 2, 3].map((v) => names.map((eid) => task("dst", eid, "late", v)));

/** A store that refuses each flush in which the guilty entity is, and what it was sent. */
function refusing(memory: MemoryStore) {
  const refused: FlushRequest[] = [];
  const flush: Store["flush"] = async (node, request) => {
    if (!request.entities.some(({ eid }) => eid === guilty)) return await memory.flush(node, request);
    refused.push(request);
    throw new StarlingError("STORE_REFUSED", "a value cannot be stored");
  };
  return { store: { ...memory, flush }, refused };
}

async function start(store: Store, name: string, slow: "flush" | null = null): Promise<SimulatedNode> {
  const limits = { flushMaxEntities: names.length };
  return await startSimulatedNode({ store, model, hooks, runHook, shards, name, limits, slow, dies: () => false });
}

/** What each entity's record says in the store. */
function written(memory: MemoryStore): Map<string, number> {
  const found = [...memory.shards.values()].flatMap(({ entities }) => [...entities.values()]);
  return new Map(found.map(({ eid, state }) => [eid, Number(fieldsOf(state).late?.v ?? state)]));
}

const isHome = (eid: string): boolean => shardOf("entity", "dst", eid, shards) === home;

test("a flush that PostgreSQL refuses is divided: the shard at fault is kept back, the others go on", async () => {
  const memory = createMemoryStore();
  const { store, refused } = refusing(memory);
  const node = await start(store, "node");
  const client = createClient(batches);
  for (let index = 0; index < batches.length; index++) {
    client.offer(node, index, index + 1);
    await node.run();
  }
  expect([...client.acked]).toEqual([0, 1, 2]);
  for (const id of others)
    expect(memory.shards.get(id)).toMatchObject({ watermark: node.lane.shards.get(id)?.lastSeq });
  expect(memory.shards.get(home)?.watermark).toBe(0);
  expect(written(memory)).toEqual(new Map(names.filter((eid) => !isHome(eid)).map((eid) => [eid, 3])));
  // Four shards, two, one: it is not tried again.
  expect(refused.map(({ fences }) => fences.length)).toEqual([4, 2, 1]);
  expect(node.lane.world.counters.counter("shards_kept_back").value).toBe(1);
  expect(node.lane.shards.get(home)?.keptBack?.error.code).toBe("STORE_REFUSED");
  expect([node.lane.dirtyEntities, node.lane.flush, node.lane.packed]).toEqual([0, null, null]);
});

test("its next owner does again what stands in its log", async () => {
  const memory = createMemoryStore();
  const node = await start(refusing(memory).store, "node");
  const client = createClient(batches);
  client.offer(node, 0, batches.length);
  await node.run();
  node.kill();
  const heir = await start(memory, "heir");
  await heir.run();
  expect(written(memory)).toEqual(new Map(names.map((eid) => [eid, batches.length])));
  for (const { id, lastSeq } of heir.lane.shards.values()) expect(memory.shards.get(id)?.watermark).toBe(lastSeq);
});

test("what was packed behind a refused flush goes without the shard at fault", async () => {
  const memory = createMemoryStore();
  const { store, refused } = refusing(memory);
  const node = await start(store, "node", "flush");
  // More than one flush takes: what is over makes a second one.
  Object.assign(node.lane.world, { limits: { ...node.lane.world.limits, flushMaxEntities: 8 } });
  const client = createClient(batches);
  client.offer(node, 0, 1);
  const goOn = async (until: () => boolean): Promise<void> => {
    while (!until()) if (!(await node.next())) throw new Error("it never comes to that");
  };
  await goOn(() => node.lane.flush !== null);
  client.offer(node, 1, 2);
  await goOn(() => node.lane.dirtyEntities === names.length && node.lane.commit === null);
  node.elapse(1000); // quiet: flushes do not rest
  await goOn(() => node.lane.packed !== null);
  expect(node.lane.packed?.request.fences.map(({ shard }) => shard)).toContain(home);
  await node.run();
  expect(refused.at(-1)?.fences.map(({ shard }) => shard)).toEqual([home]);
  expect(node.lane.world.counters.counter("shards_kept_back").value).toBe(1);
  expect(written(memory)).toEqual(new Map(names.filter((eid) => !isHome(eid)).map((eid) => [eid, 2])));
});

test.each(["before", "by"] as const)(
  "a shard that is kept back %s its hand-off leaves at once, without a fence",
  async (when) => {
    const memory = createMemoryStore();
    const node = await start(refusing(memory).store, "node");
    const client = createClient(batches);
    // Nobody waits for what becomes of it.
    client.offer({ ...node, offer: (parts) => node.offer(parts, () => {}) }, 0, batches.length);
    if (when === "before") await node.run();
    else while (node.lane.dirtyEntities < names.length) await node.next();
    const given = new Map<ShardId, boolean>();
    const reply = (shard: ShardId, fence: unknown): void => void given.set(shard, fence !== null);
    node.tell({ kind: "give-up", shards: [home, ...others], hookGraceMs: 50, reply });
    await node.run();
    expect(given).toEqual(new Map([home, ...others].map((id) => [id, id !== home])));
    expect(node.lane.shards.size).toBe(0);
    expect(written(memory)).toEqual(new Map(names.filter((eid) => !isHome(eid)).map((eid) => [eid, 3])));
  },
);

test("a gate goes on without the shard at fault", async () => {
  const memory = createMemoryStore();
  const table: HookTable = {
    ...hooks,
    onNewAttr: new Map([["dst", new Map([["late", [hook("on_new_attr", "dst", "late", "h")]]])]]),
  };
  const options = { model, hooks: table, shards, dies: () => false, limits: { flushMaxEntities: 1 } };
  const answer = () => ({ kind: "answer", tasks: [] }) as const;
  const first = await startSimulatedNode({
    ...options,
    store: memory,
    name: "first",
    runHook: () => new Promise(() => {}),
  });
  const client = createClient(batches);
  client.offer(first, 0, 2);
  await first.run();
  first.kill();
  const { store } = refusing(memory);
  const unfenced: ShardId[] = [];
  const flush: Store["flush"] = (node, request) => {
    const held = new Set(request.fences.map((fence) => fence.shard));
    for (const { shard } of request.attempts ?? []) if (!held.has(shard)) unfenced.push(shard);
    return store.flush(node, request);
  };
  const heir = await startSimulatedNode({ ...options, store: { ...store, flush }, name: "heir", runHook: answer });
  await heir.run();
  expect(unfenced, "marks that are written without the shard's fence (R22)").toEqual([]);
  expect(heir.lane.gate).toBeNull();
  for (const id of others) expect(memory.shards.get(id)?.watermark).toBe(heir.lane.shards.get(id)?.lastSeq);
  expect(heir.lane.shards.get(home)?.keptBack?.error.code).toBe("STORE_REFUSED");
});

test("a hand-off's flush that is divided leaves its marks to the shards that it writes (R17)", () => {
  const shard = (id: ShardId) => ({ shard: id, epoch: 1 });
  const mark = { from: 1, to: 2, deaths: 0 };
  const flush = (scope: "lane" | "leaving") => {
    const request = {
      ...{ fences: others.map(shard), entities: [], history: [], progress: [], refused: [], deadLetters: [] },
      attempts: others.map((id) => ({ shard: id, mark })),
    };
    return { request, scope, entities: [], progress: [], since: 0, startedAt: 0, attempts: 1 } as unknown as Flush;
  };
  const marked = (scope: "lane" | "leaving") =>
    halve(flush(scope))?.map(({ request }) => request.attempts?.map((attempt) => attempt.shard));
  expect(marked("leaving")).toEqual([others.slice(0, 2), others.slice(2)]);
  expect(marked("lane")).toEqual([undefined, undefined]);
});

test("what a shard that is kept back holds keeps nobody out who sends to the others of its lane", async () => {
  const memory = createMemoryStore();
  const node = await start(refusing(memory).store, "node");
  const limits = { ...node.lane.world.limits, backlogMaxBytes: 10_000 };
  Object.assign(node.lane.world, { limits });
  const client = createClient(Array.from({ length: 30 }, (_, v) => names.map((eid) => task("dst", eid, "late", v))));
  for (let index = 0; index < 30; index++) {
    // Raises what is refused, as BUSY is.
    const offer: SimulatedNode["offer"] = (parts, listener) =>
      node.offer(
        parts.map((part) => ({ ...part, bytes: 2_000 })),
        listener,
      );
    client.offer({ ...node, offer }, index, index + 1);
    await node.run();
  }
  expect(client.acked.size).toBe(30);
  expect(node.lane.shards.get(home)?.backlog.bytes).toBeGreaterThan(limits.backlogMaxBytes);
  expect(node.lane.backlogBytes).toBe(0);
  node.tell({ kind: "drop", shards: [home] });
  await expect(node.run()).rejects.toMatchObject({ code: "MOVED" });
  expect([node.lane.shards.has(home), node.lane.backlogBytes]).toEqual([false, 0]);
});
