import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Counters, createCounters } from "../../../actors/counters.ts";
import type { Engine } from "../../../actors/engine.ts";
import { createHookRunner, hookRunnerLimits } from "../../../actors/hooks/hook-runner.ts";
import type { Part } from "../../../actors/lane/part.ts";
import type { LocalEngine } from "../../../actors/local-engine.ts";
import { createMessenger } from "../../../actors/messenger.ts";
import { createNextDeadline } from "../../../actors/schedules/schedule-cron.ts";
import { planDue, type ScheduleDriver, startScheduleDriver } from "../../../actors/schedules/schedule-driver.ts";
import { CallSession, defaultCallLimits } from "../../../actors/sessions/call-session.ts";
import { startLocalEngine } from "../../../actors/start-local-engine.ts";
import type { MessageContext } from "../../../modules/behaviour.ts";
import { modelWithBehaviours } from "../../../modules/behaviour-model.ts";
import { createRegistrar } from "../../../modules/registrar.ts";
import { type CatchUp, type ScheduleOptions, type ScheduleRun, scheduleBehaviour } from "../../../modules/schedule.ts";
import { type ShardId, shardId, toNodeId } from "../../../proto/ids.ts";
import { createManualClock, type ManualClock } from "../../support/manual-clock.ts";
import { createMemoryStore, type MemoryStore } from "../../support/memory-store.ts";
import { simulationLimits } from "../../support/simulated-node.ts";
import { testModel } from "../../support/test-model.ts";

const counts = { entityShards: 2, systemShards: 1 };
const all = [shardId("entity", 0), shardId("entity", 1), shardId("system", 0)];
const system = shardId("system", 0);
const epoch = Date.parse("2026-01-01T00:00:00Z");
const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const plain = testModel({ log: { ran: { kind: "observations", type: "int64" } } });

let clock: ManualClock;
let store: MemoryStore;
let sessions = 0;
/** By how much the wall clock is wrong. */
let wrongMs = 0;
const nodes: TestNode[] = [];

beforeEach(() => {
  clock = createManualClock();
  store = createMemoryStore();
  wrongMs = 0;
});

afterEach(async () => {
  for (const node of nodes.splice(0)) await node.stop();
  expect(clock.timers, "timers that outlive their node").toBe(0);
});

interface TestNode {
  readonly local: LocalEngine;
  readonly ran: number[];
  readonly counters: Counters;
  /** What its driver warned of. */
  readonly warned: Readonly<Record<string, unknown>>[];
  readonly driver: ScheduleDriver;
  /** Whether it has lately read what it owns. */
  fresh: boolean;
  /** Takes shards that nobody has. */
  own(shards: readonly ShardId[]): Promise<void>;
  stop(): Promise<void>;
}

/** Time goes on until something has come to its end. */
async function settle<T>(work: Promise<T>): Promise<T> {
  const state: { status: "open" | "done" } = { status: "open" };
  const done = work.finally(() => {
    state.status = "done";
  });
  done.catch(() => {});
  for (let i = 0; i < 400 && state.status === "open"; i++) await clock.advance(5);
  return done;
}

const wall = (): number => epoch + clock.now() + wrongMs;

async function start(
  options: ScheduleOptions,
  owns: readonly ShardId[],
  onRun: (run: ScheduleRun) => void = () => {},
): Promise<TestNode> {
  const ran: number[] = [];
  const warned: Readonly<Record<string, unknown>>[] = [];
  const registrar = createRegistrar(plain, { concurrency: 4, timeoutMs: 10_000, retries: 0 });
  registrar
    .forModule("test", log, () => ({}))
    .schedulerRegister(
      (run) => {
        onRun(run);
        ran.push(run.scheduled);
        if (options.where !== "cluster") return undefined;
        return [{ type: "log", eid: "x", datapoints: [{ attr: "ran", v: run.scheduled, t1: run.scheduled }] }];
      },
      "* * * * *",
      { ...options, name: "minutely" },
    );
  const hooks = registrar.hookTable();
  const model = modelWithBehaviours(plain, registrar.behaviours);
  const counters = createCounters();
  const runner = createHookRunner({
    ...{ hooks, model, limits: hookRunnerLimits, clock, random: () => 0, counters, log: () => log },
    getRecord: async () => null,
  });
  const identity = { id: toNodeId(`node-${nodes.length}`) };
  const offer: Engine["offer"] = (parts, listener) => {
    for (const part of parts) ownerOf(part).offer([part], listener);
  };
  const local = startLocalEngine({
    ...{ identity, store, queries: store, model, hooks, ...counts, lanes: 1, databases: 1, counters, clock, wall, log },
    ...{ runHook: runner.run, abandon: runner.abandon, offer, limits: simulationLimits, newSessionId },
  });
  const engine = { ...local, ...counts, offer, reply: () => Promise.reject(new Error("nobody asks")) };
  const calls = new CallSession({ engine: engine as unknown as Engine, clock, ...defaultCallLimits });
  const messenger = createMessenger({ engine, calls, model, clock });
  const node: TestNode = {
    ...{ local, ran, counters, warned, fresh: true },
    own: async (shards) => settle(local.own(await store.acquire(identity.id, shards))),
    get driver() {
      return driver;
    },
    stop: async () => {
      await settle(driver.close());
      await settle(calls.close(100));
      const fences = await settle(local.close());
      await store.release(fences, identity.id);
      runner.close();
    },
  };
  nodes.push(node);
  await node.own(owns);
  const driver = startScheduleDriver({
    ...{ scheduled: registrar.scheduled, engine, messenger, clock, wall, counters },
    log: () => ({ ...log, warn: (fields) => void warned.push({ ...fields }) }),
    owns: (shard) => node.fresh && local.owns(shard),
  });
  return node;
}

