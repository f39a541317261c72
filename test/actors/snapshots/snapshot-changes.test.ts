import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createSnapshotComputer, type SnapshotComputer } from "../../../actors/snapshots/snapshot-computer.ts";
import type { Snapshots } from "../../../actors/snapshots/snapshots.ts";
import type { SnapshotRun } from "../../../actors/store/snapshot-store.ts";
import type { CallbackRegistrar } from "../../../modules/registrar.ts";
import type { LinkedValue } from "../../../modules/snapshot-hook.ts";
import { systemClock } from "../../../proto/clock.ts";
import { shardOf } from "../../../proto/shard-of.ts";
import { configModel } from "../../support/config-model.ts";
import { createRandom } from "../../support/random.ts";
import { recordAt, specOf, type Told } from "../../support/record-at.ts";
import { snapshotScope } from "../../support/snapshot-play.ts";
import { openSnapshotWorld, type SnapshotTestNode, type SnapshotWorld } from "../../support/snapshot-world.ts";

/*
 * A run that computes only what changed equals a full one: the full one after it, at the same instant, has nothing to write.
 */
const model = configModel({
  lone: { n: "plain int", level: "observations int; history_params: {post_validity: 4s}", twice: "plain int" },
  impure: { n: "plain int", read: "plain int" },
  bus: { line: "plain link<line; mirror=buses>", speed: "plain int", behind: "plain int" },
  line: { at: "plain link<town>", fastest: "plain int" },
  town: { name: "plain string", seen: "observations int; history_params: {post_validity: 4s}" },
});
let outside = 0;
const counts = { lone: 0, impure: 0, bus: 0, line: 0 };

function register(door: CallbackRegistrar): void {
  door.registerCorrelationHook(
    function twice(_, values) {
      counts.lone++;
      values.twice = 2 * Number(values.level ?? values.n ?? 0);
      return null;
    },
    "lone",
    { dependsOn: [["n"], ["level"]], mayChange: [["twice"]], pure: true },
  );
  door.registerCorrelationHook(
    function fastest(_, values) {
      counts.line++;
      const buses = (values.buses ?? []) as readonly LinkedValue[];
      const town = values.at as LinkedValue | undefined;
      values.fastest = Math.max(Number(town?.record?.seen ?? 0), ...buses.map((bus) => Number(bus.record?.speed ?? 0)));
      return null;
    },
    "line",
    {
      dependsOn: [
        ["buses", "speed"],
        ["at", "seen"],
      ],
      mayChange: [["fastest"]],
      pure: true,
    },
  );
  door.registerCorrelationHook(
    function behind(_, values) {
      counts.bus++;
      values.behind = Number((values.line as LinkedValue | undefined)?.record?.fastest ?? -1);
      return null;
    },
    "bus",
    { dependsOn: [["line", "fastest"]], mayChange: [["behind"]], pure: true },
  );
}

function registerImpure(door: CallbackRegistrar): void {
  register(door);
  door.registerCorrelationHook(
    function read(_, values) {
      counts.impure++;
      values.read = outside;
      return null;
    },
    "impure",
    { dependsOn: [], mayChange: [["read"]] },
  );
}

/** How what changed is found. */
const ways = [
  { name: "all of it listed", impure: false, changesMax: 1_000 },
  { name: "listed where it is little", impure: false, changesMax: 2 },
  { name: "looked for, beside hooks that look at more than they declare", impure: true, changesMax: 1_000 },
];

let world: SnapshotWorld;
let node: SnapshotTestNode;
let computer: SnapshotComputer;
let wall = 1_000_000;

async function take(snapshots: Snapshots, full: boolean): Promise<SnapshotRun> {
  const tick = await snapshots.runNow({ full, deadlineMs: 30_000 });
  const find = async () => (await snapshots.runs({ before: tick + 1, limit: 1 }))[0];
  await expect.poll(async () => (await find())?.status, { timeout: 30_000, interval: 10 }).not.toBe("running");
  const run = await find();
  if (run === undefined) throw new Error("the run has gone");
  expect(run.error).toBe(null);
  return run;
}

async function write(type: string, eid: string, told: readonly Told[] | null): Promise<void> {
  await world.write(type, eid, told === null ? null : recordAt(specOf(model, type), eid, told, wall));
}

