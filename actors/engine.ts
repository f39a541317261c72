import type { RecordView } from "../modules/hook.ts";
import type { Epoch, NodeId, Seq, SessionId, ShardId } from "../proto/ids.ts";
import type { StarlingError } from "../proto/starling-error.ts";
import type { Counters } from "./counters.ts";
import type { MessageResult } from "./lane/message-result.ts";
import type { Part, PartListener } from "./lane/part.ts";
import type { Settler } from "./sessions/settler.ts";
import type { Ticks } from "./snapshots/ticks.ts";
import type { SessionOpening } from "./store/session.ts";
import type { Fence, Queries, RawRow, StoredDeadLetter, StoredSession } from "./store/store.ts";

/**
 * The actors of one node, as its gRPC services see them. Built by `startEngine` in `actors/start-engine.ts`.
 */
export interface Engine {
  /** Shards of the entity group, fixed at the cluster's creation. */
  readonly entityShards: number;
  /** Shards of the system group, where singletons live. */
  readonly systemShards: number;
  /** Offers parts of one batch to their shards' owners. Never throws; what happens reaches the listener. */
  offer(parts: readonly Part[], listener: PartListener): void;
  /** Opens or resumes a session: a durable row (R11). An empty id asks for a new one. Raises PERMISSION_DENIED. */
  openSession(session: string, opening: SessionOpening): Promise<StoredSession>;
  /** Notes that a session is in use: what nobody uses is forgotten in the end. */
  useSession(session: SessionId): Promise<void>;
  /** A stream serves the session, of its `opening`th opening: those of earlier ones on other nodes are to end. */
  tellSession(session: SessionId, opening: number): void;
  closeSession(session: SessionId): Promise<void>;
  /** Those that are closed, on whatever node. */
  findClosed(sessions: readonly SessionId[]): Promise<SessionId[]>;
  /** As {@link Settler.settle}. */
  settle: Settler["settle"];
  /** The record as its owner has it; with a token at least that state, or BEHIND. Null: no such entity. */
  get(type: string, eid: string, atLeast: LogPlace | null): Promise<OwnedRecord | null>;
  /**
   * What a message in the log comes to. Raises DEADLINE, UNAVAILABLE, BUSY, and NOT_FOUND when that is too long ago.
   */
  reply(place: Omit<LogPlace, "epoch">, deadlineMs: number): Promise<MessageResult>;
  /** Questions to PostgreSQL. */
  readonly queries: Queries;
  /** Datapoints from now on, in log order per shard; ends with the signal. Bounded: a reader too slow is cut with BUSY. */
  follow(filter: { type: string; eid: string | null; attr: string | null }, signal: AbortSignal): AsyncIterable<RawRow>;
  /** Replays a dead letter (R20). */
  replayDeadLetter(id: string): Promise<StoredDeadLetter>;
  /** Time up to which `list`, `count` and `raw` hold everything, Unix ms. */
  flushedUpTo(): number;
  /** The shards that are here: the same list until one comes or goes. */
  held(): readonly Fence[];
  status(): EngineStatus;
  /** Called when the engine turns to serving or not serving; null: serving. Returns the unsubscribe. */
  onHealth(listener: (problem: StarlingError | null) => void): () => void;
  readonly counters: Counters;
  readonly ticks: Ticks;
  /** Finishes what is in hand, flushes, releases the shards. */
  close(): Promise<void>;
}

/** A session was opened on another node, for the `opening`th time: a stream of an earlier opening is to end. */
export type SessionTaker = (session: SessionId, opening: number, by: NodeId) => void;

export interface LogPlace {
  readonly shard: ShardId;
  readonly epoch: Epoch;
  readonly seq: Seq;
}

export interface OwnedRecord {
  readonly view: RecordView;
  /** Unix ms. */
  readonly createdAt: number;
  readonly place: LogPlace;
  readonly ttlTokens: Readonly<Record<string, number>>;
}

export interface EngineStatus {
  readonly problem: StarlingError | null;
  readonly shards: readonly {
    readonly shard: ShardId;
    readonly epoch: Epoch;
    readonly lastSeq: Seq;
    readonly watermark: Seq;
    readonly residentEntities: number;
    readonly undelivered: number;
    /** What waits for its processing, in tasks and in bytes. */
    readonly lagEntries: number;
    readonly lagBytes: number;
    /** Of derived tasks on their way to other shards. */
    readonly outboxBytes: number;
    readonly residentBytes: number;
    /** Entities that are newer than PostgreSQL's. */
    readonly dirtyEntities: number;
    readonly obligations: number;
  }[];
}
