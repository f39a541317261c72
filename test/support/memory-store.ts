import { worldEpochs, worldSeqs } from "../../actors/store/acquire.ts";
import { partNeedle } from "../../actors/store/find-parts.ts";
import type {
  AcquiredShard,
  AcquireTerms,
  AppendRequest,
  EntityKey,
  Fence,
  FlushRequest,
  HistorySegment,
  Lifetimes,
  NewDeadLetter,
  Queries,
  Segment,
  ShardProgress,
  Store,
  StoredEntity,
} from "../../actors/store/store.ts";
import type { Obituaries } from "../../actors/store/stored-link.ts";
import type { World } from "../../actors/store/world.ts";
import type { Clock } from "../../proto/clock.ts";
import { type NodeId, type ShardId, toEpoch, toSeq } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import {
  createMemoryDurable,
  createMemoryShard,
  firstOf,
  type MemoryDurable,
  type MemoryShard,
} from "./memory-durable.ts";
import { addHistory, dropHistory } from "./memory-history.ts";
import { flushLinks, flushObituaries, memoryLinkReads } from "./memory-link-rows.ts";
import { createMemoryLocks, type Transaction } from "./memory-locks.ts";
import { readLog, readUnpassed } from "./memory-log.ts";
import { createMemoryQueries, keyOf } from "./memory-queries.ts";
import { createMemorySessions } from "./memory-sessions.ts";
import { addImage, addMark, copyHistory, readMemoryTickPage } from "./memory-ticks.ts";

export interface MemoryStore extends Store, Queries, Obituaries, Lifetimes {
  readonly durable: MemoryDurable;
  readonly shards: ReadonlyMap<ShardId, MemoryShard>;
  readonly world: World;
  historyOf(key: EntityKey): readonly HistorySegment[];
  /** Claims shards without taking them, as a node does that dies in between. */
  claim(shards: readonly ShardId[], node: NodeId): void;
  /** Does something as the owner of a shard, in a transaction of its own; `lost`: somebody else is by now. */
  command(node: NodeId, fence: Fence, apply: () => void): Promise<"written" | "lost">;
  /** Another server goes on with all that was committed, on a timeline of its own; what was under way ends (R25). */
  promote(): void;
  /** Drops what every reader of a shard's log has passed, as retention does with partitions (R8). Returns the segments. */
  trim(shards: readonly ShardId[], isOld: (segment: Segment) => boolean): readonly Segment[];
}

/** What the store's transactions meet on their way; without it they are over at once. */
export interface MemoryStoreWorld {
  readonly clock: Clock;
  /**
   * Settles when a transaction ends that has its locks and has compared its fences; `kill`: its connection was, so that
   * nothing of it stands. Of an acquiring it is what happens between the claim and the locks.
   */
  readonly hold: (call: StoreWrite, node: NodeId) => Promise<"commit" | "kill">;
  /** Told of each commit. */
  readonly onCommit: (commit: MemoryCommit) => void;
  /** Whether a segment's text cannot be stored; default: U+0000 only (R4). */
  readonly refuses?: (body: string) => boolean;
}

export type StoreWrite = "append" | "flush" | "command" | "acquire";

export type MemoryCommit =
  | { readonly kind: "append"; readonly node: NodeId; readonly request: AppendRequest }
  | { readonly kind: "flush"; readonly node: NodeId; readonly request: FlushRequest }
  | { readonly kind: "command"; readonly node: NodeId; readonly request: { readonly fences: readonly Fence[] } }
  | { readonly kind: "fenced"; readonly node: NodeId; readonly lost: readonly ShardId[] }
  | { readonly kind: "acquire"; readonly node: NodeId; readonly acquired: readonly AcquiredShard[] }
  | { readonly kind: "unblock"; readonly node: NodeId; readonly ended: number }
  /** A claim that nobody made use of was taken over. */
  | { readonly kind: "lapse"; readonly node: NodeId };

