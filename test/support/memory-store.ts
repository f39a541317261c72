import type {
  AcquiredShard,
  AppendRequest,
  EntityKey,
  Fence,
  FlushRequest,
  HistorySegment,
  NewDeadLetter,
  Segment,
  Store,
  StoredDeadLetter,
  StoredEntity,
  StoredSession,
  WriteResult,
} from "../../actors/store/store.ts";
import { type NodeId, type SessionId, type ShardId, toEpoch, toSeq } from "../../proto/ids.ts";

/** The durable part of one shard. */
interface MemoryShard {
  epoch: number;
  owner: NodeId | null;
  readonly log: Segment[];
  watermark: number;
  delivered: number;
  at: number;
  readonly channels: Map<string, number>;
  readonly entities: Map<string, StoredEntity>;
  readonly history: Map<string, HistorySegment[]>;
  readonly refused: Set<number>;
  readonly letters: Map<string, StoredDeadLetter>;
}

export interface MemoryStore extends Store {
  readonly shards: ReadonlyMap<ShardId, MemoryShard>;
  historyOf(key: EntityKey): readonly HistorySegment[];
}

/** The store in memory: the same rules as PostgreSQL's, at once, and it survives whoever uses it. */
export function createMemoryStore(): MemoryStore {
  const shards = new Map<ShardId, MemoryShard>();
  const sessions = new Map<SessionId, StoredSession>();
  const shardOf = (id: ShardId): MemoryShard => {
    const known = shards.get(id);
    if (known !== undefined) return known;
    const made = createMemoryShard();
    shards.set(id, made);
    return made;
  };
  const lostOf = (node: NodeId, fences: readonly Fence[]): ShardId[] =>
    fences
      .filter(({ shard, epoch }) => shardOf(shard).epoch !== epoch || shardOf(shard).owner !== node)
      .map((f) => f.shard);

  return {
    shards,
    historyOf: (key) => shardOf(key.shard).history.get(keyOf(key)) ?? [],
    acquire: async (node, ids) => ids.map((id) => acquire(id, shardOf(id), node)),
    release: async (fences, node) => {
      const lost = new Set(lostOf(node, fences));
      for (const { shard } of fences) if (!lost.has(shard)) shardOf(shard).owner = null;
    },
    append: async (node, request) => {
      const lost = lostOf(node, request.fences);
      if (lost.length === 0) append(shardOf, request);
      return { lost };
    },
    flush: async (node, request): Promise<WriteResult> => {
      const lost = lostOf(node, request.fences);
      if (lost.length === 0) flush(shardOf, request);
      return { lost };
    },
    load: async (keys) =>
      keys.flatMap((key) => {
        const stored = shardOf(key.shard).entities.get(keyOf(key));
        return stored === undefined ? [] : [stored];
      }),
    readLog: async (id, after, limit) =>
      shardOf(id)
        .log.filter((segment) => segment.lastSeq > after)
        .slice(0, limit),
    findPart: async (id, channel, number) =>
      shardOf(id).log.find((segment) => {
        const head = JSON.parse(segment.head) as { p: [string, number][] };
        return head.p.some(([name, n]) => name === channel && n === number);
      }) ?? null,
    readChannel: async (id, channel) => shardOf(id).channels.get(channel) ?? 0,
    openSession: async (session, named) => {
      const known = sessions.get(session) ?? { session, named, closed: false };
      sessions.set(session, known);
      return known;
    },
    closeSession: async (session) => {
      const known = sessions.get(session);
      if (known !== undefined) sessions.set(session, { ...known, closed: true });
    },
  };
}

function createMemoryShard(): MemoryShard {
  return {
    epoch: 0,
    owner: null,
    log: [],
    watermark: 0,
    delivered: 0,
    at: 0,
    channels: new Map(),
    entities: new Map(),
    history: new Map(),
    refused: new Set(),
    letters: new Map(),
  };
}

const keyOf = ({ type, eid }: { type: string; eid: string }): string => `${type}\t${eid}`;

function acquire(id: ShardId, shard: MemoryShard, node: NodeId): AcquiredShard {
  shard.epoch++;
  shard.owner = node;
  return {
    shard: id,
    epoch: toEpoch(shard.epoch),
    watermark: toSeq(shard.watermark),
    lastSeq: toSeq(Math.max(shard.watermark, shard.log.at(-1)?.lastSeq ?? 0)),
    delivered: toSeq(shard.delivered),
    lastAt: Math.max(shard.at, shard.log.at(-1)?.at ?? 0),
    channels: new Map(shard.channels),
    refused: [...shard.refused].filter((seq) => seq > shard.watermark).map(toSeq),
    deadAnswers: [...shard.letters.values()]
      .filter((letter) => letter.seq > shard.watermark && letter.hook !== "")
      .map(({ seq, hook }) => ({ seq, hook })),
  };
}

function append(shardOf: (id: ShardId) => MemoryShard, request: AppendRequest): void {
  for (const segment of request.segments) {
    const shard = shardOf(segment.shard);
    const known = shard.log.some(({ seq, at }) => seq === segment.seq && at === segment.at);
    if (known) continue;
    const last = shard.log.at(-1)?.lastSeq ?? 0;
    if (segment.seq <= last) throw new Error(`shard ${segment.shard}: seq ${segment.seq} after ${last}`);
    shard.log.push(segment);
  }
  for (const { shard, id, status } of request.closings ?? []) {
    const letter = shardOf(shard).letters.get(id);
    if (letter !== undefined) shardOf(shard).letters.set(id, { ...letter, status });
  }
}

function flush(shardOf: (id: ShardId) => MemoryShard, request: FlushRequest): void {
  for (const entity of request.entities) {
    const shard = shardOf(entity.shard);
    const known = shard.entities.get(keyOf(entity));
    if (known !== undefined && known.applied >= entity.applied) continue;
    shard.entities.set(keyOf(entity), entity);
    if (entity.tombstone) shard.history.delete(keyOf(entity));
  }
  for (const segment of request.history) {
    const shard = shardOf(segment.shard);
    const known = shard.history.get(keyOf(segment)) ?? [];
    if (!known.some(({ seq }) => seq === segment.seq)) shard.history.set(keyOf(segment), [...known, segment]);
  }
  for (const { shard: id, seq } of request.refused) shardOf(id).refused.add(seq);
  for (const letter of request.deadLetters) addLetter(shardOf(letter.shard), letter);
  for (const { shard: id, watermark, delivered, at, channels } of request.progress) {
    const shard = shardOf(id);
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
}

function addLetter(shard: MemoryShard, letter: NewDeadLetter): void {
  const known = [...shard.letters.values()].some(({ seq, hook, kind }) => {
    return seq === letter.seq && hook === letter.hook && kind === letter.kind;
  });
  if (known) return;
  const id = `${letter.shard}-${letter.seq}-${shard.letters.size + 1}`;
  shard.letters.set(id, { ...letter, id, status: "open" });
}
