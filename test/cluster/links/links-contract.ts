import { describe, expect, test } from "vitest";
import type { LinkLimits } from "../../../cluster/links/link-options.ts";
import type { Links } from "../../../cluster/links/links.ts";
import type { NodeId } from "../../../proto/ids.ts";

/** What happened at a node, in order. */
export type LinkNews =
  | { readonly kind: "up" | "down"; readonly peer: NodeId; readonly code: string; readonly atMs: number }
  | { readonly kind: "direct" | "indirect"; readonly peer: NodeId; readonly atMs: number };

/** A node of a test: its links, and what they told. */
export interface LinkedNode {
  readonly id: NodeId;
  readonly links: Links & { pathOf(peer: NodeId): string; modelHashOf(peer: NodeId): string | null };
  readonly news: readonly LinkNews[];
  readonly received: readonly { readonly from: NodeId; readonly text: string }[];
}

export interface NodeSettings {
  readonly clusterId?: string;
  readonly protocol?: readonly [number, number];
  readonly modelHash?: string;
  readonly limits?: Partial<LinkLimits>;
}

/** A network of nodes; ids sort as their names do. */
export interface LinkWorld {
  start(name: string, settings?: NodeSettings): Promise<LinkedNode>;
  /** Every node named knows every other one. */
  join(...nodes: readonly LinkedNode[]): void;
  /** Node `a` is told of a node with this id at b's address. */
  mislead(a: LinkedNode, b: LinkedNode, id: NodeId): void;
  cut(a: LinkedNode, b: LinkedNode, direction?: "both" | "to" | "from"): void;
  heal(a: LinkedNode, b: LinkedNode): void;
  kill(node: LinkedNode): void;
  now(): number;
  /** The same without what the nodes' process stood still, which links forgive: for what may take no longer. */
  running(): number;
  /** Waits until it holds; fails after 10 s. */
  until(holds: () => boolean, what: string): Promise<void>;
  /** Lets time pass in which something must not happen. */
  pass(ms: number): Promise<void>;
  close(): Promise<void>;
}

const bytes = (text: string) => new TextEncoder().encode(text);

/** Whether the last word at `node` about the peer's link was `kind`. */
export function lastNews(node: LinkedNode, peer: LinkedNode): "up" | "down" | null {
  const heard = node.news.filter((one) => one.peer === peer.id && (one.kind === "up" || one.kind === "down"));
  return (heard.at(-1)?.kind as "up" | "down" | undefined) ?? null;
}

/** How often it was told. */
export function countNews(node: LinkedNode, peer: LinkedNode, kind: LinkNews["kind"]): number {
  return node.news.filter((one) => one.peer === peer.id && one.kind === kind).length;
}

const isLinked = (a: LinkedNode, b: LinkedNode) => a.links.isUp(b.id) && b.links.isUp(a.id);
const isDirect = (a: LinkedNode, b: LinkedNode) =>
  a.links.pathOf(b.id) === "direct" && b.links.pathOf(a.id) === "direct";

/** Two nodes that are linked. */
export async function linkPair(world: LinkWorld, settings?: NodeSettings) {
  const a = await world.start("a", settings);
  const b = await world.start("b", settings);
  world.join(a, b);
  await world.until(() => isLinked(a, b), "a and b are linked");
  return { a, b };
}

