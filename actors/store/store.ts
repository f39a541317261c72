import type { Epoch, NodeId, Seq, SessionId, ShardId } from "../../proto/ids.ts";
import type { LargeValue } from "./large-value.ts";
import type { StoreOpening } from "./session.ts";
import type { LinkAt, LinkSegment, LinksQuery, NewObituary, ReferredQuery, ShardPlace } from "./stored-link.ts";
import type { StoredImage, StoredMark, TickReads } from "./tick.ts";
import type { Unpassed } from "./unpassed.ts";

/**
 * What the actors need of durable storage. Implemented by PostgreSQL (`postgres-store.ts`) and, for the simulation, by
 * `test/support/memory-store.ts`; one contract suite runs against both.
 *
 * Every method is one round trip and one transaction. Errors are StarlingErrors: STORE (try the very same call again:
 * the outcome may be unknown and the calls are made so that repeating is safe), STORE_REFUSED (the data's own fault:
 * classes 22, 23, 54), STORE_FATAL.
 */
export interface Store extends TickReads {
  /**
   * Takes shards: a claim first, then the epoch grows by one, then, in a later statement, what the log holds is read (R5, R22).
   * Shards that somebody else claims are missing in the answer, and those that do not fit the terms.
   */
  acquire(node: NodeId, shards: readonly ShardId[], terms?: AcquireTerms): Promise<AcquiredShard[]>;
  /** What every owner reads every second (R24). */
  readOwners(): Promise<OwnersReading>;
  /** Gives shards up: nobody owns them afterwards. */
  release(fences: readonly Fence[], node: NodeId): Promise<void>;
  /** Appends segments to the logs of several shards (R2, R3). A repeat of rows that are there already succeeds. */
  append(node: NodeId, request: AppendRequest): Promise<WriteResult>;
  /** Writes entity state, history and watermarks (R14). */
  flush(node: NodeId, request: FlushRequest): Promise<WriteResult>;
  /** Stored records of entities; those without one are missing in the answer. */
  load(keys: readonly EntityKey[]): Promise<StoredEntity[]>;
  /** Segments of a shard whose last seq is above `after`, in order, at most `limit`. */
  readLog(shard: ShardId, after: Seq, limit: number): Promise<Segment[]>;
  /** For each part the head of the segment that holds it; null: the log does not have it (any more) (R10). */
  findParts(asked: readonly AskedPart[]): Promise<(SegmentHead | null)[]>;
  /** What the logs hold of these channels above the watermarks (R10). */
  readUnpassed(channels: readonly string[]): Promise<Unpassed>;
  /** How far every shard is that anybody ever owned. */
  places(): Promise<ShardPlace[]>;
  /** Last numbers of channels that the checkpoint knows, for channels that memory has forgotten. */
  readChannel(shard: ShardId, channel: string): Promise<number>;
  /**
   * Opens a session or reads it (R11). Raises PERMISSION_DENIED, and changes nothing, where another holder began it; BATCH_CHANGED
   * for an idempotency key with another hash, and SESSION_CLOSED for what has to be known and is not.
   */
  openSession(session: SessionId, opening: StoreOpening): Promise<StoredSession>;
  /** Notes that a session is in use. */
  useSession(session: SessionId): Promise<void>;
  closeSession(session: SessionId): Promise<void>;
  /** Those that are closed. */
  findClosed(sessions: readonly SessionId[]): Promise<SessionId[]>;
}

export interface Fence {
  readonly shard: ShardId;
  readonly epoch: Epoch;
}

/** What whoever acquires knows: it takes nothing from an owner it has not heard of, nor by a membership that others know better. */
export interface AcquireTerms {
  /** The shard's epoch; 0 for one that nobody ever owned. */
  readonly epochOf: (shard: ShardId) => Epoch;
  /** Of the membership: nobody acquires by an older one than somebody did before (R22). Null: there are no other nodes. */
  readonly revision: number | null;
}

export interface OwnersReading {
  /** Of the shards that somebody ever owned; the very same list as long as nothing changes. */
  readonly owners: readonly ShardOwner[];
  /** The tick that runs, and the newest one whose run has ended; 0: none. */
  readonly tick: number;
  readonly endedTick: number;
}

export interface ShardOwner extends Fence {
  /** Null: it was given up. */
  readonly owner: NodeId | null;
}

