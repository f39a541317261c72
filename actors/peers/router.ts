import type { Links } from "../../cluster/links/links.ts";
import type { Ownership, OwnerTable } from "../../cluster/owner-table.ts";
import { allShards } from "../../cluster/shards.ts";
import type { Model } from "../../modules/model.ts";
import type { Clock } from "../../proto/clock.ts";
import { withDeadline } from "../../proto/deadline.ts";
import type { NodeId, ShardId } from "../../proto/ids.ts";
import { shardOf } from "../../proto/shard-of.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Counters } from "../counters.ts";
import type { Engine, LogPlace, OwnedRecord, SessionTaker } from "../engine.ts";
import type { Part, PartListener } from "../lane/part.ts";
import { PartNews } from "../lane/part-news.ts";
import type { LocalEngine } from "../local-engine.ts";
import { shardOfType } from "../shard-of-type.ts";
import type { Queries, StoredDeadLetter } from "../store/store.ts";
import type { Traces } from "../traces.ts";
import { askInspection, askLetter, askRecord, askReply, type InspectSubject, shardOfLetter } from "./peer-ask.ts";
import type { ConnectionLimits, PeerConnection } from "./peer-connection.ts";
import { followSources, type RowSource } from "./peer-follow.ts";
import { createPeers } from "./peer-table.ts";

/**
 * What an edge asks reaches the owner of the shard, here or on another node. The router guesses owners and keeps
 * nothing of its own that would have to survive: who offers a part offers it again until it is durable, wherever the
 * shard is by then.
 *
 *  O1  A part whose owner is not known or cannot be reached is refused with a code that says "try again", never
 *      parked: its sender keeps the order, and a later part that came through answers GAP (R9).
 *  O2  A refusal never comes from within `offer`.
 *  O3  Of every part of an ended connection the sender is told UNAVAILABLE, also of durable ones: it offers them
 *      again, as repeats, until the owner of now says that they are processed.
 *  O4  A shard that is here is asked here, whatever the table of owners says.
 */
export interface Router extends Omit<Engine, "close" | "settle"> {
  /** What another node says of itself or of a shard of its. Raises UNAVAILABLE, BUSY and DEADLINE. */
  inspect(node: NodeId, subject: InspectSubject, deadlineMs: number): Promise<unknown>;
  /** Tells all peers of new owners. */
  announce(news: readonly Ownership[]): void;
  /**
   * Called when a session was opened on another node: an older stream of it here is to end. Returns the unsubscribe.
   */
  onSessionTaken(listener: SessionTaker): () => void;
  /**
   * Tells everybody who waits for another node UNAVAILABLE, and sends nothing any more. The local engine goes on.
   * Idempotent.
   */
  stop(): void;
}

export interface RouterOptions {
  readonly local: LocalEngine;
  readonly links: Links;
  readonly owners: OwnerTable;
  /** This node's id of now. */
  readonly self: () => NodeId;
  readonly model: Model;
  readonly entityShards: number;
  /** Default one. */
  readonly systemShards?: number;
  readonly queries: Queries;
  /** What this node tells others of itself; default nothing. */
  readonly inspect?: (subject: InspectSubject) => unknown;
  readonly clock: Clock;
  readonly counters: Counters;
  readonly log: { warn(fields: object, message: string): void; error(fields: object, message: string): void };
  readonly limits: RouterLimits;
  /** Set where tasks are traced. */
  readonly traces?: Traces | undefined;
}

export interface RouterLimits extends ConnectionLimits {
  /** Until a record's owner must have been found and have answered. */
  readonly readDeadlineMs: number;
  /** The same for the replay of a dead letter, which runs a hook. */
  readonly letterDeadlineMs: number;
}

export const defaultRouterLimits: RouterLimits = {
  peerMaxParts: 500_000,
  peerMaxQuestions: 10_000,
  readDeadlineMs: 2_000,
  letterDeadlineMs: 60_000,
};

