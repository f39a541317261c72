import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Snapshots } from "../../../actors/snapshots/snapshots.ts";
import type { SnapshotRun } from "../../../actors/store/snapshot-store.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { dyingAt, never, openSnapshotWorld, type SnapshotWorld } from "../../support/snapshot-world.ts";

let world: SnapshotWorld;

beforeAll(async () => {
  world = await openSnapshotWorld();
});

afterAll(async () => {
  await world?.close();
});

const deadlineMs = 30_000;

/** The run as it ended. */
async function ended(snapshots: Snapshots, tick: number): Promise<SnapshotRun> {
  return expect
    .poll(() => find(snapshots, tick), { timeout: deadlineMs, interval: 20 })
    .toMatchObject({
      status: expect.stringMatching("finished|failed"),
    })
    .then(() => find(snapshots, tick));
}

async function find(snapshots: Snapshots, tick: number): Promise<SnapshotRun> {
  const [run] = await snapshots.runs({ before: tick + 1, limit: 1 });
  if (run?.tick !== tick) throw new Error(`there is no run ${tick}`);
  return run;
}

async function takeOne(snapshots: Snapshots, full = true): Promise<SnapshotRun> {
  return ended(snapshots, await snapshots.runNow({ full, deadlineMs }));
}

function many(count: number, value: number): Record<string, number> {
  return Object.fromEntries(Array.from({ length: count }, (_, i) => [`e${i}`, value + i]));
}

describe("a snapshot run", () => {
  it("shows each entity once, as it was, and counts what it did", async () => {
    await world.put(many(20, 100));
    const { snapshots } = await world.start({ tasks: true });
    const run = await takeOne(snapshots);
    expect(run).toMatchObject({ status: "finished", kind: "full", cause: "demand", error: null });
    expect(run.counts).toMatchObject({ entities: 20, written: 20, closed: 0, tasks: 20, shards: 4, shardsDone: 4 });
    expect(run.hooks.counted).toMatchObject({ calls: 20, failures: 0, tasks: 20 });
    expect(await world.visible()).toEqual(many(20, 100));
    await snapshots.close();
  });

  it("writes nothing for an entity that stayed as it was, and ends the snapshot of one that has gone", async () => {
    await world.put({ e3: -3, e4: null });
    const { snapshots } = await world.start();
    const run = await takeOne(snapshots);
    expect(run.counts).toMatchObject({ entities: 19, written: 1, closed: 1 });
    const expected: Record<string, number> = { ...many(20, 100), e3: -3 };
    delete expected.e4;
    expect(await world.visible()).toEqual(expected);
    await snapshots.close();
  });

  it("stores twenty megabytes, and nothing of a body that is no JSON for PostgreSQL", async () => {
    const { snapshots } = await world.start({
      computer: {
        compute: async (records) => ({
          snapshots: records.map(({ shard, type, eid }) => {
            const text = eid === "e1" ? '"\\u0000"' : eid === "e2" ? `"${"x".repeat(20_000_000)}"` : "7";
            return {
              kind: "body" as const,
              shard,
              type,
              eid,
              due: null,
              confidences: null,
              body: `{"eid":"${eid}","n":${text}}`,
            };
          }),
          ...{ values: [], tasks: [], hooks: {} },
        }),
      },
    });
    const run = await takeOne(snapshots);
    expect(run).toMatchObject({ status: "finished", counts: { refused: 1, written: 18 } });
    const { e0, e1, e2 } = await world.visible();
    expect([e0, e1, String(e2).length]).toEqual([7, 101, 20_000_000]);
    await snapshots.close();
  });
});

