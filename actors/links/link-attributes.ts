import type { EntitySpec, Model } from "../../modules/model.ts";
import type { LinkAttribute } from "../store/stored-link.ts";

/** The attributes over which entities of a type link to others. */
export function linksOf({ id, attributeList }: EntitySpec): LinkAttribute[] {
  return attributeList
    .filter(({ relation, readOnly }) => relation !== null && !readOnly)
    .map(({ id: attr, history }) => ({
      type: id,
      attr,
      preValidityMs: history?.preValidityMs ?? 0,
      postValidityMs: history?.postValidityMs ?? 0,
    }));
}

/** The attributes over which entities of a type are linked to. */
export function linksTo(model: Model, { id }: EntitySpec): LinkAttribute[] {
  return [...model.entities.values()].flatMap((source) =>
    linksOf(source).filter(({ attr }) => source.attributes.get(attr)?.relation?.target === id),
  );
}
