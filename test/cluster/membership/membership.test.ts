import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createMembershipKeys } from "../../../cluster/membership/membership-keys.ts";
import { writeNodeRecord } from "../../../cluster/membership/node-record.ts";
import { shardId, toNodeId } from "../../../proto/ids.ts";
import {
  createMembershipCluster,
  type FaultSwitch,
  hanging,
  type MembershipCluster,
  none,
  prefix,
  ttlMs,
} from "./membership-cluster.ts";

const keys = createMembershipKeys(prefix);
let cluster: MembershipCluster;

beforeEach(() => {
  cluster = createMembershipCluster();
});

afterEach(async () => {
  await cluster.close();
  expect(cluster.clock.timers).toBe(0);
});

const put = (key: string, value: string) => cluster.coordinator.commit([], [{ kind: "put", key, value, lease: null }]);
const deaths = async () =>
  (await cluster.coordinator.list(`${prefix}dead/`)).entries.map(({ key }) => key.slice(`${prefix}dead/`.length));

describe("a node", () => {
  it("is seen by all as soon as it joined, and gone as soon as it left", async () => {
    const a = await cluster.start("a");
    const b = await cluster.start("b");
    expect([a.names(), b.names()]).toEqual([
      ["a", "b"],
      ["a", "b"],
    ]);
    expect(b.membership.self).toMatchObject({ id: "b-1", name: "b", state: "joining", address: "b:7800" });
    const leaving = b.membership.close();
    await cluster.clock.advance(10);
    await leaving;
    expect(a.names()).toEqual(["a"]);
    expect(await deaths()).toEqual(["b-1"]);
    expect((await cluster.coordinator.list(`${prefix}node/b`)).entries).toEqual([]);
  });

  it("may have any name", async () => {
    const a = await cluster.start("a/b c%2F");
    expect(a.names()).toEqual(["a/b c%2F"]);
  });

  it("publishes the state that it announces", async () => {
    const a = await cluster.start("a");
    const b = await cluster.start("b");
    const announced = a.membership.announce("serving");
    await cluster.clock.advance(10);
    await announced;
    expect(a.membership.self.state).toBe("serving");
    expect(b.membership.view.nodes.map(({ state }) => state)).toEqual(["serving", "joining"]);
  });

  it("publishes a state that the coordinator did not hear when it hears again", async () => {
    const a = await cluster.start("a");
    const b = await cluster.start("b");
    a.cut();
    const heard = a.membership.announce("serving");
    await cluster.clock.advance(1000);
    a.heal();
    await cluster.clock.advance(3000);
    await heard;
    expect(b.membership.view.nodes[0]?.state).toBe("serving");
    a.faults.fault = () => ({ kind: "refused" });
    const unheard = expect(a.membership.announce("leaving")).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await cluster.clock.advance(5000);
    await unheard;
    a.heal();
    await cluster.clock.advance(3000);
    expect(b.membership.view.nodes[0]).toMatchObject({ id: "a-1", state: "leaving" });
  });

  it("that says nothing any more is given up after the time to live of its lease", async () => {
    const a = await cluster.start("a");
    const b = await cluster.start("b");
    b.freeze();
    await cluster.clock.advance(ttlMs - 1500);
    expect(a.names()).toEqual(["a", "b"]);
    await cluster.clock.advance(ttlMs + 1600);
    expect(a.names()).toEqual(["a"]);
    expect(await deaths()).toEqual(["b-1"]);
  });

  it("that was frozen until it was given up is told, and joins again under a new id", async () => {
    const a = await cluster.start("a");
    const b = await cluster.start("b");
    const reasons: string[] = [];
    b.membership.onExpelled(async (reason) => void reasons.push(reason));
    b.freeze();
    await cluster.clock.advance(30_000);
    b.thaw();
    await cluster.clock.advance(500);
    expect(reasons).toEqual([expect.stringContaining("lease lapsed")]);
    expect(a.names()).toEqual(["a"]);
    await cluster.clock.advance(5000);
    expect(a.membership.view.nodes.map(({ id }) => id)).toEqual(["a-1", "b-2"]);
    expect(b.membership.self.id).toBe("b-2");
  });

  it("that restarts under its name takes the place of the one that died, as soon as that one's lease lapsed", async () => {
    const a = await cluster.start("a");
    const b = await cluster.start("b");
    b.freeze();
    const joining = cluster.join("b");
    await cluster.clock.advance(ttlMs + 500);
    expect((await joining).self.id).toBe("b-2");
    expect(a.membership.view.nodes.map(({ id }) => id)).toEqual(["a-1", "b-2"]);
  });

  it("with the name of a node that lives is refused two seconds after a lease would have lapsed", async () => {
    await cluster.start("a");
    const refused = expect(cluster.join("a")).rejects.toMatchObject({
      code: "CONFIG",
      message: expect.stringMatching(/another node named a is alive at a:7800/),
    });
    await cluster.clock.advance(ttlMs + 2000);
    await refused;
    expect(cluster.logged.filter((line) => line.includes("waited for"))).toHaveLength(1);
  });

  it("does not take the one before it for alive by what it was told too late", async () => {
    const b = await cluster.start("b");
    b.freeze();
    const faults: FaultSwitch = { fault: () => none };
    const joining = cluster.join("b", faults);
    await cluster.clock.advance(ttlMs - 200);
    // Asked for, as something has changed, while the lease still holds; there when it would have lapsed long since.
    faults.fault = (call) => (call === "list" ? { kind: "slow", beforeMs: 0, afterMs: 1900 } : none);
    await put(keys.weight("entity", "b"), "1");
    await cluster.clock.advance(100);
    faults.fault = () => none;
    await cluster.clock.advance(5000);
    expect((await joining).self.id).toBe("b-2");
  });

  it("whose name was taken while it was away is expelled", async () => {
    const a = await cluster.start("a");
    const reasons: string[] = [];
    a.membership.onExpelled(async (reason) => void reasons.push(reason));
    a.cut();
    const joining = cluster.join("a");
    await cluster.clock.advance(ttlMs + 500);
    const other = await joining;
    a.heal();
    await cluster.clock.advance(5000);
    expect(reasons).toEqual([expect.stringContaining("name was taken by a-2")]);
    expect(a.membership.view.nodes.map(({ id }) => id)).toEqual([other.self.id]);
  });

  it("that no node there can talk to is refused at once, and none of them ever sees it", async () => {
    const a = await cluster.start("a");
    cluster.speak(2);
    const text = "no protocol version in common: node a speaks 1 to 1, node b speaks 2 to 2";
    const refused = expect(cluster.join("b")).rejects.toMatchObject({
      code: "VERSION_MISMATCH",
      message: expect.stringContaining(text),
    });
    await cluster.clock.advance(1000);
    await refused;
    expect(a.views.flatMap(({ nodes }) => nodes.map(({ name }) => name))).not.toContain("b");
    await a.membership.close();
    expect((await cluster.start("b")).names()).toEqual(["b"]);
  });

  it("that was given up does not return to nodes that it cannot talk to, and says so once", async () => {
    const a = await cluster.start("a");
    await cluster.start("b");
    a.cut();
    await cluster.clock.advance(ttlMs + 2000);
    const newer = { name: "c", id: toNodeId("c-1"), protocolMin: 2, protocolMax: 3 };
    await put(keys.node("c"), writeNodeRecord({ ...a.membership.self, ...newer }));
    a.heal();
    await cluster.clock.advance(60_000);
    expect(cluster.logged.filter((line) => line === "a: node does not return")).toHaveLength(1);
    expect(a.names()).not.toContain("a");
  });

  it("cannot join without the coordinator, and says so", async () => {
    const refused = expect(cluster.join("a", { fault: () => hanging })).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await cluster.clock.advance(35_000);
    await refused;
  });

  it("joins when the coordinator comes within its patience", async () => {
    const faults = { fault: () => hanging };
    const joining = cluster.join("a", faults);
    await cluster.clock.advance(20_000);
    faults.fault = () => none;
    await cluster.clock.advance(5000);
    expect((await joining).view.nodes).toHaveLength(1);
  });
});

