import { createHash } from "node:crypto";
import { type ConfigFile, type ConfigProblem, ConfigSection } from "./config-section.ts";
import { type DataTypeContext, parseDataType } from "./data-type.ts";
import type { AttributeSpec, EidType, EntitySpec, Lifetime, Model } from "./model.ts";
import { nearestHint } from "./nearest-name.ts";
import { idForm, idPattern, parseAttribute } from "./parse-attribute.ts";

/**
 * The model of the parsed `db_entities/*.yml` files (reference 1). Every problem of every file is added to `problems`; if
 * there is any, the answer holds only what could be understood and must not be used.
 */
export function parseModel(files: readonly ConfigFile[], problems: ConfigProblem[]): Model {
  const drafts = new Map<string, Draft>();
  const context: DataTypeContext = { eidType: (etype) => drafts.get(etype)?.idDataType };
  for (const file of files) {
    const draft = parseEntity(file, drafts.size, problems);
    if (draft !== null) drafts.set(draft.id, draft);
  }
  for (const draft of drafts.values()) parseAttributes(draft, context);
  for (const draft of drafts.values()) resolveRelations(draft, drafts, context);
  for (const draft of drafts.values()) checkWeak(draft, drafts);
  const entities = new Map([...drafts].map(([id, draft]) => [id, entitySpec(draft)]));
  return { entities, hash: hashEntities(entities) };
}

type DraftParts = Omit<EntitySpec, "attributes" | "attributeList">;

/** An entity type whose attributes are still being collected. */
interface Draft extends DraftParts {
  readonly section: ConfigSection;
  readonly attribs: ConfigSection | null;
  readonly attributes: Map<string, AttributeSpec>;
  readonly attributeSections: Map<string, ConfigSection>;
}

const eidTypes: readonly EidType[] = ["string", "int", "ipv4", "ipv6", "mac"];
const lifetimes: readonly Lifetime["type"][] = ["immortal", "ttl", "weak"];