export interface AcquiredShard extends Fence {
  /** Everything up to here is processed. */
  readonly watermark: Seq;
  /** The highest seq in the log, or the watermark if that is higher. */
  readonly lastSeq: Seq;
  /** Outbox lines up to here are delivered. */
  readonly delivered: Seq;
  /** Time of the newest log entry or watermark, Unix ms; arrival times never go below (R6). */
  readonly lastAt: number;
  /** Last numbers of channels as of the watermark. */
  readonly channels: ReadonlyMap<string, number>;
  /** Seqs above the watermark whose task was refused (R18). */
  readonly refused: readonly Seq[];
  /** Answers above the watermark that stand as dead letters: `seq` and hook id. */
  readonly deadAnswers: readonly { readonly seq: Seq; readonly hook: string }[];
  /** Whether the owner before gave the shard up; if not, it may have died of what stands in the log (R17). */
  readonly clean: boolean;
  /** What entities owe below the watermark. `refused` and `deadAnswers` begin with the first entry of these (R16). */
  readonly obligations: readonly StoredObligation[];
  readonly attempt: AttemptMark | null;
  /** The newest mark that the watermark has passed; null: it has passed none. */
  readonly mark: StoredMark | null;
  /** The database is of another world than at the last acquiring: the epoch grew by 1,000, and `lastSeq` far (R25). */
  readonly jumped?: boolean;
  /** Seqs between these were given out in another world only, if at all. */
  readonly lost?: LostSeqs;
}

/** Both are still of this world. */
export interface LostSeqs {
  readonly below: Seq;
  readonly above: Seq;
}

/** What one entity owes below the watermark (R16). */
export interface StoredObligation extends EntityKey {
  /** The entry whose hook took too long; null when it has ended, and others behind it have not. */
  readonly held: HeldEntry | null;
  /** The first of the entity's entries behind it that the watermark has passed. */
  readonly firstWaiting: Seq | null;
}

/** A task whose hook runs on below the watermark, whole, so that the log may go. */
export interface HeldEntry {
  readonly seq: Seq;
  readonly lastSeq: Seq;
  /** Arrival time, Unix ms. */
  readonly at: number;
  /** Id of the hook that runs. */
  readonly hook: string;
  /** JSON text: how far the task is, and its cause; see `actors/lane/obligation.ts`. */
  readonly place: string;
  /** Its lines, as in the log. */
  readonly task: string;
}

/**
 * A window of the log whose hooks run after an unplanned take-over (R17): whoever finds it infers that a process died there. One
 * that ends before it begins holds nothing: nobody died.
 */
export interface AttemptMark {
  readonly from: Seq;
  readonly to: Seq;
  /** The last seq of what a process died in before, and none has passed since: at least `to`. */
  readonly until: Seq;
  /** Of processes, of the datapoint at `from` alone: the one whose window it is counts itself. 0 if there are others in it. */
  readonly deaths: number;
}

/** One row of the log: what one commit appended to one shard. See `actors/log/segment.ts` for head and body. */
export interface Segment {
  readonly shard: ShardId;
  /** Seq of the first body line. A segment without body lines takes one seq all the same. */
  readonly seq: Seq;
  readonly lastSeq: Seq;
  /** Arrival time, Unix ms. */
  readonly at: number;
  /** JSON text: parts and answers. */
  readonly head: string;
  /** One line for every seq. */
  readonly body: string;
  /** 32-bit hashes (`hashOf`) of the entities in the segment, 8 hex digits each. */
  readonly keys: string;
}

/** What says which parts and answers a segment holds. */
export type SegmentHead = Pick<Segment, "shard" | "seq" | "head">;

/** A part that a sender says it has sent before. */
export interface AskedPart {
  readonly shard: ShardId;
  readonly channel: string;
  readonly number: number;
  /** A segment of the channel that holds an earlier part: what is asked for stands there or above; 0: none is known. */
  readonly from: Seq;
}

export interface AppendRequest {
  readonly fences: readonly Fence[];
  readonly segments: readonly Segment[];
  /** Dead letters that this append replays: closed in the same transaction (R20). */
  readonly closings?: readonly { readonly shard: ShardId; readonly id: string; readonly status: "replayed" }[];
}

export interface WriteResult {
  /** Shards that this node may no longer write. If there is one, nothing was written (R2). */
  readonly lost: readonly ShardId[];
}

