import { expect, it } from "vitest";
import type { NewSnapshotRun, ShardWriter } from "../../../actors/store/snapshot-store.ts";
import type { Store } from "../../../actors/store/store.ts";
import type { NodeId } from "../../../proto/ids.ts";
import type { RunStore } from "../../support/memory-runs.ts";
import { nodeA, nodeB, noon, shard1 } from "./samples.ts";

/** A store of runs, and of the shard whose owner coordinates them. */
export interface RunsHarness {
  readonly store: Pick<Store, "acquire">;
  readonly runs: RunStore;
}

const run: NewSnapshotRun = { at: noon, kind: "full", cause: "demand", fingerprint: "f", requests: ["wanted"] };
const finished = { status: "finished", counts: { entities: 3 }, hooks: {}, error: null } as const;

/** What every store holds of runs: their rows change only by the owner of the coordinator's shard. */
export function describeRuns(current: () => RunsHarness): void {
  const own = async (node: NodeId): Promise<ShardWriter> => {
    const [acquired] = await current().store.acquire(node, [shard1]);
    if (acquired === undefined) throw new Error("the shard was not acquired");
    return { node, shard: shard1, epoch: acquired.epoch };
  };
  const all = () => current().runs.readRuns({ before: null, limit: 10 });

  it("makes one run at a time, whose number never comes back, and answers who asked for it", async () => {
    const { runs } = current();
    const owner = await own(nodeA);
    await runs.addRequest({ id: "wanted", kind: "run", full: true });
    expect(await runs.readRequests()).toEqual([{ id: "wanted", kind: "run", full: true }]);
    expect(await runs.beginRun(owner, run)).toEqual({ tick: 1, begun: true });
    expect(await runs.beginRun(owner, run)).toEqual({ tick: 1, begun: false });
    expect([await runs.readRequests(), await runs.readRequest("wanted")]).toEqual([[], 1]);
    expect(await runs.noteRun(owner, 1, { phase: "components", counts: { entities: 1 } })).toBe("written");
    expect(await runs.readTicks()).toMatchObject({ running: { tick: 1, phase: "components" }, finished: null });
    expect(await runs.endRun(owner, 1, finished)).toBe("written");
    expect(await runs.noteRun(owner, 1, { phase: "visit", counts: {} })).toBe("written");
    expect(await runs.endRun(owner, 1, { ...finished, status: "failed", error: "late" })).toBe("written");
    expect(await all()).toMatchObject([{ tick: 1, status: "finished", phase: "ended", counts: { entities: 3 } }]);
    expect(await runs.beginRun(owner, { ...run, at: noon + 1 })).toEqual({ tick: 2, begun: true });
    expect(await runs.readTicks()).toMatchObject({ running: { tick: 2, base: 1 }, finished: { tick: 1 } });
  });

  it("takes no command of a coordinator whose epoch is over, nor of another node, and changes nothing", async () => {
    const { runs } = current();
    const frozen = await own(nodeA);
    const owner = await own(nodeB);
    const strangers = [frozen, { ...frozen, epoch: owner.epoch }, { ...owner, epoch: frozen.epoch }];
    for (const stranger of strangers) expect(await runs.beginRun(stranger, run)).toBe("lost");
    expect(await all()).toEqual([]);
    await runs.addRequest({ id: "wanted", kind: "run", full: true });
    for (const stranger of strangers) expect(await runs.beginRun(stranger, run)).toBe("lost");
    expect(await runs.readRequest("wanted")).toBeNull();
    await runs.beginRun(owner, run);
    await runs.noteRun(owner, 1, { phase: "components", counts: { entities: 1 } });
    const before = await all();
    for (const stranger of strangers) {
      expect(await runs.noteRun(stranger, 1, { phase: "visit", counts: {} })).toBe("lost");
      expect(await runs.endRun(stranger, 1, finished)).toBe("lost");
    }
    expect(await all()).toEqual(before);
    expect(await runs.endRun(owner, 1, finished)).toBe("written");
    for (const stranger of strangers) expect(await runs.beginRun(stranger, run)).toBe("lost");
    expect(await runs.readTicks()).toMatchObject({ running: null, newest: { tick: 1, status: "finished" } });
  });
}
