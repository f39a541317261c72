import type { Eid } from "../../modules/datapoint.ts";
import type { EntitySpec, Model } from "../../modules/model.ts";
import { type Epoch, type Seq, type ShardId, toSeq } from "../../proto/ids.ts";
import type { StarlingError } from "../../proto/starling-error.ts";
import type { AnswerBlock } from "../log/segment.ts";
import type { Cut, MarkBlock } from "../snapshots/tick-mark.ts";
import type {
  AcquiredShard,
  AttemptMark,
  Fence,
  FlushRequest,
  LostSeqs,
  NewDeadLetter,
  StoredObligation,
} from "../store/store.ts";
import { type Backlog, createBacklog } from "./backlog.ts";
import type { Channel, WaitingPart } from "./channel.ts";
import { createEntity, type Entity } from "./entity.ts";
import type { Cursor, Entry } from "./entry.ts";
import type { MessageResult, Replies } from "./message-result.ts";
import type { Obligation } from "./obligation.ts";
import { createOutbox, type Outbox } from "./outbox-state.ts";
import type { Part } from "./part.ts";
import type { Suspect } from "./suspect.ts";

/** A shard as its owner holds it: log position, channels, entities, and what is on its way. Changed only by its lane's steps. */
export interface Shard {
  readonly id: ShardId;
  readonly epoch: Epoch;
  /** Of both. */
  readonly fence: Fence;
  /** Highest seq given out, and highest seq in PostgreSQL. */
  lastSeq: Seq;
  durableSeq: Seq;
  /** Everything up to here is processed; durable. */
  watermark: Seq;
  /** Arrival time of the newest entry: it never goes back (R6). */
  lastAt: number;
  /** Of another world; null: of none that is known. */
  readonly lost: LostSeqs | null;
  readonly channels: Map<string, Channel>;
  /** Those with parts above the watermark: there may be many more that nobody uses any longer. */
  readonly busy: Map<string, Channel>;
  /** When they were last looked through (monotonic ms). */
  channelsSeenAt: number;
  /** Blocks for the next segment. */
  blocks: PendingBlock[];
  /** Entries of which something was open when they were taken up, in log order; those before `firstOpen` are passed. */
  open: Entry[];
  firstOpen: number;
  /** Entities whose state is newer than PostgreSQL's, in the order in which they changed; since when (monotonic ms). */
  dirty: Entity[];
  dirtySince: number;
  /** The lowest `dirtySeq` among them; Infinity: there are none. */
  dirtyFrom: number;
  /** Entities by index of their type, then by eid. */
  readonly entities: Map<string, Entity>[];
  residents: number;
  /** The sum of their `bytes`. */
  residentBytes: number;
  /** None of them was last used before this (monotonic ms). */
  usedSince: number;
  readonly outbox: Outbox;
  /** Repeats that wait for the watermark; of other parts the channels know. */
  repeats: WaitingPart[];
  /** What entities owe below the watermark; as acquired; and rows of what the model no longer knows: they end (R16). */
  readonly obligations: Set<Obligation>;
  readonly owed: readonly StoredObligation[];
  /** Whether the owner before gave the shard up, and the window it was in (R17). */
  readonly clean: boolean;
  readonly attempt: AttemptMark | null;
  /** What of it may end a process; null: nothing, or no longer. */
  suspect: Suspect | null;
  /** Hooks of seqs above wait, of new entries: 0 behind a gate, -1 when the shard is sealed. */
  openTo: number;
  readonly misfits: StoredObligation[];
  /** For the next flush. */
  deadLetters: NewDeadLetter[];
  refused: FlushRequest["refused"][number][];
  /** Answers and refusals that the log or the tables hold already, from before the acquire. */
  readonly recorded: Recorded;
  readonly backlog: Backlog;
  /** Null: no message has come to its end, and nobody waits for one. */
  replies: Replies | null;
  /** Progress that the last flush has written, or is to write. */
  savedDelivered: Seq;
  savedWatermark: Seq;
  /** Set while the shard is being given up. */
  handOff: HandOff | null;
  /**
   * Set when PostgreSQL refused what the shard had to write: nothing more of it is flushed here (R4), of no change later than
   * `since` (monotonic ms).
   */
  keptBack: { readonly error: StarlingError; readonly since: number } | null;
  /** The highest tick of which a mark stands in the log, or is on its way there; 0: none. */
  tick: number;
  /** The newest mark, while entities are to be read as they were there. */
  cut: Cut | null;
}

/** How far the giving up of a shard is: see `hand-off.ts`. */
export interface HandOff {
  status: "draining" | "sealed" | "flushing";
  /** So many entities that were dirty at the beginning are not in a flush yet. */
  toDrain: number;
  /** Entries whose hooks ran at the seal. */
  running: readonly Entry[];
  readonly hookGraceMs: number;
  /** When it began, and when the shard was sealed (monotonic ms). */
  readonly since: number;
  sealedAt: number;
  /** Who waits for the end. */
  readonly replies: GiveUpReply[];
}

/** Told at the end of a shard's giving up; null: it was lost meanwhile, or was not here. */
export type GiveUpReply = (shard: ShardId, fence: Fence | null) => void;

/** What waits to be appended. A part stands for itself, its channel knows who waits for it; and a mark, for which nobody does. */
export type PendingBlock = Part | MarkBlock | PendingAnswer;

