import type { Clock } from "../../proto/clock.ts";
import type { NodeId } from "../../proto/ids.ts";

export interface LinkOptions {
  /** This node; asked again before every greeting: its id may change. */
  readonly self: () => LinkSelf;
  readonly clusterId: string;
  readonly protocolMin: number;
  readonly protocolMax: number;
  readonly modelHash: string;
  readonly clock: Clock;
  readonly log: LinkLog;
  readonly counters: { add(name: string, by?: number): void };
  readonly limits?: Partial<LinkLimits>;
}

export interface LinkSelf {
  readonly id: NodeId;
  readonly name: string;
  /** gRPC, `host:port`. */
  readonly address: string;
}

export interface LinkLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** Bounds and times of links. */
export interface LinkLimits {
  /** Messages that a peer may have on the way to this node. */
  readonly creditBytes: number;
  /** Messages of one turn travel together up to this size. */
  readonly frameBytes: number;
  /** Of one message; gRPC's servers take frames up to 8 MiB. */
  readonly messageMaxBytes: number;
  readonly heartbeatMs: number;
  /** A control wire on which nothing was heard for so long is broken. */
  readonly silentMs: number;
  /** The same of a data wire, where heartbeats wait behind messages, and are needed only where there are none. */
  readonly dataHeartbeatMs: number;
  readonly dataSilentMs: number;
  /** Until both wires are greeted. */
  readonly dialTimeoutMs: number;
  readonly backoffMinMs: number;
  readonly backoffMaxMs: number;
  /** How often it is told that a link stays down. */
  readonly downAfterMs: number;
  /** How long the first link to a node may take: both may be busy with their start, and a dead one loses its lease. */
  readonly firstLinkMs: number;
  /** What may wait at this node for a peer on behalf of others; beyond it a relayed link is broken. */
  readonly relayMaxBytes: number;
  /** Frames that wait for a control wire which takes none; beyond it they are dropped, and heartbeats notice. */
  readonly controlMax: number;
  /** Wires that were opened towards this node and are not part of a link yet. */
  readonly arrivalsMax: number;
  /** Nodes that dial before this node has heard of them may stay for so long, and so many. */
  readonly guestMs: number;
  readonly guestsMax: number;
}

export const defaultLinkLimits: LinkLimits = {
  creditBytes: 16 * 1024 * 1024,
  frameBytes: 256 * 1024,
  messageMaxBytes: 7 * 1024 * 1024,
  heartbeatMs: 600,
  silentMs: 1_500,
  dataHeartbeatMs: 3_000,
  dataSilentMs: 6_000,
  dialTimeoutMs: 1_000,
  backoffMinMs: 50,
  backoffMaxMs: 1_000,
  downAfterMs: 1_000,
  firstLinkMs: 4_000,
  relayMaxBytes: 32 * 1024 * 1024,
  controlMax: 256,
  arrivalsMax: 256,
  guestMs: 10_000,
  guestsMax: 64,
};
