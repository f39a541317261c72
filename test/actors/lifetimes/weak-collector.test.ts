import { beforeEach, expect, test } from "vitest";
import { createCounters } from "../../../actors/counters.ts";
import type { Part, PartListener } from "../../../actors/lane/part.ts";
import { type Collector, startCollector } from "../../../actors/lifetimes/collector.ts";
import { checkTask } from "../../../modules/check-task.ts";
import type { CheckedTask, DerivedTask } from "../../../modules/datapoint.ts";
import { type ShardId, shardId } from "../../../proto/ids.ts";
import { shardOf } from "../../../proto/shard-of.ts";
import { configModel } from "../../support/config-model.ts";
import { copyDurable, createMemoryDurable, type MemoryDurable, writeDurable } from "../../support/memory-durable.ts";
import { createMemoryStore, type MemoryStore } from "../../support/memory-store.ts";
import { type SimulatedNode, type SimulationOptions, startSimulatedNode } from "../../support/simulated-node.ts";
import { type DeathScript, playDeaths } from "../lane/protocol-deaths.ts";
import { hook, shards } from "../lane/protocol-script.ts";
import { inspectLinks, keepLinks, noHooks, partTask, sendCall } from "../links/links-script.ts";

/** Stops that live as long as something links to them, and depots by which buses learn where they stop. */
const model = configModel({
  bus: {
    stops: "plain set<link<stop>>",
    at: "observations link<stop>; history_params: {post_validity: 1h}",
  },
  depot: { sends: "plain string" },
  stop: { "#": "lifetime: {type: weak}", name: "plain string", next: "plain link<stop>" },
});
const hour = 3_600_000;
const start = 1_700_000_001_000;
const all = Array.from({ length: shards }, (_, index) => shardId("entity", index));

let store: MemoryStore;
let number = 0;

beforeEach(() => {
  store = createMemoryStore();
  number = 0;
});

function startNode(owns: readonly ShardId[], options: Partial<SimulationOptions> = {}): Promise<SimulatedNode> {
  const runHook = () => ({ kind: "answer", tasks: [] }) as const;
  const of = { store, model, hooks: noHooks, runHook, shards, name: `node-${owns.join("-")}`, owns };
  return startSimulatedNode({ ...of, dies: () => false, ...options });
}

interface Happenings {
  /** Each time that the collector waits, counted from 1. */
  readonly onWait?: (count: number) => Promise<void>;
  /** Before what it sends goes into the log. */
  readonly onSend?: () => Promise<void>;
}

/** A collector of what nodes own, while something happens. */
function collectorOf(nodes: readonly SimulatedNode[], { onWait, onSend }: Happenings = {}): Collector {
  const session = `collector-${++number}`;
  let waits = 0;
  let elapsedMs = 0;
  let sent = 0;
  return startCollector({
    lifetimes: store,
    calls: {
      send: async (split) => {
        await onSend?.();
        return sendCall(nodes, split({ channel: `c:${session}`, number: ++sent, homeShard: home }));
      },
    },
    model,
    shardOf: (type, eid) => shardOf("entity", type, eid, shards),
    shards: () => nodes.flatMap(({ lane }) => [...lane.shards.keys()]),
    next: null,
    clock: {
      now: () => elapsedMs,
      after: (ms, run) => {
        elapsedMs += ms;
        for (const node of nodes) node.elapse(ms);
        void Promise.resolve(onWait?.(++waits)).then(run);
        return () => {};
      },
      soon: (run) => run(),
    },
    wall: () => nodes[0]?.lane.world.now() ?? 0,
    counters: createCounters(),
    log: { info: () => {}, warn: () => {} },
  });
}

const taskOf = (type: string, eid: string, ...datapoints: NonNullable<DerivedTask["datapoints"]>): CheckedTask =>
  checkTask(model, { type, eid, datapoints });
const deletionOf = (type: string, eid: string) => checkTask(model, { type, eid, delete: true });
const stop = (eid: string) => taskOf("stop", eid, { attr: "name", v: eid });
const stopsAt = (bus: string, ...eids: string[]) =>
  taskOf("bus", bus, { attr: "stops", v: eids.map((eid) => ({ eid })) });

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

/** The task is acknowledged, and nothing of it is written. */
async function log(node: SimulatedNode, task: CheckedTask): Promise<void> {
  const isDurable = offer(node, task);
  while (!isDurable()) await node.next();
}

