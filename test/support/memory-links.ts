import type { LinkFrame, WireKind } from "../../cluster/links/link-frame.ts";
import { LinkHub } from "../../cluster/links/link-hub.ts";
import type { LinkOptions, LinkSelf } from "../../cluster/links/link-options.ts";
import type { Wire, WireListener } from "../../cluster/links/link-wire.ts";
import type { Clock } from "../../proto/clock.ts";
import type { NodeId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";

export interface MemoryNetworkOptions {
  readonly clock: Clock;
  /** From 0 to below 1: latencies are drawn from it. */
  readonly random: () => number;
  /** Of one frame, in ms; default 0.2 to 1. */
  readonly latencyMs?: readonly [number, number];
}

/**
 * A network between nodes of one process: the protocol of links is the real one, its wires are in memory. The same calls
 * under the same clock and the same random numbers come to the same.
 */
export interface MemoryNetwork {
  /**
   * Links of a node, found by others under its address. `rest`: other settings, e.g. a clock of its own; `enter`: how what arrives
   * reaches the node, default at once.
   */
  links(self: () => LinkSelf, rest?: Partial<LinkOptions>, enter?: (run: () => void) => void): LinkHub;
  /**
   * Swallows what nodes send each other, telling nobody: both ways, or only `to` b, or only `from` b. Addresses. A
   * connection that lost something stays dumb after `heal`, as frames never skip.
   */
  cut(a: string, b: string, direction?: "both" | "to" | "from"): void;
  /** Without names: all of them. */
  heal(a?: string, b?: string): void;
  /** The node's process dies: its peers notice at once, it does nothing any more. */
  kill(address: string): void;
  /** Resets the connections between two nodes. */
  reset(a: string, b: string): void;
  /** The same, of which only `a` learns: the other end stays as it is, and hears nothing any more. */
  halfOpen(a: string, b: string): void;
}

interface Ended {
  readonly address: string;
  listener: WireListener | null;
  status: "open" | "ended";
  /** Nothing arrives here any more, as something was swallowed. */
  isDumb: boolean;
  /** When what was sent last arrives here: what is sent later arrives later. */
  lastMs: number;
}

interface Connection {
  readonly ends: readonly [Ended, Ended];
}

/** How long a wire that ends in order waits for the other end. */
const lingerMs = 500;

/** A network without nodes. */
export function createMemoryNetwork(options: MemoryNetworkOptions): MemoryNetwork {
  const { clock, random, latencyMs = [0.2, 1] } = options;
  const hubs = new Map<string, LinkHub>();
  const enters = new Map<string, (run: () => void) => void>();
  const connections = new Set<Connection>();
  const swallowed = new Set<string>();

  const deliver = (from: Ended, to: Ended, run: () => void): void => {
    if (swallowed.has(`${from.address} ${to.address}`)) to.isDumb = true;
    if (to.isDumb) return;
    to.lastMs = Math.max(to.lastMs, clock.now() + latencyMs[0] + random() * (latencyMs[1] - latencyMs[0]));
    const enter = enters.get(to.address) ?? atOnce;
    clock.after(to.lastMs - clock.now(), () => {
      enter(() => {
        if (to.status === "open") run();
      });
    });
  };
  const tellEnd = (connection: Connection, to: Ended, text: string): void => {
    if (to.status === "ended") return;
    to.status = "ended";
    if (connection.ends.every(({ status }) => status === "ended")) connections.delete(connection);
    to.listener?.onEnd(new StarlingError("UNAVAILABLE", text));
  };
  const createWire = (connection: Connection, kind: WireKind, near: Ended, far: Ended): Wire => {
    const cut = (onTold = () => {}): void => {
      if (near.status === "ended") return onTold();
      near.status = "ended";
      if (far.status === "ended") {
        connections.delete(connection);
        return onTold();
      }
      deliver(near, far, () => {
        tellEnd(connection, far, "the node has ended the connection");
        onTold();
      });
    };
    return {
      kind,
      write: (frame: LinkFrame) => {
        if (near.status === "open") deliver(near, far, () => far.listener?.onFrame(frame));
        return true;
      },
      end: () =>
        new Promise((resolve) => {
          const cancel = clock.after(lingerMs, resolve);
          cut(() => {
            cancel();
            resolve();
          });
        }),
      cut: () => cut(),
    };
  };
  const dial = (from: string, to: string, kind: WireKind, listener: WireListener): Wire => {
    const near: Ended = { address: from, listener, status: "open", isDumb: false, lastMs: 0 };
    const far: Ended = { address: to, listener: null, status: "open", isDumb: false, lastMs: 0 };
    const connection: Connection = { ends: [near, far] };
    connections.add(connection);
    deliver(near, far, () => {
      const hub = hubs.get(to);
      if (hub !== undefined) far.listener = hub.accept(createWire(connection, kind, far, near));
      else deliver(far, near, () => tellEnd(connection, near, `nobody listens at ${to}`));
    });
    return createWire(connection, kind, near, far);
  };
  const breakEnd = (connection: Connection, end: Ended): void =>
    clock.soon(() => tellEnd(connection, end, "the connection is broken"));
  const between = (a: string, b: string): Connection[] =>
    [...connections].filter(
      ({ ends }) => ends.some((one) => one.address === a) && ends.some((one) => one.address === b),
    );

  return {
    links: (self, rest, enter = atOnce) => {
      const { address } = self();
      enters.set(address, enter);
      const settings = { clusterId: "c1", protocolMin: 1, protocolMax: 1, modelHash: "m1", clock, log: noLog };
      const hub = new LinkHub({ ...settings, counters: { add: () => {} }, ...rest, self }, (peer, kind, listener) =>
        dial(address, peer.address, kind, listener),
      );
      hubs.set(address, hub);
      return hub;
    },
    cut: (a, b, direction = "both") => {
      if (direction !== "from") swallowed.add(`${a} ${b}`);
      if (direction !== "to") swallowed.add(`${b} ${a}`);
    },
    heal: (a, b) => {
      if (a === undefined || b === undefined) return swallowed.clear();
      swallowed.delete(`${a} ${b}`);
      swallowed.delete(`${b} ${a}`);
    },
    kill: (address) => {
      const hub = hubs.get(address);
      hubs.delete(address);
      enters.delete(address);
      for (const connection of [...connections]) {
        const [one, other] = connection.ends;
        if (one.address !== address && other.address !== address) continue;
        const [dead, alive] = one.address === address ? [one, other] : [other, one];
        dead.status = "ended";
        deliver(dead, alive, () => tellEnd(connection, alive, "the connection is broken"));
      }
      void hub?.close();
    },
    reset: (a, b) => {
      for (const connection of between(a, b)) for (const end of connection.ends) breakEnd(connection, end);
    },
    halfOpen: (a, b) => {
      for (const connection of between(a, b))
        for (const end of connection.ends) if (end.address === a) breakEnd(connection, end);
    },
  };
}

const atOnce = (run: () => void): void => run();

const noLog = { info: () => {}, warn: () => {}, error: () => {} };

/** Who a node is, for tests that need no more. */
export function memorySelf(id: NodeId, address: string): () => LinkSelf {
  return () => ({ id, name: address, address });
}
