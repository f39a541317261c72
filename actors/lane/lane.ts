import type { CheckedTask, Eid } from "../../modules/datapoint.ts";
import type { Hook, HookTable } from "../../modules/hook.ts";
import type { Model } from "../../modules/model.ts";
import type { NodeId, Seq, ShardId } from "../../proto/ids.ts";
import type { StarlingError } from "../../proto/starling-error.ts";
import type { Counter, Counters } from "../counters.ts";
import type { LogPlace, OwnedRecord } from "../engine.ts";
import type { HookCall } from "../hooks/hook-call.ts";
import type { HookOutcome } from "../hooks/hook-outcome.ts";
import { type LinkTypes, linkTypes } from "../links/link-types.ts";
import type { OpenCut, TickPass } from "../snapshots/tick-mark.ts";
import type {
  AppendRequest,
  AskedPart,
  EntityKey,
  Fence,
  FlushRequest,
  Segment,
  SegmentHead,
  ShardProgress,
  StoredDeadLetter,
  StoredEntity,
  WriteResult,
} from "../store/store.ts";
import type { Traces } from "../traces.ts";
import { type AppendPace, createAppendPace } from "./append-pace.ts";
import type { Entity } from "./entity.ts";
import type { StateForm } from "./entity-state.ts";
import type { Entry } from "./entry.ts";
import type { Gate } from "./gate.ts";
import type { MessageResult, ReplyListener } from "./message-result.ts";
import type { Part, PartListener } from "./part.ts";
import type { PartNews } from "./part-news.ts";
import type { GiveUpReply, PendingBlock, Shard } from "./shard.ts";
import type { Turn } from "./turn.ts";

/**
 * A lane: a fixed set of a node's shards with at most one append and one flush in flight. It is the protocol's step
 * function: `step(lane, message)` (in `step.ts`) changes the lane and emits effects; a shell (`lane-cell.ts`) performs
 * them and sends what comes of them back as messages. The lane itself never waits, reads no clock and does no I/O.
 *
 * Invariants, with the tests that carry their numbers in `test/actors/lane/protocol.test.ts`:
 *  I1  A shard's committed log is a prefix of what was given seqs: one append in flight, retried unchanged (R1, R3).
 *  I2  A part is acknowledged only when its segment is durable; a repeat never makes a second entry (P1, P2, R9).
 *  I3  An entity's tasks run one after another in the order of the log, hooks included (P5, R15).
 *  I4  The watermark passes a seq only when its state is flushed and its answers are durable (R14).
 *  I5  An answer is recorded once per (cause, hook); its derived tasks exist exactly once (P3, R15).
 *  I6  What the owner of a shard has lost, it forgets: nothing of it is written or acknowledged any more (P4).
 */
export interface Lane {
  readonly index: number;
  readonly node: NodeId;
  readonly shards: Map<ShardId, Shard>;
  /** Shards that are being given up, in the order in which that began (`hand-off.ts`). */
  readonly leaving: Set<Shard>;
  /** Shards with blocks to append, in the order in which they began to wait. */
  readonly waiting: Set<Shard>;
  commit: Commit | null;
  flush: Flush | null;
  /** What is left of one that was refused and divided, and the one behind it: see `flush.ts`. */
  divided: Flush[];
  packed: Flush | null;
  /** Set while hooks of a dead owner's range run window by window (R17). */
  gate: Gate | null;
  /** Shards with entities whose state is newer than PostgreSQL's, oldest change first; and how many entities. */
  readonly dirty: Set<Shard>;
  dirtyEntities: number;
  /** Shards whose progress may have changed since their last flush. */
  readonly touched: Set<Shard>;
  /** Activations to be loaded; taken as a whole when a load can start. */
  toLoad: { readonly shard: Shard; readonly entity: Entity }[];
  loading: number;
  /** Reads whose entity is being activated. */
  parkedGets: Extract<LaneMessage, { kind: "get" }>[];
  readonly pace: AppendPace;
  /** Since when there is something to flush, and when the timer for it ends (monotonic ms); null: nothing, none. */
  newsSince: number | null;
  flushWakeAt: number | null;
  /** Until then nobody looks again whether what could not be flushed can be. */
  flushRestsTo: number;
  lastFlush: { readonly endedAt: number; readonly tookMs: number };
  /** When the step at hand began (monotonic ms). */
  now: number;
  nextRun: number;
  /** The number of the next flush. */
  nextFlush: number;
  readonly linkTypes: LinkTypes;
  /** The newest tick that this node has heard of; 0: none. */
  tick: number;
  /** The entry of the last task that ended at once, for the next one. */
  spare: Entry | null;
  status: "serving" | "closing";
  /** Bytes above the watermarks of all shards, as a cache of the log (R7). */
  backlogBytes: number;
  /** Bytes of outbox lines that are not done (R13). */
  outboxBytes: number;
  effects: Effect[];
  /** What the step at hand has to tell, by listener: an effect each. Most often the last one has more to hear. */
  readonly told: { readonly all: Map<PartListener, Tell>; last: Tell | null };
  /** Of all tasks that ended: found once, since it counts so often. */
  readonly tasksProcessed: Counter;
  readonly world: LaneWorld;
}