describe("a node between two runs", () => {
  it("looks once a second whether there is one, and for tasks only where some may have come", async () => {
    const calls = new Map<string, number>();
    const count = (name: string): number => calls.get(name) ?? 0;
    const { snapshots } = await world.start({
      tasks: true,
      around: (store) => ({
        ...store,
        readTicks: () => {
          calls.set("ticks", count("ticks") + 1);
          return store.readTicks();
        },
        readTasks: async (...asked) => {
          const found = await store.readTasks(...asked);
          calls.set(found.length > 0 ? "tasks" : "nothing", count(found.length > 0 ? "tasks" : "nothing") + 1);
          return found;
        },
      }),
    });
    await takeOne(snapshots);
    await expect.poll(() => count("tasks"), { timeout: deadlineMs }).toBeGreaterThan(0);
    const text = "select count(*)::int as count from starling.snapshot_task";
    const left = () => world.admin.query<{ count: number }>(text).then(([row]) => row?.count);
    await expect.poll(left, { timeout: deadlineMs }).toBe(0);
    calls.clear();
    await expect.poll(() => count("ticks"), { timeout: deadlineMs }).toBeGreaterThanOrEqual(6);
    expect(count("tasks")).toBe(0);
    // One look may meet what has just been sent; ten seconds are not over.
    expect(count("nothing")).toBeLessThanOrEqual(2);
    await snapshots.close();
  });
});

describe("a run that cannot go on", () => {
  it("is failed by whoever ends it, leaves nothing to see, and the next one takes back what it wrote", async () => {
    await world.put(many(12, 1));
    const before = await takeOne((await world.start()).snapshots);
    const visible = await world.visible();
    await world.put(many(12, 500));
    let seen = 0;
    const { snapshots } = await world.start({
      computer: { runForNode: async () => ({ hooks: {}, answers: [] }) },
      // The last shards wait for ever: their pages are not read.
      around: (store) => ({
        ...store,
        writePage: (...page) => (++seen > 3 ? never(world) : store.writePage(...page)),
      }),
    });
    const tick = await snapshots.runNow({ full: true, deadlineMs });
    expect(tick).toBe(before.tick + 1);
    await expect.poll(() => seen, { timeout: deadlineMs }).toBeGreaterThan(3);
    await snapshots.cancel(tick);
    expect(await ended(snapshots, tick)).toMatchObject({ status: "failed", error: "cancelled" });
    expect(await world.visible()).toEqual(visible);
    await expect(snapshots.cancel(tick)).rejects.toMatchObject({ code: "NOT_FOUND" });
    await world.put({ e0: 1 });
    const next = await world.start();
    const run = await takeOne(next.snapshots);
    expect(run).toMatchObject({ tick: tick + 1, base: before.tick, status: "finished" });
    expect(await world.visible()).toMatchObject({ ...many(12, 500), e0: 1 });
    const [left] = await world.admin.query<{ count: number }>(
      "select count(*)::int as count from starling.snapshot where from_tick = $1 or to_tick = $1",
      [tick],
    );
    expect(left?.count).toBe(0);
    await next.snapshots.close();
  });

  it("is failed when the modules are others than when it began", async () => {
    const first = await world.start({ around: (store) => ({ ...store, writePage: () => never(world) }) });
    const tick = await first.snapshots.runNow({ full: false, deadlineMs });
    const { snapshots } = await world.start({ fingerprint: "other" });
    const run = await ended(snapshots, tick);
    expect(run.status).toBe("failed");
    expect(run.error).toContain("modules");
    await snapshots.close();
  });

  it("is failed when nothing of it moves", async () => {
    const { snapshots } = await world.start({
      stallMs: 300,
      computer: { compute: () => never(world) },
    });
    const run = await takeOne(snapshots);
    expect(run.error).toMatch(/nothing moved for .* in phase visit: \d shards are not done/);
  });

  it("is failed with the reason when the store says that another attempt does not mend it", async () => {
    const { snapshots } = await world.start({
      around: (store) => ({
        ...store,
        writePage: () => Promise.reject(new StarlingError("STORE_FATAL", "no such table")),
      }),
    });
    expect((await takeOne(snapshots)).error).toContain("no such table");
    await snapshots.close();
  });
});