/** A router over the links; it speaks to nodes that are up now, and to those that come up. */
export function createRouter(options: RouterOptions): Router {
  const { local, entityShards, systemShards = 1, clock, limits, queries, model } = options;
  const peers = createPeers(options);
  const routeOf = (shard: ShardId): Route => findRoute(options, peers.connectionTo, shard);
  const reach = createReach(routeOf, clock);
  const get = async (type: string, eid: string, atLeast: LogPlace | null): Promise<OwnedRecord | null> => {
    const spec = model.entities.get(type);
    if (spec === undefined) throw new StarlingError("UNKNOWN_TYPE", `no entity type ${type} in the model`);
    return reach(shardOfType(type, eid, { entityShards, systemShards }), {
      deadlineMs: limits.readDeadlineMs,
      here: (deadlineMs) =>
        withDeadline(local.get(type, eid, atLeast), { clock, deadlineMs, text: "the record was not read" }),
      there: (connection, deadlineMs) => askRecord(connection, { spec, eid, atLeast }, { clock, deadlineMs }),
      again: (problem) => problem.code === "UNAVAILABLE",
    });
  };
  const replayDeadLetter = async (id: string): Promise<StoredDeadLetter> => {
    const shard = shardOfLetter(id);
    if (shard === null) throw new StarlingError("NOT_FOUND", `there is no dead letter ${id}`);
    return reach(shard, {
      deadlineMs: limits.readDeadlineMs,
      here: () => local.replayDeadLetter(id),
      there: (connection) => askLetter(connection, id, { clock, deadlineMs: limits.letterDeadlineMs }),
      // What was asked may have been done all the same.
      again: () => false,
    });
  };
  const reply: Engine["reply"] = ({ shard, seq }, deadlineMs) =>
    reach(shard, {
      deadlineMs,
      here: (leftMs) => local.reply(shard, seq, leftMs),
      there: (connection, leftMs) => askReply(connection, { shard, seq }, { clock, deadlineMs: leftMs }),
      again: ({ retryable, code }) => retryable && code !== "DEADLINE",
    });
  return {
    entityShards,
    systemShards,
    queries,
    counters: options.counters,
    offer: createOffer(options, routeOf),
    openSession: (session, opening) => local.openSession(session, opening),
    useSession: (session) => local.useSession(session),
    tellSession: (session, opening) => peers.tellSession(session, opening),
    closeSession: (session) => local.closeSession(session),
    findClosed: (sessions) => local.findClosed(sessions),
    get,
    reply,
    replayDeadLetter,
    follow: async function* (filter, signal) {
      const { type, eid } = filter;
      const shards =
        eid === null ? allShards({ entity: entityShards, system: 0 }) : [shardOf("entity", type, eid, entityShards)];
      const sources = findSources(options, routeOf, shards) ?? (await waitForSources(options, routeOf, shards, signal));
      yield* followSources(options, sources, filter, signal);
    },
    flushedUpTo: () => peers.flushedUpTo(),
    held: local.held,
    status: () => local.status(),
    onHealth: (listener) => local.onHealth(listener),
    inspect: async (node, subject, deadlineMs) => {
      const connection = peers.connectionTo(node);
      if (connection === null) throw new StarlingError("UNAVAILABLE", "the link to it is down");
      return await askInspection(connection, subject, { clock, deadlineMs });
    },
    ticks: {
      onOpen: (listener) => local.ticks.onOpen(listener),
      open: () => local.ticks.open(),
      pass: (pass) => local.ticks.pass(pass),
      announce: (tick) => {
        if (tick > local.ticks.newest) peers.tellTick(tick);
        local.ticks.learn(tick);
      },
    },
    announce: (news) => peers.announce(news),
    onSessionTaken: (listener) => peers.onSessionTaken(listener),
    stop: () => peers.stop(),
  };
}

/** Where a shard's owner is reached; else why not. */
type Route = PeerConnection | "here" | "unknown" | "unreachable";

function findRoute(
  { local, owners, self }: RouterOptions,
  connectionTo: (node: NodeId) => PeerConnection | null,
  shard: ShardId,
): Route {
  if (local.owns(shard)) return "here";
  const owner = owners.ownerOf(shard);
  // The table may say that it is this node: then its lanes are about to take the shard, or have just given it up.
  if (owner === null || owner === self()) return "unknown";
  return connectionTo(owner) ?? "unreachable";
}

