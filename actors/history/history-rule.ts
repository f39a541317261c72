import type { AttributeSpec } from "../../modules/model.ts";

/** How the history of one attribute is merged, read and kept; durations in milliseconds. */
export interface HistoryRule {
  readonly preMs: number;
  readonly postMs: number;
  /** How long after its end the last value stays current; infinity: until there is another. Null: as long as `postMs` says. */
  readonly expireMs: number | null;
  readonly multiValue: boolean;
  /** Whether equal values become one run. */
  readonly merges: boolean;
  /** Runs that ended longer ago are gone; null: none are. */
  readonly maxAgeMs: number | null;
  /** So many runs are kept, those that ended last; null: all. */
  readonly maxItems: number | null;
}

/** What is kept of an attribute that the model does not know: all of it, as it stands. */
const unknownRule: HistoryRule = {
  preMs: 0,
  postMs: 0,
  expireMs: null,
  multiValue: true,
  merges: false,
  maxAgeMs: null,
  maxItems: null,
};

/** The rule of an attribute; chunks of a timeseries are never merged. */
export function historyRuleOf(spec: AttributeSpec | undefined): HistoryRule {
  if (spec === undefined) return unknownRule;
  let rule = rules.get(spec);
  if (rule === undefined) {
    rule = createRule(spec);
    rules.set(spec, rule);
  }
  return rule;
}

const rules = new WeakMap<AttributeSpec, HistoryRule>();

function createRule(spec: AttributeSpec): HistoryRule {
  const { history = null, timeseries = null } = spec;
  if (history === null) return { ...unknownRule, maxAgeMs: timeseries?.maxAgeMs ?? null };
  return {
    preMs: history.preValidityMs,
    postMs: history.postValidityMs,
    expireMs: history.expireTimeMs,
    multiValue: spec.multiValue,
    merges: history.aggregate,
    maxAgeMs: history.maxAgeMs,
    maxItems: history.maxItems,
  };
}

/** The longest gap that a run may bridge: so close, one of two equal values is current all the time. */
export function reachOf({ preMs, postMs }: HistoryRule): number {
  return preMs + postMs;
}
