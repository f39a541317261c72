import type { EntitySpec } from "../../modules/model.ts";
import type { EntityKey, HistoryFold, HistoryPage, HistorySegment, PageWindow } from "../store/store.ts";
import type { Observations } from "./history-line.ts";
import { readPages, writePages } from "./history-page.ts";
import { collect, windowOf } from "./history-read.ts";
import { type HistoryRule, historyRuleOf } from "./history-rule.ts";
import { mergeRuns, surroundings } from "./history-run.ts";
import { keepNewest } from "./history-value.ts";

/** The pages that have to be known to fold rows of one entity: those near to what is new, and the one before it. */
export function planWindows(
  spec: EntitySpec | undefined,
  key: EntityKey,
  rows: readonly HistorySegment[],
): PageWindow[] {
  return [...collect(rows)].flatMap(([attr, added]) => {
    const rule = ruleOf(spec, attr);
    if (rule.maxItems !== null) return [windowOf(key, attr, {})];
    const near = surroundings(rule, added);
    return [windowOf(key, attr, near), windowOf(key, attr, { below: near.from, max: 1 })];
  });
}

/**
 * Folds rows of one entity into the pages of {@link planWindows}: pure. What is too old stays until pages are cleaned; what is
 * too much goes now. Attributes that the model does not know are kept as they stand.
 */
export function planFold(
  spec: EntitySpec | undefined,
  key: EntityKey,
  rows: readonly HistorySegment[],
  pages: readonly HistoryPage[],
): HistoryFold {
  const seq = rows.reduce((most, row) => Math.max(most, row.seq), 0);
  const folded = pages.reduce((most, page) => Math.max(most, page.seq), 0);
  // Rows that the pages already hold came late, and again.
  const observations: Observations = collect(rows.filter((row) => row.seq > folded));
  const remove: HistoryPage[] = [];
  const add: HistoryPage[] = [];
  for (const [attr, added] of observations) {
    const rule = { ...ruleOf(spec, attr), maxAgeMs: null };
    const old = pages.filter((page) => page.attr === attr);
    const runs = mergeRuns(rule, readPages(old.map(({ body }) => body)), added);
    const cut = old.reduce((most, page) => Math.max(most, page.cut), Number.NEGATIVE_INFINITY);
    const kept = keepNewest(rule, runs, 0, cut);
    const { shard, type, eid } = key;
    remove.push(...old);
    for (const [place, page] of writePages(kept.runs).entries()) {
      add.push({ shard, type, eid, attr, ...page, seq, place, cut: kept.cut });
    }
  }
  return { rows: rows.map(({ shard, type, eid, seq: at }) => ({ shard, type, eid, seq: at })), remove, add };
}

function ruleOf(spec: EntitySpec | undefined, attr: string): HistoryRule {
  return historyRuleOf(spec?.attributes.get(attr));
}
