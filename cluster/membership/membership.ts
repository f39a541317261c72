import type { NodeId, ShardGroup, ShardId } from "../../proto/ids.ts";
import type { MembershipChange, MembershipChanged } from "./membership-change.ts";

/** A node as the others know it. */
export interface NodeRecord {
  /** New for every start, and after the others gave the node up. */
  readonly id: NodeId;
  /** Chosen by a person, the same over restarts: allocation, pins and weights know names (R23). */
  readonly name: string;
  /** gRPC, `host:port`, as other nodes and clients reach it. */
  readonly address: string;
  readonly version: string;
  /** Versions of the protocol between nodes that it speaks. */
  readonly protocolMin: number;
  readonly protocolMax: number;
  /** Hash of the model, its modules and their configuration; and of each of these, by its name. */
  readonly modelHash: string;
  readonly parts?: Readonly<Record<string, string>> | undefined;
  readonly state: NodeState;
}

/** joining: it owns nothing yet; ailing: it cannot write, and gets nothing (R23); leaving: it gives its shards up. */
export type NodeState = "joining" | "serving" | "ailing" | "leaving";

/** Who is there, as this node knows it. */
export interface MembershipView {
  /** The coordinator's revision that it was read at; grows. */
  readonly revision: number;
  /** This node included, as long as the others may think it is there. By name. */
  readonly nodes: readonly NodeRecord[];
  /** Nodes that somebody suspects, and that have not contested yet. */
  readonly suspects: ReadonlySet<NodeId>;
  /** Where a person wants shards to be. */
  readonly pins: ReadonlyMap<ShardId, string>;
  /** Per group, by name; 1 where nothing is said. */
  readonly weights: ReadonlyMap<ShardGroup, ReadonlyMap<string, number>>;
  /** Names of nodes that were given up or left lately and have not come back, and why. */
  readonly departed: ReadonlyMap<string, string>;
}

/** This node among the others. */
export interface Membership {
  /** This node's record as it is published. Its id changes when the others have given it up (`onExpelled`). */
  readonly self: NodeRecord;
  readonly view: MembershipView;
  /** Whether the coordinator answered lately. */
  readonly connected: boolean;
  /** When it last did (monotonic ms). */
  readonly answeredAtMs: number;
  /** Asks the coordinator now. Raises UNAVAILABLE when it does not answer. */
  look(): Promise<void>;
  /** Called after every change of the view. Returns the unsubscribe. */
  onView(listener: (view: MembershipView) => void): () => void;
  /**
   * Called when the others have given this node up, or its name was taken: what it owned it no longer owns. The promise
   * is awaited, then it joins again under a new id after a while (R23).
   */
  onExpelled(listener: (reason: string) => Promise<void>): () => void;
  /** Publishes a new state. */
  announce(state: NodeState): Promise<void>;
  /**
   * Makes a person's change of pins and weights. Raises NOT_FOUND, INVALID_ARGUMENT, BUSY, and UNAVAILABLE when the coordinator
   * does not answer.
   */
  change(change: MembershipChange): Promise<MembershipChanged>;
  /** Says that a node does not answer. It is given up when it does not contest within a second (R23). */
  suspect(node: NodeId, reason: string): void;
  /** The node answers again. */
  clear(node: NodeId): void;
  /** Leaves: the record goes at once. Idempotent. */
  close(): Promise<void>;
}

/** Where membership tells what happened. */
export interface MembershipLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}
