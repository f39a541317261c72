import { expect, test } from "vitest";
import type { FlushRequest } from "../../../actors/store/store.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { createMemoryStore } from "../../support/memory-store.ts";
import { type SimulatedNode, startSimulatedNode } from "../../support/simulated-node.ts";
import { createClient } from "./protocol-client.ts";
import { hooks, model, runHook, shards, task } from "./protocol-script.ts";

/** Entities of `dst`, which have no hooks: all of them change once, then once more. */
const count = 12;
const batches = [1, 2].map((v) => Array.from({ length: count }, (_, i) => task("dst", `n${i}`, "late", v)));

/** A node with a slow store, up to the moment when a flush is packed behind another one. `failures`: of the first flush. */
async function startBehind(failures = 0) {
  const sent: FlushRequest[] = [];
  const store = createMemoryStore();
  const { flush } = store;
  let left = failures;
  Object.assign(store, {
    flush: async (...[node, request]: Parameters<typeof flush>) => {
      sent.push(request);
      if (left-- > 0) throw new StarlingError("STORE", "the connection was reset");
      return await flush(node, request);
    },
  });
  const node = await startSimulatedNode({
    ...{ store, model, hooks, runHook, shards, name: "node", limits: { flushMaxEntities: 8 }, slow: "flush" },
    dies: () => false,
  });
  const client = createClient(batches);
  // Nobody waits for what becomes of it.
  const deaf: SimulatedNode = { ...node, offer: (parts) => node.offer(parts, () => {}) };
  client.offer(deaf, 0, 1);
  await goOn(node, ({ lane }) => lane.flush !== null);
  client.offer(deaf, 1, 2);
  await goOn(node, ({ lane }) => lane.dirtyEntities === count && lane.commit === null);
  node.elapse(1000); // quiet: flushes do not rest
  await goOn(node, ({ lane }) => lane.packed !== null);
  const { flush: first, packed } = node.lane;
  if (first === null || packed === null) throw new Error("nothing is packed");
  return { node, store, sent, first, packed };
}

async function goOn(node: SimulatedNode, until: (node: SimulatedNode) => boolean): Promise<void> {
  while (!until(node)) if (!(await node.next())) throw new Error("it never comes to that");
}

const orders = (sent: readonly FlushRequest[]) => sent.map(({ order }) => order?.number);

test("a flush is packed while one is in PostgreSQL, and sent when that is durable", async () => {
  const { node, sent, packed } = await startBehind();
  expect(sent).toEqual([]);
  await goOn(node, ({ lane }) => lane.flush?.entities === packed.entities);
  expect(orders(sent)).toEqual([1]);
  await node.run();
  expect(orders(sent)).toEqual(sent.map((_, index) => index + 1));
  expect(sent[1]?.entities).toBe(packed.request.entities);
  const values = sent.flatMap(({ entities }) => entities.map(({ eid }) => eid));
  expect(new Set(values).size).toBe(count);
  for (const shard of node.lane.shards.values()) expect([shard.watermark, shard.dirty]).toEqual([shard.lastSeq, []]);
});

test("a flush is packed when the one before it has gone off", async () => {
  const limits = { flushMaxEntities: 5 };
  const store = createMemoryStore();
  const node = await startSimulatedNode({
    ...{ store, model, hooks, runHook, shards, name: "node", limits, slow: "flush" },
    dies: () => false,
  });
  createClient(batches).offer({ ...node, offer: (parts) => node.offer(parts, () => {}) }, 0, 1);
  await goOn(node, ({ lane }) => lane.dirtyEntities === count && lane.commit === null);
  node.elapse(1000);
  await goOn(node, ({ lane }) => lane.packed !== null);
  const { flush, now } = node.lane;
  expect(now - (flush?.startedAt ?? now)).toBeGreaterThanOrEqual(8);
});

test("a flush has room for so many bytes, and always for one entity", async () => {
  const flushed = async (flushMaxBytes: number) => {
    const sent: FlushRequest[] = [];
    const store = createMemoryStore();
    const { flush } = store;
    Object.assign(store, {
      flush: (...[node, request]: Parameters<typeof flush>) => {
        sent.push(request);
        return flush(node, request);
      },
    });
    const limits = { flushMaxEntities: 100, flushMaxBytes };
    const node = await startSimulatedNode({
      ...{ store, model, hooks, runHook, shards, name: "node", limits },
      dies: () => false,
    });
    createClient(batches).offer({ ...node, offer: (parts) => node.offer(parts, () => {}) }, 0, 1);
    await node.run();
    expect(sent.flatMap(({ entities }) => entities.map(({ eid }) => eid)).sort()).toEqual(
      batches[0]?.map(({ eid }) => eid).sort(),
    );
    for (const shard of node.lane.shards.values()) expect([shard.watermark, shard.dirty]).toEqual([shard.lastSeq, []]);
    const [entity] = [...node.lane.shards.values()].flatMap(({ entities }) =>
      entities.flatMap((of) => [...of.values()]),
    );
    return { counts: sent.flatMap(({ entities }) => entities.length || []), bytes: entity?.bytes ?? 0 };
  };
  const { counts, bytes } = await flushed(1e9);
  expect(counts).toEqual([count]);
  // Two thirds of the second of each pair fit in: it is the last one.
  expect((await flushed(1.3 * bytes)).counts).toEqual(Array(count / 2).fill(2));
  expect((await flushed(1)).counts).toEqual(Array(count).fill(1));
});

test("a flush that fails is sent again before the one behind it", async () => {
  const { node, sent } = await startBehind(3);
  await node.run();
  expect(orders(sent).slice(0, 5)).toEqual([1, 1, 1, 1, 2]);
});

test("what an entity became meanwhile counts as written with the second flush only", async () => {
  const { node, first, packed } = await startBehind();
  const again = new Set(packed.entities.map(({ entity }) => entity));
  const both = first.entities.filter(({ entity }) => again.has(entity));
  expect(both.length).toBeGreaterThan(0);
  await goOn(node, ({ lane }) => lane.flush?.entities === packed.entities);
  for (const { entity, applied } of both) expect([entity.flushed, entity.applied > applied]).toEqual([applied, true]);
  await node.run();
  for (const { entity } of both) expect(entity.flushed).toBe(entity.applied);
});

test("a shard that is lost leaves what is packed: the flush before may have gone without it", async () => {
  const { node, sent, packed } = await startBehind();
  const [lost] = packed.request.fences;
  if (lost === undefined || packed.request.fences.length < 2) throw new Error("one shard alone is packed");
  node.tell({ kind: "drop", shards: [lost.shard] });
  await node.run();
  const [, second] = sent;
  expect(second?.fences).toEqual(packed.request.fences.slice(1));
  const written = [...(second?.entities ?? []), ...(second?.history ?? []), ...(second?.progress ?? [])];
  expect(written.length).toBeGreaterThan(0);
  expect(written.filter(({ shard }) => shard === lost.shard)).toEqual([]);
});

test("nothing is packed for a lane whose shards leave", async () => {
  const { node } = await startBehind();
  const left: number[] = [];
  const ids = [...node.lane.shards.keys()];
  node.tell({ kind: "give-up", shards: ids, hookGraceMs: 50, reply: (shard) => left.push(shard) });
  while (await node.next())
    if (node.lane.leaving.size > 0 && node.lane.flush?.scope === "leaving") expect(node.lane.packed).toBeNull();
  expect(left.sort()).toEqual(ids.sort());
});
