import type { EntitySpec } from "../modules/model.ts";
import type { StoredHistory } from "./history-at.ts";
import { type Observations, readObservations } from "./history-line.ts";
import { historyRuleOf } from "./history-rule.ts";
import { mergeRuns } from "./history-run.ts";
import type { EntityKey, Queries } from "./store/store.ts";

/** The stored histories of an entity's attributes, merged, by attribute: as of the last flush. */
export async function readHistories(
  queries: Queries,
  spec: EntitySpec,
  key: EntityKey,
): Promise<Map<string, StoredHistory>> {
  const observations: Observations = new Map();
  for (const { body } of await queries.history(key, allSegments)) readObservations(body, observations);
  const histories = new Map<string, StoredHistory>();
  for (const [attr, added] of observations) {
    const rule = historyRuleOf(spec.attributes.get(attr));
    histories.set(attr, { runs: mergeRuns(rule, [], added), cut: Number.NEGATIVE_INFINITY });
  }
  return histories;
}

const allSegments = 2 ** 31 - 1;
