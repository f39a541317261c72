import type { Socket } from "node:net";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type GrpcLinks, startGrpcLinks } from "../../../cluster/links/grpc-links.ts";
import { plainLinks } from "../../../cluster/links/link-security.ts";
import { systemClock } from "../../../proto/clock.ts";
import { type NodeId, toNodeId } from "../../../proto/ids.ts";
import { measureRunningTime } from "../../support/running-time.ts";
import { startTcpProxy, type TcpProxy, type Way } from "../../support/tcp-proxy.ts";
import { optionsOf, recordNews } from "./link-world.ts";
import { countNews, describeLinks, type LinkedNode, type LinkWorld, linkPair } from "./links-contract.ts";

interface RealNode {
  readonly links: GrpcLinks;
  readonly server: Server;
  address: string;
}

const untilMs = 30_000;

/** Real servers; between each two nodes a proxy of their own. */
class GrpcWorld implements LinkWorld {
  readonly #nodes = new Map<NodeId, RealNode>();
  readonly #proxies = new Map<string, TcpProxy>();
  readonly #time = measureRunningTime();

  async start(name: string, settings: Parameters<LinkWorld["start"]>[1] = {}): Promise<LinkedNode> {
    const id = toNodeId(`${name}-1`);
    const server = new Server({ "grpc.max_receive_message_length": 8 * 1024 * 1024 });
    const links = startGrpcLinks({
      ...optionsOf(settings),
      self: () => ({ id, name, address: "" }),
      clock: systemClock,
      security: plainLinks({ allowPlaintext: false }),
    });
    links.addTo(server);
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      );
    });
    const node = { links, server, address: `127.0.0.1:${port}` };
    this.#nodes.set(id, node);
    for (const other of this.#nodes.keys()) {
      if (other !== id) this.#proxies.set(`${other} ${id}`, await this.#startProxy(id));
      if (other !== id) this.#proxies.set(`${id} ${other}`, await this.#startProxy(other));
    }
    return recordNews(id, links, () => this.now());
  }

  join(...nodes: readonly LinkedNode[]): void {
    for (const node of nodes) {
      const others = nodes.filter((one) => one !== node);
      node.links.connect(others.map(({ id }) => ({ id, name: nameOf(id), address: this.proxy(node.id, id).address })));
    }
  }

  mislead(a: LinkedNode, b: LinkedNode, id: NodeId): void {
    a.links.connect([{ id, name: nameOf(b.id), address: this.proxy(a.id, b.id).address }]);
  }

  cut(a: LinkedNode, b: LinkedNode, direction: "both" | "to" | "from" = "both"): void {
    const ways: readonly Way[] = direction === "both" ? ["up", "down"] : direction === "to" ? ["up"] : ["down"];
    const back = ways.map((way) => (way === "up" ? "down" : "up"));
    this.proxy(a.id, b.id).swallow(ways);
    this.proxy(b.id, a.id).swallow(back);
  }

  heal(a: LinkedNode, b: LinkedNode): void {
    this.proxy(a.id, b.id).restore();
    this.proxy(b.id, a.id).restore();
  }

  kill(node: LinkedNode): void {
    const real = this.#nodes.get(node.id);
    for (const [route, proxy] of this.#proxies) if (route.split(" ").includes(node.id)) proxy.cut();
    real?.server.forceShutdown();
    void real?.links.close();
  }

  now(): number {
    return systemClock.now();
  }

  running(): number {
    return this.#time.now();
  }

  async until(holds: () => boolean, what: string): Promise<void> {
    const end = systemClock.now() + untilMs;
    while (!holds()) {
      if (systemClock.now() > end) throw new Error(`never: ${what}`);
      await this.pass(5);
    }
  }

  pass(ms: number): Promise<void> {
    return new Promise((resolve) => setTimeout(resolve, ms));
  }

  async close(): Promise<void> {
    this.#time.close();
    await Promise.all([...this.#nodes.values()].map(({ links }) => links.close()));
    for (const { server } of this.#nodes.values()) server.forceShutdown();
    await Promise.all([...this.#proxies.values()].map((proxy) => proxy.close()));
  }

  /** Connections that the node's server has. */
  serverSockets(node: LinkedNode): number {
    return socketsAt("localPort", this.#nodes.get(node.id)?.address ?? "");
  }

  proxy(from: NodeId, to: NodeId): TcpProxy {
    const proxy = this.#proxies.get(`${from} ${to}`);
    if (proxy === undefined) throw new Error(`no proxy from ${from} to ${to}`);
    return proxy;
  }

  #startProxy(to: NodeId): Promise<TcpProxy> {
    return startTcpProxy(() => this.#nodes.get(to)?.address ?? "127.0.0.1:1");
  }
}

describeLinks("links over gRPC", async () => new GrpcWorld());

describe("links over gRPC", () => {
  let world: GrpcWorld;
  beforeEach(() => {
    world = new GrpcWorld();
  });
  afterEach(() => world.close());

  it("data and control go over connections of their own", async () => {
    const { a, b } = await linkPair(world);
    expect(world.proxy(a.id, b.id).connections).toBe(2);
    expect(world.proxy(b.id, a.id).connections).toBe(0);
  });

  it("a node that stood still for 700 ms, or longer than a peer may be silent, blames nobody", async () => {
    const { a, b } = await linkPair(world, { limits: { heartbeatMs: 300, silentMs: 600 } });
    // Both stand in one process: neither hears the other meanwhile.
    for (const ms of [700, 1_500]) {
      const end = world.now() + ms;
      while (world.now() < end);
      await world.pass(1_000);
    }
    expect([countNews(a, b, "down"), countNews(b, a, "down")]).toEqual([0, 0]);
  });

  it("a peer that is silent for 500 ms each second is not given up", async () => {
    const { a, b } = await linkPair(world);
    for (let round = 0; round < 4; round++) {
      world.proxy(a.id, b.id).delayMs = 500;
      await world.pass(500);
      world.proxy(a.id, b.id).delayMs = 0;
      await world.pass(500);
    }
    expect([countNews(a, b, "down"), countNews(b, a, "down")]).toEqual([0, 0]);
  });

  it("a reset of one of the two connections ends both", async () => {
    const { a, b } = await linkPair(world);
    world.proxy(a.id, b.id).cut();
    await world.until(() => countNews(a, b, "down") === 1 && countNews(b, a, "down") === 1, "both noticed");
    await world.until(() => a.links.isUp(b.id) && b.links.isUp(a.id), "linked again");
    await world.until(() => world.proxy(a.id, b.id).connections === 2, "two connections again");
  });

  // What is given up with bytes unsent goes when its keep-alive finds nobody there, which takes 15 s at most.
  it("a black hole full of messages leaves no connection behind", { timeout: 2 * untilMs }, async () => {
    const { a, b } = await linkPair(world);
    const ends = () => [socketsAt("remotePort", world.proxy(a.id, b.id).address), world.serverSockets(b)];
    expect(ends()).toEqual([2, 2]);
    world.cut(a, b);
    // At once, before a heartbeat is missed.
    let sent = 0;
    while (a.links.send(b.id, new Uint8Array(100_000))) sent += 1;
    expect(sent).toBeGreaterThan(10);
    await world.until(() => !a.links.isUp(b.id) && !b.links.isUp(a.id), "both noticed");
    await a.links.close();
    await b.links.close();
    await world.until(() => `${ends()}` === "0,0", "no connection is left at either end");
  });

  it("close leaves no handle open", async () => {
    const { a, b } = await linkPair(world);
    a.links.send(b.id, new Uint8Array(10));
    const ends = () => [socketsAt("remotePort", world.proxy(a.id, b.id).address), world.serverSockets(b)];
    expect(ends()).toEqual([2, 2]);
    await a.links.close();
    await b.links.close();
    await world.until(() => `${ends()}` === "0,0", "no connection is left at either end");
  });
});

/** Ids of these nodes are `NAME-1`. */
function nameOf(id: NodeId): string {
  return id.replace(/-1$/, "");
}

/** Connections of this process whose near or far end is a port. */
function socketsAt(end: "localPort" | "remotePort", address: string): number {
  const port = Number(address.split(":")[1]);
  const { _getActiveHandles: handlesOf } = process as unknown as { _getActiveHandles(): Partial<Socket>[] };
  return handlesOf().filter((handle) => handle[end] === port).length;
}