export interface PendingAnswer {
  /** How many seqs it takes. */
  readonly lines: number;
  readonly block: AnswerBlock;
  /** The entry whose answer it is; null for that of a replayed dead letter. */
  readonly entry: Entry | null;
  /** Which of its datapoints the hook was called with; null: the task. */
  readonly place: number | null;
  /** Where a held entry stands once this answer is durable (R16). */
  readonly cursor?: Cursor;
  /** The dead letter that is closed by the same append, and who waits for that (R20). */
  readonly closing?: { readonly id: string; readonly reply: (error: StarlingError | null) => void };
}

export interface Recorded {
  readonly answers: Set<string>;
  readonly refused: Set<Seq>;
  /** What messages came to, by their seq. */
  readonly results: Map<Seq, MessageResult>;
}

/** A shard as it was acquired. */
export function createShard(acquired: AcquiredShard, model: Model): Shard {
  const answers = new Set(acquired.deadAnswers.map((answer) => answerKey(answer.seq, answer.hook)));
  return {
    id: acquired.shard,
    epoch: acquired.epoch,
    fence: { shard: acquired.shard, epoch: acquired.epoch },
    lastSeq: acquired.lastSeq,
    durableSeq: acquired.lastSeq,
    watermark: acquired.watermark,
    lastAt: acquired.lastAt,
    lost: acquired.lost ?? null,
    busy: new Map(),
    channels: new Map([...acquired.channels].map(([name, last]) => [name, createChannel(last)])),
    // No integer, as later: a field that becomes a double after a minute undoes all that was compiled for shards.
    channelsSeenAt: Number.NEGATIVE_INFINITY,
    blocks: [],
    open: [],
    firstOpen: 0,
    dirty: [],
    dirtySince: 0,
    dirtyFrom: Number.POSITIVE_INFINITY,
    entities: Array.from({ length: model.entities.size }, () => new Map<string, Entity>()),
    residents: 0,
    residentBytes: 0,
    usedSince: Number.NEGATIVE_INFINITY,
    outbox: createOutbox(),
    repeats: [],
    obligations: new Set(),
    owed: acquired.obligations,
    clean: acquired.clean,
    attempt: acquired.attempt,
    suspect: null,
    openTo: acquired.clean && acquired.attempt === null ? Number.POSITIVE_INFINITY : 0,
    misfits: [],
    deadLetters: [],
    refused: [],
    recorded: { answers, refused: new Set(acquired.refused), results: new Map() },
    backlog: createBacklog(),
    replies: null,
    savedDelivered: acquired.delivered,
    savedWatermark: acquired.watermark,
    handOff: null,
    keptBack: null,
    tick: acquired.mark?.tick ?? 0,
    cut: restoreCut(acquired),
  };
}

function restoreCut({ mark, watermark }: AcquiredShard): Cut | null {
  if (mark === null || mark.visited) return null;
  const { tick, seq, passed } = mark;
  return { tick, seq, status: seq <= watermark ? "open" : "waiting", passed };
}

export function createChannel(last: number): Channel {
  return { last, recent: null, found: null, restsSince: null };
}

/** The channel is about to get its first part above the watermark. */
export function useChannel({ channels, busy }: Shard, name: string, channel: Channel): void {
  channel.restsSince = null;
  channels.set(name, channel);
  busy.set(name, channel);
}

export function isPart(pending: PendingBlock): pending is Part {
  return "kind" in pending && pending.kind === "part";
}

export function isMark(pending: PendingBlock): pending is MarkBlock {
  return "kind" in pending && pending.kind === "mark";
}

export function isAnswer(pending: PendingBlock): pending is PendingAnswer {
  return "block" in pending;
}

/** Whether a shard that is being given up takes nothing more. */
export function isSealed({ handOff }: Shard): boolean {
  return handOff !== null && handOff.status !== "draining";
}

/** Key of a recorded answer: one per cause and hook. */
export function answerKey(cause: Seq, hook: string): string {
  return `${cause}\t${hook}`;
}

/** The activation of an entity, made when there is none. */
export function entityOf(shard: Shard, spec: EntitySpec, eid: string, eidValue: Eid): Entity {
  const ofType = shard.entities[spec.index];
  if (ofType === undefined) throw new Error(`entity type ${spec.id} has no place in shard ${shard.id}`);
  const known = ofType.get(eid);
  if (known !== undefined) return known;
  const entity = createEntity(spec, eid, eidValue);
  ofType.set(eid, entity);
  shard.residents++;
  shard.residentBytes += entity.bytes;
  return entity;
}

/** Forgets an activation. */
export function dropEntity(shard: Shard, entity: Entity): void {
  if (!shard.entities[entity.spec.index]?.delete(entity.eid)) return;
  shard.residents--;
  shard.residentBytes -= entity.bytes;
}

/** The log is replayed from above here, for outbox and obligations too. */
export function replayAfter(shard: Shard): Seq {
  let after: number = Math.min(shard.watermark, shard.savedDelivered);
  for (const { firstWaiting } of shard.owed) if (firstWaiting !== null) after = Math.min(after, firstWaiting - 1);
  return toSeq(after);
}

/** Outbox lines up to here are delivered. */
export function deliveredUpTo(shard: Shard): Seq {
  const waiting = shard.outbox.sent[shard.outbox.first];
  return waiting === undefined ? shard.durableSeq : toSeq(waiting.seq - 1);
}