describe("a schedule", () => {
  it("skips what falls due while a run goes on, and says so", async () => {
    const begun = Date.now();
    let open = (): void => {};
    const opened = new Promise<void>((resolve) => {
      open = resolve;
    });
    const { snapshots, warnings, counters } = await world.start({
      next: (after) => Math.floor(Math.max(after, begun) / 50 + 1) * 50,
      around: (store) => ({ ...store, writePage: async (...page) => opened.then(() => store.writePage(...page)) }),
    });
    await expect
      .poll(() => warnings, { timeout: deadlineMs })
      .toContain("snapshot run still goes on: what was due meanwhile is skipped");
    const [run] = await snapshots.runs({ before: null, limit: 1 });
    expect(run).toMatchObject({ status: "running", cause: "schedule" });
    expect(counters.read().snapshot_runs_skipped).toBeGreaterThan(0);
    open();
    await ended(snapshots, run?.tick ?? 0);
    await snapshots.close();
  });

  it("keeps the order of the ticks when the clock is set back between two runs, and computes everything", async () => {
    let wall = Date.now() + 3_600_000;
    const { snapshots, warnings } = await world.start({ wall: () => wall });
    const first = await takeOne(snapshots);
    wall -= 3_600_000;
    await world.put({ e1: 77 });
    const second = await takeOne(snapshots, false);
    expect(second).toMatchObject({ tick: first.tick + 1, kind: "full", status: "finished" });
    expect(second.at).toBeLessThan(first.at);
    expect(await world.visible()).toMatchObject({ e1: 77 });
    expect(warnings.filter((text) => text.startsWith("the clock stands before"))).toHaveLength(1);
    await snapshots.close();
  });
});

describe("a node that dies", () => {
  it.each(["before", "after"] as const)(
    "%s any write to the store leaves a run that finishes once",
    async (when) => {
      await world.put(Object.fromEntries(Object.keys(many(20, 0)).map((eid, i) => [eid, i < 8 ? 1000 : null])));
      let died = true;
      let value = 1000;
      for (let call = 1; died; call++) {
        value += 100;
        await world.put(many(8, value));
        died = false;
        const onDeath = (): void => {
          died = true;
        };
        const dying = await world.start({ tasks: true, around: dyingAt(world, { count: call, when, onDeath }) });
        const asked = world.store.snapshots.addRequest({ id: `${when} ${call}`, kind: "run", full: true });
        await asked;
        const isOver = async (): Promise<boolean> => {
          const tick = await world.store.snapshots.readRequest(`${when} ${call}`);
          const [run] = tick === null ? [] : await world.store.snapshots.readRuns({ before: tick + 1, limit: 1 });
          const tasks = await world.admin.query("select from starling.snapshot_task");
          return run?.status === "finished" && tasks.length === 0;
        };
        await expect.poll(async () => died || (await isOver()), { timeout: deadlineMs, interval: 5 }).toBe(true);
        const seen = await world.visible();
        // All of the run, or nothing of it.
        const sum = Object.values(seen).filter((n) => n >= value && n < value + 8).length;
        expect([0, 8]).toContain(sum);
        if (!died) {
          await dying.snapshots.close();
          break;
        }
        const heir = await world.start({ tasks: true });
        await expect.poll(isOver, { timeout: deadlineMs, interval: 5 }).toBe(true);
        const tick = (await world.store.snapshots.readRequest(`${when} ${call}`)) ?? 0;
        expect(await world.visible()).toMatchObject(many(8, value));
        const twice = [...world.delivered].filter(([task, count]) => task.startsWith(`${tick} `) && count !== 1);
        expect(twice).toEqual([]);
        const all = [...world.delivered.keys()].filter((task) => task.startsWith(`${tick} `));
        expect(all).toHaveLength(Object.keys(await world.visible()).length);
        await heir.snapshots.close();
      }
    },
    180_000,
  );
});
