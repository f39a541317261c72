import { fromBinary } from "@bufbuild/protobuf";
import type { Ownership } from "../../cluster/owner-table.ts";
import { atBeat } from "../../proto/clock.ts";
import { type PeerMessage, PeerMessageSchema } from "../../proto/gen/peer_pb.ts";
import { type NodeId, type SessionId, toEpoch, toNodeId, toSessionId, toShardId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { SessionTaker } from "../engine.ts";
import { PeerConnection } from "./peer-connection.ts";
import { PeerService } from "./peer-service.ts";
import type { RouterOptions } from "./router.ts";

/** The other nodes that can be reached, and what all of them are told. */
export interface Peers {
  /** Null: the link is down. */
  connectionTo(node: NodeId): PeerConnection | null;
  announce(news: readonly Ownership[]): void;
  tellSession(session: SessionId, opening: number): void;
  tellTick(tick: number): void;
  onSessionTaken(listener: SessionTaker): () => void;
  /** The smallest of what this node and its peers last said. */
  flushedUpTo(): number;
  stop(): void;
}

interface Peer {
  readonly connection: PeerConnection;
  /** Null: it has not asked anything yet. */
  service: PeerService | null;
}

/** Below the time after which a quiet link needs a beat: this is what is said on it. */
const tellEveryMs = 2_000;
/** How often where something was processed within that time: it is what readers wait for. */
const tellSoonMs = 400;
/** A peer that was not heard for so long no longer counts for {@link Peers.flushedUpTo}. */
const forgetAfterMs = 5_000;

/** Follows the links, and answers what other nodes ask. */
export function createPeers(options: RouterOptions): Peers {
  const { local, links, owners, self, clock, counters, log } = options;
  const peers = new Map<NodeId, Peer>();
  const flushed = createFlushedMarks(options);
  const takers = new Set<SessionTaker>();
  let status: "running" | "stopped" = "running";
  let connections = 0;

  const open = (node: NodeId): Peer => {
    const known = peers.get(node);
    if (known !== undefined) return known;
    const peer = { connection: new PeerConnection(node, ++connections, options), service: null };
    peers.set(node, peer);
    const me = self();
    peer.connection.tellOwners([...owners.entries()].filter(({ owner }) => owner === me));
    peer.connection.tellFlushedUpTo(local.flushedUpTo());
    return peer;
  };
  const end = (node: NodeId, error: StarlingError): void => {
    const peer = peers.get(node);
    peers.delete(node);
    peer?.connection.end(error);
    peer?.service?.end();
  };
  const take = (from: NodeId, peer: Peer, message: PeerMessage): void => {
    const { owners: told, sessions, flushedUpTo, offers, questions, tick } = message;
    local.ticks.learn(tick);
    if (told.length > 0) owners.learn(told.map(readOwner));
    if (flushedUpTo !== undefined) flushed.hear(from, flushedUpTo);
    // Who hears of MOVED asks anew, and must not ask the same node.
    peer.connection.hear(message);
    for (const { session, opening } of sessions) {
      for (const listener of takers) listener(toSessionId(session), opening, from);
    }
    if (peer.service !== null && !peer.service.isCurrent) {
      peer.service.end();
      peer.service = null;
    }
    if (offers.length + questions.length === 0) return;
    peer.service ??= new PeerService(peer.connection, options);
    peer.service.serve(message);
  };
  const unlisten = links.on({
    onUp: (node) => void open(node),
    onDown: (node, problem) => end(node, new StarlingError("UNAVAILABLE", `the link broke: ${problem.message}`)),
    onMessage: (from, body) => {
      if (status === "stopped") return;
      const peer = open(from);
      try {
        const message = peer.connection.join(fromBinary(PeerMessageSchema, body));
        if (message !== null) take(from, peer, message);
      } catch (error) {
        counters.add("peer/unreadable");
        log.error({ err: error, peer: from }, "a message of another node could not be taken: this is a bug");
      }
    },
  });
  let cancel = (): void => {};
  const processed = counters.counter("task_processed");
  let seen = 0;
  let busyUntil = 0;
  const tick = (): void => {
    if (processed.value !== seen) busyUntil = clock.now() + tellEveryMs;
    seen = processed.value;
    const isBusy = clock.now() < busyUntil;
    cancel = atBeat(clock, isBusy ? tellSoonMs : tellEveryMs, () => {
      const upTo = local.flushedUpTo();
      for (const { connection } of peers.values()) connection.tellFlushedUpTo(upTo);
      flushed.forgetSilent();
      tick();
    });
  };
  tick();
  return {
    connectionTo: (node) => {
      if (status === "stopped" || !links.isUp(node)) return null;
      return open(node).connection;
    },
    announce: (news) => {
      for (const { connection } of peers.values()) connection.tellOwners(news);
    },
    tellSession: (session, opening) => {
      for (const { connection } of peers.values()) connection.tellSession(session, opening);
    },
    tellTick: (tick) => {
      for (const { connection } of peers.values()) connection.tellTick(tick);
    },
    onSessionTaken: (listener) => {
      takers.add(listener);
      return () => void takers.delete(listener);
    },
    flushedUpTo: flushed.least,
    stop: () => {
      if (status === "stopped") return;
      status = "stopped";
      cancel();
      unlisten();
      for (const node of [...peers.keys()]) end(node, new StarlingError("UNAVAILABLE", "this node is closing"));
    },
  };
}

/** Up to when each node says that its changes are written. Of one whose link is down that was said already. */
function createFlushedMarks({ local, links, clock, log }: RouterOptions) {
  const marks = new Map<NodeId, { readonly upTo: number; readonly heardAt: number }>();
  const forgetSilent = (): void => {
    for (const [node, { heardAt }] of marks) {
      if (clock.now() - heardAt <= forgetAfterMs) continue;
      marks.delete(node);
      if (links.isUp(node))
        log.warn({ peer: node }, "another node has not said for a while up to when its changes are written");
    }
  };
  return {
    forgetSilent,
    hear: (node: NodeId, upTo: number): void => void marks.set(node, { upTo, heardAt: clock.now() }),
    least: (): number => {
      forgetSilent();
      return [...marks.values()].reduce((least, { upTo }) => Math.min(least, upTo), local.flushedUpTo());
    },
  };
}

function readOwner({ shard, epoch, owner }: PeerMessage["owners"][number]): Ownership {
  return {
    shard: toShardId(shard),
    epoch: toEpoch(epoch),
    owner: owner === undefined ? null : toNodeId(owner),
  };
}
