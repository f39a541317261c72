import { afterEach, beforeEach, expect, test } from "vitest";
import type { SnapshotRun } from "../../../actors/store/snapshot-store.ts";
import { openSnapshotWorld, type SnapshotNodeOptions, type SnapshotWorld } from "../../support/snapshot-world.ts";

/** Runs an hour apart, of which the cleaning knows how old they are. */
let world: SnapshotWorld;
let nowMs: number;

const hour = 3_600_000;
const deadlineMs = 30_000;
const within = { timeout: deadlineMs, interval: 20 };

beforeEach(async () => {
  world = await openSnapshotWorld();
  nowMs = Date.now() - 24 * hour;
});

afterEach(() => world.close());

const start = (options: SnapshotNodeOptions = {}) => world.start({ wall: () => nowMs, ...options });

/** A run as things stand, and an hour passes. */
async function takeOne(things: Record<string, number | null>, options?: SnapshotNodeOptions): Promise<number> {
  await world.put(things);
  const { snapshots } = await start(options);
  const tick = await snapshots.runNow({ full: true, deadlineMs });
  const find = async (): Promise<SnapshotRun | undefined> => (await snapshots.runs({ before: tick + 1, limit: 1 }))[0];
  await expect.poll(async () => (await find())?.status, within).toBe("finished");
  await snapshots.close();
  nowMs += hour;
  return tick;
}

/** What is left when a node has cleaned: ticks of runs, and snapshots with the ticks that they hold from and to. */
async function clean(olderThanMs: number, { until }: { readonly until: readonly number[] }): Promise<string[]> {
  let cleanings = 0;
  const { snapshots, warnings } = await start({
    olderThanMs,
    // It is due at every look.
    wall: () => nowMs++,
    around: (store) => ({
      ...store,
      dropRuns: (...values) => {
        cleanings++;
        return store.dropRuns(...values);
      },
    }),
  });
  const ticks = async () => (await snapshots.runs({ before: null, limit: 99 })).map(({ tick }) => tick);
  await expect.poll(ticks, within).toEqual(until);
  // The one before the last one is over.
  const before = cleanings;
  await expect.poll(() => cleanings, within).toBeGreaterThan(before + 1);
  await snapshots.close();
  expect(warnings).toEqual([]);
  const text =
    "select eid, from_tick, coalesce(to_tick::text, '') as to_tick from starling.snapshot order by eid, from_tick";
  const rows = await world.admin.query<{ eid: string; from_tick: number; to_tick: string }>(text);
  return rows.map((row) => `${row.eid} ${row.from_tick}–${row.to_tick}`);
}

test("runs that are too old go with what only they have shown, and those that are left show what they did", async () => {
  await takeOne({ same: 1, changes: 1, goes: 1 });
  await takeOne({ changes: 2, goes: null });
  await takeOne({ changes: 3 });
  await takeOne({ changes: 4 });
  const all = ["changes 1–2", "changes 2–3", "changes 3–4", "changes 4–", "goes 1–2", "same 1–"];
  expect(await clean(24 * hour, { until: [4, 3, 2, 1] })).toEqual(all);
  // They ended just now, by PostgreSQL's clock: what counts is the time that they show.
  expect(await clean(2.5 * hour, { until: [4, 3] })).toEqual(["changes 3–4", "changes 4–", "same 1–"]);
  expect(await world.visible()).toEqual({ same: 1, changes: 4 });
});

test("the newest finished run stays, however old it is", async () => {
  await takeOne({ a: 1 });
  await takeOne({ a: 2 });
  nowMs += 1_000 * hour;
  expect(await clean(hour, { until: [2] })).toEqual(["a 2–"]);
  expect(await world.visible()).toEqual({ a: 2 });
  expect(await clean(hour, { until: [2] })).toEqual(["a 2–"]);
});

test("what runs that are gone have left is found, too, and so is what failed", async () => {
  await takeOne({ a: 1, b: 1 });
  const { snapshots } = await start({ around: (store) => ({ ...store, writePage: () => new Promise(() => {}) }) });
  const failed = await snapshots.runNow({ full: true, deadlineMs });
  await snapshots.cancel(failed);
  await expect.poll(async () => (await snapshots.runs({ before: null, limit: 1 }))[0]?.status, within).toBe("failed");
  void snapshots.close();
  await takeOne({ a: 2, b: 2 });
  // Whoever cleaned before died when the runs were gone.
  await world.admin.query("delete from starling.snapshot_run where tick = 1");
  expect(await clean(30 * 24 * hour, { until: [3, 2] })).toEqual(["a 3–", "b 3–"]);
  expect(await clean(hour, { until: [3] })).toEqual(["a 3–", "b 3–"]);
});

test("of an entity that has gone nothing is left, however large it was (reference 15.1, number 16)", async () => {
  const large = "x".repeat(20_000_000);
  await takeOne(
    { large: 1, small: 1 },
    {
      computer: {
        compute: async (records) => ({
          snapshots: records.map(({ shard, type, eid }) => {
            return {
              kind: "body" as const,
              shard,
              type,
              eid,
              due: null,
              confidences: null,
              body: JSON.stringify({ eid, n: eid === "large" ? large : 1 }),
            };
          }),
          ...{ values: [], tasks: [], hooks: {} },
        }),
      },
    },
  );
  const stored = async () => {
    const [row] = await world.admin.query<{ size: number }>(
      "select sum(length(body::text))::int as size from starling.snapshot",
    );
    return row?.size ?? 0;
  };
  expect(await stored()).toBeGreaterThan(large.length);
  await takeOne({ large: null });
  expect(Object.keys(await world.visible())).toEqual(["small"]);
  expect(await clean(0.5 * hour, { until: [2] })).toEqual(["small 1–"]);
  expect(await stored()).toBeLessThan(1_000);
});

test("of shards without entities, which no visit looks after, the newest mark is left", async () => {
  await takeOne({ a: 1 });
  const marks = async () =>
    (
      await world.admin.query<{ mark: string }>(
        "select concat(shard, ' ', tick) as mark from starling.snapshot_mark where tick > 100 or shard >= 4096 order by shard, tick",
      )
    ).map(({ mark }) => mark);
  await world.admin.query(`insert into starling.snapshot_mark (shard, tick, seq)
    values (0, 201, 1), (0, 202, 2), (4096, 201, 1), (4096, 202, 2), (4097, 203, 1)`);
  await clean(24 * hour, { until: [1] });
  expect(await marks()).toEqual(["0 201", "0 202", "4096 202", "4097 203"]);
});
