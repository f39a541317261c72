import { expect, test } from "vitest";
import { applyDatapoint, clearEntity, createEntity, type Entity } from "../../../actors/lane/entity.ts";
import { restoreEntity, writeState } from "../../../actors/lane/entity-state.ts";
import type { LaneLimits } from "../../../actors/lane/lane.ts";
import { step } from "../../../actors/lane/step.ts";
import type { CheckedDatapoint } from "../../../modules/datapoint.ts";
import { toSeq, toShardId } from "../../../proto/ids.ts";
import { createMemoryStore } from "../../support/memory-store.ts";
import { startSimulatedNode } from "../../support/simulated-node.ts";
import { testModel } from "../../support/test-model.ts";
import { createClient } from "./protocol-client.ts";
import { hooks, model, removal, runHook, shards, task } from "./protocol-script.ts";

/** Entities of `dst`, which have no hooks; each batch writes the next one, two seconds after the one before. */
const count = 12;
const batches = Array.from({ length: count }, (_, i) => [task("dst", `n${i}`, "late", 1_000_000 + i)]);

async function startWith(limits: Partial<LaneLimits>) {
  const store = createMemoryStore();
  const all = { flushMaxEntities: 1000, ...limits };
  const node = await startSimulatedNode({
    ...{ store, model, hooks, runHook, shards, name: "node", limits: all },
    dies: () => false,
  });
  const client = createClient(batches);
  for (let i = 0; i < count; i++) {
    client.offer(node, i, i + 1);
    await node.run();
    node.elapse(2000);
    await node.run();
  }
  const residents = (): Entity[] =>
    [...node.lane.shards.values()].flatMap(({ entities }) => entities.flatMap((ofType) => [...ofType.values()]));
  const eids = (): string[] =>
    residents()
      .map(({ eid }) => eid)
      .sort((a, b) => Number(a.slice(1)) - Number(b.slice(1)));
  const bytes = (): number => [...node.lane.shards.values()].reduce((sum, shard) => sum + shard.residentBytes, 0);
  return { node, store, residents, eids, bytes };
}

const newest = (n: number): string[] => Array.from({ length: n }, (_, i) => `n${count - n + i}`);

test("nothing leaves below the bounds, and the sum is that of the entities", async () => {
  const { eids, residents, bytes } = await startWith({});
  expect(eids()).toEqual(newest(count));
  expect(bytes()).toBe(residents().reduce((sum, entity) => sum + entity.bytes, 0));
});

test("each leaves when its own idle time is over, however long others of its shard stay", async () => {
  const { node, eids } = await startWith({});
  const { passivateAfterMs } = node.lane.world.limits;
  node.elapse(passivateAfterMs - 2000 * count);
  await node.run();
  const left: number[] = [];
  for (let i = 0; i < count; i++) {
    expect(eids()).toEqual(newest(eids().length));
    left.push(eids().length);
    node.elapse(2000);
    await node.run();
  }
  expect(left).toEqual(Array.from({ length: count }, (_, i) => count - 1 - i));
});

test("above the bound on bytes the longest unused leave, and no more of them than is needed", async () => {
  const { bytes } = await startWith({});
  const each = bytes() / count;
  const bounded = await startWith({ residentMaxBytes: 5.5 * each });
  expect(bounded.eids()).toEqual(newest(5));
  expect(bounded.bytes()).toBeLessThanOrEqual(5.5 * each);
});

test("above the bound on entities too", async () => {
  const { eids } = await startWith({ residentMaxEntities: 7 });
  expect(eids()).toEqual(newest(7));
});

test("of as old ones so many leave as are needed", async () => {
  const { node, residents, eids } = await startWith({});
  for (const entity of residents()) entity.usedAt = 0;
  Object.assign(node.lane.world, { limits: { ...node.lane.world.limits, residentMaxEntities: 9 } });
  step(node.lane, { kind: "sweep" });
  expect(eids()).toHaveLength(9);
});

test("what is dirty, open or waited for stays, however old and however far above the bound", async () => {
  const { node, residents, eids } = await startWith({});
  const [dirty, open, waited] = residents();
  if (dirty === undefined || open === undefined || waited === undefined) throw new Error("too few are resident");
  dirty.dirtySeq = toSeq(1);
  open.open = 1;
  waited.mailbox = [];
  Object.assign(node.lane.world, { limits: { ...node.lane.world.limits, residentMaxBytes: 1 } });
  node.elapse(2000);
  step(node.lane, { kind: "sweep" });
  expect(eids().sort()).toEqual([dirty.eid, open.eid, waited.eid].sort());
});

test("the estimate is zero again when everything has passivated, through loads, refusals and deletions", async () => {
  const { node, store, bytes } = await startWith({ residentMaxBytes: 2000 });
  const again = createClient([
    ...batches,
    [removal("dst", "n1")],
    [task("dst", "n1", "late", 7)],
    [task("src", "s5", "a", 1)],
  ]);
  again.reconnect();
  for (let i = 0; i < count + 3; i++) {
    again.offer(node, i, i + 1);
    await node.run();
    node.elapse(1500);
    await node.run();
  }
  expect(store.shards.size).toBeGreaterThan(1);
  expect(bytes()).toBeGreaterThan(0);
  node.elapse(61_000);
  await node.run();
  node.elapse(61_000);
  await node.run();
  for (const { residents, residentBytes } of node.lane.shards.values()) {
    expect({ residents, residentBytes }).toEqual({ residents: 0, residentBytes: 0 });
  }
});

const texts = testModel({ doc: { body: { kind: "plain", type: "string" }, n: { kind: "observations", type: "int" } } });

test("an entity's estimate follows the texts of its values, as they change, are stored, loaded and cleared", () => {
  const spec = texts.entities.get("doc");
  if (spec === undefined) throw new Error("no doc");
  const entity = createEntity(spec, "e", "e");
  const empty = entity.bytes;
  const apply = (attr: string, v: string | number): void => {
    const of = spec.attributes.get(attr);
    if (of === undefined) throw new Error(`no ${attr}`);
    const point: CheckedDatapoint = {
      ...{ spec: of, type: "doc", eid: "e", attr, v, json: JSON.stringify(v) },
      ...{ t1: null, t2: null, c: 1, src: null, line: null },
    };
    applyDatapoint(entity, point, toSeq(1), 1);
  };
  apply("body", "x".repeat(100));
  const small = entity.bytes;
  expect(small - empty).toBeGreaterThanOrEqual(102);
  apply("body", "x".repeat(700));
  expect(entity.bytes - small).toBe(600);
  apply("n", 7);
  expect(entity.bytes - small).toBe(600);
  const loaded = createEntity(spec, "e", "e");
  const stored = { shard: toShardId(1), type: "doc", eid: "e", created: toSeq(1), createdAt: 1, applied: toSeq(1) };
  restoreEntity(loaded, { ...stored, state: writeState(entity), tombstone: false });
  // Loaded values are cut out of the state, and hold it.
  expect(loaded.bytes - entity.bytes).toBeGreaterThan(20);
  expect(loaded.bytes - entity.bytes).toBeLessThan(writeState(entity).length);
  clearEntity(loaded);
  expect(loaded.bytes).toBe(empty);
});
