import { beforeEach, expect, test } from "vitest";
import type { CheckedTask } from "../../../modules/datapoint.ts";
import { type ShardId, shardId } from "../../../proto/ids.ts";
import { shardOf } from "../../../proto/shard-of.ts";
import { createMemoryStore, type MemoryStore } from "../../support/memory-store.ts";
import { type SimulatedNode, startSimulatedNode } from "../../support/simulated-node.ts";
import { shards } from "../lane/protocol-script.ts";
import { deletionOf, inspectLinks, keepLinks, model, noHooks, partTask, taskOf } from "./links-script.ts";

/** Sources on one node, what they link to on another: one is behind where the other is not. */
let store: MemoryStore;
let sources: SimulatedNode;
let targets: SimulatedNode;
let number = 0;

const dead = "s1";
const home = shardOf("entity", "stop", dead, shards);
const all = Array.from({ length: shards }, (_, index) => shardId("entity", index));
/** Buses that live elsewhere than the stop. */
const [b1 = "", b2 = "", b3 = ""] = Array.from({ length: 50 }, (_, index) => `b${index}`).filter(
  (eid) => shardOf("entity", "bus", eid, shards) !== home,
);

beforeEach(async () => {
  store = createMemoryStore();
  number = 0;
  const start = (name: string, owns: readonly ShardId[]) => {
    const runHook = () => ({ kind: "answer", tasks: [] }) as const;
    return startSimulatedNode({ store, model, hooks: noHooks, runHook, shards, name, owns, dies: () => false });
  };
  sources = await start(
    "sources",
    all.filter((shard) => shard !== home),
  );
  targets = await start("targets", [home]);
});

/** Offers a task; says whether it is durable. */
function offer(node: SimulatedNode, task: CheckedTask): () => boolean {
  let status: "offered" | "durable" = "offered";
  const shard = shardOf("entity", task.entity.id, task.eid, shards);
  const at = { position: 0, shard, channel: `c:${++number}`, number: 1, predecessor: null, hash: `${number}` };
  node.offer([{ kind: "part", ...at, tasks: [partTask(task)], rejections: [], bytes: 100 }], (news) => {
    for (const { kind } of news) if (kind === "durable") status = "durable";
  });
  return () => status === "durable";
}

async function take(node: SimulatedNode, ...tasks: CheckedTask[]): Promise<void> {
  for (const task of tasks) offer(node, task);
  await node.run();
}

const line = (eid: string) => taskOf("bus", eid, { attr: "stops", v: [{ eid: dead }, { eid: "s2" }] });
const seen = (eid: string, t1: number) => taskOf("bus", eid, { attr: "at", v: { eid: dead }, t1 });
const dies = () => take(targets, taskOf("stop", dead, { attr: "name", v: "One" }), deletionOf("stop", dead));

test("a link that was not written when its target was deleted is found later, and forgotten (N1)", async () => {
  await take(sources, line(b1));
  const isDurable = offer(sources, line(b2));
  while (!isDurable()) await sources.next();
  await dies();
  expect(inspectLinks(store)).not.toContain(`bus ${b2} stops → stop ${dead}: plain`);
  expect(await keepLinks(store, [targets])).toBe(1);
  await sources.run();
  expect(inspectLinks(store)).toContain(`bus ${b2} stops → stop ${dead}: plain`);
  expect(await keepLinks(store, [targets, sources])).toBe(0);
  expect(inspectLinks(store).sort()).toEqual([
    `bus ${b1} stops → stop s2: plain`,
    `bus ${b2} stops → stop s2: plain`,
    `record: bus ${b1} stops → stop s2`,
    `record: bus ${b2} stops → stop s2`,
  ]);
});

test("what is set after the deletion stays, though it is what was there before (N2)", async () => {
  await take(sources, line(b1), line(b2), seen(b1, 5_000), seen(b3, 5_000));
  await dies();
  sources.elapse(1);
  await take(sources, line(b1), seen(b3, 7_000));
  expect(await keepLinks(store, [targets, sources])).toBe(0);
  expect(inspectLinks(store)).toEqual(
    [
      `bus ${b1} stops → stop ${dead}: plain`,
      `bus ${b1} stops → stop s2: plain`,
      `bus ${b2} stops → stop s2: plain`,
      `bus ${b3} at → stop ${dead}: 5000–5000, 7000–7000`,
      `record: bus ${b1} stops → stop ${dead}`,
      `record: bus ${b1} stops → stop s2`,
      `record: bus ${b2} stops → stop s2`,
    ].sort(),
  );
});

test("what is observed after the deletion stays, though it was observed before (N2)", async () => {
  await take(sources, seen(b3, 5_000));
  await dies();
  sources.elapse(1);
  await take(sources, seen(b3, 5_000));
  expect(await keepLinks(store, [targets, sources])).toBe(0);
  expect(inspectLinks(store)).toEqual([`bus ${b3} at → stop ${dead}: 5000–5000`]);
});

test("an obituary is news only once it can be read", async () => {
  await take(targets, taskOf("stop", dead, { attr: "name", v: "One" }));
  offer(targets, deletionOf("stop", dead));
  const written = () => targets.lane.world.counters.read().obituaries_written ?? 0;
  while (written() === 0 && (await targets.next()));
  expect(await store.obituaries(all, 9)).toHaveLength(1);
});

test("who told sources, and could not bury the obituary, leaves it to the next one (N3)", async () => {
  await take(sources, line(b1));
  await dies();
  const lost = { ...store, bury: () => Promise.reject(new Error("the answer was lost")) };
  await expect(keepLinks(lost, [targets, sources])).rejects.toThrow("the answer was lost");
  const told = inspectLinks(store);
  expect(told).toContainEqual(expect.stringContaining("not buried"));
  expect(told).not.toContain(`bus ${b1} stops → stop ${dead}: plain`);
  sources.elapse(1);
  await take(sources, line(b1));
  expect(await keepLinks(store, [targets, sources], "again")).toBe(0);
  expect(inspectLinks(store)).toContain(`bus ${b1} stops → stop ${dead}: plain`);
});

test("an entity may have more sources than are told at once, and all are told (N3)", async () => {
  const buses = Array.from({ length: 900 }, (_, index) => `many-${index}`);
  const isHome = (eid: string) => shardOf("entity", "bus", eid, shards) === home;
  await take(targets, ...buses.filter(isHome).map(line));
  await take(sources, ...buses.filter((eid) => !isHome(eid)).map(line));
  await dies();
  expect(await keepLinks(store, [targets, sources])).toBe(0);
  expect(inspectLinks(store).filter((found) => found.includes(` ${dead}`))).toEqual([]);
  expect(inspectLinks(store)).toHaveLength(2 * buses.length);
});
