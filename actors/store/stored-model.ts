import type { AttributeSpec, EntitySpec, Model } from "../../modules/model.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Connection } from "./connection.ts";
import { clusterLockClass } from "./schema.ts";

/** One thing that stored records may hold: an attribute of an entity type or, with an empty name, the type's ids. */
export interface StoredAttribute {
  readonly type: string;
  readonly attr: string;
  readonly kind: AttributeSpec["kind"] | "id";
  /** As the model writes it; of a timeseries also its series. */
  readonly dataType: string;
  /** What decides whether stored values still fit: the same for `int` and `int64`, or for other values of a category. */
  readonly fingerprint: string;
}

/** A difference between what is stored and the model. */
export interface ModelChange {
  readonly stored: StoredAttribute;
  readonly now: StoredAttribute;
}

/**
 * Remembers what the model lets records hold, and refuses a model that the stored records do not fit: another kind or
 * data type of an attribute, or of a type's ids, while there are entities of that type. Raises MODEL_CHANGED, which names
 * every such change; then nothing is written. What is missing in the model may come back as it was.
 */
export async function keepModel(connection: Connection, model: Model): Promise<void> {
  // The lock of the migrations: two nodes that start at once do not judge by each other's half.
  await connection.query("select pg_advisory_lock($1, 1)", [clusterLockClass]);
  try {
    const current = attributesOf(model);
    const { changes, writes } = planModel(await connection.query<StoredAttribute>(readText), current);
    const held = await typesWithEntities(connection, changes);
    const refused = changes.filter(({ now }) => held.has(now.type));
    if (refused.length > 0) throw new StarlingError("MODEL_CHANGED", describeChanges(refused));
    if (writes.length > 0) await connection.query(writeText, [JSON.stringify(writes)]);
  } finally {
    await connection.query("select pg_advisory_unlock($1, 1)", [clusterLockClass]);
  }
}

/** What differs from what is stored, and the rows to write if that is allowed. */
export function planModel(stored: readonly StoredAttribute[], current: readonly StoredAttribute[]) {
  const known = new Map(stored.map((row) => [keyOf(row), row]));
  const changes: ModelChange[] = [];
  const writes: StoredAttribute[] = [];
  for (const now of current) {
    const before = known.get(keyOf(now));
    const fits = before?.kind === now.kind && before.fingerprint === now.fingerprint;
    if (before !== undefined && !fits) changes.push({ stored: before, now });
    if (!fits || before.dataType !== now.dataType) writes.push(now);
  }
  return { changes, writes };
}

/** Everything that records of a model may hold. */
export function attributesOf(model: Model): StoredAttribute[] {
  return [...model.entities.values()].flatMap((entity) => [
    idsOf(entity),
    ...entity.attributeList.map((spec) => attributeOf(model, entity, spec)),
  ]);
}

const readText = `select type, attr, kind, data_type as "dataType", fingerprint from starling.attribute`;
const writeText = `insert into starling.attribute (type, attr, kind, data_type, fingerprint)
  select r.type, r.attr, r.kind, r."dataType", r.fingerprint
    from jsonb_to_recordset($1::text::jsonb) r(type text, attr text, kind text, "dataType" text, fingerprint text)
  on conflict (type, attr) do update
    set kind = excluded.kind, data_type = excluded.data_type, fingerprint = excluded.fingerprint`;

function keyOf({ type, attr }: StoredAttribute): string {
  return `${type}\t${attr}`;
}

function idsOf({ id, idDataType }: EntitySpec): StoredAttribute {
  return { type: id, attr: "", kind: "id", dataType: idDataType, fingerprint: idDataType };
}

function attributeOf(model: Model, entity: EntitySpec, spec: AttributeSpec): StoredAttribute {
  const { id: attr, kind, dataType, timeseries } = spec;
  const of = { type: entity.id, attr, kind };
  if (dataType !== null) {
    const text = dataType.text.replace(/\s+/g, " ");
    return { ...of, dataType: text, fingerprint: withIdTypes(model, dataType.fingerprint) };
  }
  const series = [...(timeseries?.series ?? [])].sort(([a], [b]) => (a < b ? -1 : 1));
  const listed = (pick: (type: (typeof series)[number][1]) => string) =>
    `${timeseries?.kind}<${series.map(([name, type]) => `${name}: ${pick(type)}`).join(", ")}>`;
  return { ...of, dataType: listed(({ text }) => text), fingerprint: listed(({ fingerprint }) => fingerprint) };
}

/** A stored link holds the target's id, so the type of that decides as well: the target itself need not be stored. */
function withIdTypes(model: Model, fingerprint: string): string {
  return fingerprint.replace(/\blink<([\w-]+),/g, (_, target: string) => {
    return `link<${target}: ${model.entities.get(target)?.idDataType},`;
  });
}

async function typesWithEntities(connection: Connection, changes: readonly ModelChange[]): Promise<Set<string>> {
  const held = new Set<string>();
  for (const type of new Set(changes.map(({ now }) => now.type))) {
    const text = "select exists (select from starling.entity where type = $1 and not tombstone) as held";
    const [row] = await connection.query<{ held: boolean }>(text, [type]);
    if (row?.held === true) held.add(type);
  }
  return held;
}

function describeChanges(changes: readonly ModelChange[]): string {
  return ["the model changed what stored records hold:", ...changes.map(describeChange)].join("\n  ");
}

function describeChange({ stored, now }: ModelChange): string {
  const { type, attr, kind } = now;
  if (kind === "id") return `${type}: ids are stored as ${stored.dataType}, the model says ${now.dataType}`;
  // Links to ids of another type are written alike.
  const alike = stored.kind === kind && stored.dataType === now.dataType;
  const show = (one: StoredAttribute) => `${one.kind} ${alike ? one.fingerprint : one.dataType}`;
  return `${type}.${attr}: stored as ${show(stored)}, the model says ${show(now)}`;
}
