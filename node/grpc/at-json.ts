import type { ObservedAt } from "../../actors/history/history-at.ts";
import type { RecordView } from "../../modules/hook.ts";
import type { EntitySpec } from "../../modules/model.ts";
import { writeValue } from "./attributes-json.ts";

/**
 * A record at an instant as JSON text, `{"at":ms,"complete":…,"attributes":{"attr":{…}}}`: of observations
 * `{"values":[{"v","c","t1","t2","n"}],"complete":…}`, of plain attributes `{"values":[{"v","t1"}],"present":true}`, since these
 * have no past: what is told is their value of now.
 */
export function atJson(entity: EntitySpec, view: RecordView, observed: readonly ObservedAt[], at: number): string {
  const observations = new Map(observed.map((one) => [one.attr, one]));
  const members = entity.attributeList.flatMap((spec) => {
    const known = observations.get(spec.id);
    if (known !== undefined) return [`${JSON.stringify(spec.id)}:${observedJson(known)}`];
    const latest = spec.kind === "plain" ? view.latest(spec.id) : undefined;
    if (latest === undefined) return [];
    const value = `{"v":${writeValue(spec, latest.v)},"t1":${latest.t1}}`;
    return [`${JSON.stringify(spec.id)}:{"values":[${value}],"present":true}`];
  });
  const complete = observed.every((one) => one.complete);
  return `{"at":${at},"complete":${complete},"attributes":{${members.join(",")}}}`;
}

function observedJson({ values, complete }: ObservedAt): string {
  const list = values.map(({ json, c, t1, t2, n }) => `{"v":${json},"c":${c},"t1":${t1},"t2":${t2},"n":${n}}`);
  return `{"values":[${list.join(",")}],"complete":${complete}}`;
}
