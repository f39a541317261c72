import type { NodeId } from "../../proto/ids.ts";
import type { StarlingError } from "../../proto/starling-error.ts";

/**
 * Connections to the other nodes. What is sent to a peer arrives in order and once, or `onDown` tells that some of it may not
 * have: nothing of a connection arrives after that. What travels is bytes: who sends knows what they mean.
 */
export interface Links {
  /** Keeps links with these nodes, and drops others. */
  connect(peers: readonly Peer[]): void;
  /**
   * Sends a message. False: the link is down, or more than the peer's credits are on their way, and nothing was sent.
   * Nodes that both reach a third one but not each other are relayed by it.
   */
  send(to: NodeId, body: Uint8Array): boolean;
  /** Whether messages can be sent now. */
  isUp(peer: NodeId): boolean;
  /** Whether the peer ended its link because it leaves, and is not missed yet: no reason to suspect it. */
  hasLeft(peer: NodeId): boolean;
  on(listener: LinkListener): () => void;
  /** Ends all links. Idempotent. */
  close(): Promise<void>;
}

export interface Peer {
  readonly id: NodeId;
  /** As membership knows it: who answers, or dials, under another one is refused. */
  readonly name: string;
  /** gRPC, `host:port`. */
  readonly address: string;
}

export interface LinkListener {
  onMessage(from: NodeId, body: Uint8Array): void;
  onUp(peer: NodeId): void;
  /** A link that was up, or that could not be opened for a while, is down. It is tried again until `connect` drops it. */
  onDown(peer: NodeId, problem: StarlingError): void;
  /**
   * Whether the peer is reached without a relay: told when that begins and when it ends, and about every second while a
   * named peer is not reached directly.
   */
  onDirect?(peer: NodeId, isReachable: boolean): void;
}