/** What links promise, whatever their wires are. Each test has a world of its own; most of their time they wait. */
export function describeLinks(name: string, open: () => Promise<LinkWorld>): void {
  describe(name, () => {
    const it = (promise: string, play: (world: LinkWorld) => Promise<void>) =>
      test.concurrent(promise, async () => {
        const world = await open();
        try {
          await play(world);
        } finally {
          await world.close();
        }
      });

    it("messages arrive in order, both ways", async (world) => {
      const { a, b } = await linkPair(world);
      const sent = Array.from({ length: 2_000 }, (_, index) => `${index}`);
      for (const text of sent) {
        expect(a.links.send(b.id, bytes(text))).toBe(true);
        expect(b.links.send(a.id, bytes(text))).toBe(true);
      }
      await world.until(() => a.received.length === 2_000 && b.received.length === 2_000, "all arrived");
      expect(b.received.map(({ text }) => text)).toEqual(sent);
      expect(a.received.map(({ text }) => text)).toEqual(sent);
      expect(b.received[0]?.from).toBe(a.id);
    });

    it("credits hold a fast sender back, and come back", async (world) => {
      const { a, b } = await linkPair(world, { limits: { creditBytes: 10_000 } });
      const body = new Uint8Array(1_000);
      let sent = 0;
      while (sent < 100 && a.links.send(b.id, body)) sent++;
      expect(sent).toBe(9);
      await world.until(() => b.received.length === sent, "the first arrived");
      let again = 0;
      await world.until(() => {
        while (again < 100 && a.links.send(b.id, body)) again++;
        return again >= 100;
      }, "a hundred more went off");
      await world.until(() => b.received.length === sent + again, "all arrived");
    });

    it("one message above the credits is let through when nothing is on its way", async (world) => {
      const { a, b } = await linkPair(world, { limits: { creditBytes: 1_000 } });
      for (let round = 1; round <= 3; round++) {
        await world.until(() => a.links.send(b.id, new Uint8Array(5_000)), "it was taken");
        expect(a.links.send(b.id, bytes("more"))).toBe(false);
        await world.until(() => b.received.length === round, "it arrived");
      }
    });

    it("a message that no link can carry is refused as TOO_LARGE", async (world) => {
      const { a, b } = await linkPair(world, { limits: { messageMaxBytes: 1_000 } });
      expect(() => a.links.send(b.id, new Uint8Array(1_001))).toThrow(expect.objectContaining({ code: "TOO_LARGE" }));
      expect(a.links.send(b.id, new Uint8Array(1_000))).toBe(true);
    });

    it("nobody can be sent to who is not linked", async (world) => {
      const a = await world.start("a");
      const b = await world.start("b");
      expect(a.links.isUp(b.id)).toBe(false);
      expect(a.links.send(b.id, bytes("x"))).toBe(false);
    });

    it("the hash of a peer's model is known", async (world) => {
      const { a, b } = await linkPair(world, { modelHash: "h7" });
      expect([a.links.modelHashOf(b.id), b.links.modelHashOf(a.id)]).toEqual(["h7", "h7"]);
    });

    it("a killed peer is down at once, and stays down, told about every second", async (world) => {
      const { a, b } = await linkPair(world);
      const c = await world.start("c");
      world.join(a, b, c);
      await world.until(() => isLinked(a, c) && isLinked(b, c), "all are linked");
      const [killedMs, ranMs] = [world.now(), world.running()];
      world.kill(b);
      await world.until(() => !a.links.isUp(b.id) && !c.links.isUp(b.id), "both noticed");
      expect(world.running() - ranMs).toBeLessThan(300);
      expect(a.links.send(b.id, bytes("x"))).toBe(false);
      expect(countNews(a, b, "down")).toBe(1);
      await world.until(() => countNews(a, b, "down") === 3 && countNews(c, b, "down") === 3, "told twice more");
      expect(world.now() - killedMs).toBeGreaterThan(1_900);
      expect(world.running() - ranMs).toBeLessThan(3_500);
      expect(isLinked(a, c)).toBe(true);
      expect(countNews(a, c, "down")).toBe(0);
    });

    it("a node that was never reached has four seconds for its start, then it is told about every second", async (world) => {
      const a = await world.start("a");
      const b = await world.start("b");
      world.cut(a, b);
      const namedMs = world.now();
      world.join(a, b);
      await world.until(() => countNews(a, b, "down") === 2 && countNews(b, a, "down") === 2, "both told it twice");
      const first = [...a.news, ...b.news].filter(({ kind }) => kind === "down").map(({ atMs }) => atMs - namedMs);
      expect(Math.min(...first)).toBeGreaterThanOrEqual(3_900);
      expect(Math.max(...first)).toBeGreaterThanOrEqual(4_800);
    });

    for (const direction of ["both", "to", "from"] as const) {
      it(`a black hole (${direction}) is noticed at both ends in under 2 s, and left after healing`, async (world) => {
        const { a, b } = await linkPair(world);
        const cutMs = world.running();
        world.cut(a, b, direction);
        for (let index = 0; index < 10; index++) {
          a.links.send(b.id, bytes(`a${index}`));
          b.links.send(a.id, bytes(`b${index}`));
        }
        await world.until(() => !a.links.isUp(b.id) && !b.links.isUp(a.id), "both noticed");
        expect(world.running() - cutMs).toBeLessThan(2_000);
        expect([countNews(a, b, "down"), countNews(b, a, "down")]).toEqual([1, 1]);
        await world.until(() => countNews(a, b, "down") > 1 && countNews(b, a, "down") > 1, "it is told again");
        const before = [a.received.length, b.received.length];
        const healedMs = world.running();
        world.heal(a, b);
        await world.until(() => isLinked(a, b), "linked again");
        expect(world.running() - healedMs).toBeLessThan(3_000);
        expect([a.received.length, b.received.length]).toEqual(before);
        a.links.send(b.id, bytes("again"));
        await world.until(() => b.received.at(-1)?.text === "again", "messages pass again");
      });
    }

    it("a quiet link stays up", async (world) => {
      const { a, b } = await linkPair(world);
      await world.pass(3_000);
      expect(isLinked(a, b)).toBe(true);
      expect(countNews(a, b, "down") + countNews(b, a, "down")).toBe(0);
    });

    it("a node of another cluster is refused as WRONG_CLUSTER, by whichever end it dials", async (world) => {
      const a = await world.start("a");
      const b = await world.start("b", { clusterId: "other" });
      world.join(a, b);
      await world.until(() => lastNews(a, b) === "down" && lastNews(b, a) === "down", "both are told");
      expect(a.news.find((one) => one.kind === "down")).toMatchObject({ code: "WRONG_CLUSTER" });
      expect(a.links.isUp(b.id)).toBe(false);
    });

    it("nodes without a common version of the protocol are refused as VERSION_MISMATCH", async (world) => {
      const a = await world.start("a", { protocol: [1, 2] });
      const b = await world.start("b", { protocol: [3, 4] });
      world.join(a, b);
      await world.until(() => lastNews(a, b) === "down", "it is told");
      expect(a.news.find((one) => one.kind === "down")).toMatchObject({ code: "VERSION_MISMATCH" });
    });

    it("a node at the address of another one is not taken for it", async (world) => {
      const a = await world.start("a");
      const b = await world.start("b");
      const former = "b-former" as NodeId;
      world.mislead(a, b, former);
      await world.until(() => a.news.some((one) => one.kind === "down" && one.peer === former), "it is told");
      expect([a.links.isUp(former), a.links.isUp(b.id), b.links.isUp(a.id)]).toEqual([false, false, false]);
    });

    it("a peer that is dropped is let go, and refused until it is named again", async (world) => {
      const { a, b } = await linkPair(world);
      b.links.connect([]);
      await world.until(() => !a.links.isUp(b.id) && !b.links.isUp(a.id), "let go");
      await world.until(() => countNews(a, b, "down") >= 2, "tried again in vain");
      expect(b.links.isUp(a.id)).toBe(false);
      world.join(a, b);
      await world.until(() => isLinked(a, b), "linked again");
    });

    it("a node that is not known yet is let in, and stays when it is named", async (world) => {
      const a = await world.start("a");
      const b = await world.start("b");
      world.mislead(a, b, b.id);
      await world.until(() => isLinked(a, b), "linked");
      world.join(a, b);
      await world.pass(500);
      expect([countNews(a, b, "up"), countNews(a, b, "down")]).toEqual([1, 0]);
    });

    it("two nodes that cannot talk are relayed by a third, in order, and go straight again after healing", async (world) => {
      const { a, b } = await linkPair(world);
      const c = await world.start("c");
      world.join(a, b, c);
      await world.until(() => isDirect(a, c) && isDirect(b, c), "all are linked");
      world.cut(a, b);
      await world.until(() => countNews(a, b, "down") > 0 && countNews(b, a, "down") > 0, "the break is told");
      for (const [node, peer] of [[a, b] as const, [b, a] as const]) {
        const kinds = node.news.filter((one) => one.peer === peer.id).map(({ kind }) => kind);
        expect(kinds.slice(0, 4)).toEqual(["up", "direct", "down", "indirect"]);
      }
      await world.until(() => isLinked(a, b), "relayed");
      expect([a.links.pathOf(b.id), b.links.pathOf(a.id)]).toEqual(["relayed", "relayed"]);
      const sent = Array.from({ length: 1_000 }, (_, index) => `${index}`);
      for (const text of sent) {
        expect(a.links.send(b.id, bytes(text))).toBe(true);
        expect(b.links.send(a.id, bytes(text))).toBe(true);
      }
      await world.until(() => a.received.length === 1_000 && b.received.length === 1_000, "all arrived");
      expect(a.received.map(({ text }) => text)).toEqual(sent);
      expect(b.received.map(({ text }) => text)).toEqual(sent);
      await world.pass(2_500);
      expect(isLinked(a, b)).toBe(true);
      world.heal(a, b);
      await world.until(() => isDirect(a, b), "direct again");
      await world.pass(500);
      expect(countNews(a, b, "up") - countNews(a, b, "down")).toBe(1);
      expect(lastNews(b, a)).toBe("up");
      expect(c.received).toEqual([]);
    });

    it("a relayed link goes down with its relay, and none is made over nobody", async (world) => {
      const { a, b } = await linkPair(world);
      const c = await world.start("c");
      world.join(a, b, c);
      await world.until(() => isDirect(a, c) && isDirect(b, c), "all are linked");
      world.cut(a, b);
      await world.until(() => a.links.pathOf(b.id) === "relayed" && b.links.pathOf(a.id) === "relayed", "relayed");
      world.kill(c);
      await world.until(() => !a.links.isUp(b.id) && !b.links.isUp(a.id), "both noticed");
      expect(a.links.send(b.id, bytes("x"))).toBe(false);
      await world.pass(1_500);
      expect(isLinked(a, b)).toBe(false);
    });

    it("close ends links at both ends, tells of each once, and may be called twice", async (world) => {
      const { a, b } = await linkPair(world);
      a.links.send(b.id, bytes("last words"));
      const closed = Promise.all([a.links.close(), a.links.close()]);
      await world.until(() => !b.links.isUp(a.id), "b noticed");
      await world.pass(600);
      await closed;
      expect(b.received.map(({ text }) => text)).toEqual(["last words"]);
      expect([countNews(a, b, "up"), countNews(a, b, "down")]).toEqual([1, 1]);
      expect(a.links.send(b.id, bytes("x"))).toBe(false);
    });

    it("who closes its links has left; one that is still named after a while is missed", async (world) => {
      const { a, b } = await linkPair(world);
      const c = await world.start("c");
      world.join(a, b, c);
      await world.until(() => isLinked(b, c), "b and c are linked");
      void a.links.close();
      world.kill(c);
      await world.until(() => !b.links.isUp(a.id) && !b.links.isUp(c.id), "b noticed both");
      expect([b.links.hasLeft(a.id), b.links.hasLeft(c.id)]).toEqual([true, false]);
      await world.until(() => countNews(b, a, "down") > 1, "b misses a");
      expect(b.links.hasLeft(a.id)).toBe(false);
    });
  });
}
