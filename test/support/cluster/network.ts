import { connect, createServer, type NetConnectOpts, type Socket } from "node:net";
import { identifySender } from "./sender.ts";

/*
 * The network of a test's cluster: proxies on loopback between parties (nodes by name, `etcd`, `postgres`), and cuts between
 * parties, which hold for connections old and new.
 *
 * 1. A cut swallows bytes, ends and resets of its direction; nobody is told. Connecting still succeeds, as the proxy is near.
 * 2. Bytes never skip: what a cut of the kind `lost` has swallowed leaves a connection dumb in that direction for good; one of
 *    the kind `late` keeps them, and they arrive when it is healed, as TCP's repeats do.
 * 3. Nodes reach a node by one address: who has connected is read from the first frame of its link (`sender.ts`). Until then,
 *    and for ever if there is none, it is the party `client`.
 */
export interface Network {
  /** A proxy in front of `target()`, which is asked for every connection. `from` null: read from the first bytes. */
  open(options: ProxyOptions): Promise<Proxy>;
  /** Cuts the way from one party to another. */
  cut(from: Party, to: Party, kind: CutKind): void;
  /** Mends the way. */
  heal(from: Party, to: Party): void;
  healAll(): void;
  /** Resets all connections between two parties. */
  reset(one: Party, other: Party): void;
  /** Resets the end of `one` of all connections between two parties; the other end is not told. */
  halfOpen(one: Party, other: Party): void;
  close(): Promise<void>;
}

export type Party = string;
export type CutKind = "lost" | "late";

export interface ProxyOptions {
  readonly from: Party | null;
  readonly to: Party;
  readonly target: () => NetConnectOpts;
}

export interface Proxy {
  readonly port: number;
}

interface Passage {
  readonly from: Socket;
  readonly to: Socket;
  /** Towards whom the proxy stands, or back. */
  readonly way: "up" | "down";
  /** It has lost bytes: nothing more may pass but a reset. */
  isDumb: boolean;
  /** Kept by a cut of the kind `late`. */
  readonly kept: { readonly bytes: number; readonly run: () => void }[];
  /** A close that a cut swallowed: told when it is healed, as whoever writes then is told. */
  closed: boolean;
}

interface Connection {
  from: Party;
  readonly to: Party;
  readonly passages: readonly [Passage, Passage];
}

const keptMaxBytes = 16 * 1024 * 1024;

/** Starts a network of the nodes of these names. */
export function createNetwork(nodes: readonly string[]): Network {
  const cuts = new Map<string, CutKind>();
  const connections = new Set<Connection>();
  const servers: (() => Promise<void>)[] = [];
  const between = (one: Party, other: Party): Connection[] =>
    [...connections].filter(({ from, to }) => (from === one && to === other) || (from === other && to === one));
  const cutOf = (connection: Connection, { way }: Passage): CutKind | undefined => {
    const { from, to } = connection;
    return cuts.get(way === "up" ? keyOf(from, to) : keyOf(to, from));
  };
  const accept = (client: Socket, { from, to, target }: ProxyOptions): void => {
    const server = connect({ ...target(), allowHalfOpen: true });
    const passage = (ends: Pick<Passage, "from" | "to" | "way">): Passage => ({
      ...ends,
      ...{ isDumb: false, kept: [], closed: false },
    });
    const up = passage({ from: client, to: server, way: "up" });
    const down = passage({ from: server, to: client, way: "down" });
    const connection: Connection = { from: from ?? "client", to, passages: [up, down] };
    connections.add(connection);
    const identify = from === null ? identifySender(nodes) : null;
    client.on("data", (chunk) => {
      const sender = identify?.(chunk) ?? null;
      if (sender !== null) connection.from = sender;
    });
    for (const socket of [client, server]) {
      socket.setNoDelay(true);
      socket.on("close", () => {
        if (client.destroyed && server.destroyed) connections.delete(connection);
      });
    }
    for (const one of [up, down]) pass(one, () => cutOf(connection, one));
  };
  const heal = (from: Party, to: Party): void => {
    if (!cuts.delete(keyOf(from, to))) return;
    for (const connection of between(from, to)) {
      const way = connection.from === from ? "up" : "down";
      for (const passage of connection.passages) if (passage.way === way) release(passage);
    }
  };
  return {
    open: async (options) => {
      const server = createServer({ allowHalfOpen: true }, (client) => accept(client, options));
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      servers.push(() => new Promise((resolve) => server.close(() => resolve())));
      const bound = server.address();
      return { port: typeof bound === "object" && bound !== null ? bound.port : 0 };
    },
    cut: (from, to, kind) => void cuts.set(keyOf(from, to), kind),
    heal,
    healAll: () => {
      for (const key of [...cuts.keys()]) {
        const [from = "", to = ""] = key.split(" ");
        heal(from, to);
      }
    },
    reset: (one, other) => resetAll(between(one, other)),
    halfOpen: (one, other) => {
      for (const { from, passages } of between(one, other)) {
        const [up, down] = passages;
        const [near, toNear, toFar] = from === one ? [up.from, down, up] : [down.from, up, down];
        toNear.isDumb = true;
        toFar.isDumb = true;
        reset(near);
      }
    },
    close: async () => {
      resetAll([...connections]);
      connections.clear();
      for (const close of servers.splice(0)) await close();
    },
  };
}

/** Passes on what happens at one end, unless the way is cut. */
function pass(passage: Passage, cutOf: () => CutKind | undefined): void {
  const { from, to, kept } = passage;
  const onward = (bytes: number, run: () => void): void => {
    if (passage.isDumb) return;
    const cut = cutOf();
    if (cut === undefined && kept.length === 0) return run();
    const total = kept.reduce((sum, one) => sum + one.bytes, bytes);
    if (cut === "lost" || total > keptMaxBytes) {
      passage.isDumb = true;
      kept.splice(0);
    } else kept.push({ bytes, run });
  };
  from.on("data", (chunk) => {
    onward(chunk.length, () => {
      if (!to.destroyed && !to.write(chunk)) from.pause();
    });
  });
  to.on("drain", () => from.resume());
  from.on("end", () => onward(0, () => void to.end()));
  from.on("error", () => onward(0, () => reset(to)));
  from.on("close", () => {
    if (cutOf() !== undefined) passage.closed = true;
    else if (kept.length > 0) onward(0, () => void to.destroy());
    else if (!passage.isDumb) to.destroy();
  });
}

function release(passage: Passage): void {
  for (const { run } of passage.kept.splice(0)) run();
  if (passage.closed) reset(passage.to);
}

function resetAll(connections: readonly Connection[]): void {
  for (const { from } of connections.flatMap(({ passages }) => passages)) reset(from);
}

/** A unix socket knows no reset, and one that is being shut down refuses it and would stay open for ever. */
function reset(socket: Socket): void {
  if (socket.remoteFamily === undefined || socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}

function keyOf(from: Party, to: Party): string {
  return `${from} ${to}`;
}