const still: MemoryStoreWorld = {
  clock: { now: () => 0, after: () => () => {}, soon: (run) => queueMicrotask(run) },
  hold: () => Promise.resolve("commit"),
  onCommit: () => {},
};

const claimMs = 2000;
const patienceMs = 1000;
const unblockEveryMs = 100;

/** The store in memory: the same rules as PostgreSQL's. */
export function createMemoryStore(
  durable: MemoryDurable = createMemoryDurable(),
  world: MemoryStoreWorld = still,
): MemoryStore {
  const { shards } = durable;
  const { clock } = world;
  const locks = createMemoryLocks();
  const shardOf = (id: ShardId): MemoryShard => {
    const known = shards.get(id);
    if (known !== undefined) return known;
    const made = createMemoryShard();
    shards.set(id, made);
    return made;
  };
  const isClaimed = ({ claim, claimUntil }: MemoryShard, node: NodeId): boolean =>
    claim !== null && claim !== node && claimUntil > clock.now();

  const hold = async (transaction: Transaction, call: StoreWrite, node: NodeId): Promise<void> => {
    const ended = new Promise<"kill">((resolve) => {
      transaction.onEnded = () => resolve("kill");
    });
    const end = await Promise.race([world.hold(call, node), ended]);
    if (end === "kill" || transaction.status === "ended") throw new StarlingError("STORE", "the connection was ended");
  };
  /** Fence first: whoever is not lost writes, and nobody can take the shards before it has (R2, R22). */
  const write = (call: "append" | "flush" | "command", node: NodeId, fences: readonly Fence[], apply: () => void) =>
    locks.transact(async (transaction) => {
      const claimed = fences.filter(({ shard }) => isClaimed(shardOf(shard), node)).map(({ shard }) => shard);
      const ids = fences.map(({ shard }) => shard);
      if (claimed.length === 0 && !(await locks.take(transaction, "shared", ids))) {
        throw new StarlingError("STORE", "the connection was ended");
      }
      const isLost = (fence: Fence): boolean =>
        claimed.includes(fence.shard) ||
        shardOf(fence.shard).epoch !== fence.epoch ||
        shardOf(fence.shard).owner !== node;
      const lost = fences.filter(isLost).map(({ shard }) => shard);
      await hold(transaction, call, node);
      if (lost.length === 0) apply();
      else world.onCommit({ kind: "fenced", node, lost });
      return { lost };
    });
  /** Ends whoever blocks an acquiring for more than a second. */
  const unblockLater = (transaction: Transaction, node: NodeId): (() => void) => {
    const unblock = (): void => {
      const blockers = locks.blockersOf(transaction);
      for (const blocker of blockers) locks.end(blocker);
      if (blockers.length > 0) world.onCommit({ kind: "unblock", node, ended: blockers.length });
      cancel = clock.after(unblockEveryMs, unblock);
    };
    let cancel = clock.after(patienceMs, unblock);
    return () => cancel();
  };

  return {
    durable,
    shards,
    get world() {
      return { systemIdentifier: "memory", timeline: durable.timeline };
    },
    promote: () => {
      durable.timeline++;
      locks.endAll();
    },
    historyOf: (key) => shardOf(key.shard).history.get(keyOf(key)) ?? [],
    claim: (ids, node) => {
      for (const id of ids) Object.assign(shardOf(id), { claim: node, claimUntil: clock.now() + claimMs });
    },
    trim: (ids, isOld) => ids.flatMap((id) => trim(shardOf(id), isOld)),
    acquire: async (node, ids, terms) => {
      const wanted = (isOutdated(durable, terms) ? [] : [...ids]).sort((a, b) => a - b);
      const claimed = wanted
        .filter((id) => terms === undefined || terms.epochOf(id) === shardOf(id).epoch)
        .filter((id) => !isClaimed(shardOf(id), node));
      for (const id of claimed) {
        const { claim } = shardOf(id);
        if (claim !== null && claim !== node) world.onCommit({ kind: "lapse", node });
        Object.assign(shardOf(id), { claim: node, claimUntil: clock.now() + claimMs });
      }
      if (claimed.length === 0) return [];
      return locks.transact(async (transaction) => {
        // The statements are two: what happens in between belongs to whoever dies there.
        await hold(transaction, "acquire", node);
        const stop = unblockLater(transaction, node);
        const locked = await locks.take(transaction, "alone", claimed);
        stop();
        if (!locked) throw new StarlingError("STORE", "the connection was ended");
        const mine = claimed.filter((id) => shardOf(id).claim === node && shardOf(id).claimUntil > clock.now());
        const acquired = mine.map((id) => acquire(id, shardOf(id), { node, timeline: durable.timeline }));
        if (acquired.length > 0) world.onCommit({ kind: "acquire", node, acquired });
        return acquired;
      });
    },
    readOwners: async () => ({
      owners: [...shards]
        .filter(([, { epoch }]) => epoch > 0)
        .map(([shard, { epoch, owner }]) => ({ shard, epoch: toEpoch(epoch), owner })),
      ...{ tick: durable.tick, endedTick: durable.endedTick },
    }),
    readTickPage: async (request, windowsOf) => readMemoryTickPage(shardOf(request.shard), request, windowsOf),
    release: async (fences, node) => {
      for (const { shard, epoch } of fences) {
        const known = shardOf(shard);
        if (known.epoch === epoch && known.owner === node) known.owner = null;
      }
    },
    append: (node, request) =>
      write("append", node, request.fences, () => {
        for (const { body } of request.segments)
          if (world.refuses?.(body)) throw new StarlingError("STORE_REFUSED", "a text cannot be stored");
        append(shardOf, request);
        world.onCommit({ kind: "append", node, request });
      }),
    flush: (node, request) =>
      write("flush", node, request.fences, () => {
        if (!isNext(durable, node, request)) return;
        flush(shardOf, request);
        flushObituaries(shards, request);
        world.onCommit({ kind: "flush", node, request });
      }),
    command: async (node, { shard, epoch }, apply) => {
      const { lost } = await write("command", node, [{ shard, epoch }], () => {
        apply();
        world.onCommit({ kind: "command", node, request: { fences: [{ shard, epoch }] } });
      });
      return lost.length > 0 ? "lost" : "written";
    },
    load: async (keys) => keys.flatMap((key) => shardOf(key.shard).entities.get(keyOf(key)) ?? []),
    readLog: async (id, after, limit) => readLog(shardOf(id).log, after, limit),
    findParts: async (asked) =>
      asked.map(({ shard, channel, number }) => {
        const needle = partNeedle(channel, number);
        return shardOf(shard).log.findLast(({ head }) => head.includes(needle)) ?? null;
      }),
    readUnpassed: async (channels) => readUnpassed(shards, channels),
    readChannel: async (id, channel) => shardOf(id).channels.get(channel) ?? 0,
    ...createMemorySessions(durable),
    ...createMemoryQueries(durable),
    ...memoryLinkReads(shards),
  };
}

