import { describe, expect, it } from "vitest";
import type { NodeRecord } from "../../../cluster/membership/membership.ts";
import { createMembershipKeys } from "../../../cluster/membership/membership-keys.ts";
import {
  commitOfDeath,
  type Death,
  type KnownNode,
  planLapses,
  planNodes,
  planSelf,
} from "../../../cluster/membership/membership-plan.ts";
import { readSnapshot, type Snapshot } from "../../../cluster/membership/membership-snapshot.ts";
import {
  planSuspicions,
  type Suspicions,
  withoutSuspicion,
  withSuspicion,
} from "../../../cluster/membership/membership-suspicions.ts";
import { parseNodeRecord, writeNodeRecord } from "../../../cluster/membership/node-record.ts";
import { createMemoryCoordinator } from "../../../cluster/memory-coordinator.ts";
import { toNodeId } from "../../../proto/ids.ts";
import { createManualClock } from "../../support/manual-clock.ts";

const keys = createMembershipKeys("/c");

function recordOf(id: string): NodeRecord {
  const name = id.split("-")[0] ?? id;
  const rest = { version: "1", protocolMin: 1, protocolMax: 2, modelHash: "m", state: "serving" as const };
  return { id: toNodeId(id), name, address: `${name}:1`, ...rest };
}

/** A snapshot of keys and values; each key's revision is its place, from 1. */
function snapshotOf(values: Readonly<Record<string, string>>): Snapshot {
  const entries = Object.entries(values).map(([key, value], index) => ({
    key,
    value,
    revision: index + 1,
    lease: "L",
  }));
  return readSnapshot(keys, { entries, revision: 100 });
}

const nodeOf = (id: string): Record<string, string> => ({
  [keys.node(recordOf(id).name)]: writeNodeRecord(recordOf(id)),
});
const known = (id: string, seenAtMs: number): [ReturnType<typeof toNodeId>, KnownNode] => [
  toNodeId(id),
  { record: recordOf(id), seenAtMs },
];
const idsOf = (nodes: ReadonlyMap<string, unknown>): string[] => [...nodes.keys()].sort();

describe("a node is there", () => {
  const former = new Map([known("a-1", 5), known("b-1", 5)]);

  it("although its record is gone", () => {
    const nodes = planNodes(former, snapshotOf(nodeOf("a-1")), 9);
    expect([...nodes.values()].map(({ seenAtMs }) => seenAtMs)).toEqual([5, 9]);
  });

  it("until it is marked dead, whatever record stands", () => {
    expect(idsOf(planNodes(former, snapshotOf({ ...nodeOf("b-1"), [keys.dead(toNodeId("b-1"))]: "" }), 9))).toEqual([
      "a-1",
    ]);
  });

  it("until its name goes to another id", () => {
    expect(idsOf(planNodes(former, snapshotOf(nodeOf("b-2")), 9))).toEqual(["a-1", "b-2"]);
  });

  it("although its record can no longer be read", () => {
    expect(idsOf(planNodes(former, snapshotOf({ [keys.node("b")]: "{" }), 9))).toEqual(["a-1", "b-1"]);
  });
});

