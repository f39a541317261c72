import type { Eid, Value } from "../../modules/datapoint.ts";
import { readEid } from "../../modules/eid.ts";
import { parseJsonText, writeJsonText } from "../../modules/json-value.ts";
import type { AttributeSpec, EntitySpec } from "../../modules/model.ts";
import type { MasterRecord, SnapshotValues } from "../../modules/snapshot-hook.ts";
import { endOfValue } from "../lane/entity-state.ts";
import { deepFreeze } from "../value-copy.ts";

/**
 * An entity at an instant, as a snapshot shows it. Values are canonical JSON text, as they are stored: who asks no hook never
 * parses one.
 */
export interface EntityAt {
  readonly spec: EntitySpec;
  /** Canonical text. */
  readonly eid: string;
  /** By index of the attribute: its value, or of many values the list of them; undefined: it has none. */
  readonly texts: (string | undefined)[];
  /** Likewise, of observations: the confidence, or the list of confidences. */
  readonly confidences: (string | undefined)[];
  /** The next instant (Unix ms) at which time alone may change a value; 0: it does so all the time; null: there is none. */
  readonly due: number | null;
  /** All that is stored, as JSON text; null: no hook of its type asks for it. */
  readonly master: string | null;
  /** From when to when each current value was observed, `{"attr":[[t1,t2],…],…}`; null: no hook asks for it. */
  readonly spans: string | null;
}

/** Names an entity in maps of a run: types hold no tab. */
export function entityKey(type: string, eid: string): string {
  return `${type}\t${eid}`;
}

/** The key of an entity. */
export function keyOf({ spec, eid }: Pick<EntityAt, "spec" | "eid">): string {
  return entityKey(spec.id, eid);
}

/** What is stored of a snapshot as JSON texts. */
export interface SnapshotTexts {
  /** `{"eid":…,"attr":…}`, in the order of the model. */
  readonly body: string;
  /** `{"attr#c":…}`: what time alone changes most; null: there are none. */
  readonly confidences: string | null;
}

/** The time is that of the run, so equal snapshots have equal texts. */
export function writeSnapshot({ spec, eid, texts, confidences }: EntityAt): SnapshotTexts {
  const heads = headsOf(spec);
  let body = startOf(spec, eid);
  let apart = "";
  for (let index = 0; index < texts.length; index++) {
    const text = texts[index];
    if (text === undefined) continue;
    body += heads[2 * index] + text;
    const c = confidences[index];
    if (c !== undefined) apart += heads[2 * index + 1] + c;
  }
  return { body: `${body}}`, confidences: apart === "" ? null : `{${apart.slice(1)}}` };
}

function startOf({ idDataType }: EntitySpec, eid: string): string {
  return idDataType === "int" ? `{"eid":${eid}` : `{"eid":${writeJsonText(eid)}`;
}

/**
 * The snapshot's body as JSON text: `{"eid":…,"attr":…,"attr#c":…}`, in the order of the model. The time is that of the run, so
 * equal snapshots have equal bodies.
 */
export function writeBody({ spec, eid, texts, confidences }: EntityAt): string {
  const heads = headsOf(spec);
  let body = startOf(spec, eid);
  for (let index = 0; index < texts.length; index++) {
    const text = texts[index];
    if (text === undefined) continue;
    body += heads[2 * index] + text;
    const c = confidences[index];
    if (c !== undefined) body += heads[2 * index + 1] + c;
  }
  return `${body}}`;
}

/** What stands before the value and before the confidence of each attribute. */
function headsOf(spec: EntitySpec): readonly string[] {
  let heads = headsBySpec.get(spec);
  if (heads === undefined) {
    heads = spec.attributeList.flatMap(({ id }) => [`,"${id}":`, `,"${id}#c":`]);
    headsBySpec.set(spec, heads);
  }
  return heads;
}

const headsBySpec = new WeakMap<EntitySpec, readonly string[]>();

/** Stands before what others put behind an entity's text; see `snapshot-spill.ts`. No JSON text holds it. */
export const changeMark = "\x1e";

