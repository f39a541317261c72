import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Snapshots } from "../../actors/snapshots.ts";
import type { SnapshotRun } from "../../actors/store/snapshot-store.ts";
import { openSnapshotWorld, type SnapshotWorld } from "../support/snapshot-world.ts";

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
    expect(run.hooks.counted).toMatchObject({ calls: 20, errors: 0, tasks: 20 });
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
            return { shard, type, eid, due: null, body: `{"eid":"${eid}","n":${text}}` };
          }),
          tasks: [],
          hooks: {},
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