describe("a node's own record", () => {
  const self = recordOf("a-1");

  it("is kept when it stands as it should, under the lease that is kept alive", () => {
    expect(planSelf(self, "L", snapshotOf(nodeOf("a-1")))).toEqual({ kind: "keep", revision: 1 });
    expect(planSelf(self, "M", snapshotOf(nodeOf("a-1")))).toEqual({ kind: "put", revision: 1 });
    expect(planSelf(self, null, snapshotOf(nodeOf("a-1")))).toEqual({ kind: "put", revision: 1 });
    expect(planSelf({ ...self, state: "leaving" }, "L", snapshotOf(nodeOf("a-1")))).toEqual({
      kind: "put",
      revision: 1,
    });
    expect(planSelf(self, "L", snapshotOf({}))).toEqual({ kind: "put", revision: 0 });
  });

  it("is not put beside one that cannot talk to this node, and stays where it stands", () => {
    const newer = { ...recordOf("b-1"), protocolMin: 3, protocolMax: 4 };
    const there = { [keys.node("b")]: writeNodeRecord(newer) };
    const text = "no protocol version in common: node b speaks 3 to 4, node a speaks 1 to 2: replace nodes by way of";
    const problem = expect.objectContaining({ code: "VERSION_MISMATCH", message: expect.stringContaining(text) });
    expect(planSelf(self, "L", snapshotOf(there))).toEqual({ kind: "foreign", problem });
    expect(planSelf(self, "L", snapshotOf({ ...nodeOf("a-1"), ...there }))).toEqual({ kind: "keep", revision: 1 });
    const both = { [keys.node("b")]: writeNodeRecord({ ...newer, protocolMin: 2 }) };
    expect(planSelf(self, "L", snapshotOf(both))).toEqual({ kind: "put", revision: 0 });
  });

  it("is never put again for an id that was marked dead, nor over another one's", () => {
    const dead = snapshotOf({ [keys.dead(self.id)]: "slow" });
    expect(planSelf(self, "L", dead)).toEqual({ kind: "dead", reason: "slow" });
    expect(planSelf(self, "L", snapshotOf(nodeOf("a-2")))).toEqual({ kind: "taken", by: recordOf("a-2") });
    expect(planSelf(self, "L", snapshotOf({ [keys.node("a")]: "?" }))).toEqual({ kind: "taken", by: null });
  });
});

describe("a lapse", () => {
  const facts = { self: toNodeId("a-1"), snapshot: snapshotOf(nodeOf("a-1")), leaseTtlMs: 4000 };
  const nodes = new Map([known("a-1", 0), known("b-1", 1000)]);

  it("counts when who saw it has been connected for a whole time to live since", () => {
    const lapses = (nowMs: number, connectedSinceMs: number) =>
      planLapses({ ...facts, nodes, nowMs, connectedSinceMs });
    expect(lapses(4999, 0)).toEqual({ deaths: [], waitMs: 1 });
    expect(lapses(5000, 0).deaths.map(({ id }) => id)).toEqual(["b-1"]);
    expect(lapses(6999, 3000)).toEqual({ deaths: [], waitMs: 1 });
    expect(lapses(7000, 3000).deaths.map(({ id }) => id)).toEqual(["b-1"]);
  });
});

describe("a death", () => {
  const [a, b, c] = [toNodeId("a-1"), toNodeId("b-1"), toNodeId("c-1")];
  const byA = keys.suspect(b, a);

  /** Whether each commit is done that makes `death`, by `self`, as of one snapshot; `between` is deleted after the first. */
  async function commitAll(deaths: readonly (readonly [string, Death])[], between: readonly string[] = []) {
    const coordinator = createMemoryCoordinator({ clock: createManualClock() });
    const lease = await coordinator.grant(4000);
    const values = { ...nodeOf("a-1"), ...nodeOf("b-1"), [byA]: "{}", [keys.suspect(a, b)]: "{}" };
    const puts = Object.entries(values).map(([key, value]) => ({ kind: "put", key, value, lease }) as const);
    await coordinator.commit([], puts);
    const snapshot = readSnapshot(keys, await coordinator.list("/c/"));
    await coordinator.commit(
      [],
      between.map((key) => ({ kind: "delete", key })),
    );
    const done: boolean[] = [];
    for (const [self, death] of deaths) {
      const { conditions, writes } = commitOfDeath(keys, recordOf(self), snapshot, death, lease);
      done.push((await coordinator.commit(conditions, writes)).done);
    }
    const left = (await coordinator.list("/c/")).entries.map(({ key }) => key);
    await coordinator.close();
    return { done, left };
  }

  const lapsed = (id: typeof a): Death => ({ id, name: recordOf(id).name, reason: "lapsed", suspicion: null });
  const suspected = (id: typeof a, by: typeof a): Death => ({
    ...lapsed(id),
    suspicion: { key: keys.suspect(id, by), revision: 2 },
  });

  it("of two that suspect each other is that of one", async () => {
    const { done, left } = await commitAll([
      ["a-1", suspected(b, a)],
      ["b-1", suspected(a, b)],
    ]);
    expect(done).toEqual([true, false]);
    expect(left).toEqual([keys.dead(b), keys.node("a")]);
  });

  it("is not committed by who is dead itself", async () => {
    expect(
      await commitAll([
        ["a-1", suspected(b, a)],
        ["b-1", lapsed(c)],
      ]),
    ).toMatchObject({ done: [true, false] });
  });

  it("is not committed when the suspicion was contested, or the node said anything", async () => {
    expect(await commitAll([["a-1", suspected(b, a)]], [byA])).toMatchObject({ done: [false] });
    expect(await commitAll([["a-1", suspected(b, a)]], [keys.node("b")])).toMatchObject({ done: [false] });
  });

  it("is committed once", async () => {
    expect(
      await commitAll([
        ["a-1", lapsed(c)],
        ["a-1", lapsed(c)],
      ]),
    ).toMatchObject({ done: [true, false] });
  });
});

