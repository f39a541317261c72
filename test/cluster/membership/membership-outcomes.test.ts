import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { CoordinatorCall, CoordinatorFault } from "../../../cluster/memory-coordinator.ts";
import { toNodeId } from "../../../proto/ids.ts";
import { createRandom, seedOfRun } from "../../support/random.ts";
import {
  createMembershipCluster,
  hanging,
  type MembershipCluster,
  none,
  prefix,
  type TestNode,
} from "./membership-cluster.ts";

let cluster: MembershipCluster;

beforeEach(() => {
  cluster = createMembershipCluster();
});

afterEach(async () => {
  await cluster.close();
  expect(cluster.clock.timers).toBe(0);
});

const faults: Readonly<Record<string, CoordinatorFault>> = {
  "is refused": { kind: "refused" },
  "is done, but its answer is lost": { kind: "broken" },
  "is done, and never answered": { kind: "slow", beforeMs: 0, afterMs: Number.POSITIVE_INFINITY },
  "is done long after its deadline": { kind: "slow", beforeMs: 2600, afterMs: 0 },
};

/** Lets the call of that number meet a fault, and all others none. */
function once(
  number: number,
  fault: CoordinatorFault,
  name: CoordinatorCall,
): (call: CoordinatorCall) => CoordinatorFault {
  let count = 0;
  return (call) => (call === name && count++ === number ? fault : none);
}

const calls = ["commit", "grant", "list"] as const;

describe.each(Object.entries(faults))("a call that %s", (_title, fault) => {
  it.each(calls)("of %s never keeps a node from joining, once", async (call) => {
    for (let number = 0; number < 2; number++) {
      const name = `n${number}`;
      const joining = cluster.join(name, { fault: once(number, fault, call) });
      await cluster.clock.advance(8000);
      const node = await joining;
      expect(node.self.id).toBe(`${name}-1`);
      expect(node.view.nodes.filter((other) => other.name === name)).toHaveLength(1);
      await cluster.clock.advance(20_000);
      expect(node.self.id).toBe(`${name}-1`);
    }
  });

  it.each(calls)("of %s neither keeps a silent node alive nor ends another one", async (call) => {
    for (let number = 0; number < 3; number++) {
      const a = await cluster.start(`a${number}`);
      const b = await cluster.start(`b${number}`);
      const c = await cluster.start(`c${number}`);
      b.freeze();
      a.faults.fault = once(number, fault, call);
      a.membership.suspect(b.membership.self.id, "link broke");
      await cluster.clock.advance(12_000);
      for (const node of [a, c]) {
        expect(node.names()).toEqual([`a${number}`, `c${number}`]);
        expect(node.membership.self.id).toMatch(/-1$/);
      }
      b.thaw();
      await cluster.clock.advance(5000);
      expect(c.names()).toEqual([`a${number}`, `b${number}`, `c${number}`]);
      for (const node of [a, b, c]) await leave(node);
    }
  });

  it.each(calls)("of %s does not hurt a node that contests a suspicion", async (call) => {
    const a = await cluster.start("a");
    const b = await cluster.start("b");
    a.faults.fault = once(0, fault, call);
    a.membership.suspect(toNodeId("b-1"), "link broke");
    await cluster.clock.advance(20_000);
    expect(a.names()).toEqual(["a", "b"]);
    expect(b.membership.self.id).toBe("b-1");
    expect((await cluster.coordinator.list(`${prefix}suspect/`)).entries).toEqual([]);
  });

  it.each(calls)("of %s does not make a node that left come back", async (call) => {
    const a = await cluster.start("a");
    const b = await cluster.start("b");
    b.faults.fault = once(0, fault, call);
    void b.membership.announce("leaving").catch(() => {});
    await cluster.clock.advance(1);
    await leave(b);
    await cluster.clock.advance(20_000);
    expect(a.names()).toEqual(["a"]);
  });
});

