import { unescapeText } from "../../actors/log/line.ts";
import { parseLetterId } from "../../actors/store/dead-letter.ts";
import { wholeState } from "../../actors/store/large-value.ts";
import type { EntityKey, Queries, RawRow, Segment, StoredDeadLetter, StoredEntity } from "../../actors/store/store.ts";
import { type ShardId, toSeq, toShardId } from "../../proto/ids.ts";
import type { MemoryDurable, MemoryShard } from "./memory-durable.ts";

/** Where an entity and its history stand in a shard. */
export const keyOf = ({ type, eid }: { type: string; eid: string }): string => `${type}\t${eid}`;

/** The questions of the store in memory. */
export function createMemoryQueries({ shards }: MemoryDurable): Omit<Queries, "links"> {
  const living = () =>
    [...shards.values()].flatMap((shard) => [...shard.entities.values()].filter(({ tombstone }) => !tombstone));
  const letters = (id: string) => shards.get(toShardId(parseLetterId(id)[0]))?.letters;
  return {
    list: async ({ type, after, limit }) =>
      living()
        .filter((entity) => entity.type === type && compareEids(entity.eid, after) > 0)
        .sort((a, b) => compareEids(a.eid, b.eid))
        .slice(0, limit)
        .map(withWholeState),
    count: async (type) => countByType(living(), type),
    raw: async ({ shard, type, eid, attr, limit }) => {
      const known = shards.get(shard);
      if (known === undefined) return [];
      const rows = known.log.flatMap((segment) => readRaw(segment, known));
      const wanted = rows.filter((row) => row.type === type && row.eid === eid && (attr === null || row.attr === attr));
      return wanted.reverse().slice(0, limit);
    },
    historyRows: async (keys: readonly EntityKey[], max) =>
      keys.flatMap((key) => (shards.get(key.shard)?.history.get(keyOf(key)) ?? []).slice(0, max ?? undefined)),
    // Nobody folds here.
    historyPages: async () => [],
    historyHorizons: async () => new Map(),
    deadLetters: async ({ after, limit, status }) => {
      const from = after === "" ? [-1, 0, 0] : parseLetterId(after);
      const all = [...shards.values()].flatMap((shard) => [...shard.letters.values()]);
      return all
        .filter((letter) => compareIds(parseLetterId(letter.id), from) > 0)
        .filter((letter) => status === null || letter.status === status)
        .sort((a, b) => compareIds(parseLetterId(a.id), parseLetterId(b.id)))
        .slice(0, limit);
    },
    countDeadLetters: async () => {
      const open = [...shards].map(([shard, { letters: all }]): [ShardId, number] => {
        return [shard, [...all.values()].filter(({ status }) => status === "open").length];
      });
      return new Map(open.filter(([, count]) => count > 0));
    },
    deadLetter: async (id) => letters(id)?.get(id) ?? null,
    discardDeadLetter: async (id) => {
      const letter = letters(id)?.get(id) ?? null;
      if (letter === null || letter.status !== "open") return letter;
      const discarded: StoredDeadLetter = { ...letter, status: "discarded" };
      letters(id)?.set(id, discarded);
      return discarded;
    },
  };
}

function withWholeState(entity: StoredEntity): StoredEntity {
  const { large, ...rest } = entity;
  return large === undefined ? entity : { ...rest, state: wholeState(rest.state, large) };
}

function compareEids(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

function compareIds(a: readonly number[], b: readonly number[]): number {
  for (const [i, part] of a.entries()) {
    const difference = part - (b[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

function countByType(entities: readonly StoredEntity[], type: string | null): Map<string, number> {
  const counts = new Map<string, number>();
  for (const entity of entities) {
    if (type === null || entity.type === type) counts.set(entity.type, (counts.get(entity.type) ?? 0) + 1);
  }
  return counts;
}

function readRaw(segment: Segment, shard: MemoryShard): RawRow[] {
  const rows: RawRow[] = [];
  let task = 0;
  for (const [line, text] of segment.body.split("\n").entries()) {
    const [kind = "", ...fields] = text.split("\t");
    if (kind !== "+") task = segment.seq + line;
    if ((kind !== "d" && kind !== "+") || shard.refused.has(task)) continue;
    rows.push(toRaw(segment.shard, segment.seq + line, segment.at, fields));
  }
  return rows;
}

function toRaw(shard: ShardId, seq: number, at: number, fields: readonly string[]): RawRow {
  const [type = "", eid = "", attr = "", src = "", t1 = "", t2 = "", c = "", json = ""] = fields;
  return {
    shard,
    seq: toSeq(seq),
    at,
    type,
    eid: unescapeText(eid),
    attr,
    src: src === "" ? null : unescapeText(src),
    t1: t1 === "" ? null : Number(t1),
    t2: t2 === "" ? null : Number(t2),
    c: Number(c),
    json,
  };
}