export interface EntityKey {
  readonly shard: ShardId;
  readonly type: string;
  readonly eid: string;
}

export interface StoredEntity extends EntityKey {
  /** Seq of the task that created it. */
  readonly created: Seq;
  /** Arrival time of that task, Unix ms. */
  readonly createdAt: number;
  /** Seq of the last task applied. */
  readonly applied: Seq;
  /** The record without histories: see `writeState` in `actors/lane/entity.ts`. */
  readonly state: string;
  /**
   * Values that stand outside `state`: of a flush those that changed since the one before, of a load all. In a list they
   * stand in `state`, like the others.
   */
  readonly large?: readonly LargeValue[] | undefined;
  /** Deleted by the task `applied`; kept until the watermark has passed (R19). */
  readonly tombstone: boolean;
}

/** History of one entity that one flush adds: lines `attr \t src \t t1 \t t2 \t c \t json`. */
export interface HistorySegment extends EntityKey {
  /** Seq of the newest datapoint in it. */
  readonly seq: Seq;
  readonly body: string;
}

/**
 * Flushes of a node's lane follow one another, and each is repeated until it is answered; so the first attempt of one may
 * still be on its way when later ones are done. What then comes late writes nothing.
 */
export interface FlushOrder {
  readonly lane: number;
  /** Grows by one with every flush of the lane; the same when it is repeated. */
  readonly number: number;
}

export interface FlushRequest {
  /** Which flush of the node this is; null: the only one. */
  readonly order?: FlushOrder | null;
  readonly fences: readonly Fence[];
  readonly entities: readonly StoredEntity[];
  readonly history: readonly HistorySegment[];
  readonly progress: readonly ShardProgress[];
  /** Left out: no links changed. */
  readonly links?: readonly LinkSegment[];
  /** Left out: nothing was deleted to which others may link. Kept with how far every log goes. */
  readonly obituaries?: readonly NewObituary[];
  /** Left out: nothing changed in when lifetimes are to be looked at. */
  readonly looks?: readonly LookAt[];
  /** How far that is, where the database does not know all shards; default: as it knows. */
  readonly places?: readonly ShardPlace[];
  readonly refused: readonly (EntityKey & { readonly seq: Seq })[];
  readonly deadLetters: readonly NewDeadLetter[];
  /** Obligations that changed; one that neither holds an entry nor names one is over. */
  readonly obligations?: readonly StoredObligation[];
  /** Windows that begin; null: the shard's last one has ended. */
  readonly attempts?: readonly { readonly shard: ShardId; readonly mark: AttemptMark | null }[];
  /** What entities were before their first change after a tick's mark, and marks that the watermark passes. */
  readonly images?: readonly StoredImage[];
  readonly marks?: readonly { readonly shard: ShardId; readonly tick: number; readonly seq: Seq }[];
}

export interface ShardProgress {
  readonly shard: ShardId;
  readonly watermark: Seq;
  readonly delivered: Seq;
  readonly at: number;
  /** Last numbers that changed since the previous flush of the shard. */
  readonly channels: readonly { readonly channel: string; readonly number: number }[];
}

export type DeadLetterKind = "unapplied" | "hook";
export type DeadLetterStatus = "open" | "replayed" | "discarded";

export interface NewDeadLetter {
  readonly shard: ShardId;
  readonly seq: Seq;
  readonly kind: DeadLetterKind;
  /** Hook id, or "" for an unapplied task. */
  readonly hook: string;
  readonly type: string;
  readonly eid: string;
  readonly code: string;
  readonly error: string;
  readonly at: number;
  /** The task as JSON text, so that it can be replayed after the log is gone. */
  readonly task: string;
}

export interface StoredDeadLetter extends NewDeadLetter {
  /** `shard-seq-number`, unique. */
  readonly id: string;
  readonly status: DeadLetterStatus;
}

export interface StoredSession {
  readonly session: SessionId;
  readonly named: boolean;
  readonly closed: boolean;
  /** How often it was opened. */
  readonly opening: number;
  /** Of an idempotency key: that of its batch. */
  readonly number: number;
}