function createOffer({ local, clock, counters }: RouterOptions, routeOf: (shard: ShardId) => Route): Engine["offer"] {
  const refuse = (parts: readonly Part[], listener: PartListener, error: StarlingError): void => {
    counters.add(`router/refused/${error.code}`, parts.length);
    const news = new PartNews(parts.length);
    for (const { position } of parts) news.add({ kind: "refused", position, error });
    clock.soon(() => listener(news));
  };
  return (parts, listener) => {
    if (parts.every(({ shard }) => local.owns(shard))) return local.offer(parts, listener);
    const byRoute = new Map<Route, Part[]>();
    for (const part of parts) {
      const route = routeOf(part.shard);
      const known = byRoute.get(route);
      if (known === undefined) byRoute.set(route, [part]);
      else known.push(part);
    }
    for (const [route, some] of byRoute) {
      if (route === "here") local.offer(some, listener);
      else if (typeof route === "string") refuse(some, listener, problemOf(route, some[0]?.shard));
      else if (route.offer(some, listener)) counters.add("peer/parts_sent", some.length);
      else refuse(some, listener, new StarlingError("BUSY", "too many parts wait for the owner of their shards"));
    }
  };
}

function problemOf(route: "unknown" | "unreachable", shard: ShardId | undefined): StarlingError {
  if (route === "unknown") return new StarlingError("MOVED", `no owner of shard ${shard} is known`);
  return new StarlingError("UNAVAILABLE", `the owner of shard ${shard} cannot be reached`);
}

interface OwnerCall<T> {
  /** Until an owner must have been found. */
  readonly deadlineMs: number;
  readonly here: (leftMs: number) => Promise<T>;
  readonly there: (connection: PeerConnection, deadlineMs: number) => Promise<T>;
  /** Whether to ask again after what another node, or the way to it, answered; after MOVED and FENCED always. */
  readonly again: (problem: StarlingError) => boolean;
}

const pauseMinMs = 10;
const pauseMaxMs = 200;

/** Asks a shard's owner, also while the shard changes hands. Raises UNAVAILABLE when none is found in time. */
function createReach(routeOf: (shard: ShardId) => Route, clock: Clock) {
  return async <T>(shard: ShardId, call: OwnerCall<T>): Promise<T> => {
    const until = clock.now() + call.deadlineMs;
    for (let pauseMs = pauseMinMs; ; pauseMs = Math.min(2 * pauseMs, pauseMaxMs)) {
      let problem: StarlingError;
      const route = routeOf(shard);
      try {
        if (route === "here") return await call.here(until - clock.now());
        if (typeof route !== "string") return await call.there(route, until - clock.now());
        problem = problemOf(route, shard);
      } catch (error) {
        if (!(error instanceof StarlingError)) throw error;
        const lost = error.code === "MOVED" || error.code === "FENCED";
        if (!lost && (route === "here" || !call.again(error))) throw error;
        problem = error;
      }
      if (clock.now() + pauseMs >= until) {
        throw new StarlingError("UNAVAILABLE", `no owner of shard ${shard} answered: ${problem.message}`);
      }
      await pause(clock, pauseMs);
    }
  };
}

/** The nodes that own these shards; null: not every owner can be reached. */
function findSources(
  { self }: RouterOptions,
  routeOf: (shard: ShardId) => Route,
  shards: readonly ShardId[],
): readonly RowSource[] | null {
  const sources = new Map<PeerConnection | null, ShardId[]>();
  for (const shard of shards) {
    const route = routeOf(shard);
    if (route === "unknown" || route === "unreachable") return null;
    const connection = route === "here" ? null : route;
    const known = sources.get(connection);
    if (known === undefined) sources.set(connection, [shard]);
    else known.push(shard);
  }
  return [...sources].map(([connection, some]) => ({ node: connection?.peer ?? self(), connection, shards: some }));
}

async function waitForSources(
  options: RouterOptions,
  routeOf: (shard: ShardId) => Route,
  shards: readonly ShardId[],
  signal: AbortSignal,
): Promise<readonly RowSource[]> {
  const { clock, limits } = options;
  const until = clock.now() + limits.readDeadlineMs;
  while (clock.now() < until && !signal.aborted) {
    await pause(clock, pauseMinMs);
    const found = findSources(options, routeOf, shards);
    if (found !== null) return found;
  }
  if (signal.aborted) return [];
  throw new StarlingError("UNAVAILABLE", "not all owners of the followed shards can be reached");
}

function pause(clock: Clock, ms: number): Promise<void> {
  return new Promise((resolve) => void clock.after(ms, resolve));
}
