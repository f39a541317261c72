import { expect, test } from "vitest";
import { createCounters } from "../../../actors/counters.ts";
import { createSnapshotWorker, type SnapshotWorkerOptions } from "../../../actors/snapshots/snapshot-worker.ts";
import type { SnapshotNodeNote, SnapshotRun } from "../../../actors/store/snapshot-store.ts";
import { shardId, toNodeId } from "../../../proto/ids.ts";

const run: SnapshotRun = {
  ...{ tick: 1, at: 1_000, kind: "full", cause: "demand", status: "running", phase: "finalize", base: 0 },
  ...{ fingerprint: "f", startedAt: 1_000, endedAt: null, counts: {}, hooks: {}, error: null },
};

test("a node that joins again as a run ends says that its hooks have run by its new id, too", async () => {
  const notes: SnapshotNodeNote[] = [];
  let self = toNodeId("first");
  const parts = {
    store: { noteNode: async (note: SnapshotNodeNote) => void notes.push(note), readTasks: async () => [] },
    computer: { runForNode: async () => ({ hooks: {}, answers: [] }) },
    ticks: { learn: () => {}, open: () => new Set(), passed: () => {} },
    fingerprint: "f",
    shards: () => [],
    self: () => self,
    home: shardId("system", 0),
    coordinates: () => null,
    limits: { visitsMax: 1 },
    counters: createCounters(),
    log: { info: () => {}, warn: () => {}, error: () => {} },
  };
  // Of the rest nothing is asked when a run ends.
  const worker = createSnapshotWorker(parts as unknown as SnapshotWorkerOptions, () => {});
  const ended = async (): Promise<string[]> => {
    worker.look({ running: run, finished: null, newest: run });
    await expect.poll(() => worker.busy, { timeout: 30_000 }).toBe(false);
    return notes.map(({ node }) => node);
  };
  expect(await ended()).toEqual(["first"]);
  expect(await ended()).toEqual(["first"]);
  self = toNodeId("second");
  expect(await ended()).toEqual(["first", "second"]);
  await worker.close();
});
