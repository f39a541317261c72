import type { EntitySpec } from "../modules/model.ts";
import type { StoredHistory } from "./history-at.ts";
import { type Observations, readObservations } from "./history-line.ts";
import { readPages, readPagesWithin } from "./history-page.ts";
import { type HistoryRule, historyRuleOf } from "./history-rule.ts";
import { mergeRuns, surroundings } from "./history-run.ts";
import { relevance } from "./history-value.ts";
import type { EntityKey, HistoryPage, HistorySegment, PageWindow, Queries } from "./store/store.ts";

/** Which part of histories is wanted: what tells about an instant (Unix ms), or the newest runs. */
export type HistoryPart = { readonly at: number } | { readonly newest: number };

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
  const rows = groupBy(keys, await queries.historyRows(keys, null));
  const windows = keys.flatMap((key, i) => windowsOf(spec, key, collect(rows[i] ?? []), part));
  const [found, horizons] = await Promise.all([queries.historyPages(windows), queries.historyHorizons(spec.id)]);
  const pages = groupBy(keys, found);
  return keys.map((_, i) => merge(spec, { rows: rows[i] ?? [], pages: pages[i] ?? [], horizons }, part));
}

function groupBy<T extends EntityKey>(keys: readonly EntityKey[], items: readonly T[]): T[][] {
  const groups = new Map(keys.map((key): [string, T[]] => [textOf(key), []]));
  for (const item of items) groups.get(textOf(item))?.push(item);
  return keys.map((key) => groups.get(textOf(key)) ?? []);
}

function textOf({ type, eid }: EntityKey): string {
  return `${type}\t${eid}`;
}

/** The observations of rows, by attribute. */
export function collect(rows: readonly HistorySegment[]): Observations {
  const observations: Observations = new Map();
  for (const { body } of rows) readObservations(body, observations);
  return observations;
}

function windowsOf(spec: EntitySpec, key: EntityKey, added: Observations, part: HistoryPart): PageWindow[] {
  return spec.attributeList.flatMap((attribute) => {
    if (attribute.kind === "plain" || ("at" in part && attribute.kind !== "observations")) return [];
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
  return "at" in part ? relevance(rule, part.at) : { max: part.newest };
}

/** All pages of an attribute, but for what `window` says. */
export function windowOf({ shard, type, eid }: EntityKey, attr: string, window: Partial<PageWindow>): PageWindow {
  const all = { from: Number.NEGATIVE_INFINITY, until: Number.POSITIVE_INFINITY, below: Number.POSITIVE_INFINITY };
  return { shard, type, eid, attr, ...all, max: null, ...window };
}

interface Found {
  readonly rows: readonly HistorySegment[];
  readonly pages: readonly HistoryPage[];
  readonly horizons: ReadonlyMap<string, number>;
}

function merge(spec: EntitySpec, { rows, pages, horizons }: Found, part: HistoryPart): Histories {
  const folded = pages.reduce((most, { seq }) => Math.max(most, seq), 0);
  const added = collect(rows.filter(({ seq }) => seq > folded));
  const histories = new Map<string, StoredHistory>();
  for (const { id: attr, kind } of spec.attributeList) {
    if (kind === "plain") continue;
    const own = pages.filter((page) => page.attr === attr);
    const pieces = added.get(attr) ?? [];
    const horizon = horizons.get(attr) ?? Number.NEGATIVE_INFINITY;
    if (own.length === 0 && pieces.length === 0 && horizon === Number.NEGATIVE_INFINITY) continue;
    const rule = historyRuleOf(spec.attributes.get(attr));
    const bodies = own.map(({ body }) => body);
    const simple = "at" in part && pieces.length === 0 && rule.maxItems === null;
    const runs = simple
      ? readPagesWithin(bodies, relevance(rule, part.at))
      : mergeRuns(rule, readPages(bodies), pieces);
    const cut = own.reduce((most, page) => Math.max(most, page.cut), horizon);
    histories.set(attr, { runs, cut });
  }
  return histories;
}
