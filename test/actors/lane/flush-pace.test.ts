import { describe, expect, it } from "vitest";
import { createCounters } from "../../../actors/counters.ts";
import { createEntity } from "../../../actors/lane/entity.ts";
import { onFlushTimer, planNextFlush } from "../../../actors/lane/flush.ts";
import { createLane, type Lane } from "../../../actors/lane/lane.ts";
import type { Part } from "../../../actors/lane/part.ts";
import { createShard } from "../../../actors/lane/shard.ts";
import { step } from "../../../actors/lane/step.ts";
import { createTurn } from "../../../actors/lane/turn.ts";
import type { HookTable } from "../../../modules/hook.ts";
import { shardId, toEpoch, toNodeId, toSeq } from "../../../proto/ids.ts";
import { simulationLimits } from "../../support/simulated-node.ts";
import { testModel } from "../../support/test-model.ts";

const shard = shardId("entity", 0);
const hooks: HookTable = {
  onTaskStart: [],
  allowEntityCreation: new Map(),
  onEntityCreation: new Map(),
  onNewAttr: new Map(),
};

/** A lane that appends something every `everyMs`, and has flushed just after the last time. */
function startLane(everyMs: number): { readonly lane: Lane; wait(ms: number): number } {
  const model = testModel({ thing: {} });
  let now = 10_000;
  const lane = createLane(0, toNodeId("n"), {
    ...{ model, hooks, limits: simulationLimits, counters: createCounters(), turn: createTurn() },
    ...{
      now: () => now,
      monotonic: () => now,
      shardOf: () => shard,
      stateForm: () => "short" as const,
      runHook: () => ({ kind: "answer", tasks: [] }),
    },
    post: () => {},
  });
  const acquired = createShard(
    {
      ...{ shard, epoch: toEpoch(1), watermark: toSeq(0), lastSeq: toSeq(0), delivered: toSeq(0), lastAt: 0 },
      ...{ channels: new Map(), refused: [], deadAnswers: [], clean: true, obligations: [], attempt: null, mark: null },
    },
    model,
  );
  step(lane, { kind: "own", shards: [acquired], replay: [] });
  for (let number = 1; number <= 20; number++) {
    const at = { position: 0, shard, channel: "c:s", number, predecessor: number - 1, hash: "h" };
    const part: Part = { kind: "part", ...at, tasks: [], rejections: [], bytes: 0 };
    const effects = step(lane, { kind: "offer", offers: [{ parts: [part], listener: () => {} }] });
    expect(effects.map(({ kind }) => kind)).toContain("append");
    step(lane, { kind: "committed", result: { lost: [] } });
    now += everyMs;
  }
  now -= everyMs;
  lane.flush = null;
  lane.dirtyEntities = 1_000;
  lane.lastFlush = { endedAt: now, tookMs: 10 };
  return {
    lane,
    wait: (ms) => {
      lane.now = now + ms;
      lane.newsSince = now;
      lane.flushWakeAt = null;
      lane.effects = [];
      planNextFlush(lane);
      const [timer] = lane.effects;
      return timer?.kind === "flush-timer" ? timer.afterMs : Number.NaN;
    },
  };
}

/** Something of the lane changed so long ago (ms), and nothing before. */
function age(lane: Lane, ms: number): void {
  const [first] = lane.shards.values();
  if (first === undefined) throw new Error("no shard");
  first.dirtySince = lane.lastFlush.endedAt - ms;
  lane.dirty.add(first);
}