const newSessionId = (): string => `s${sessions++}`;

function ownerOf({ shard }: Part): LocalEngine {
  const owner = nodes.find(({ local }) => local.owns(shard)) ?? nodes[0];
  if (owner === undefined) throw new Error("there is no node");
  return owner.local;
}

const minutes = (...of: number[]): number[] => of.map((minute) => epoch + 60_000 * minute);
const cluster = (catchUp: CatchUp): ScheduleOptions => ({ where: "cluster", catchUp });

async function pass(ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 500) await clock.advance(500);
}

/** What the store says was run: once each. */
async function recorded(): Promise<number[]> {
  const rows = [...store.shards.values()].flatMap(({ log: segments }) => segments);
  return rows
    .flatMap(({ body }) => body.split("\n"))
    .map((line) => line.split("\t"))
    .filter(([kind, type]) => kind === "d" && type === "log")
    .map((fields) => Number(fields.at(-1)))
    .sort((a, b) => a - b);
}

describe("a schedule of the cluster", () => {
  test("runs at each deadline from its first start on, and what it returns is recorded", async () => {
    const node = await start(cluster("skip"), all);
    await pass(3 * 60_000 + 5000);
    expect(node.ran).toEqual(minutes(1, 2, 3));
    expect(await recorded()).toEqual(minutes(1, 2, 3));
  });

  test("begins once, however late the first telling takes effect: no deadline behind it is passed over", async () => {
    const node = await start(cluster("all"), all);
    await pass(2_000);
    // A telling that was sent twice, or by a node that had not read of the first one.
    const late = { state: { last: epoch + 60_000 } };
    const told = { kind: "begin", deadlines: [], upTo: epoch + 240_000 };
    const { receive } = scheduleBehaviour("schedule/test/minutely", () => []);
    expect(await receive(late.state, told, {} as MessageContext)).toEqual({});
    expect(await receive(null, told, {} as MessageContext)).toMatchObject({
      state: { last: epoch + 240_000 },
      sends: [],
    });
    await pass(3 * 60_000);
    expect(node.ran).toEqual(minutes(1, 2, 3));
  });

  test.each<[CatchUp, number[]]>([
    ["skip", minutes(1, 8)],
    ["once", minutes(1, 7, 8)],
    ["all", minutes(1, 2, 3, 4, 5, 6, 7, 8)],
  ])("after a downtime catches up by its policy: %s", async (catchUp, expected) => {
    const first = await start(cluster(catchUp), all);
    await pass(80_000);
    await first.stop();
    nodes.splice(0);
    await clock.advance(6 * 60_000);
    await start(cluster(catchUp), all);
    await pass(60_000);
    expect(await recorded()).toEqual(expected);
  });

  test("goes on at the next owner when its shard moves just before, at and just after a deadline", async () => {
    for (const beforeMs of [30, 0, -30]) {
      nodes.splice(0);
      store = createMemoryStore();
      const from = Math.ceil(wall() / 60_000) * 60_000;
      await clock.advance(from - wall());
      const one = await start(cluster("skip"), all);
      const two = await start(cluster("skip"), []);
      await clock.advance(from + 120_000 - wall() - beforeMs);
      const fences = await settle(one.local.giveUp([system], 50));
      await store.release(fences, toNodeId("node-0"));
      await two.own([system]);
      await pass(90_000);
      const ran = await recorded();
      expect(ran, `moved ${beforeMs} ms before`).toEqual([from + 60_000, from + 120_000, from + 180_000]);
      for (const node of [one, two]) await node.stop();
    }
    nodes.splice(0);
  });

  test("is left alone by a node that has not read for a while what it owns", async () => {
    const node = await start(cluster("skip"), all);
    await pass(30_000);
    node.fresh = false;
    await pass(60_000);
    expect(node.ran).toEqual([]);
    node.fresh = true;
    await pass(60_000);
    expect(node.ran).toEqual(minutes(2));
  });

  test("that is settled ahead of the clock says so once at each owner, and goes on when the clock is there", async () => {
    const one = await start(cluster("skip"), all);
    const two = await start(cluster("skip"), []);
    // A little ahead, as the clocks of two nodes may be.
    wrongMs = 5_000;
    await pass(56_000);
    wrongMs = 0;
    await pass(15_000);
    expect(one.ran).toEqual(minutes(1));
    expect(one.warned).toEqual([]);
    wrongMs = 3_600_000;
    await pass(5_000);
    wrongMs = 0;
    await pass(90_000);
    const fences = await settle(one.local.giveUp([system], 50));
    await store.release(fences, toNodeId("node-0"));
    await two.own([system]);
    await pass(30_000);
    for (const { warned, counters } of [one, two]) {
      expect(warned).toEqual([{ schedule: "minutely", aheadMs: expect.any(Number) }]);
      expect(counters.read()).toMatchObject({ schedule_stalls: 1 });
    }
    const aheadMs = one.warned[0]?.aheadMs;
    expect(aheadMs).toBeGreaterThan(3_590_000);
    expect(aheadMs).toBeLessThanOrEqual(3_600_000);
    expect([...one.ran, ...two.ran]).toEqual(minutes(1));
    wrongMs = 3_600_000;
    await pass(60_000);
    expect(two.ran).toEqual(minutes(64));
    wrongMs = 0;
    await pass(2_000);
    expect(two.counters.read()).toMatchObject({ schedule_stalls: 2 });
  });

  test("leaves a dead letter of a run that fails, and goes on", async () => {
    const node = await start(cluster("skip"), all, ({ scheduled }) => {
      if (scheduled === minutes(2)[0]) throw new Error("no");
    });
    await pass(3 * 60_000 + 3000);
    expect(node.ran).toEqual(minutes(1, 3));
    const letters = await store.deadLetters({ after: "", limit: 9, status: "open" });
    expect(letters).toMatchObject([{ type: "@@schedule/test/minutely", code: "HOOK_FAILED" }]);
  });
});

