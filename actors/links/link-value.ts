import type { Value } from "../../modules/datapoint.ts";
import { eidText } from "../../modules/eid.ts";
import type { AttributeSpec, Model } from "../../modules/model.ts";
import { readStored, type StoredValue } from "../lane/entity.ts";

/** The targets that a checked value names, as canonical eids; none, if its attribute is no link. */
export function targetsOf(model: Model, { relation }: AttributeSpec, value: Value | undefined): ReadonlySet<string> {
  const target = relation && model.entities.get(relation.target);
  if (!target || value === undefined) return none;
  const links = (Array.isArray(value) ? value : [value]) as readonly { readonly eid: string | number | bigint }[];
  return new Set(links.map(({ eid }) => eidText(target, eid)));
}

const none: ReadonlySet<string> = new Set();

/** The same of a stored value, as JSON text. */
export function targetsIn(model: Model, spec: AttributeSpec, stored: StoredValue | undefined): ReadonlySet<string> {
  if (typeof stored !== "string") return none;
  const target = model.entities.get(spec.relation?.target ?? "");
  // Only numbers could be read wrongly, and nothing but ids is read: the engine's own parser is faster.
  const value = target?.idDataType === "int" ? readStored(spec, stored) : (JSON.parse(stored) as Value);
  return targetsOf(model, spec, value);
}

/** A value without one target; undefined: nothing is left. An observed list goes as a whole. */
export function withoutTarget(model: Model, spec: AttributeSpec, value: Value, eid: string): Value | undefined {
  if (!targetsOf(model, spec, value).has(eid)) return value;
  if (spec.kind !== "plain" || !Array.isArray(value)) return undefined;
  const rest = value.filter((one: Value) => !targetsOf(model, spec, one).has(eid));
  return rest.length === 0 ? undefined : rest;
}
