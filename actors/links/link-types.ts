import type { Model } from "../../modules/model.ts";

/** Entity types that may link to others, and those that others may link to. */
export interface LinkTypes {
  readonly sources: ReadonlySet<string>;
  readonly targets: ReadonlySet<string>;
}

/** The types of a model that have to do with links. */
export function linkTypes(model: Model): LinkTypes {
  const sources = new Set<string>();
  const targets = new Set<string>();
  for (const { id, attributeList } of model.entities.values()) {
    for (const { relation, readOnly } of attributeList) {
      if (relation === null || readOnly) continue;
      sources.add(id);
      targets.add(relation.target);
    }
  }
  return { sources, targets };
}
