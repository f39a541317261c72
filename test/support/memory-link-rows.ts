import { firstEnd, lastStart, linkSpansMax } from "../../actors/store/link.ts";
import type { EntityKey, FlushRequest, Lifetimes, Queries, Store } from "../../actors/store/store.ts";
import type {
  LinkAt,
  LinkEnd,
  LinkRow,
  LinkSegment,
  LinksQuery,
  Obituaries,
  Obituary,
  ShardPlace,
  Span,
} from "../../actors/store/stored-link.ts";
import { type ShardId, toSeq } from "../../proto/ids.ts";
import { firstOf, type MemoryShard } from "./memory-durable.ts";
import { flushLook, memoryLifetimes } from "./memory-lifetimes.ts";
import { keyOf } from "./memory-queries.ts";

type Spans = readonly Span[];

/** A link as its source's shard holds it in the store in memory; seen and spans null: it is plain. */
export interface MemoryLink extends LinkEnd {
  readonly source: Omit<EntityKey, "shard">;
  readonly seen: number | null;
  readonly spans: Spans | null;
}

/** Writes links as a flush in PostgreSQL does. */
export function flushLinks({ links }: MemoryShard, segment: LinkSegment): void {
  const rows = new Map((segment.cleared ? [] : (links.get(keyOf(segment)) ?? [])).map((link) => [textOf(link), link]));
  for (const row of segment.rows) {
    const { attr, type, eid } = row;
    const source = { type: segment.type, eid: segment.eid };
    const known = rows.get(textOf(row));
    if (isGone(row, known)) rows.delete(textOf(row));
    else if (row.kind === "plain") rows.set(textOf(row), { source, attr, type, eid, seen: null, spans: null });
    else if (row.kind === "seen") {
      const spans = bounded(joined([...(known?.spans ?? []), ...row.spans]));
      rows.set(textOf(row), { source, attr, type, eid, seen: row.at, spans });
    }
  }
  if (rows.size === 0) links.delete(keyOf(segment));
  else links.set(keyOf(segment), [...rows.values()].sort(compareEnds));
}

function isGone(row: LinkRow, known: MemoryLink | undefined): boolean {
  if (row.kind === "gone") return true;
  return row.kind === "forgotten" && (row.before === null || (known?.seen ?? Number.POSITIVE_INFINITY) <= row.before);
}

/** Leaves the obituaries of a flush, and when lifetimes are to be looked at. */
export function flushObituaries(
  shards: ReadonlyMap<ShardId, MemoryShard>,
  { obituaries = [], places, looks = [] }: FlushRequest,
): void {
  for (const look of looks) flushLook(shards.get(look.shard), look);
  const ends = new Map((places ?? placesOf(shards)).map(({ shard, seq, at }) => [shard, { seq, at }]));
  for (const shard of new Set(obituaries.map((one) => one.shard))) {
    const all = obituaries.filter((one) => one.shard === shard);
    const seq = toSeq(Math.max(...all.map((one) => one.seq)));
    const dead = all.map(({ type, eid }) => ({ type, eid }));
    const rows = shards.get(shard)?.obituaries;
    if (rows !== undefined && !rows.has(seq)) rows.set(seq, { shard, seq, dead, places: ends });
  }
}

