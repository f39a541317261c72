import type { EntitySpec } from "../../modules/model.ts";
import { invalidFilter, parseFilterPath } from "./filter-path.ts";
import type { SnapshotSort } from "./snapshot-filter.ts";

/** Most keys of one order. */
export const sortMax = 4;

/** Reads `attr`, `attr:1` or `attr:-1`. Raises INVALID_FILTER for what has no order: lists, links, dicts, JSON. */
export function parseSort(entity: EntitySpec, text: string): SnapshotSort {
  const place = `sort ${text}`;
  const [, name = "", direction = "1"] = /^([^:]+)(?::(1|-1))?$/.exec(text) ?? [];
  if (name === "") throw invalidFilter(place, "write attribute, attribute:1 or attribute:-1");
  const { attr, steps, key, spec } = parseFilterPath(entity, name, place);
  const unordered = key.many || key.link || key.kind === "json" || steps.length > 0;
  if (unordered || (attr !== null && attr !== spec?.id)) {
    throw invalidFilter(place, `${spec?.dataType?.text ?? name} has no order: sort by attributes with one plain value`);
  }
  return { attr, key, descending: direction === "-1" };
}

/** Reads an attribute whose values are to be counted. Raises INVALID_FILTER for dicts and JSON. */
export function parseDistinct(entity: EntitySpec, name: string): SnapshotSort {
  const { attr, steps, key, spec } = parseFilterPath(entity, name, name);
  if (key.kind === "json" || steps.length > 0) {
    throw invalidFilter(name, `values of ${spec?.dataType?.text ?? name} are not counted`);
  }
  return { attr, key, descending: false };
}