function stored(type: string): string[] {
  return [...store.shards.values()]
    .flatMap(({ entities }) => [...entities.values()])
    .flatMap((one) => (one.type === type && !one.tombstone ? [one.eid] : []))
    .sort();
}

const home = shardOf("entity", "stop", "s1", shards);
const depotShard = all.find((shard) => shard !== home) ?? home;
const otherShards = all.filter((shard) => shard !== home && shard !== depotShard);
const eidIn = (type: string, owned: readonly ShardId[]) =>
  Array.from({ length: 99 }, (_, index) => `${type}-${index}`).find((eid) =>
    owned.includes(shardOf("entity", type, eid, shards)),
  ) ?? "";

test("weak entities end to which nothing links, and no others (W1)", async () => {
  const node = await startNode(all);
  await take(node, ...["linked", "seen", "coming", "over", "alone", "child"].map(stop));
  await take(node, taskOf("stop", "itself", { attr: "next", v: { eid: "itself" } }));
  await take(node, taskOf("stop", "parent", { attr: "next", v: { eid: "child" } }));
  await take(node, stopsAt("b1", "linked"), stopsAt("b2", "linked"));
  const seen = (eid: string, t1: number) => taskOf("bus", "b1", { attr: "at", v: { eid }, t1, t2: t1 + 1 });
  await take(node, seen("seen", start - 0.5 * hour), seen("coming", start + 2 * hour), seen("over", start - 2 * hour));
  const collector = collectorOf([node]);
  expect(await collector.collect()).toBe(3);
  expect(stored("stop")).toEqual(["child", "coming", "itself", "linked", "seen"]);
  // A chain goes link by link.
  expect(await collector.collect()).toBe(1);
  await take(node, stopsAt("b1", "none"));
  expect(await collector.collect()).toBe(0);
  await take(node, deletionOf("bus", "b2"));
  node.elapse(hour);
  expect(await collector.collect()).toBe(2);
  expect(stored("stop")).toEqual(["coming", "itself"]);
});

test("who is linked to between the two looks stays (W1)", async () => {
  const node = await startNode(all);
  await take(node, stop("s1"), stop("s2"), stopsAt("b1", "s2"));
  const collector = collectorOf([node], {
    onWait: async (count) => {
      if (count === 1) await take(node, stopsAt("b1", "s1", "s2"));
    },
  });
  expect(await collector.collect()).toBe(0);
  expect(stored("stop")).toEqual(["s1", "s2"]);
});

test("a link that is acknowledged and not written is waited for (W2)", async () => {
  const sources = await startNode(all.filter((shard) => shard !== home));
  const targets = await startNode([home]);
  const bus = eidIn("bus", otherShards);
  await take(targets, stop("s1"));
  await log(sources, stopsAt(bus, "s1"));
  const waits: number[] = [];
  const collector = collectorOf([targets], {
    onWait: async (count) => {
      waits.push(count);
      if (count === 5) await sources.run();
    },
  });
  expect(await collector.collect()).toBe(0);
  expect(waits).toEqual([1, 2, 3, 4, 5]);
  expect(stored("stop")).toEqual(["s1"]);
  expect(inspectLinks(store)).toContain(`bus ${bus} stops → stop s1: plain`);
});

test("a shard that does not settle delays the end, and is named (W2)", async () => {
  const sources = await startNode(all.filter((shard) => shard !== home));
  const targets = await startNode([home]);
  const bus = eidIn("bus", otherShards);
  await take(targets, stop("s1"));
  await log(sources, stopsAt(bus));
  const shard = shardOf("entity", "bus", bus, shards);
  await expect(collectorOf([targets]).collect()).rejects.toThrow(`shard ${shard} has settled 0 of 1`);
  expect(stored("stop")).toEqual(["s1"]);
  await sources.run();
  expect(await collectorOf([targets]).collect()).toBe(1);
  expect(stored("stop")).toEqual([]);
});

