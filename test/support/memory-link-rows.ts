import { firstEnd, lastStart, linkSpansMax } from "../../actors/store/link.ts";
import type {
  EntityKey,
  LinkAt,
  LinkRow,
  LinkSegment,
  LinksQuery,
  Queries,
  Store,
  StoredLink,
} from "../../actors/store/store.ts";
import type { ShardId } from "../../proto/ids.ts";
import type { MemoryShard } from "./memory-durable.ts";
import { keyOf } from "./memory-queries.ts";

type Spans = readonly { readonly from: number; readonly to: number }[];

/** A link as a shard of the store in memory holds it; spans null: it is plain. */
export interface MemoryLink extends StoredLink {
  readonly spans: Spans | null;
}

/** Writes links as a flush in PostgreSQL does. */
export function flushLinks({ links }: MemoryShard, segment: LinkSegment): void {
  const rows = new Map((segment.cleared ? [] : (links.get(keyOf(segment)) ?? [])).map((link) => [textOf(link), link]));
  for (const row of segment.rows) {
    const { reverse, attr, type, eid } = row;
    const known = rows.get(textOf(row));
    if (row.kind === "gone") rows.delete(textOf(row));
    else rows.set(textOf(row), { reverse, attr, type, eid, spans: spansOf(row, known) });
  }
  if (rows.size === 0) links.delete(keyOf(segment));
  else links.set(keyOf(segment), [...rows.values()].sort(compareLinks));
}

/** Reads links as PostgreSQL does. */
export function memoryLinkReads(
  shards: ReadonlyMap<ShardId, MemoryShard>,
): Pick<Store & Queries, "readLinks" | "links"> {
  const rowsOf = (key: EntityKey) => shards.get(key.shard)?.links.get(keyOf(key)) ?? [];
  return {
    readLinks: async (key, offset, limit) =>
      rowsOf(key)
        .slice(offset, offset + limit)
        .map(({ spans: _, ...link }) => link),
    links: async (query) => {
      const after = query.after === null ? null : { ...query.after, reverse: query.reverse };
      return rowsOf(query)
        .filter((row) => row.reverse === query.reverse && (after === null || compareLinks(row, after) > 0))
        .flatMap((row) => linkAt(row, query) ?? [])
        .slice(0, query.limit);
    },
  };
}

function linkAt({ spans, ...link }: MemoryLink, query: LinksQuery): LinkAt | null {
  const source = link.reverse ? link.type : query.type;
  const rule = query.attributes.find(({ type, attr }) => type === source && attr === link.attr);
  if (rule === undefined) return null;
  if (spans === null) return { ...link, span: null };
  const first = firstEnd(query.at, rule.postValidityMs);
  const last = lastStart(query.at, rule.preValidityMs);
  const span = spans.findLast(({ from, to }) => from <= last && to >= first);
  return span === undefined ? null : { ...link, span };
}

function spansOf(row: LinkRow, known: MemoryLink | undefined): Spans | null {
  if (row.kind !== "observed") return null;
  return bounded(joined([...(row.fresh ? [] : (known?.spans ?? [])), ...row.spans]));
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

function textOf({ reverse, attr, type, eid }: StoredLink): string {
  return `${reverse ? 1 : 0}\t${attr}\t${type}\t${eid}`;
}

function compareLinks(a: StoredLink, b: StoredLink): number {
  const order = Number(a.reverse) - Number(b.reverse);
  return order || compareText(a.attr, b.attr) || compareText(a.type, b.type) || compareText(a.eid, b.eid);
}

function compareText(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
