import type { Value } from "../../modules/datapoint.ts";
import { eidText, readEid } from "../../modules/eid.ts";
import type { HookReach } from "../../modules/hook-path.ts";
import type { EntitySpec, Model } from "../../modules/model.ts";
import type { SnapshotHooks } from "../../modules/snapshot-hook.ts";
import { type EntityAt, entityKey, keyOf, readText } from "../history/entity-at.ts";

/** A link that matters to a snapshot run. */
export interface SnapshotLink {
  readonly type: string;
  readonly attr: string;
  readonly target: string;
  /** The target's attribute that shows it; null: none does. */
  readonly mirror: string | null;
  /** Whether a hook's path goes over it, in either direction: its two ends are computed together. */
  readonly connects: boolean;
}

export interface SnapshotLinks {
  readonly list: readonly SnapshotLink[];
  /** Types of which an entity's snapshot depends on others: all others are computed alone. */
  readonly types: ReadonlySet<string>;
}

/** The hooks that run in this tick: those with a refresh flag only while it is raised. */
export function activeHooks(hooks: SnapshotHooks): SnapshotHooks {
  const correlation = hooks.correlation.filter(({ refresh }) => refresh === undefined || refresh.flag.raised);
  return { ...hooks, correlation };
}

/** The links that hooks go over, and those that mirrors show. */
export function planSnapshotLinks(model: Model, { correlation }: Pick<SnapshotHooks, "correlation">): SnapshotLinks {
  const used = new Set(correlation.flatMap(({ reach }) => (reach === undefined ? [] : linksOf(reach))));
  const list: SnapshotLink[] = [];
  const types = new Set<string>();
  for (const { id: type, attributeList } of model.entities.values()) {
    for (const { id: attr, relation, readOnly } of attributeList) {
      const connects = used.has(`${type}.${attr}`);
      if (relation === null || readOnly || (relation.mirror === null && !connects)) continue;
      list.push({ type, attr, target: relation.target, mirror: relation.mirror, connects });
      types.add(type).add(relation.target);
    }
  }
  return { list, types };
}

/** Every link on a path, as `type.attr`; of a mirror the link that it mirrors. */
function linksOf({ dependsOn, mayChange }: HookReach): string[] {
  return [...dependsOn, ...mayChange].flatMap(({ links }) =>
    links.map(({ type, attr, mirrors }) => (mirrors === null ? `${type}.${attr}` : `${mirrors.type}.${mirrors.attr}`)),
  );
}

/** One link of an entity to another one, both by their keys; `link`: its place in the list of links. */
export interface LinkPair {
  readonly from: string;
  readonly link: number;
  readonly to: string;
}

/** The links of an entity at the instant. */
export function pairsOf(model: Model, { list }: SnapshotLinks, entity: EntityAt): LinkPair[] {
  const { spec, texts } = entity;
  const pairs: LinkPair[] = [];
  for (const [link, { type, attr, target }] of list.entries()) {
    if (type !== spec.id) continue;
    const attribute = spec.attributes.get(attr);
    const text = attribute === undefined ? undefined : texts[attribute.index];
    const targetSpec = model.entities.get(target);
    if (attribute === undefined || text === undefined || targetSpec === undefined) continue;
    for (const eid of targetsOf(targetSpec, readText(attribute, text))) {
      pairs.push({ from: keyOf(entity), link, to: entityKey(target, eid) });
    }
  }
  return pairs;
}

/** The targets that a value names: a link, or lists of links to any depth. */
export function targetsOf(target: EntitySpec, value: Value): Set<string> {
  const found = new Set<string>();
  const waiting: Value[] = [value];
  for (let one = waiting.pop(); one !== undefined; one = waiting.pop()) {
    if (Array.isArray(one)) waiting.push(...one);
    else found.add(eidText(target, (one as { readonly eid: string | number | bigint }).eid));
  }
  return found;
}

/**
 * Fills the mirrors of an entity. `sources`: by mirror, the canonical eids of who links here at the instant. A mirror is always
 * there, and empty if nobody does.
 */
export function setMirrors(model: Model, entity: EntityAt, sources: ReadonlyMap<string, readonly string[]>): void {
  for (const { id, index, readOnly, relation, dataType } of entity.spec.attributeList) {
    const source = relation && model.entities.get(relation.target);
    if (!readOnly || !source || dataType === null) continue;
    const links = (sources.get(id) ?? []).map((eid) => ({ eid: readEid(source, eid) }));
    entity.texts[index] = links.length === 0 ? "[]" : dataType.write(dataType.check(links));
  }
}