/** Whether somebody acquired by a newer membership; else this is the newest one now. */
function isOutdated(durable: MemoryDurable, terms: AcquireTerms | undefined): boolean {
  if (terms === undefined || terms.revision === null) return false;
  if (terms.revision < durable.membership) return true;
  durable.membership = terms.revision;
  return false;
}

interface Acquirer {
  readonly node: NodeId;
  readonly timeline: number;
}

function acquire(id: ShardId, shard: MemoryShard, { node, timeline }: Acquirer): AcquiredShard {
  const clean = shard.owner === null;
  const obligations = [...shard.obligations.values()].sort((a, b) => firstOf(a) - firstOf(b));
  const floor = Math.min(shard.watermark, ...obligations.map((obligation) => firstOf(obligation) - 1));
  const jumped = shard.timeline !== 0 && shard.timeline !== timeline;
  shard.epoch += jumped ? worldEpochs : 1;
  shard.owner = node;
  shard.timeline = timeline;
  shard.claim = null;
  const last = shard.log.at(-1);
  const lastSeq = Math.max(shard.watermark, shard.above, last?.lastSeq ?? 0);
  if (jumped) Object.assign(shard, { below: lastSeq, above: lastSeq + worldSeqs });
  return {
    shard: id,
    epoch: toEpoch(shard.epoch),
    watermark: toSeq(shard.watermark),
    lastSeq: toSeq(Math.max(shard.above, lastSeq)),
    delivered: toSeq(shard.delivered),
    lastAt: Math.max(shard.at, last?.at ?? 0),
    channels: new Map(shard.channels),
    refused: [...shard.refused].filter((seq) => seq > floor).map(toSeq),
    deadAnswers: [...shard.letters.values()]
      .filter((letter) => letter.seq > floor && letter.kind === "hook")
      .map(({ seq, hook }) => ({ seq, hook })),
    clean,
    obligations,
    attempt: shard.attempt,
    mark: shard.marks.at(-1) ?? null,
    ...(jumped && { jumped }),
    ...(shard.above > 0 && { lost: { below: toSeq(shard.below), above: toSeq(shard.above) } }),
  };
}

