import { didYouMean } from "../../modules/did-you-mean.ts";
import type { AttributeSpec, EntitySpec } from "../../modules/model.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { keyOfAttribute, keyOfEid } from "../snapshots/snapshot-key.ts";
import type { FilterPath } from "./snapshot-filter.ts";

/** A path and the attribute that it leads into; null: the entity's id. */
export interface KnownPath extends FilterPath {
  readonly spec: AttributeSpec | null;
}

/**
 * Reads `attr`, `attr.eid` and `attr.data…` of links, `attr.field…` of dicts and JSON, `attr#c`, and `eid`; with `last.` before
 * it, as DP³'s clients write. Raises INVALID_FILTER with the place, for timeseries as well: snapshots have no value of theirs.
 */
export function parseFilterPath(entity: EntitySpec, text: string, place: string): KnownPath {
  const [attr = "", ...steps] = (text.startsWith("last.") ? text.slice("last.".length) : text).split(".");
  if (attr === "eid" || (attr === "_id" && !text.startsWith("last."))) {
    if (steps.length > 0) throw noParts(place, "an id", steps);
    return { attr: null, steps, key: keyOfEid(entity), spec: null };
  }
  const confidence = attr.endsWith("#c");
  const spec = entity.attributes.get(confidence ? attr.slice(0, -2) : attr);
  if (spec === undefined || (confidence && spec.kind !== "observations")) {
    const hint = didYouMean(attr, ["eid", ...entity.attributes.keys()]);
    throw invalidFilter(place, `entity type ${entity.id} has no attribute ${JSON.stringify(attr)}${hint}`);
  }
  if (confidence && steps.length > 0) throw noParts(place, "a confidence", steps);
  if (confidence) return { attr, steps, key: { kind: "number", many: spec.multiValue, link: false }, spec };
  return { attr, ...innerOf(spec, steps, place), spec };
}

/** The error of a filter: what is wrong, and where. */
export function invalidFilter(place: string, text: string, cause?: unknown): StarlingError {
  return new StarlingError("INVALID_FILTER", place === "" ? text : `${place}: ${text}`, { cause });
}

function innerOf(spec: AttributeSpec, steps: readonly string[], place: string): Pick<FilterPath, "steps" | "key"> {
  const key = keyOfAttribute(spec);
  if (key === null) throw invalidFilter(place, "snapshots hold no values of a timeseries");
  const [first] = steps;
  if (first === undefined) return { steps, key };
  if (steps.length > stepsMax || steps.includes("")) {
    throw invalidFilter(place, `a path has at most ${stepsMax} parts below the attribute, none of them empty`);
  }
  if (key.link && first === "eid" && steps.length === 1) return { steps: [], key };
  const inner = { kind: "json", many: key.many, link: false } as const;
  if (key.link ? first !== "data" : key.kind !== "json") throw noParts(place, spec.dataType?.text ?? "", steps);
  return { steps, key: inner };
}

const stepsMax = 16;

function noParts(place: string, what: string, steps: readonly string[]): StarlingError {
  return invalidFilter(place, `${what} has no part ${JSON.stringify(steps.join("."))}`);
}
