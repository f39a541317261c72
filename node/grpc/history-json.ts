import type { Histories } from "../../actors/history/history-read.ts";
import { historyRuleOf } from "../../actors/history/history-rule.ts";
import { confidenceOf, type Piece } from "../../actors/history/history-run.ts";
import { keepNewest } from "../../actors/history/history-value.ts";
import type { EntitySpec } from "../../modules/model.ts";

/**
 * Stored histories as JSON text, `{attr: [{"t1","t2","v","c","n"}]}`: runs of equal values, those that ended last first, at most
 * `limit` an attribute; `c` is the mean of `n` confidences.
 */
export function historyJson(entity: EntitySpec, histories: Histories, limit: number): string {
  const members = [...histories].flatMap(([attr, { runs, cut }]) => {
    // What is too old is stored until it is cleaned away.
    const rule = { ...historyRuleOf(entity.attributes.get(attr)), maxAgeMs: null };
    const kept = keepNewest(rule, runs, 0, cut);
    const entries = kept.runs.slice(-limit).reverse().map(runJson);
    return entries.length === 0 ? [] : [`${JSON.stringify(attr)}:[${entries.join(",")}]`];
  });
  return `{${members.join(",")}}`;
}

function runJson(run: Piece): string {
  return `{"t1":${run.t1},"t2":${run.t2},"v":${run.value},"c":${confidenceOf(run)},"n":${run.n}}`;
}