function append(shardOf: (id: ShardId) => MemoryShard, { segments, closings = [] }: AppendRequest): void {
  for (const segment of segments) refuseNul(segment.head, segment.body, segment.keys);
  const fresh = segments.filter(({ shard, seq, at }) => !holds(shardOf(shard).log, seq, at));
  // The same letter twice in one group is open for one of them.
  const named = [...new Map(closings.map((closing) => [closing.id, closing])).values()];
  const open = named.filter(({ shard, id }) => shardOf(shard).letters.get(id)?.status === "open");
  if (fresh.length > 0 && open.length < closings.length) {
    throw new StarlingError("STORE_REFUSED", "a dead letter is no longer open");
  }
  for (const segment of fresh) {
    // As in PostgreSQL nothing but the key keeps the same seq from coming twice, and the time is part of it.
    const { log } = shardOf(segment.shard);
    let at = log.length;
    while (at > 0 && (log[at - 1]?.seq ?? 0) > segment.seq) at--;
    log.splice(at, 0, segment);
  }
  for (const { shard, id, status } of open) {
    const { letters } = shardOf(shard);
    const letter = letters.get(id);
    if (letter !== undefined) letters.set(id, { ...letter, status });
  }
}

function holds(log: readonly Segment[], seq: number, at: number): boolean {
  for (let i = log.length - 1; i >= 0; i--) {
    const segment = log[i];
    if (segment === undefined || segment.seq < seq) return false;
    if (segment.seq === seq && segment.at === at) return true;
  }
  return false;
}

function trim(shard: MemoryShard, isOld: (segment: Segment) => boolean): Segment[] {
  const owed = [...shard.obligations.values()].flatMap(({ firstWaiting }) =>
    firstWaiting === null ? [] : firstWaiting - 1,
  );
  const passed = Math.min(shard.watermark, shard.delivered, ...owed);
  const kept = shard.log.findIndex((segment) => segment.lastSeq > passed || !isOld(segment));
  const gone = shard.log.splice(0, kept < 0 ? shard.log.length : kept);
  const first = Math.min(...gone.map(({ seq }) => seq));
  const last = Math.max(...gone.map(({ lastSeq }) => lastSeq));
  for (const seq of shard.refused) if (seq >= first && seq <= last) shard.refused.delete(seq);
  return gone;
}

/** Whether no later flush of the lane has written, nor this one. */
function isNext({ flushed }: MemoryDurable, node: NodeId, { order = null }: FlushRequest): boolean {
  if (order === null) return true;
  const key = `${node} ${order.lane}`;
  if ((flushed.get(key) ?? 0) >= order.number) return false;
  flushed.set(key, order.number);
  return true;
}