describe("a view", () => {
  it("is told only when something changed", async () => {
    const a = await cluster.start("a");
    await cluster.start("b");
    const told = a.views.length;
    await put("/starling/test2/node/c", "another cluster's");
    await cluster.clock.advance(30_000);
    expect(a.views).toHaveLength(told);
    expect(a.membership.view.revision).toBeGreaterThan(a.views.at(-1)?.revision ?? 0);
  });

  it("holds pins and weights, without what cannot be read", async () => {
    const a = await cluster.start("a");
    await put(keys.pin(shardId("system", 3)), "b");
    await put(keys.weight("entity", "b/1"), "2.5");
    await put(keys.weight("entity", "c"), "much");
    await put(`${prefix}pin/first`, "b");
    await put(`${prefix}node/x`, '{"id":"x-1"}');
    await put(`${prefix}later/x`, "of a later version");
    await cluster.clock.advance(10_000);
    expect(a.membership.view.pins).toEqual(new Map([[shardId("system", 3), "b"]]));
    expect(a.membership.view.weights).toEqual(new Map([["entity", new Map([["b/1", 2.5]])]]));
    expect(a.names()).toEqual(["a"]);
    expect(cluster.logged.filter((line) => line.includes("could not be read"))).toHaveLength(3);
  });

  it("is right without any hint", async () => {
    const a = await cluster.start("a");
    a.faults.fault = (call) => (call === "hint" ? hanging : none);
    await cluster.start("b");
    await cluster.clock.advance(2500);
    expect(a.names()).toEqual(["a", "b"]);
  });

  it("survives a listener that throws", async () => {
    const a = await cluster.start("a");
    a.membership.onView(() => {
      throw new Error("a bug");
    });
    await cluster.start("b");
    expect(a.names()).toEqual(["a", "b"]);
    expect(cluster.logged).toContain("a: listener of the view failed");
  });
});