test("a link that a hook has derived is waited for, wherever it is on its way (W2)", async () => {
  const [bus, depot] = [eidIn("bus", otherShards), eidIn("depot", [depotShard])];
  const held: [readonly Part[], PartListener][] = [];
  const targets = await startNode([home]);
  const sources = await startNode(otherShards);
  const depots = await startNode([depotShard], {
    hooks: {
      ...noHooks,
      onNewAttr: new Map([["depot", new Map([["sends", [hook("on_new_attr", "depot", "sends", "send")]]])]]),
    },
    runHook: () => ({ kind: "answer", tasks: [stopsAt(bus, "s1")] }),
    offer: (parts, listener) => {
      held.push([parts, listener]);
    },
  });
  await take(targets, stop("s1"));
  await take(depots, taskOf("depot", depot, { attr: "sends", v: "now" }));
  expect(held).toHaveLength(1);
  const collector = collectorOf([targets], {
    onWait: async (count) => {
      if (count === 4) {
        let told = false;
        for (const [parts, listener] of held) {
          sources.offer(parts, (news) => {
            told = true;
            listener(news);
          });
        }
        while (!told) await sources.next();
        expect(inspectLinks(store)).toEqual([]);
      }
      if (count === 6) await depots.run();
      if (count === 8) await sources.run();
    },
  });
  expect(await collector.collect()).toBe(0);
  expect(stored("stop")).toEqual(["s1"]);
});

test("who is written to meanwhile stays, and who was deleted and came back (W3)", async () => {
  const node = await startNode(all);
  await take(node, stop("s1"), stop("s2"), stop("s3"));
  const collector = collectorOf([node], {
    onWait: async (count) => {
      if (count > 1) return;
      await take(node, deletionOf("stop", "s1"));
      await take(node, stop("s1"), stop("s3"));
    },
  });
  expect(await collector.collect()).toBe(3);
  expect(stored("stop")).toEqual(["s1", "s3"]);
  expect(await collectorOf([node]).collect()).toBe(2);
  expect(stored("stop")).toEqual([]);
});

test("a source whose link crosses the end of its target forgets it, and one that is set later keeps it (W4)", async () => {
  const sources = await startNode(all.filter((shard) => shard !== home));
  const targets = await startNode([home]);
  const bus = eidIn("bus", otherShards);
  await take(targets, stop("s1"));
  const collector = collectorOf([targets], { onSend: () => log(sources, stopsAt(bus, "s1")) });
  expect(await collector.collect()).toBe(1);
  await sources.run();
  expect(stored("stop")).toEqual([]);
  expect(inspectLinks(store)).toContain(`bus ${bus} stops → stop s1: plain`);
  expect(await keepLinks(store, [targets, sources], "keeper", model)).toBe(0);
  expect(inspectLinks(store)).toEqual([]);
  await take(sources, stopsAt(bus, "s1"));
  expect(await keepLinks(store, [targets, sources], "keeper-again", model)).toBe(0);
  expect(inspectLinks(store)).toContain(`bus ${bus} stops → stop s1: plain`);
});

test("a node that dies after any single effect ends the same lives, and no others", async () => {
  const script: DeathScript<{ readonly durable: MemoryDurable; phase: number }, unknown> = {
    begin: () => ({ durable: createMemoryDurable(), phase: 0 }),
    copy: (world) => ({ durable: copyDurable(world.durable), phase: world.phase }),
    write: (world) => `${world.phase} ${writeDurable(world.durable)}`,
    live: async (world, life, onEffect) => {
      store = createMemoryStore(world.durable);
      const dies = (): boolean => {
        onEffect();
        return false;
      };
      const node = await startNode(all, { name: `life-${life}`, dies });
      await node.run();
      const collect = async () => {
        await collectorOf([node]).collect();
        await keepLinks(store, [node], `keeper-${++number}`, model);
      };
      const phases = [
        () => take(node, stop("s1"), stop("s2")),
        () => take(node, stopsAt("b1", "s1"), stop("s3")),
        collect,
        () => take(node, stopsAt("b1", "s3"), stop("s3")),
        collect,
      ];
      for (; world.phase < phases.length; world.phase++) {
        number = 1_000 * (life + 1) + 100 * world.phase;
        await phases[world.phase]?.();
      }
      return [stored("stop"), inspectLinks(store)];
    },
  };
  const { deaths } = await playDeaths(script, 2, (found, after) => {
    const links = ["bus b1 stops → stop s3: plain", "record: bus b1 stops → stop s3"];
    expect(found, `after deaths at ${after.join(", ")}`).toEqual([["s3"], links]);
  });
  expect(deaths).toBeGreaterThan(100);
});