export interface Commit {
  readonly request: AppendRequest;
  readonly built: readonly BuiltSegment[];
  attempts: number;
}

export interface BuiltSegment {
  readonly shard: Shard;
  readonly segment: Segment;
  readonly blocks: readonly PendingBlock[];
}

export interface Flush {
  readonly request: FlushRequest;
  /** `applied`: what it writes of the entity. */
  readonly entities: readonly { readonly shard: Shard; readonly entity: Entity; readonly applied: Seq }[];
  readonly progress: readonly { readonly shard: Shard; readonly progress: ShardProgress }[];
  /** Of the whole lane, or only of shards that are being given up. */
  readonly scope: "lane" | "leaving";
  /** When the oldest of the changes was made, and when the flush was sent (monotonic ms). */
  readonly since: number;
  readonly startedAt: number;
  attempts: number;
}

/** What is injected: everything that is not a decision. */
export interface LaneWorld {
  readonly model: Model;
  readonly hooks: HookTable;
  readonly limits: LaneLimits;
  readonly counters: Counters;
  /** Unix ms. */
  readonly now: () => number;
  readonly monotonic: () => number;
  readonly shardOf: (type: string, eid: string) => ShardId;
  /** How records are written: as all nodes that may own them can read them. */
  readonly stateForm: () => StateForm;
  /** Shared by the node's lanes: who may open a gate's windows. */
  readonly turn: Turn;
  /** Runs a hook; a promise when it did not end at once. */
  readonly runHook: (hook: Hook, call: HookCall) => HookOutcome | Promise<HookOutcome>;
  /** Set where tasks are traced. */
  readonly traces?: Traces | undefined;
  /** Sends a message to the lane, from a hook's promise. */
  readonly post: (message: LaneMessage) => void;
}

/** Bounds; the configuration explains each (`node/config/settings.ts`). */
export interface LaneLimits {
  readonly appendMaxDatapoints: number;
  readonly flushIntervalMs: number;
  readonly flushMaxEntities: number;
  readonly flushMaxBytes: number;
  readonly lagMaxEntries: number;
  readonly lagMaxBytes: number;
  readonly backlogMaxBytes: number;
  readonly residentMaxEntities: number;
  readonly residentMaxBytes: number;
  readonly passivateAfterMs: number;
  readonly chainMaxDepth: number;
  readonly obligationAfterMs: number;
  readonly obligationAfterSeqs: number;
}

export type LaneMessage =
  | {
      readonly kind: "own";
      readonly shards: readonly Shard[];
      readonly replay: readonly ReplayLog[];
      /** Called when the lane has them. */
      readonly reply?: () => void;
    }
  /** Give shards up in order, with so much time for running hooks; `reply` is called for each of them. */
  | {
      readonly kind: "give-up";
      readonly shards: readonly ShardId[];
      readonly hookGraceMs: number;
      readonly reply: GiveUpReply;
    }
  /** The hooks of a sealed shard have had their time. */
  | { readonly kind: "grace-over"; readonly shard: Shard }
  /** Forget shards at once: another node has them. */
  | { readonly kind: "drop"; readonly shards: readonly ShardId[] }
  | { readonly kind: "offer"; readonly offers: readonly Offer[] }
  /** What the log has of parts that came again, one for one. */
  | {
      readonly kind: "looked-up";
      readonly asked: readonly LookUp[];
      readonly found: readonly (SegmentHead | null)[];
    }
  | { readonly kind: "committed"; readonly result: WriteResult }
  | { readonly kind: "commit-failed"; readonly error: StarlingError }
  | { readonly kind: "loaded"; readonly wanted: readonly LoadWanted[]; readonly found: readonly StoredEntity[] }
  | { readonly kind: "load-failed"; readonly wanted: readonly LoadWanted[]; readonly error: StarlingError }
  | {
      readonly kind: "hook-ended";
      readonly shard: Shard;
      readonly entry: Entry;
      readonly run: number;
      readonly outcome: HookOutcome;
    }
  /** Outbox lines that are durable at their targets, and such that are done there (R12, R13). */
  | { readonly kind: "delivered"; readonly shard: Shard; readonly seqs: readonly number[] }
  | { readonly kind: "lines-done"; readonly shard: Shard; readonly seqs: readonly number[] }
  | { readonly kind: "flush-due" }
  | { readonly kind: "flushed"; readonly result: WriteResult }
  | { readonly kind: "flush-failed"; readonly error: StarlingError }
  | {
      readonly kind: "get";
      readonly key: EntityKey;
      readonly eidValue: Eid;
      readonly atLeast: LogPlace | null;
      readonly reply: GetReply;
    }
  /** What the message with this seq came to is wanted, until then (monotonic ms). */
  | {
      readonly kind: "await-reply";
      readonly shard: ShardId;
      readonly seq: Seq;
      readonly untilMs: number;
      readonly listener: ReplyListener;
    }
  /** What the replay of a dead letter came to (R20). */
  | {
      readonly kind: "replay-letter";
      readonly letter: StoredDeadLetter;
      readonly tasks: readonly CheckedTask[];
      readonly reply: LetterReply;
    }
  /** A tick runs; those up to one have ended; and how far the visit of a shard has come. */
  | { readonly kind: "learn-tick"; readonly tick: number }
  | { readonly kind: "end-ticks"; readonly tick: number }
  | { readonly kind: "pass-tick"; readonly pass: TickPass }
  | { readonly kind: "sweep" }
  | { readonly kind: "close" };

