import type { Clock } from "../../proto/clock.ts";
import type { NodeId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { RelayEndFrame, RelayFrame, WireKind } from "./link-frame.ts";
import type { Wire, WireListener } from "./link-wire.ts";

/**
 * Wires between two nodes that cannot talk, over a third one that reaches both.
 *
 * 1. Who carries keeps nothing: it passes a frame on to a direct link, or answers that there is none. One hop only.
 * 2. Order holds, since each hop keeps it. Loss is noticed: a hop that breaks ends the wires over it at its own end of the
 *    hop, and who knows nothing of a wire answers each of its frames by its end. Nothing of a wire arrives after a loss,
 *    although the hop may be there again.
 * 3. A wire is named by its two ends, its kind and its number, which is never used again.
 */
export interface RelayWires {
  open(route: RelayRoute, listener: WireListener): Wire;
  /** A frame that came from `via`: for this node or for another one. */
  onFrame(via: NodeId, kind: WireKind, frame: RelayFrame | RelayEndFrame): void;
  /** A direct link has room again. */
  onDrain(via: NodeId): void;
  /** A direct link is gone. */
  onLost(via: NodeId): void;
}

export interface RelayRoute {
  readonly peer: NodeId;
  readonly via: NodeId;
  readonly kind: WireKind;
  readonly connection: number;
}

export interface RelayWorld {
  readonly clock: Clock;
  self(): NodeId;
  /** Writes to a direct link: "blocked" means taken, but wait for `onDrain`. */
  carry(to: NodeId, kind: WireKind, frame: RelayFrame | RelayEndFrame): "sent" | "blocked" | "refused";
  /** A wire from a peer. */
  accept(wire: Wire): WireListener;
  count(name: string, by: number): void;
}

interface RelayWire {
  readonly route: RelayRoute;
  listener: WireListener | null;
}

/** Relayed wires of this node, none yet. */
export function createRelayWires(world: RelayWorld): RelayWires {
  const wires = new Map<string, RelayWire>();
  const add = (route: RelayRoute): { entry: RelayWire; wire: Wire } => {
    const entry: RelayWire = { route, listener: null };
    wires.set(keyOf(route), entry);
    return { entry, wire: createWire(world, wires, entry) };
  };
  const answerEnd = (via: NodeId, kind: WireKind, { from, to, connection }: RelayFrame): void => {
    // When it is not taken, the hop itself is at its end, and that is noticed.
    world.carry(via, kind, { kind: "relay-end", from: to, to: from, connection });
  };
  const take = (via: NodeId, kind: WireKind, frame: RelayFrame | RelayEndFrame): void => {
    const route = { peer: frame.from, via, kind, connection: frame.connection };
    const known = wires.get(keyOf(route));
    if (frame.kind === "relay-end") {
      if (known !== undefined) lose(world, wires, known, `node ${frame.from} cannot be reached over ${via}`);
    } else if (known !== undefined) known.listener?.onFrame(frame.frame);
    else if (frame.frame.kind !== "hello" || frame.frame.hello.node !== frame.from) answerEnd(via, kind, frame);
    else {
      const { entry, wire } = add(route);
      entry.listener = world.accept(wire);
      entry.listener.onFrame(frame.frame);
    }
  };
  return {
    open: (route, listener) => {
      const { entry, wire } = add(route);
      entry.listener = listener;
      return wire;
    },
    onFrame: (via, kind, frame) => {
      if (frame.to === world.self()) return take(via, kind, frame);
      // A node speaks for itself alone.
      if (frame.from !== via) return world.count("link_relays_refused", 1);
      const done = world.carry(frame.to, kind, frame);
      if (done === "refused" && frame.kind === "relay") answerEnd(via, kind, frame);
      world.count(done === "refused" ? "link_relays_refused" : "link_relays_carried", 1);
    },
    onDrain: (via) => {
      for (const { route, listener } of [...wires.values()]) if (route.via === via) listener?.onDrain();
    },
    onLost: (via) => {
      for (const entry of [...wires.values()]) {
        if (entry.route.via === via) lose(world, wires, entry, `node ${via}, which relayed, is gone`);
      }
    },
  };
}

function keyOf({ peer, via, kind, connection }: RelayRoute): string {
  return `${kind} ${connection} ${via} ${peer}`;
}

function createWire(world: RelayWorld, wires: Map<string, RelayWire>, entry: RelayWire): Wire {
  const { peer, via, kind, connection } = entry.route;
  const isOpen = () => wires.get(keyOf(entry.route)) === entry;
  const cut = () => {
    if (!isOpen()) return;
    wires.delete(keyOf(entry.route));
    world.carry(via, kind, { kind: "relay-end", from: world.self(), to: peer, connection });
  };
  return {
    kind,
    write: (frame) => {
      if (!isOpen()) return true;
      const done = world.carry(via, kind, { kind: "relay", from: world.self(), to: peer, connection, frame });
      if (done === "refused") lose(world, wires, entry, `node ${via} does not relay`);
      return done !== "blocked";
    },
    end: async () => cut(),
    cut,
  };
}

function lose(world: RelayWorld, wires: Map<string, RelayWire>, entry: RelayWire, text: string): void {
  wires.delete(keyOf(entry.route));
  world.clock.soon(() => entry.listener?.onEnd(new StarlingError("UNAVAILABLE", text)));
}