describe("a suspicion", () => {
  const a = toNodeId("a-1");
  const b = toNodeId("b-1");
  const nodes = new Map([known("a-1", 0), known("b-1", 0)]);
  const key = keys.suspect(b, a);
  const plan = (suspicions: Suspicions, values: Readonly<Record<string, string>>, nowMs: number, notBeforeMs = 0) =>
    planSuspicions(suspicions, { self: a, nodes, snapshot: snapshotOf(values), nowMs, notBeforeMs, contestMs: 1000 });
  const said = withSuspicion(new Map(), b, "silent");

  it("is published once, and again only when it is said again, a second later", () => {
    const first = plan(said, {}, 0);
    expect(first.publish).toEqual([b]);
    const standing = plan(first.suspicions, { [key]: "" }, 10);
    expect([standing.publish, standing.waitMs]).toEqual([[], 1000]);
    const contested = plan(standing.suspicions, {}, 20);
    expect([contested.publish, contested.deaths]).toEqual([[], []]);
    expect(plan(contested.suspicions, {}, 5000).publish).toEqual([]);
    const again = withSuspicion(contested.suspicions, b, "silent");
    expect([plan(again, {}, 999).publish, plan(again, {}, 999).waitMs]).toEqual([[], 1]);
    expect(plan(again, {}, 1000).publish).toEqual([b]);
  });

  it("whose answer was lost counts from when it was seen", () => {
    const seen = plan(plan(said, {}, 0).suspicions, { [key]: "" }, 3000);
    expect(seen.deaths).toEqual([]);
    expect(plan(seen.suspicions, { [key]: "" }, 3999).deaths).toEqual([]);
    expect(plan(seen.suspicions, { [key]: "" }, 4000).deaths).toMatchObject([
      { id: b, suspicion: { key, revision: 1 } },
    ]);
  });

  it("does not count before the others had time to come back", () => {
    const seen = plan(said, { [key]: "" }, 0);
    expect(plan(seen.suspicions, { [key]: "" }, 1500, 2000)).toMatchObject({ deaths: [], waitMs: 500 });
    expect(plan(seen.suspicions, { [key]: "" }, 2000, 2000).deaths).toHaveLength(1);
  });

  it("that was taken back is withdrawn, also when its commit came late", () => {
    const taken = withoutSuspicion(plan(said, {}, 0).suspicions, b);
    expect(plan(taken, { [key]: "" }, 10).withdraw).toEqual([key]);
    expect(plan(new Map(), { [key]: "" }, 10).withdraw).toEqual([key]);
    expect(plan(taken, {}, 2000).suspicions.size).toBe(0);
  });
});

describe("a record", () => {
  it("is read as it was written, without what later versions add", () => {
    const record = recordOf("a-1");
    expect(parseNodeRecord(writeNodeRecord(record))).toEqual(record);
    expect(parseNodeRecord(JSON.stringify({ ...record, rack: 3 }))).toEqual(record);
  });

  it.each([
    ["no JSON", "{"],
    ["no object", "[]"],
    ["no id", JSON.stringify({ ...recordOf("a-1"), id: "" })],
    ["an unknown state", JSON.stringify({ ...recordOf("a-1"), state: "dreaming" })],
    ["an address without port", JSON.stringify({ ...recordOf("a-1"), address: "a" })],
    ["versions the wrong way round", JSON.stringify({ ...recordOf("a-1"), protocolMin: 3 })],
    ["a version that is no number", JSON.stringify({ ...recordOf("a-1"), protocolMax: "2" })],
  ])("with %s is refused", (_title, text) => {
    expect(() => parseNodeRecord(text)).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }));
  });
});