it("a record on its way when its node is marked dead never stands beside the mark", async () => {
  let marks = 0;
  for (let waitMs = 4000; waitMs < 9000; waitMs += 250) {
    const world = createMembershipCluster();
    await world.start("a");
    const b = await world.start("b");
    const both: string[] = [];
    world.coordinator.watch(prefix, async () => {
      const { entries } = await world.coordinator.list(prefix);
      const dead = entries.filter(({ key }) => key === `${prefix}dead/b-1`);
      const standing = entries.filter(({ value }) => value.includes('"id":"b-1"'));
      marks += dead.length;
      if (dead.length > 0) both.push(...standing.map(({ key }) => key));
    });
    b.faults.fault = () => ({ kind: "refused" });
    await world.clock.advance(waitMs);
    b.faults.fault = once(0, { kind: "slow", beforeMs: 1800, afterMs: 0 }, "commit");
    await world.clock.advance(6000);
    expect(both).toEqual([]);
    await world.close();
  }
  expect(marks).toBeGreaterThan(0);
});

it("closing waits for the coordinator for a second at most", async () => {
  const a = await cluster.start("a");
  a.faults.fault = () => hanging;
  const startedAtMs = cluster.clock.now();
  let closedAtMs = Number.POSITIVE_INFINITY;
  void a.membership.close().then(() => {
    closedAtMs = cluster.clock.now();
  });
  await cluster.clock.advance(1100);
  expect(closedAtMs - startedAtMs).toBe(1000);
});

async function leave(node: TestNode): Promise<void> {
  const closing = node.membership.close();
  await cluster.clock.advance(1100);
  await closing;
}

describe("whatever befalls the calls", () => {
  const seed = seedOfRun();

  it(`who was given up never returns under its id, and in the end all agree (seed ${seed})`, {
    timeout: 60_000,
  }, async () => {
    for (let run = 0; run < 15; run++) {
      const world = createMembershipCluster();
      await play(world, seed + run);
      await world.close();
    }
  });
});

/** Five minutes of faults, and then a quiet one. */
async function play(world: MembershipCluster, seed: number): Promise<void> {
  const random = createRandom(seed);
  const names = ["a", "b", "c", "d"];
  const nodes: TestNode[] = [];
  for (const name of names) nodes.push(await world.start(name));
  const gone = nodes.map(() => new Set<string>());
  const returned: string[] = [];
  nodes.forEach((node, index) => {
    let former = new Set<string>();
    node.membership.onView((view) => {
      const ids = new Set<string>(view.nodes.map(({ id }) => id));
      for (const id of former) if (!ids.has(id)) gone[index]?.add(id);
      former = ids;
      returned.push(...[...ids].filter((id) => gone[index]?.has(id)));
    });
  });
  for (let step = 0; step < 300; step++) {
    const node = nodes[random.between(0, 3)];
    const other = nodes[random.between(0, 3)];
    if (node === undefined || other === undefined) continue;
    const kind = random.between(0, 7);
    if (kind === 0) node.freeze();
    else if (kind <= 2) node.thaw();
    else if (kind === 3) node.faults.fault = () => someFault(random.next());
    else if (kind === 4) node.cut();
    else node.membership.suspect(other.membership.self.id, "link broke");
    await world.clock.advance(random.between(0, 2000));
  }
  for (const node of nodes) node.thaw();
  await world.clock.advance(130_000);
  expect({ seed, returned }).toEqual({ seed, returned: [] });
  expect(gone.some(({ size }) => size > 0)).toBe(true);
  const ids = nodes.map(({ membership }) => membership.self.id);
  for (const { membership } of nodes) {
    expect({ seed, ids: membership.view.nodes.map(({ id }) => id) }).toEqual({ seed, ids });
    expect(membership.view.suspects.size).toBe(0);
    expect(membership.connected).toBe(true);
  }
}

function someFault(dice: number): CoordinatorFault {
  if (dice < 0.5) return none;
  if (dice < 0.6) return { kind: "refused" };
  if (dice < 0.75) return { kind: "broken" };
  return { kind: "slow", beforeMs: (dice - 0.75) * 12_000, afterMs: dice > 0.9 ? Number.POSITIVE_INFINITY : 0 };
}
