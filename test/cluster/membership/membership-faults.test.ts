import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createMembershipKeys } from "../../../cluster/membership/membership-keys.ts";
import { toNodeId } from "../../../proto/ids.ts";
import { createMembershipCluster, hanging, type MembershipCluster, none, prefix, ttlMs } from "./membership-cluster.ts";

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

describe("without the coordinator", () => {
  it("views stand still for a minute, and afterwards all is as before, with the same ids", async () => {
    const nodes = [await cluster.start("a"), await cluster.start("b"), await cluster.start("c")];
    const told = nodes.map(({ views }) => views.length);
    for (const node of nodes) node.cut();
    await cluster.clock.advance(60_000);
    expect(nodes.map(({ membership }) => membership.connected)).toEqual([false, false, false]);
    expect((await cluster.coordinator.list(`${prefix}node/`)).entries).toEqual([]);
    for (const [index, node] of nodes.entries()) {
      node.heal();
      await cluster.clock.advance(index * 700);
    }
    await cluster.clock.advance(20_000);
    expect(nodes.map(({ views }) => views.length)).toEqual(told);
    expect(nodes.map(({ membership }) => membership.self.id)).toEqual(["a-1", "b-1", "c-1"]);
    expect((await cluster.coordinator.list(`${prefix}node/`)).entries).toHaveLength(3);
    expect(nodes.map(({ membership }) => membership.connected)).toEqual([true, true, true]);
    expect(await deaths()).toEqual([]);
  });

  it("one node alone is given up by the others; what it had is ended before it joins again under a new id", async () => {
    const a = await cluster.start("a");
    const b = await cluster.start("b");
    let finish = (): void => {};
    const ended = new Promise<void>((resolve) => {
      finish = resolve;
    });
    b.membership.onExpelled(() => ended);
    b.cut();
    await cluster.clock.advance(3 * ttlMs);
    expect(a.names()).toEqual(["a"]);
    expect(b.names()).toEqual(["a", "b"]);
    b.heal();
    await cluster.clock.advance(20_000);
    expect([a.names(), b.names(), b.membership.self.id]).toEqual([["a"], ["a"], "b-1"]);
    finish();
    await cluster.clock.advance(900);
    expect(a.names()).toEqual(["a"]);
    await cluster.clock.advance(200);
    expect([a.names(), b.membership.self.id]).toEqual([["a", "b"], "b-2"]);
  });

  it("for a while only, a node keeps its id although its lease lapsed", async () => {
    const a = await cluster.start("a");
    const b = await cluster.start("b");
    await cluster.clock.advance(1500);
    b.cut();
    await cluster.clock.advance(ttlMs);
    expect((await cluster.coordinator.list(keys.node("b"))).entries).toEqual([]);
    b.heal();
    await cluster.clock.advance(10_000);
    expect(a.membership.view.nodes.map(({ id }) => id)).toEqual(["a-1", "b-1"]);
    expect(a.views.at(-1)?.nodes).toHaveLength(2);
  });

  it("who was away itself does not count a lapse before a whole time to live", async () => {
    const a = await cluster.start("a");
    const b = await cluster.start("b");
    a.cut();
    b.freeze();
    await cluster.clock.advance(60_000);
    a.heal();
    await cluster.clock.advance(ttlMs - 100);
    expect(a.names()).toEqual(["a", "b"]);
    await cluster.clock.advance(3000);
    expect(a.names()).toEqual(["a"]);
  });

  it("that is, with one that lost its data, nothing changes either", async () => {
    const a = await cluster.start("a");
    await cluster.start("b");
    await cluster.clock.advance(5000);
    cluster.coordinator.wipe();
    await cluster.clock.advance(60_000);
    expect(a.names()).toEqual(["a", "b"]);
    expect(a.membership.connected).toBe(false);
    expect((await cluster.coordinator.list(prefix)).entries).toEqual([]);
  });

  it("that is, with another one in its place, nothing changes either", async () => {
    const a = await cluster.start("a");
    a.cut();
    await cluster.clock.advance(5000);
    cluster.coordinator.wipe("another");
    for (let i = 0; i < 50; i++) await put(`/other/${i}`, "");
    a.heal();
    await cluster.clock.advance(60_000);
    expect(a.names()).toEqual(["a"]);
    expect(a.membership.connected).toBe(false);
    expect((await cluster.coordinator.list(prefix)).entries).toEqual([]);
  });
});