/** A page of an attribute's merged history: see `actors/history/history-page.ts` for the body. Times are Unix ms. */
export interface HistoryPage extends EntityKey {
  readonly attr: string;
  readonly t1: number;
  readonly t2: number;
  /** The highest seq that was folded into it, and its place among the pages of that fold. */
  readonly seq: number;
  readonly place: number;
  /** Runs that ended up to here were too many; minus infinity: none were. */
  readonly cut: number;
  readonly body: string;
}

/** Pages that end at `from` or later, begin at `until` or earlier, and end before `below`; those that end last, if `max` is set. */
export interface PageWindow extends EntityKey {
  readonly attr: string;
  readonly from: number;
  readonly until: number;
  readonly below: number;
  readonly max: number | null;
}

/** Rows of one shard's entities that become pages, the pages that they replace, and the new ones. */
export interface HistoryFold {
  readonly rows: readonly (EntityKey & { readonly seq: Seq })[];
  readonly remove: readonly HistoryPage[];
  readonly add: readonly HistoryPage[];
}

/** The upkeep of histories. Each call is one transaction. */
export interface Histories extends Pick<Queries, "historyRows" | "historyPages"> {
  /** Entities with rows that a fold may take, in the order of eid and type, those after `after`. */
  unfolded(after: EntityKey, limit: number): Promise<EntityKey[]>;
  /** False, and nothing written, if a row or page that it is to replace has gone meanwhile, or an entity has an image. */
  fold(fold: HistoryFold): Promise<boolean>;
  /** Drops pages that end before an instant, at most `limit`; returns how many. From now on it is the attribute's horizon. */
  clean(request: { type: string; attr: string; before: number; limit: number }): Promise<number>;
}

/** When the lifetime of an entity is to be looked at, Unix ms; null: never. */
export interface LookAt extends EntityKey {
  readonly at: number | null;
}

/** The upkeep of lifetimes. */
export interface Lifetimes extends Pick<Store, "places"> {
  /** Entities of shards whose lifetimes are to be looked at by an instant, in the order of their times, those after `after`. */
  toLookAt(shards: readonly ShardId[], by: number, after: DueLook | null, limit: number): Promise<DueLook[]>;
  /** Entities of one type in shards, by eid, those after `after`. */
  inhabitants(request: InhabitantsRequest): Promise<EntityKey[]>;
  /** Those of the asked eids to which a link leads, from whatever shard, that holds at the instant or will. */
  referred(query: ReferredQuery): Promise<string[]>;
}

export interface DueLook extends LookAt {
  readonly at: number;
}

export interface InhabitantsRequest {
  readonly shards: readonly ShardId[];
  readonly type: string;
  /** An eid; "": from the beginning. */
  readonly after: string;
  readonly limit: number;
}

/** Questions that PostgreSQL answers directly, not the owner. */
export interface Queries {
  list(request: { type: string; after: string; limit: number }): Promise<StoredEntity[]>;
  count(type: string | null): Promise<Map<string, number>>;
  /** Raw datapoints of one entity, newest first. */
  raw(request: { shard: ShardId; type: string; eid: string; attr: string | null; limit: number }): Promise<RawRow[]>;
  /** What flushes added to the histories of entities and no fold has taken: oldest first, of each at most `max`. */
  historyRows(keys: readonly EntityKey[], max: number | null): Promise<HistorySegment[]>;
  /** Pages in any of the windows, each once. */
  historyPages(windows: readonly PageWindow[]): Promise<HistoryPage[]>;
  /** By attribute of a type: whatever ended before is too old to be kept, Unix ms. */
  historyHorizons(type: string): Promise<Map<string, number>>;
  /** The links of an entity at an instant, in one direction, by attribute, then type, then eid. */
  links(request: LinksQuery): Promise<LinkAt[]>;
  deadLetters(request: { after: string; limit: number; status: DeadLetterStatus | null }): Promise<StoredDeadLetter[]>;
  deadLetter(id: string): Promise<StoredDeadLetter | null>;
  /** Open dead letters by shard; shards without one are missing. */
  countDeadLetters(): Promise<ReadonlyMap<ShardId, number>>;
  discardDeadLetter(id: string): Promise<StoredDeadLetter | null>;
}

export interface RawRow {
  readonly shard: ShardId;
  readonly seq: Seq;
  readonly at: number;
  readonly type: string;
  readonly eid: string;
  readonly attr: string;
  readonly src: string | null;
  readonly t1: number | null;
  readonly t2: number | null;
  readonly c: number;
  readonly json: string;
}
