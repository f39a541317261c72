import { describe, expect, it } from "vitest";
import { defaultLinkLimits } from "../../../cluster/links/link-options.ts";
import { toNodeId } from "../../../proto/ids.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { createMemoryNetwork, memorySelf } from "../../support/memory-links.ts";
import { createRandom } from "../../support/random.ts";
import { optionsOf, recordNews } from "./link-world.ts";
import { countNews, describeLinks, type LinkedNode, type LinkWorld } from "./links-contract.ts";

function openMemoryWorld(seed: number): LinkWorld {
  const clock = createManualClock();
  const network = createMemoryNetwork({ clock, random: createRandom(seed).next });
  const names = new Map<LinkedNode, string>();
  const nameOf = (node: LinkedNode) => names.get(node) ?? "";
  const others = (node: LinkedNode, all: readonly LinkedNode[]) =>
    all.filter((one) => one !== node).map((one) => ({ id: one.id, name: nameOf(one), address: nameOf(one) }));
  return {
    start: async (name, settings) => {
      const id = toNodeId(`${name}-1`);
      const node = recordNews(id, network.links(memorySelf(id, name), optionsOf(settings)), clock.now);
      names.set(node, name);
      return node;
    },
    join: (...nodes) => {
      for (const node of nodes) node.links.connect(others(node, nodes));
    },
    mislead: (a, b, id) => a.links.connect([{ id, name: nameOf(b), address: nameOf(b) }]),
    cut: (a, b, direction) => network.cut(nameOf(a), nameOf(b), direction),
    heal: (a, b) => network.heal(nameOf(a), nameOf(b)),
    kill: (node) => network.kill(nameOf(node)),
    now: clock.now,
    running: clock.now,
    until: async (holds, what) => {
      const end = clock.now() + 10_000;
      while (!holds()) {
        if (clock.now() > end) throw new Error(`never: ${what}`);
        await clock.advance(5);
      }
    },
    pass: (ms) => clock.advance(ms),
    close: async () => {
      const closed = Promise.all([...names.keys()].map((node) => node.links.close()));
      await clock.advance(1_500);
      await closed;
      expect(clock.timers).toBe(0);
    },
  };
}

describeLinks("links in memory", async () => openMemoryWorld(1));

/** Sends numbered messages from a to b under faults drawn from a seed: `connection number`, from 0 in each connection. */
async function playFaults(seed: number): Promise<{ sent: number; received: readonly string[]; ups: number }> {
  const random = createRandom(seed);
  const clock = createManualClock();
  const network = createMemoryNetwork({ clock, random: random.next, latencyMs: [0.2, 5] });
  const names = ["a", "b", "c"];
  const nodes = names.map((name) => {
    const id = toNodeId(`${name}-1`);
    return recordNews(id, network.links(memorySelf(id, name), optionsOf()), clock.now);
  });
  const [a, b] = nodes;
  if (a === undefined || b === undefined) throw new Error("three nodes");
  let ups = 0;
  let next = 0;
  a.links.on({
    onMessage: () => {},
    onUp: (peer) => {
      if (peer !== b.id) return;
      ups += 1;
      next = 0;
    },
    onDown: () => {},
  });
  nodes.forEach((node) => {
    const peers = nodes.map(({ id }, index) => ({ id, name: names[index] ?? "", address: names[index] ?? "" }));
    node.links.connect(peers.filter(({ id }) => id !== node.id));
  });
  let sent = 0;
  for (let round = 0; round < 2_000; round++) {
    await clock.advance(random.between(0, 20));
    while (random.next() < 0.7) {
      if (!a.links.send(b.id, new TextEncoder().encode(`${ups} ${next}`))) break;
      next += 1;
      sent += 1;
    }
    const [one = "", other = ""] = random.shuffled(names);
    if (random.next() < 0.01) network.reset(one, other);
    if (random.next() < 0.005) network.cut(one, other, random.shuffled(["both", "to", "from"] as const)[0]);
    if (random.next() < 0.005) network.heal();
  }
  const received = b.received.map(({ text }) => text);
  const closed = Promise.all(nodes.map(({ links }) => links.close()));
  await clock.advance(1_500);
  await closed;
  return { sent, received, ups };
}

describe("under cuts and resets, direct or relayed", () => {
  it("messages of one connection come without gap or repeat, and never after a later connection's", async () => {
    for (let seed = 1; seed <= 15; seed++) {
      const { sent, received, ups } = await playFaults(seed);
      expect(ups, `seed ${seed}`).toBeGreaterThan(3);
      expect(received.length, `seed ${seed}`).toBeGreaterThan(sent / 2);
      let connection = 0;
      let number = -1;
      for (const text of received) {
        const [tag = 0, count = 0] = text.split(" ").map(Number);
        const isNext = tag === connection ? count === number + 1 : tag > connection && count === 0;
        expect(isNext, `seed ${seed}: ${text} after ${connection} ${number}`).toBe(true);
        connection = tag;
        number = count;
      }
    }
  });
});

describe("a relayed link", () => {
  it("whose relay has lost what it carried goes down at both ends with the next heartbeat", async () => {
    const clock = createManualClock();
    const network = createMemoryNetwork({ clock, random: createRandom(1).next });
    const nodes = ["a", "b", "c"].map((name) => {
      const id = toNodeId(`${name}-1`);
      return recordNews(id, network.links(memorySelf(id, name), optionsOf()), clock.now);
    });
    const [a, b, c] = nodes;
    if (a === undefined || b === undefined || c === undefined) throw new Error("three nodes");
    const [atA, atB, atC] = [a, b, c].map(({ id }) => ({ id, name: id.slice(0, 1), address: id.slice(0, 1) }));
    if (atA === undefined || atB === undefined || atC === undefined) throw new Error("three peers");
    a.links.connect([atB, atC]);
    b.links.connect([atA, atC]);
    c.links.connect([atA, atB]);
    network.cut("a", "b");
    // Between heartbeats: when the next one comes the relay reaches both ends again.
    await clock.advance(3_070);
    expect([a.links.pathOf(b.id), b.links.pathOf(a.id)]).toEqual(["relayed", "relayed"]);
    const downs = countNews(a, b, "down");
    network.reset("b", "c");
    await clock.advance(defaultLinkLimits.heartbeatMs + 200);
    expect(b.links.pathOf(c.id)).toBe("direct");
    expect(countNews(a, b, "down")).toBe(downs + 1);
    const closed = Promise.all(nodes.map(({ links }) => links.close()));
    await clock.advance(1_500);
    await closed;
  });
});

describe("a network in memory", () => {
  it("comes to the same for the same seed, to the message and the millisecond", async () => {
    const play = async (seed: number) => {
      const world = openMemoryWorld(seed);
      const nodes = [await world.start("a"), await world.start("b"), await world.start("c")];
      world.join(...nodes);
      const [a, b, c] = nodes;
      if (a === undefined || b === undefined || c === undefined) throw new Error("three nodes");
      await world.pass(300);
      for (let index = 0; index < 50; index++) a.links.send(b.id, new Uint8Array([index]));
      world.cut(a, b, "to");
      await world.pass(3_000);
      a.links.send(b.id, new Uint8Array([7]));
      world.heal(a, b);
      await world.pass(3_000);
      world.kill(c);
      await world.pass(1_000);
      const told = nodes.map(({ news, received }) => ({ news, received }));
      await world.close();
      return JSON.stringify(told);
    };
    expect(await play(5)).toBe(await play(5));
    expect(await play(5)).not.toBe(await play(6));
  });
});
