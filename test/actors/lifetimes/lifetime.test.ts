import { beforeEach, expect, test } from "vitest";
import { createCounters } from "../../../actors/counters.ts";
import { type Collector, startCollector } from "../../../actors/lifetimes/collector.ts";
import { checkTask } from "../../../modules/check-task.ts";
import type { DerivedTask } from "../../../modules/datapoint.ts";
import type { HookTable } from "../../../modules/hook.ts";
import { shardOf } from "../../../proto/shard-of.ts";
import { configModel } from "../../support/config-model.ts";
import { copyDurable, createMemoryDurable, type MemoryDurable, writeDurable } from "../../support/memory-durable.ts";
import { createMemoryStore, type MemoryStore } from "../../support/memory-store.ts";
import { type SimulatedNode, startSimulatedNode } from "../../support/simulated-node.ts";
import { type DeathScript, playDeaths } from "../lane/protocol-deaths.ts";
import { shards } from "../lane/protocol-script.ts";
import { partTask, sendCall } from "../links/links-script.ts";

const hour = 3_600_000;
const model = configModel({
  ip: {
    "#": "lifetime: {type: ttl, on_create: 1h}",
    name: "plain string",
    seen: "plain int; ttl: 2h",
    level: "observations int; ttl: 1h, history_params: {max_age: 3h}",
    short: "observations int",
  },
  host: { name: "plain string" },
});

const hooks: HookTable = {
  onTaskStart: [],
  allowEntityCreation: new Map(),
  onEntityCreation: new Map(),
  onNewAttr: new Map(),
};

let durable: MemoryDurable;
let store: MemoryStore;
let node: SimulatedNode;
let collector: Collector;
let now = 0;
let number = 0;
let behind: () => void;

async function start(name: string, onEffect: () => void = () => {}): Promise<void> {
  const runHook = () => ({ kind: "answer", tasks: [] }) as const;
  const dies = (): boolean => {
    onEffect();
    return false;
  };
  store = createMemoryStore(durable);
  node = await startSimulatedNode({ store, model, hooks, runHook, shards, name, dies });
  await node.run();
  const session = name;
  let calls = 0;
  collector = startCollector({
    lifetimes: store,
    calls: {
      send: (split) => {
        const sent = sendCall(
          [node],
          split({ channel: `c:${session}`, number: ++calls, homeShard: shardOf("entity", "", "", 1) }),
        );
        // What is offered here stands behind it in the log.
        behind();
        return sent;
      },
    },
    model,
    shardOf: (type, eid) => shardOf("entity", type, eid, shards),
    shards: () => [...node.lane.shards.keys()],
    next: null,
    clock: { now: () => 0, after: () => () => {}, soon: (run) => run() },
    wall: () => node.lane.world.now(),
    counters: createCounters(),
    log: { info: () => {}, warn: () => {} },
  });
}

beforeEach(async () => {
  durable = createMemoryDurable();
  number = 0;
  behind = () => {};
  await start("first");
  now = node.lane.world.now();
});

function offer(type: string, eid: string, task: Omit<DerivedTask, "type" | "eid">): void {
  const shard = shardOf("entity", type, eid, shards);
  const at = { position: 0, shard, channel: `c:test-${++number}`, number: 1, predecessor: null, hash: `${number}` };
  const tasks = [partTask(checkTask(model, { type, eid, ...task }))];
  node.offer([{ kind: "part", ...at, tasks, rejections: [], bytes: 100 }], () => {});
}

async function take(...task: Parameters<typeof offer>): Promise<void> {
  offer(...task);
  await node.run();
}

