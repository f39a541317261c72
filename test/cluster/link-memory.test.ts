import { describe, expect, it } from "vitest";
import { toNodeId } from "../../proto/ids.ts";
import { createManualClock } from "../support/manual-clock.ts";
import { createMemoryNetwork, memorySelf } from "../support/memory-links.ts";
import { createRandom } from "../support/random.ts";
import { optionsOf, recordNews } from "./link-world.ts";
import { describeLinks, type LinkedNode, type LinkWorld } from "./links-contract.ts";

function openMemoryWorld(seed: number): LinkWorld {
  const clock = createManualClock();
  const network = createMemoryNetwork({ clock, random: createRandom(seed).next });
  const names = new Map<LinkedNode, string>();
  const nameOf = (node: LinkedNode) => names.get(node) ?? "";
  const others = (node: LinkedNode, all: readonly LinkedNode[]) =>
    all.filter((one) => one !== node).map((one) => ({ id: one.id, address: nameOf(one) }));
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
    mislead: (a, b, id) => a.links.connect([{ id, address: nameOf(b) }]),
    cut: (a, b, direction) => network.cut(nameOf(a), nameOf(b), direction),
    heal: (a, b) => network.heal(nameOf(a), nameOf(b)),
    kill: (node) => network.kill(nameOf(node)),
    now: clock.now,
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
