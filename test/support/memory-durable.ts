import type {
  AttemptMark,
  DueLook,
  HistorySegment,
  Segment,
  StoredDeadLetter,
  StoredEntity,
  StoredObligation,
  StoredSession,
} from "../../actors/store/store.ts";
import type { Obituary } from "../../actors/store/stored-link.ts";
import type { StoredMark } from "../../actors/store/tick.ts";
import type { NodeId, SessionId, ShardId } from "../../proto/ids.ts";
import type { MemoryLink } from "./memory-link-rows.ts";
import type { MemoryImage } from "./memory-ticks.ts";

/** The durable part of one shard. What stands in its maps is replaced, never changed. */
export interface MemoryShard {
  epoch: number;
  owner: NodeId | null;
  /** Where it was last acquired; 0: nowhere yet. */
  timeline: number;
  /** Seqs go on above the latter; those between were never given out here. */
  below: number;
  above: number;
  /** Who is taking the shard: until it has, nobody else writes or takes. */
  claim: NodeId | null;
  /** When the claim lapses, by the store's clock. */
  claimUntil: number;
  readonly log: Segment[];
  watermark: number;
  delivered: number;
  at: number;
  readonly channels: Map<string, number>;
  readonly entities: Map<string, StoredEntity>;
  readonly history: Map<string, HistorySegment[]>;
  readonly links: Map<string, readonly MemoryLink[]>;
  /** When lifetimes are to be looked at. */
  readonly looks: Map<string, DueLook>;
  /** By their seq. */
  readonly obituaries: Map<number, Obituary>;
  readonly refused: Set<number>;
  readonly letters: Map<string, StoredDeadLetter>;
  readonly obligations: Map<string, StoredObligation>;
  attempt: AttemptMark | null;
  /** By tick. */
  readonly marks: StoredMark[];
  readonly images: Map<string, MemoryImage>;
}

/** What outlives every process: a store made over it goes on where the one before ended. */
export interface MemoryDurable {
  readonly shards: Map<ShardId, MemoryShard>;
  readonly sessions: Map<SessionId, StoredSession>;
  /** Who began them, where that is known. */
  readonly holders: Map<SessionId, string>;
  readonly hashes: Map<SessionId, string>;
  /** The last flush of each lane of each node. */
  readonly flushed: Map<string, number>;
  /** Of the server: another one that takes over goes on with the next. */
  timeline: number;
  /** The newest membership by which somebody acquired. */
  membership: number;
  /** The tick that runs, and the newest one that has ended; 0: none. */
  tick: number;
  endedTick: number;
}

export function createMemoryDurable(): MemoryDurable {
  return {
    shards: new Map(),
    sessions: new Map(),
    holders: new Map(),
    hashes: new Map(),
    flushed: new Map(),
    timeline: 1,
    membership: 0,
    tick: 0,
    endedTick: 0,
  };
}

export function createMemoryShard(): MemoryShard {
  return {
    epoch: 0,
    owner: null,
    timeline: 0,
    below: 0,
    above: 0,
    claim: null,
    claimUntil: 0,
    log: [],
    watermark: 0,
    delivered: 0,
    at: 0,
    channels: new Map(),
    entities: new Map(),
    history: new Map(),
    links: new Map(),
    obituaries: new Map(),
    looks: new Map(),
    refused: new Set(),
    letters: new Map(),
    obligations: new Map(),
    attempt: null,
    marks: [],
    images: new Map(),
  };
}

/** A copy that lives on by itself. */
export function copyDurable({ shards, sessions, holders, hashes, flushed, ...rest }: MemoryDurable): MemoryDurable {
  const copies = new Map([...shards].map(([id, shard]) => [id, copyShard(shard)]));
  return {
    shards: copies,
    sessions: new Map(sessions),
    holders: new Map(holders),
    hashes: new Map(hashes),
    flushed: new Map(flushed),
    ...rest,
  };
}

function copyShard(shard: MemoryShard): MemoryShard {
  return {
    ...shard,
    log: shard.log.slice(),
    channels: new Map(shard.channels),
    entities: new Map(shard.entities),
    history: new Map(shard.history),
    links: new Map(shard.links),
    obituaries: new Map(shard.obituaries),
    looks: new Map(shard.looks),
    refused: new Set(shard.refused),
    letters: new Map(shard.letters),
    obligations: new Map(shard.obligations),
    marks: shard.marks.slice(),
    images: new Map(shard.images),
  };
}

/**
 * All that a next owner can find, as text: two that read alike have the same future. Left out are only epochs and the names
 * of owners: a new owner has an epoch and a name of its own in any case.
 */
export function writeDurable({ shards, sessions, tick, endedTick }: MemoryDurable): string {
  const texts = [`${tick} ${endedTick}`, ...[...sessions.values()].map(writeRow)];
  for (const [id, shard] of shards) {
    const { log, channels, entities, history, links, looks, obituaries, refused, letters, obligations } = shard;
    const { owner, claim, watermark, delivered, at, attempt, above } = shard;
    const rows = [
      ...log,
      ...entities.values(),
      ...[...history.values(), ...links.values()].flat(),
      ...letters.values(),
      ...shard.marks,
      ...shard.images.values(),
    ].map(writeRow);
    rows.push(...[...looks.values()].map(writeRow));
    for (const { seq, dead, places } of obituaries.values()) rows.push(JSON.stringify([seq, dead, [...places]]));
    rows.push(...[...obligations.values()].map(writeRow), ...[...channels].map(String), [...refused].sort().join());
    const rest = [id, owner !== null, claim, watermark, delivered, at, attempt, above];
    texts.push(JSON.stringify(rest), ...rows.sort());
  }
  return texts.join("\n");
}

/** Rows are the same objects from world to world. */
const rowTexts = new WeakMap<object, string>();

function writeRow(row: object): string {
  const known = rowTexts.get(row);
  if (known !== undefined) return known;
  const text = JSON.stringify(row);
  rowTexts.set(row, text);
  return text;
}

/** Seq of an obligation's first entry. */
export function firstOf({ held, firstWaiting }: StoredObligation): number {
  return Math.min(held?.seq ?? Number.POSITIVE_INFINITY, firstWaiting ?? Number.POSITIVE_INFINITY);
}
