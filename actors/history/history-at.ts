import type { EntitySpec } from "../../modules/model.ts";
import { historyRuleOf } from "./history-rule.ts";
import type { Piece } from "./history-run.ts";
import { currentValues, isComplete, keepNewest } from "./history-value.ts";

/** The history of one attribute as it is stored, everything merged. */
export interface StoredHistory {
  /** All of it, or at least what an instant needs; that has no gaps. */
  readonly runs: readonly Piece[];
  /** Runs that ended up to here (Unix ms) are gone; minus infinity: none are. */
  readonly cut: number;
}

/** What an observations attribute was at an instant. */
export interface ObservedAt {
  readonly attr: string;
  /** By their beginnings; at most one, unless the attribute has many values. */
  readonly values: readonly ValueAt[];
  /** False: what retention took could change the answer. */
  readonly complete: boolean;
}

export interface ValueAt {
  /** Canonical JSON text. */
  readonly json: string;
  /** Confidence at that instant. */
  readonly c: number;
  readonly t1: number;
  readonly t2: number;
  /** How many observations it stands for. */
  readonly n: number;
}

const noHistory: StoredHistory = { runs: [], cut: Number.NEGATIVE_INFINITY };

/**
 * What the observations of an entity say about an instant (`at`, Unix ms), attribute by attribute. An attribute without a value is
 * only named if its answer is incomplete. `now` decides what is too old to be told.
 */
export function observedAt(
  spec: EntitySpec,
  histories: ReadonlyMap<string, StoredHistory>,
  { at, now }: { readonly at: number; readonly now: number },
): ObservedAt[] {
  return spec.attributeList.flatMap((attribute) => {
    if (attribute.kind !== "observations") return [];
    const { runs, cut } = histories.get(attribute.id) ?? noHistory;
    const rule = historyRuleOf(attribute);
    const kept = keepNewest(rule, runs, now, cut);
    const values = currentValues(rule, kept.runs, at).map(({ run: { value: json, t1, t2, n }, c }) => ({
      json,
      c,
      t1,
      t2,
      n,
    }));
    const complete = isComplete(rule, kept, at);
    return values.length === 0 && complete ? [] : [{ attr: attribute.id, values, complete }];
  });
}