function parseEntity(file: ConfigFile, index: number, problems: ConfigProblem[]): Draft | null {
  const root = ConfigSection.ofFile(file, problems);
  const section = root.section("entity", "required");
  const attribs = root.section("attribs", "required");
  root.finish();
  if (section === null) return null;
  const expected = file.file.replace(/^.*\//, "").replace(/\.yml$/, "");
  const id = section.text("id");
  if (section.has("id") && id !== expected) {
    section.report("id", "the file must be named after the entity's id", expected, id);
  }
  if (!idPattern.test(expected)) section.report("id", "not a name for an entity type", idForm, id);
  const parts = {
    // The file's name, which is unique, so that one wrong id does not hide what else is wrong.
    id: expected,
    index,
    idDataType: section.choice("id_data_type", eidTypes, "string") ?? "string",
    name: section.text("name"),
    snapshot: section.bool("snapshot"),
    description: section.text("description", ""),
    lifetime: parseLifetime(section.section("lifetime")),
  };
  section.finish();
  return { ...parts, section, attribs, attributes: new Map(), attributeSections: new Map() };
}

function parseLifetime(section: ConfigSection | null): Lifetime {
  if (section === null) return { type: "immortal" };
  const type = section.choice("type", lifetimes);
  if (type === null) return { type: "immortal" };
  if (type !== "ttl") {
    section.finish();
    return { type };
  }
  const lifetime = {
    type,
    onCreateMs: section.duration("on_create"),
    mirrorData: section.bool("mirror_data", true),
  };
  section.finish();
  return lifetime;
}

function parseAttributes(draft: Draft, context: DataTypeContext): void {
  for (const [id, section] of draft.attribs?.sections() ?? []) {
    const spec = parseAttribute(section, { id, index: draft.attributes.size, context });
    draft.attributeSections.set(id, section);
    if (spec !== null) draft.attributes.set(id, spec);
  }
}

/** Checks that targets exist and adds the mirrors that links ask for to them (reference 1.3). */
function resolveRelations(draft: Draft, drafts: ReadonlyMap<string, Draft>, context: DataTypeContext): void {
  for (const spec of [...draft.attributes.values()]) {
    if (spec.relation === null || spec.readOnly) continue;
    const { target: targetId, mirror } = spec.relation;
    const section = draft.attributeSections.get(spec.id) ?? draft.section;
    const target = drafts.get(targetId);
    if (target === undefined) {
      const hint = nearestHint(targetId, drafts.keys());
      section.report(
        "data_type",
        `links to an entity type that is not defined${hint}`,
        [...drafts.keys()].join(", "),
        targetId,
      );
    } else if (mirror !== null) {
      addMirror(draft, spec, target, { name: mirror, section, context });
    }
  }
}

interface MirrorPlace {
  readonly name: string;
  readonly section: ConfigSection;
  readonly context: DataTypeContext;
}

function addMirror(source: Draft, spec: AttributeSpec, target: Draft, { name, section, context }: MirrorPlace): void {
  const mirror = mirrorSpec(source, spec, name, context);
  const existing = target.attributes.get(name);
  // A definition that says the same is tolerated, as DP³ does.
  if (existing !== undefined && (existing.readOnly || !saysTheSame(existing, mirror))) {
    section.report("data_type", `the mirror's name is taken in ${target.id}`, "a name of its own", name);
    return;
  }
  target.attributes.set(name, { ...mirror, index: existing?.index ?? target.attributes.size });
}

function mirrorSpec(source: Draft, spec: AttributeSpec, name: string, context: DataTypeContext): AttributeSpec {
  return {
    id: name,
    index: 0,
    kind: "plain",
    name,
    description: `Read-only mirror attribute of ${source.id}.${spec.id}`,
    dataType: parseDataType(`set<link<${source.id}>>`, context),
    editable: false,
    ttlMs: 0,
    relation: { target: source.id, mirror: null },
    readOnly: true,
    confidence: false,
    multiValue: false,
    historyForceGraph: false,
    history: null,
    timeseries: null,
  };
}

function saysTheSame(defined: AttributeSpec, mirror: AttributeSpec): boolean {
  const says = (spec: AttributeSpec) =>
    JSON.stringify([spec.kind, spec.name, spec.description, spec.dataType?.text, spec.editable, spec.ttlMs]);
  return says(defined) === says(mirror);
}

function checkWeak(draft: Draft, drafts: ReadonlyMap<string, Draft>): void {
  if (draft.lifetime.type !== "weak") return;
  for (const other of drafts.values()) {
    for (const spec of other.attributes.values()) {
      if (spec.relation?.target === draft.id && !spec.readOnly) return;
    }
  }
  draft.section.report("lifetime", "a weak entity type needs an attribute that links to it", "immortal, ttl", "weak");
}

function entitySpec({ section: _s, attribs: _a, attributeSections: _l, attributes, ...parts }: Draft): EntitySpec {
  return { ...parts, attributes, attributeList: [...attributes.values()].sort((a, b) => a.index - b.index) };
}

/** 16 bytes of SHA-256 over what decides the meaning of a datapoint; names, descriptions and order do not. */
function hashEntities(entities: ReadonlyMap<string, EntitySpec>): string {
  const meaning = sortedById(entities.values()).map((entity) => [
    entity.id,
    entity.idDataType,
    entity.snapshot,
    entity.lifetime,
    sortedById(entity.attributes.values()).map((spec) => [
      spec.id,
      spec.kind,
      spec.dataType?.text.replace(/\s+/g, "") ?? null,
      spec.ttlMs,
      spec.readOnly,
      spec.multiValue,
      spec.history,
      spec.timeseries && {
        ...spec.timeseries,
        series: [...spec.timeseries.series].map(([name, type]) => `${name}:${type.text}`).sort(),
      },
    ]),
  ]);
  const text = JSON.stringify(meaning, (_, value: unknown) => (value === Number.POSITIVE_INFINITY ? "inf" : value));
  return createHash("sha256").update(text).digest("hex").slice(0, 32);
}

function sortedById<T extends { readonly id: string }>(items: Iterable<T>): T[] {
  return [...items].sort((a, b) => (a.id < b.id ? -1 : 1));
}
