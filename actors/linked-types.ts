import type { Model } from "../modules/model.ts";

/** Entity types that link to others, or that others link to. */
export function linkedTypes(model: Model): ReadonlySet<string> {
  const types = new Set<string>();
  for (const { id, attributeList } of model.entities.values()) {
    for (const { relation, readOnly } of attributeList) {
      if (relation !== null && !readOnly) types.add(id).add(relation.target);
    }
  }
  return types;
}