describe("a schedule of the node", () => {
  test("runs on each node, whatever shards it owns; what fails or hangs does not end it", async () => {
    const hung: AbortSignal[] = [];
    const one = await start({ timeoutMs: 70_000 }, all, ({ signal, scheduled }) => {
      if (scheduled === minutes(1)[0]) throw new Error("no");
      hung.push(signal);
    });
    const two = await start({}, []);
    await pass(3 * 60_000 + 1000);
    expect(one.ran).toEqual(minutes(2, 3));
    expect(two.ran).toEqual(minutes(1, 2, 3));
    expect(hung.map(({ aborted }) => aborted)).toEqual([false, false]);
    expect(await recorded()).toEqual([]);
  });
});

describe("the deadlines that are due", () => {
  const every = createNextDeadline("* * * * * *", "test");
  const second = (n: number): number => epoch + 1000 * n;

  test("are at most the newest one, but for those that want all, a hundred at once", () => {
    expect(planDue(every, second(0), second(0) + 500, "all")).toBe(null);
    expect(planDue(every, second(0), second(3) + 500, "skip")).toEqual({
      deadlines: [second(3)],
      upTo: second(3) + 500,
    });
    expect(planDue(every, second(0), second(250), "all")).toMatchObject({ upTo: second(100) });
    expect(planDue(every, second(0), second(10_000_000) + 1, "once")?.deadlines).toEqual([second(10_000_000)]);
  });

  test("of a schedule that is over are none", () => {
    const over = createNextDeadline({ year: 2025 }, "test");
    expect(planDue(over, second(0), second(10), "all")).toBe(null);
  });

  test("are the same however rare: the newest of a yearly schedule", () => {
    const yearly = createNextDeadline({ month: 3 }, "test");
    const now = Date.parse("2031-06-01T00:00:00Z");
    expect(planDue(yearly, epoch, now, "once")?.deadlines).toEqual([Date.parse("2031-03-01T00:00:00Z")]);
    expect(planDue(yearly, epoch, now, "skip")?.deadlines).toEqual([]);
  });
});