describe.each(ways)("what changed is $name", ({ impure, changesMax }) => {
  beforeAll(async () => {
    world = await openSnapshotWorld();
    const scope = snapshotScope({ model, register: impure ? registerImpure : register, clock: systemClock });
    computer = createSnapshotComputer({
      ...{ model, hooks: scope.hooks, runner: scope.runner, keepEmpty: true, queries: world.store, clock: systemClock },
      shardOf: (type, eid) => shardOf("entity", type, eid, 4),
      log: { error: () => {} },
    });
    node = await world.start({ computer, changesMax, wall: () => wall });
  });

  afterAll(async () => {
    await world?.close();
  });

  it("computes only what was written, what is due and what is linked to either, and equals a full run", async () => {
    const random = createRandom(7);
    const pick = (count: number): number => random.between(0, count - 1);
    for (let i = 0; i < 12; i++) {
      await write("lone", `x${i}`, [{ attr: "n", v: i }]);
      await write("bus", `b${i}`, [
        { attr: "line", v: { eid: `l${i % 4}` } },
        { attr: "speed", v: i },
      ]);
      if (i < 4) await write("line", `l${i}`, [{ attr: "at", v: { eid: `t${i % 2}` } }]);
      if (i < 2) await write("town", `t${i}`, [{ attr: "name", v: "here" }]);
      if (i < 3) await write("impure", `i${i}`, [{ attr: "n", v: i }]);
    }
    expect(await take(node.snapshots, false)).toMatchObject({ kind: "full", counts: { written: 12 + 12 + 4 + 2 + 3 } });
    for (let round = 0; round < 12; round++) {
      wall += 1_500;
      outside = pick(3);
      for (let change = pick(4); change > 0; change--) {
        const i = pick(12);
        const seen = { v: pick(50), t1: wall - pick(3_000), t2: wall };
        switch (pick(6)) {
          case 0:
            await write(
              "lone",
              `x${i}`,
              pick(2) === 0
                ? null
                : [
                    { attr: "n", v: pick(9) },
                    { attr: "level", ...seen },
                  ],
            );
            break;
          case 1:
            await write("bus", `b${i}`, pick(4) === 0 ? null : [{ attr: "speed", v: pick(90) }]);
            break;
          case 2:
            await write("bus", `b${i}`, [
              { attr: "line", v: { eid: `l${pick(5)}` } },
              { attr: "speed", v: pick(90) },
            ]);
            break;
          case 3:
            await write("line", `l${i % 5}`, pick(4) === 0 ? null : [{ attr: "at", v: { eid: `t${pick(3)}` } }]);
            break;
          case 4:
            await write("town", `t${i % 3}`, pick(4) === 0 ? null : [{ attr: "seen", ...seen }]);
            break;
          default:
        }
      }
      wall += 1;
      const changed = await take(node.snapshots, false);
      expect(changed.kind).toBe("changed");
      const full = await take(node.snapshots, true);
      expect({ round, written: full.counts.written, closed: full.counts.closed }).toEqual({
        round,
        written: 0,
        closed: 0,
      });
    }
  }, 120_000);

  it("computes next to nothing when nothing changed, but for hooks that look at more than they declare", async () => {
    wall += 60_000;
    await take(node.snapshots, true);
    Object.assign(counts, { lone: 0, impure: 0, bus: 0, line: 0 });
    wall += 1_000;
    const run = await take(node.snapshots, false);
    expect(run).toMatchObject({ kind: "changed", counts: { entities: impure ? 3 : 0, written: 0, closed: 0 } });
    expect(counts).toEqual({ lone: 0, impure: impure ? 3 : 0, bus: 0, line: 0 });
    await write("bus", "b1", [
      { attr: "line", v: { eid: "l1" } },
      { attr: "speed", v: 1_000 },
    ]);
    wall += 1_000;
    await take(node.snapshots, false);
    expect(counts.lone).toBe(0);
    expect(counts.line).toBeGreaterThan(0);
    expect(counts.line).toBeLessThan(4);
  });

  it("computes a component that does not fit into memory in pieces, with the same result", async () => {
    wall += 60_000;
    await write("town", "t9", [{ attr: "seen", v: 5, t1: wall, t2: wall + 60_000 }]);
    for (let i = 0; i < 20; i++) {
      await write("line", `m${i}`, [{ attr: "at", v: { eid: "t9" } }]);
      for (let k = 0; k < 3; k++) {
        await write("bus", `m${i}-${k}`, [
          { attr: "line", v: { eid: `m${i}` } },
          { attr: "speed", v: i * k },
        ]);
      }
    }
    const small = await world.start({ computer, wall: () => wall, groupMaxBytes: 2_500 });
    const run = await take(small.snapshots, false);
    expect(run.counts).toMatchObject({ componentMax: 81, written: 81 });
    expect(run.hooks["m/correlation/line/fastest"]).toMatchObject({ failures: 0 });
    const large = await world.start({ computer, wall: () => wall });
    expect((await take(large.snapshots, true)).counts).toMatchObject({ written: 0, closed: 0 });
  });
});