/** What is stored, and until when each lives: hours after the beginning. */
function stored(): Record<string, Record<string, number>> {
  const all = [...durable.shards.values()].flatMap(({ entities }) => [...entities.values()]);
  return Object.fromEntries(
    all
      .filter(({ tombstone }) => !tombstone)
      .map(({ eid, state }): [string, Record<string, number>] => {
        const tokens = (JSON.parse(state) as { "#ttl"?: Record<string, number> })["#ttl"] ?? {};
        return [eid, Object.fromEntries(Object.entries(tokens).map(([name, at]) => [name, hoursAfter(at)]))];
      })
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
}

const hoursAfter = (at: number) => Math.round((10 * (at - now)) / hour) / 10;
const looks = () => [...durable.shards.values()].flatMap((shard) => [...shard.looks.values()]);
const value = (attr: string, v: number | string, hours?: number) => ({
  datapoints: [{ attr, v, ...(hours === undefined ? {} : { t1: now, t2: now + hours * hour }) }],
});

test("tokens are what creation, datapoints and callers say, each the latest that it ever was", async () => {
  await take("ip", "a", value("name", "x"));
  await take("ip", "b", value("seen", 1));
  await take("ip", "c", value("level", 1, 2));
  await take("ip", "c", value("level", 1, 1));
  await take("ip", "d", value("short", 1, 2));
  await take("ip", "e", { ttlTokens: { mine: now + 5 * hour } });
  await take("host", "h", value("name", "x"));
  expect(stored()).toEqual({
    a: { base: 1 },
    b: { base: 1, data: 2 },
    c: { base: 1, data: 5 },
    d: { base: 1 },
    e: { base: 1, mine: 5 },
    h: {},
  });
  expect(
    looks()
      .map(({ eid }) => eid)
      .sort(),
  ).toEqual(["a", "b", "c", "d", "e"]);
});

test("who has outlived all its tokens is deleted, nobody else, and is asked no more (L1, L2)", async () => {
  await take("ip", "a", value("name", "x"));
  await take("ip", "b", value("seen", 1));
  await take("host", "h", value("name", "x"));
  expect(await collector.collect()).toBe(0);
  node.elapse(1.5 * hour);
  expect(await collector.collect()).toBe(1);
  expect(stored()).toEqual({ b: { base: 1, data: 2 }, h: {} });
  node.elapse(hour);
  expect(await collector.collect()).toBe(1);
  expect(stored()).toEqual({ h: {} });
  expect(looks()).toEqual([]);
  expect(await collector.collect()).toBe(0);
});

test("what extends a life in memory alone counts, and says when to look next (L1, L2; reference 15.1, number 9)", async () => {
  await take("ip", "a", value("name", "x"));
  node.elapse(0.9 * hour);
  await take("ip", "a", value("seen", 1));
  node.elapse(0.2 * hour);
  expect(looks().map(({ at }) => hoursAfter(at))).toEqual([1]);
  // Logged before the collector asks, and in no flush.
  offer("ip", "a", { ttlTokens: { mine: now + 4 * hour } });
  expect(await collector.collect()).toBe(1);
  expect(stored()).toEqual({ a: { data: 2.9, mine: 4 } });
  expect(looks().map(({ at }) => hoursAfter(at))).toEqual([4]);
  node.elapse(2 * hour);
  expect(await collector.collect()).toBe(0);
});

test("what comes behind the end of a life, and is in no flush, begins the next one (L1; reference 15.1, number 9)", async () => {
  await take("ip", "a", value("name", "old"));
  node.elapse(1.5 * hour);
  behind = () => offer("ip", "a", value("seen", 7));
  expect(await collector.collect()).toBe(1);
  expect(stored()).toEqual({ a: { base: 2.5, data: 3.5 } });
  const [{ state = "" } = {}] = [...durable.shards.values()].flatMap(({ entities }) => [...entities.values()]);
  expect(Object.keys(JSON.parse(state) as object)).toEqual(["seen", "#ttl"]);
});

test("a node that dies after any single effect ends the same lives, and no others", async () => {
  const script: DeathScript<{ readonly durable: MemoryDurable; phase: number }, unknown> = {
    begin: () => ({ durable: createMemoryDurable(), phase: 0 }),
    copy: (world) => ({ durable: copyDurable(world.durable), phase: world.phase }),
    write: (world) => `${world.phase} ${writeDurable(world.durable)}`,
    live: async (world, life, onEffect) => {
      durable = world.durable;
      await start(`life-${life}`, onEffect);
      const phases = [
        () => take("ip", "a", value("name", "old")),
        () => take("ip", "b", value("seen", 1)),
        () => collectAt(1.5),
        () => take("ip", "a", value("seen", 2)),
        () => collectAt(2.2),
      ];
      for (; world.phase < phases.length; world.phase++) {
        number = 1_000 * life + 10 * world.phase;
        await phases[world.phase]?.();
      }
      const records = [...durable.shards.values()].flatMap(({ entities }) => [...entities.values()]);
      return records
        .filter(({ tombstone }) => !tombstone)
        .map(({ eid, state }) => `${eid} ${Object.keys(JSON.parse(state) as object)}`);
    },
  };
  /** Clocks of later lives begin anew, so that what is said of hours is about those of the first. */
  const collectAt = async (hours: number): Promise<void> => {
    const behind = now + hours * hour - node.lane.world.now();
    if (behind > 0) node.elapse(behind);
    await collector.collect();
  };
  const { deaths } = await playDeaths(script, 2, (found, after) => {
    expect(found, `after deaths at ${after.join(", ")}`).toEqual(["a seen,#ttl"]);
  });
  expect(deaths).toBeGreaterThan(100);
});