/** An entity as text, from which {@link readEntityAt} makes it again: its body, then what hooks ask for besides, a line each. */
export function writeEntityAt(entity: EntityAt): string {
  const { master, spans } = entity;
  const body = writeBody(entity);
  return master === null && spans === null ? body : `${body}\n${master ?? ""}\n${spans ?? ""}`;
}

/** Reads what {@link writeEntityAt} wrote; when it is due is not in it. Attributes that the model does not have are left out. */
export function readEntityAt(spec: EntitySpec, eid: string, text: string): EntityAt {
  const changes = text.indexOf(changeMark);
  const [body = "", master = "", spans = ""] = (changes < 0 ? text : text.slice(0, changes)).split("\n", 3);
  const texts: (string | undefined)[] = new Array(spec.attributeList.length);
  const confidences: (string | undefined)[] = new Array(spec.attributeList.length);
  for (let at = 1; at < body.length - 1; ) {
    const close = body.indexOf('"', at + 1);
    const end = Math.min(endOfValue(body, close + 2), body.length - 1);
    const name = body.slice(at + 1, close);
    const isConfidence = name.endsWith("#c");
    const attribute = spec.attributes.get(isConfidence ? name.slice(0, -2) : name);
    // An attribute may be named `eid`: the entity's own stands first.
    if (attribute !== undefined && at > 1) {
      (isConfidence ? confidences : texts)[attribute.index] = body.slice(close + 2, end);
    }
    at = end + 1;
  }
  const rest = { master: master === "" ? null : master, spans: spans === "" ? null : spans };
  return { spec, eid, texts, confidences, due: null, ...rest };
}

/** What hooks see of it. The object is a new one; what is in it cannot be changed. */
export function readValues({ spec, eid, texts, confidences }: EntityAt): SnapshotValues {
  const names = confidenceNamesOf(spec);
  const values: Record<string, Value> & { eid: Eid } = { eid: readEid(spec, eid) };
  for (let index = 0; index < texts.length; index++) {
    const text = texts[index];
    const attribute = spec.attributeList[index];
    if (text === undefined || attribute === undefined) continue;
    values[attribute.id] = readText(attribute, text);
    const c = confidences[index];
    if (c !== undefined) values[names[index] as string] = deepFreeze(JSON.parse(c) as Value);
  }
  return values;
}

/** By attribute: a name that is put together anew is a slow one. */
function confidenceNamesOf(spec: EntitySpec): readonly string[] {
  let names = namesBySpec.get(spec);
  if (names === undefined) {
    names = spec.attributeList.map(({ id }) => `${id}#c`);
    namesBySpec.set(spec, names);
  }
  return names;
}

const namesBySpec = new WeakMap<EntitySpec, readonly string[]>();

/** All that is stored about the entity; cannot be changed. Empty if nobody asked for it. */
export function readMaster({ master }: EntityAt): MasterRecord {
  return deepFreeze(parseJsonText(master ?? "{}") as MasterRecord);
}

/** The value, or the list of values, of an attribute; cannot be changed. */
export function readText({ dataType, kind, multiValue }: AttributeSpec, text: string): Value {
  if (dataType === null || (kind === "observations" && multiValue)) return readMany(dataType, text);
  // A text in which nothing is escaped, whatever the type: parsing it takes several times as long.
  if (text.charCodeAt(0) === quote && !text.includes("\\")) return text.slice(1, -1);
  return deepFreeze(dataType.read(text));
}

const quote = 34;

function readMany(dataType: AttributeSpec["dataType"], text: string): Value {
  if (dataType === null) return deepFreeze(JSON.parse(text) as Value);
  const values: Value[] = [];
  for (let at = 1; at < text.length - 1; ) {
    const end = Math.min(endOfValue(text, at), text.length - 1);
    values.push(deepFreeze(dataType.read(text.slice(at, end))));
    at = end + 1;
  }
  return Object.freeze(values);
}