describe("a suspicion", () => {
  it("of a silent node is proof after a second", async () => {
    const a = await cluster.start("a");
    const b = await cluster.start("b");
    const c = await cluster.start("c");
    await cluster.clock.advance(5000);
    b.freeze();
    a.membership.suspect(toNodeId("b-1"), "link broke");
    await cluster.clock.advance(900);
    expect(c.membership.view.suspects).toEqual(new Set(["b-1"]));
    expect(a.names()).toEqual(["a", "b", "c"]);
    await cluster.clock.advance(200);
    expect([a.names(), c.names()]).toEqual([
      ["a", "c"],
      ["a", "c"],
    ]);
    expect(c.membership.view.suspects.size).toBe(0);
    expect((await cluster.coordinator.list(`${prefix}suspect/`)).entries).toEqual([]);
  });

  it("of a node that lives is contested at once, however often it is said", async () => {
    const a = await cluster.start("a");
    const b = await cluster.start("b");
    let commits = 0;
    a.faults.fault = (call) => {
      if (call === "commit") commits++;
      return none;
    };
    for (let i = 0; i < 100; i++) {
      a.membership.suspect(toNodeId("b-1"), "link broke");
      await cluster.clock.advance(100);
    }
    expect(a.names()).toEqual(["a", "b"]);
    expect(b.names()).toEqual(["a", "b"]);
    expect(commits).toBeGreaterThanOrEqual(9);
    expect(commits).toBeLessThanOrEqual(11);
    await cluster.clock.advance(2000);
    expect(b.membership.view.suspects.size).toBe(0);
  });

  it("is withdrawn when the node answers again", async () => {
    const a = await cluster.start("a");
    const b = await cluster.start("b");
    b.freeze();
    a.membership.suspect(toNodeId("b-1"), "link broke");
    await cluster.clock.advance(500);
    a.membership.clear(toNodeId("b-1"));
    await cluster.clock.advance(1000);
    b.thaw();
    await cluster.clock.advance(5000);
    expect(a.names()).toEqual(["a", "b"]);
    expect(a.membership.view.suspects.size).toBe(0);
  });

  it("waits while the coordinator is away, and then gives everybody time to come back", async () => {
    const a = await cluster.start("a");
    const b = await cluster.start("b");
    a.cut();
    b.cut();
    a.membership.suspect(toNodeId("b-1"), "link broke");
    await cluster.clock.advance(2100);
    a.heal();
    await cluster.clock.advance(1700);
    b.heal();
    await cluster.clock.advance(10_000);
    expect(a.names()).toEqual(["a", "b"]);
    expect(b.membership.self.id).toBe("b-1");
  });

  it("of nobody, of oneself or of a stranger is none", async () => {
    const a = await cluster.start("a");
    a.membership.suspect(toNodeId("a-1"), "itself");
    a.membership.suspect(toNodeId("x-1"), "a stranger");
    a.membership.clear(toNodeId("x-1"));
    await cluster.clock.advance(3000);
    expect(a.names()).toEqual(["a"]);
    expect((await cluster.coordinator.list(`${prefix}suspect/`)).entries).toEqual([]);
  });
});

describe("a start that is given up", () => {
  it.each(["while the coordinator does not answer", "before it began"])(
    "ends at once, and nothing is left: %s",
    async (when) => {
      const person = new AbortController();
      if (when === "before it began") person.abort();
      const joining = cluster.join("a", { fault: () => hanging }, person.signal);
      const ended = expect(joining).rejects.toMatchObject({ code: "UNAVAILABLE", message: "it was given up" });
      await cluster.clock.advance(3_000);
      person.abort();
      // It tries to take its record back.
      await cluster.clock.advance(1_000);
      await ended;
      expect((await cluster.coordinator.list(`${prefix}node/`)).entries).toEqual([]);
    },
  );
});

describe("a node that is given up again and again", () => {
  it("waits 1, 2, 4 and at most 8 seconds, and one again after it was well", async () => {
    const a = await cluster.start("a");
    const waits: number[] = [];
    const expel = async () => {
      const { id, name } = a.membership.self;
      await cluster.coordinator.commit(
        [],
        [
          { kind: "delete", key: keys.node(name) },
          { kind: "put", key: keys.dead(id), value: "by hand", lease: null },
        ],
      );
      await cluster.clock.advance(0);
      const expelledAtMs = cluster.clock.now();
      for (let i = 0; i < 1400 && a.membership.self.id === id; i++) await cluster.clock.advance(50);
      waits.push(cluster.clock.now() - expelledAtMs);
    };
    for (let i = 0; i < 8; i++) await expel();
    await cluster.clock.advance(301_000);
    await expel();
    const seconds = waits.map((ms) => Math.floor(ms / 1050));
    expect(seconds).toEqual([1, 2, 4, 8, 8, 8, 8, 8, 1]);
  });
});
