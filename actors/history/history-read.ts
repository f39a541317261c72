import type { EntitySpec } from "../../modules/model.ts";
import type { EntityKey, HistoryPage, HistorySegment, PageWindow, Queries } from "../store/store.ts";
import type { StoredHistory } from "./history-at.ts";
import { type Observations, readObservations } from "./history-line.ts";
import { readPages, readPagesWithin } from "./history-page.ts";
import { type HistoryRule, historyRuleOf } from "./history-rule.ts";
import { mergeRuns, surroundings } from "./history-run.ts";
import { relevance } from "./history-value.ts";

/**
 * Which part of histories is wanted: what observations say about an instant (Unix ms), the same and all that comes after it, or
 * the newest runs of everything; null: all runs.
 */
export type HistoryPart = { readonly at: number } | { readonly since: number } | { readonly newest: number | null };

/** Histories by attribute. */
export type Histories = ReadonlyMap<string, StoredHistory>;

type Reads = Pick<Queries, "historyRows" | "historyPages" | "historyHorizons">;

/**
 * The stored histories of entities of one type, as of the last flush, in the order of the keys. What flushes added is merged with
 * the pages near to it, so that the answer does not tell when rows were folded. Rows are read first: those that become pages
 * in between are recognised by their seqs.
 */
export async function readHistories(
  queries: Reads,
  spec: EntitySpec,
  keys: readonly EntityKey[],
  part: HistoryPart,
): Promise<Histories[]> {
  const rows = groupByEid(keys, await queries.historyRows(keys, null));
  const windows = keys.flatMap((key, i) => planWindows(spec, key, rows[i] ?? [], part));
  const [found, horizons] = await Promise.all([queries.historyPages(windows), queries.historyHorizons(spec.id)]);
  const pages = groupByEid(keys, found);
  return keys.map((_, i) => mergeHistories(spec, { rows: rows[i] ?? [], pages: pages[i] ?? [], horizons }, part));
}

/** Items by entity, all of one type. */
function groupByEid<T extends EntityKey>(keys: readonly EntityKey[], items: readonly T[]): readonly T[][] {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(item.eid);
    if (group === undefined) groups.set(item.eid, [item]);
    else group.push(item);
  }
  return keys.map(({ eid }) => groups.get(eid) ?? []);
}

/** The observations of rows, by attribute. */
export function collect(rows: readonly Pick<HistorySegment, "body">[]): Observations {
  const observations: Observations = new Map();
  for (const { body } of rows) readObservations(body, observations);
  return observations;
}

/** The pages that have to be read for a part of an entity's histories, whose rows are known. */
export function planWindows(
  spec: EntitySpec,
  key: EntityKey,
  rows: readonly Pick<HistorySegment, "body">[],
  part: HistoryPart,
): PageWindow[] {
  const added = collect(rows);
  return spec.attributeList.flatMap((attribute) => {
    if (attribute.kind === "plain" || (!("newest" in part) && attribute.kind !== "observations")) return [];
    const rule = historyRuleOf(attribute);
    const window = windowOf(key, attribute.id, wantedOf(rule, part));
    const pieces = added.get(attribute.id);
    const all = window.from === Number.NEGATIVE_INFINITY && window.max === null;
    if (pieces === undefined || all) return [window];
    return [window, windowOf(key, attribute.id, surroundings(rule, pieces))];
  });
}

function wantedOf(rule: HistoryRule, part: HistoryPart): Partial<PageWindow> {
  // How many there are decides which ones are kept.
  if (rule.maxItems !== null) return {};
  return "newest" in part ? { max: part.newest } : relevantFor(rule, part);
}

function relevantFor(rule: HistoryRule, part: { readonly at: number } | { readonly since: number }) {
  if ("at" in part) return relevance(rule, part.at);
  return { from: relevance(rule, part.since).from, until: Number.POSITIVE_INFINITY };
}

/** All pages of an attribute, but for what `window` says. */
export function windowOf({ shard, type, eid }: EntityKey, attr: string, window: Partial<PageWindow>): PageWindow {
  const all = { from: Number.NEGATIVE_INFINITY, until: Number.POSITIVE_INFINITY, below: Number.POSITIVE_INFINITY };
  return { shard, type, eid, attr, ...all, max: null, ...window };
}

/** What is stored of one entity's histories. */
export interface FoundHistory {
  readonly rows: readonly Pick<HistorySegment, "seq" | "body">[];
  /** At least those that {@link planWindows} asks for. */
  readonly pages: readonly Pick<HistoryPage, "attr" | "seq" | "cut" | "body">[];
  /** By attribute; see {@link Queries.historyHorizons}. */
  readonly horizons: ReadonlyMap<string, number>;
}

/** The histories of one entity out of what is stored of them. */
export function mergeHistories(
  spec: EntitySpec,
  { rows, pages, horizons }: FoundHistory,
  part: HistoryPart,
): Map<string, StoredHistory> {
  const folded = pages.reduce((most, { seq }) => Math.max(most, seq), 0);
  const added = collect(folded === 0 ? rows : rows.filter(({ seq }) => seq > folded));
  const histories = new Map<string, StoredHistory>();
  for (const { id: attr, kind } of spec.attributeList) {
    if (kind === "plain" || (kind === "timeseries" && !("newest" in part))) continue;
    const pieces = added.get(attr) ?? [];
    if (pages.length === 0 && pieces.length === 0 && horizons.size === 0) continue;
    const own = pages.filter((page) => page.attr === attr);
    const horizon = horizons.get(attr) ?? Number.NEGATIVE_INFINITY;
    if (own.length === 0 && pieces.length === 0 && horizon === Number.NEGATIVE_INFINITY) continue;
    const rule = historyRuleOf(spec.attributes.get(attr));
    const bodies = own.map(({ body }) => body);
    const simple = pieces.length === 0 && rule.maxItems === null;
    const runs =
      simple && !("newest" in part)
        ? readPagesWithin(bodies, relevantFor(rule, part))
        : mergeRuns(rule, readPages(bodies), pieces);
    const cut = own.reduce((most, page) => Math.max(most, page.cut), horizon);
    histories.set(attr, { runs, cut });
  }
  return histories;
}
