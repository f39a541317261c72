import type { NodeId } from "../../proto/ids.ts";
import type { ErrorCode } from "../../proto/starling-error.ts";

/** A link has two wires, so that heartbeats never wait behind bulk data. */
export type WireKind = "control" | "data";

/** What travels between two nodes. */
export type LinkFrame =
  /** First on each wire, from who dials. */
  | { readonly kind: "hello"; readonly hello: Hello }
  /** The answer to it. */
  | { readonly kind: "welcome"; readonly hello: Hello }
  /** The other answer; the wire ends after it. */
  | { readonly kind: "refusal"; readonly code: ErrorCode; readonly message: string }
  /** First on the data wire after both welcomes, from who dialled: the link is up. A greater order replaces a lesser. */
  | { readonly kind: "ready"; readonly order: number }
  /** Heartbeat. On the control wire with whom the node reaches directly. */
  | ({ readonly kind: "beat"; readonly reaches: readonly NodeId[] } & Beat)
  /** Messages in order, and credits that come back. */
  | { readonly kind: "batch"; readonly bodies: readonly Uint8Array[]; readonly returnedBytes: number }
  /** Last on the data wire of a node that leaves in order: its link ends, and nobody needs to suspect it. */
  | { readonly kind: "farewell" }
  | RelayFrame
  | RelayEndFrame;

/** One heartbeat of a wire. */
export interface Beat {
  readonly number: number;
  /** The last number heard from the peer, and how long ago that was; null: nothing was heard, or an older version says it. */
  readonly echo: number;
  readonly heldMs: number | null;
}

/** A frame of a wire between two nodes that have no direct link, carried by a third node. */
export interface RelayFrame extends Relayed {
  readonly kind: "relay";
  readonly frame: LinkFrame;
}

/** Such a wire has ended, or there is none. */
export interface RelayEndFrame extends Relayed {
  readonly kind: "relay-end";
}

interface Relayed {
  readonly from: NodeId;
  readonly to: NodeId;
  /** As in the {@link Hello} that opened it. */
  readonly connection: number;
}

/** Who speaks, whom it means, and what it grants. */
export interface Hello {
  readonly clusterId: string;
  /** Versions of the protocol between nodes that it speaks. */
  readonly protocolMin: number;
  readonly protocolMax: number;
  readonly node: NodeId;
  readonly name: string;
  /** Whom it means to talk to: a port that was used again belongs to another node. */
  readonly meant: NodeId;
  readonly modelHash: string;
  /** How many bytes of messages the other side may have on the way. */
  readonly creditBytes: number;
  /** Given by who dials, greater each time: the two wires of one link carry the same. */
  readonly connection: number;
}