function flush(shardOf: (id: ShardId) => MemoryShard, request: FlushRequest): void {
  for (const { type, eid, state, large } of request.entities) {
    refuseNul(type, eid, state);
    for (const { body } of large ?? []) refuseNul(body ?? "");
  }
  for (const { type, eid, body } of request.history) refuseNul(type, eid, body);
  for (const { task, error, hook } of request.deadLetters) refuseNul(task, error, hook);
  for (const entity of request.entities) {
    const { entities } = shardOf(entity.shard);
    const known = entities.get(keyOf(entity));
    if (known === undefined || known.applied < entity.applied) entities.set(keyOf(entity), withLarge(known, entity));
  }
  for (const segment of request.history) addHistory(shardOf(segment.shard).history, segment);
  for (const image of request.images ?? []) addImage(shardOf(image.shard), image);
  for (const { shard, tick, seq } of request.marks ?? []) addMark(shardOf(shard), tick, seq);
  for (const entity of request.entities) {
    if (!entity.tombstone) continue;
    copyHistory(shardOf(entity.shard), entity);
    dropHistory(shardOf(entity.shard).history, entity);
  }
  for (const segment of request.links ?? []) flushLinks(shardOf(segment.shard), segment);
  for (const { shard, seq } of request.refused) shardOf(shard).refused.add(seq);
  for (const letter of request.deadLetters) addLetter(shardOf(letter.shard), letter);
  for (const obligation of request.obligations ?? []) {
    const { obligations } = shardOf(obligation.shard);
    if (obligation.held === null && obligation.firstWaiting === null) obligations.delete(keyOf(obligation));
    else obligations.set(keyOf(obligation), obligation);
  }
  for (const { shard, mark } of request.attempts ?? []) shardOf(shard).attempt = mark;
  for (const progress of request.progress) advance(shardOf(progress.shard), progress);
}

/** With all its large values: those that were there, and what the flush has changed. */
function withLarge(known: StoredEntity | undefined, entity: StoredEntity): StoredEntity {
  if (entity.large === undefined && known?.large === undefined) return entity;
  const { large = [], ...rest } = entity;
  if (entity.tombstone) return rest;
  const bodies = new Map([...(known?.large ?? []), ...large].map(({ attr, body }) => [attr, body]));
  const rows = [...bodies].flatMap(([attr, body]) => (body === null ? [] : { attr, body }));
  rows.sort((a, b) => (a.attr < b.attr ? -1 : 1));
  return rows.length === 0 ? rest : { ...rest, large: rows };
}

function addLetter(shard: MemoryShard, letter: NewDeadLetter): void {
  const same = [...shard.letters.values()].filter(({ seq }) => seq === letter.seq);
  if (same.some(({ hook, kind }) => hook === letter.hook && kind === letter.kind)) return;
  const id = `${letter.shard}-${letter.seq}-${same.length + 1}`;
  shard.letters.set(id, { ...letter, id, status: "open" });
}

function advance(shard: MemoryShard, { watermark, delivered, at, channels }: ShardProgress): void {
  shard.watermark = Math.max(shard.watermark, watermark);
  shard.delivered = Math.max(shard.delivered, delivered);
  shard.at = Math.max(shard.at, at);
  for (const { channel, number } of channels) {
    shard.channels.set(channel, Math.max(shard.channels.get(channel) ?? 0, number));
  }
  for (const [key, entity] of shard.entities) {
    if (entity.tombstone && entity.applied <= shard.watermark) shard.entities.delete(key);
  }
}

/** PostgreSQL holds no U+0000 in a text. */
function refuseNul(...texts: readonly string[]): void {
  if (texts.some((text) => text.includes("\0"))) throw new StarlingError("STORE_REFUSED", "a text holds U+0000");
}