/** Reads links as PostgreSQL does. */
export function memoryLinkReads(
  shards: ReadonlyMap<ShardId, MemoryShard>,
): Pick<Queries, "links"> & Pick<Store, "places"> & Obituaries & Lifetimes {
  const toTarget = (type: string, eid: string) =>
    [...shards.values()]
      .flatMap(({ links }) => [...links.values()].flat())
      .filter((row) => row.type === type && row.eid === eid)
      .map((row) => ({ row, end: { attr: row.attr, ...row.source } }))
      .sort((a, b) => compareEnds(a.end, b.end));
  const isAfter = (end: LinkEnd, after: LinkEnd | null) => after === null || compareEnds(end, after) > 0;
  return {
    ...memoryLifetimes(shards),
    referred: async ({ type, eids, at, attributes }) =>
      eids.filter((eid) =>
        toTarget(type, eid).some(({ row, end }) => {
          const rule = attributes.find((one) => one.type === end.type && one.attr === end.attr);
          if (rule === undefined) return false;
          return row.spans === null || (row.spans.at(-1)?.to ?? 0) >= firstEnd(at, rule.postValidityMs);
        }),
      ),
    links: async (query) => {
      const own = (shards.get(query.shard)?.links.get(keyOf(query)) ?? []).map((row) => ({ row, end: row }));
      const rows = query.reverse ? toTarget(query.type, query.eid) : own;
      return rows
        .filter(({ end }) => isAfter(end, query.after))
        .flatMap(({ row, end }) => linkAt(row, end, query) ?? [])
        .slice(0, query.limit);
    },
    places: async () => placesOf(shards),
    obituaries: async (ids, limit) =>
      ids.flatMap((id): Obituary[] => [...(shards.get(id)?.obituaries.values() ?? [])]).slice(0, limit),
    referrers: async ({ type, eid }, after, limit) =>
      toTarget(type, eid)
        .map(({ end }) => end)
        .filter((end) => isAfter(end, after))
        .slice(0, limit),
    bury: async ({ shard, seq }) => {
      shards.get(shard)?.obituaries.delete(seq);
    },
  };
}

function placesOf(shards: ReadonlyMap<ShardId, MemoryShard>): ShardPlace[] {
  return [...shards].map(([shard, { log, watermark, delivered, at, obligations }]) => {
    const last = log.at(-1);
    const owed = [...obligations.values()].map(firstOf);
    const settled = toSeq(Math.min(watermark, ...owed.map((seq) => seq - 1)));
    return {
      shard,
      seq: toSeq(Math.max(watermark, last?.lastSeq ?? 0)),
      at: Math.max(at, last?.at ?? 0),
      settled,
      delivered: toSeq(delivered),
    };
  });
}

function linkAt({ spans }: MemoryLink, { attr, type, eid }: LinkEnd, query: LinksQuery): LinkAt | null {
  const source = query.reverse ? type : query.type;
  const rule = query.attributes.find((one) => one.type === source && one.attr === attr);
  if (rule === undefined) return null;
  if (spans === null) return { attr, type, eid, span: null };
  const first = firstEnd(query.at, rule.postValidityMs);
  const last = lastStart(query.at, rule.preValidityMs);
  const span = spans.findLast(({ from, to }) => from <= last && to >= first);
  return span === undefined ? null : { attr, type, eid, span };
}

function joined(spans: Spans): Spans {
  const all: { from: number; to: number }[] = [];
  for (const { from, to } of [...spans].sort((a, b) => a.from - b.from || a.to - b.to)) {
    const last = all.at(-1);
    if (last !== undefined && from <= last.to + 1) last.to = Math.max(last.to, to);
    else all.push({ from, to });
  }
  return all;
}

function bounded(spans: Spans): Spans {
  const gaps = spans.slice(1).map(({ from }, index) => ({ at: index, length: from - (spans[index]?.to ?? 0) }));
  gaps.sort((a, b) => a.length - b.length);
  const closed = new Set(gaps.slice(0, Math.max(0, spans.length - linkSpansMax)).map(({ at }) => at));
  return joined(
    spans.map(({ from, to }, index) => ({ from, to: closed.has(index) ? (spans[index + 1]?.to ?? to) : to })),
  );
}

function textOf({ attr, type, eid }: LinkEnd): string {
  return `${attr}\t${type}\t${eid}`;
}

function compareEnds(a: LinkEnd, b: LinkEnd): number {
  return compareText(a.attr, b.attr) || compareText(a.type, b.type) || compareText(a.eid, b.eid);
}

function compareText(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