describe("a lane with much to flush", () => {
  it("lets what changed wait for the interval, less the time that a flush takes", () => {
    const { lane, wait } = startLane(90);
    lane.lastFlush = { ...lane.lastFlush, tookMs: 100 };
    age(lane, simulationLimits.flushIntervalMs - 250);
    expect(wait(0)).toBe(150);
    age(lane, simulationLimits.flushIntervalMs - 160);
    expect(wait(0)).toBe(100); // As long as the last one, since appends take no time.
  });

  it("rests the longer the more of its time appends take", () => {
    const { lane, wait } = startLane(90);
    age(lane, 2 * simulationLimits.flushIntervalMs);
    lane.lastFlush = { ...lane.lastFlush, tookMs: 40 };
    const restAt = (share: number): number => {
      lane.pace.share = share;
      return Math.round(wait(0));
    };
    expect([restAt(0), restAt(0.25), restAt(0.5), restAt(0.55)]).toEqual([50, 50, 120, 158]);
    lane.lastFlush = { ...lane.lastFlush, tookMs: 7 };
    expect(restAt(1)).toBe(189);
  });

  it("does not rest for minutes after a flush that took one", () => {
    const { lane } = startLane(90);
    age(lane, 60_000);
    lane.pace.share = 1;
    lane.lastFlush = { ...lane.lastFlush, tookMs: 60_000 };
    const dueAfter = (ms: number): boolean => {
      lane.now = lane.lastFlush.endedAt + ms;
      lane.newsSince = lane.lastFlush.endedAt;
      lane.pace.begunAt = lane.now;
      onFlushTimer(lane);
      return lane.flush !== null;
    };
    expect(dueAfter(4 * simulationLimits.flushIntervalMs - 1)).toBe(false);
    expect(dueAfter(4 * simulationLimits.flushIntervalMs)).toBe(true);
  });

  it("rests less, and writes sooner, the more waits for the watermark", () => {
    const { lane, wait } = startLane(90);
    age(lane, 0);
    lane.lastFlush = { ...lane.lastFlush, tookMs: 4 };
    lane.pace.share = 0.9;
    lane.backlogBytes = simulationLimits.backlogMaxBytes * 0.45;
    expect(wait(0)).toBeCloseTo(0.1 * (simulationLimits.flushIntervalMs - 4), 0);
    lane.backlogBytes = simulationLimits.backlogMaxBytes / 2;
    expect(wait(0)).toBe(50);
  });

  it("flushes when nothing has come for a while", () => {
    const { wait } = startLane(20);
    expect(wait(50)).toBeGreaterThan(0);
    expect(wait(100)).toBe(0);
  });

  it("waits for the interval where things come slowly and all the same come", () => {
    const { wait } = startLane(190);
    expect(wait(150)).toBeGreaterThan(0);
    expect(wait(500)).toBeGreaterThan(0);
    expect(wait(600)).toBe(0);
  });

  it("never waits for longer than the interval after the last thing that came", () => {
    const { wait } = startLane(900);
    expect(wait(950)).toBeGreaterThan(0);
    expect(wait(1_000)).toBe(0);
  });
});

describe("a lane with changes that cannot be flushed yet", () => {
  it("looks again a few times a second, not all the time", () => {
    const { lane } = startLane(20);
    const [first] = lane.shards.values();
    const [spec] = lane.world.model.entities.values();
    if (first === undefined || spec === undefined) throw new Error("no shard");
    // What was deleted waits for a hook of its life before (R19).
    const entity = { ...createEntity(spec, "e", "e"), tombstone: true, open: 1, dirtySeq: toSeq(1) };
    first.dirty = [entity];
    first.dirtyFrom = 1;
    lane.dirty.add(first);
    lane.dirtyEntities = 1;
    lane.touched.clear();
    lane.flushWakeAt = null;
    first.savedDelivered = first.durableSeq;
    let looks = 0;
    for (const until = lane.now + 1_000; lane.now < until; looks++) {
      lane.effects = [];
      planNextFlush(lane);
      const [timer] = lane.effects;
      if (timer?.kind !== "flush-timer") throw new Error("nobody looks any more");
      lane.now += Math.max(1, timer.afterMs);
      onFlushTimer(lane);
      expect(lane.flush).toBeNull();
    }
    expect(looks).toBeLessThanOrEqual(6);
    entity.tombstone = false;
    for (let step = 0; step < 3 && lane.flush === null; step++) {
      planNextFlush(lane);
      lane.now += 200;
      onFlushTimer(lane);
    }
    expect(lane.flush).not.toBeNull();
  });
});