/** Parts of one batch. */
export interface Offer {
  readonly parts: readonly Part[];
  readonly listener: PartListener;
}

export interface LoadWanted {
  readonly shard: Shard;
  readonly entity: Entity;
}

export interface ReplayLog {
  readonly shard: Shard;
  readonly segments: readonly Segment[];
}

export type LetterReply = (error: StarlingError | null) => void;

export type GetReply = (record: OwnedRecord | null | StarlingError) => void;

/** A part that only the log knows, and who offers it. */
export interface LookUp {
  readonly place: AskedPart;
  readonly hash: string;
  /** Which of its batch's parts it is. */
  readonly position: number;
  readonly listener: PartListener;
}

/** All that one step has to tell a listener. */
export interface Tell {
  readonly kind: "tell";
  readonly listener: PartListener;
  readonly news: PartNews;
}

export type Effect =
  | { readonly kind: "append"; readonly request: AppendRequest; readonly delayMs: number }
  | { readonly kind: "flush"; readonly request: FlushRequest; readonly delayMs: number }
  | { readonly kind: "load"; readonly wanted: readonly LoadWanted[]; readonly delayMs: number }
  | { readonly kind: "look-up"; readonly asked: readonly LookUp[] }
  /** An outbox part for its target's owner; when it is durable there, `delivered` comes back, then `lines-done`. */
  | { readonly kind: "deliver"; readonly shard: Shard; readonly part: Part }
  | Tell
  | { readonly kind: "reply"; readonly reply: GetReply; readonly record: OwnedRecord | null | StarlingError }
  | {
      readonly kind: "result";
      readonly listener: ReplyListener;
      readonly result: MessageResult | StarlingError | null;
    }
  | { readonly kind: "closed"; readonly reply: LetterReply; readonly error: StarlingError | null }
  | { readonly kind: "flush-timer"; readonly afterMs: number }
  | { readonly kind: "cut-open"; readonly cut: OpenCut }
  | { readonly kind: "lost"; readonly shards: readonly ShardId[] }
  | { readonly kind: "kept-back"; readonly shard: ShardId; readonly error: StarlingError }
  | { readonly kind: "owned"; readonly reply: () => void }
  /** `grace-over` comes back after so long. */
  | { readonly kind: "hook-grace"; readonly shard: Shard; readonly afterMs: number }
  /** Abort the hooks that run for a shard. */
  | { readonly kind: "abandon"; readonly shard: ShardId }
  | { readonly kind: "given-up"; readonly shard: ShardId; readonly fence: Fence | null; readonly reply: GiveUpReply }
  /** How work with the store goes; null: well. */
  | { readonly kind: "health"; readonly work: "append" | "flush" | "load"; readonly problem: StarlingError | null }
  /** Everything in hand is flushed: the lane has nothing more to do. */
  | { readonly kind: "drained" };

/** A lane without shards. */
export function createLane(index: number, node: NodeId, world: LaneWorld): Lane {
  return {
    index,
    node,
    shards: new Map(),
    leaving: new Set(),
    waiting: new Set(),
    commit: null,
    flush: null,
    divided: [],
    packed: null,
    gate: null,
    dirty: new Set(),
    dirtyEntities: 0,
    touched: new Set(),
    toLoad: [],
    loading: 0,
    parkedGets: [],
    pace: createAppendPace(),
    newsSince: null,
    flushWakeAt: null,
    flushRestsTo: 0,
    lastFlush: { endedAt: 0, tookMs: 0 },
    now: 0,
    nextRun: 1,
    nextFlush: 1,
    linkTypes: linkTypes(world.model),
    tick: 0,
    spare: null,
    status: "serving",
    backlogBytes: 0,
    outboxBytes: 0,
    effects: [],
    told: { all: new Map(), last: null },
    tasksProcessed: world.counters.counter("task_processed"),
    world,
  };
}

/** Back-off before attempt `attempts` + 1 of a store call: 0, then 50 ms doubling to 2 s. */
export function storeDelayMs(attempts: number): number {
  return attempts === 0 ? 0 : Math.min(2000, 25 * 2 ** attempts);
}
