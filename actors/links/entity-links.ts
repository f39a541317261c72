import type { CheckedDatapoint } from "../../modules/datapoint.ts";
import type { AttributeSpec, Model } from "../../modules/model.ts";
import { type Entity, numbersEach, readAttribute, replaceValue, type StoredValue } from "../lane/entity.ts";
import type { LinkRow, SeenLink } from "../store/stored-link.ts";
import type { Unlink } from "./link-change.ts";
import { targetsIn, targetsOf, withoutTarget } from "./link-value.ts";

/**
 * Links of entities. A link is a row in its source's shard, and nowhere else: who links to an entity is found by an index over
 * the targets (`store/link.ts`).
 *
 *  K1  An entity's rows follow from what was applied to it, and are written in the flush that writes its record. So the two
 *      are never apart, and a task that comes again writes nothing.
 *  K2  Of a plain link the rows say what the value in the record says. What is written is the difference between the value
 *      that the last flush took and that of now: what changes to and fro in between costs nothing.
 *  K3  Of an observed link the row says when it was observed with any confidence, and when the newest of that arrived.
 *  K4  A deletion takes the entity's rows along. If others may link to it, the same flush leaves an obituary, by which their
 *      links to it are found and forgotten later (`link-keeper.ts`).
 *  K5  Who is told to forget forgets what arrived until the time that it is told, and keeps what arrived later.
 *  K6  A target need not exist.
 */
export interface LinkNotes {
  /** All rows that stand are to go. */
  cleared: boolean;
  /** Plain links that changed, with their value as the last flush took it. */
  readonly plain: { readonly spec: AttributeSpec; readonly before: StoredValue | undefined }[];
  /** Observed links, by attribute and target: those to forget, and, later than that, those that were seen. */
  forgotten: Map<string, Extract<LinkRow, { kind: "forgotten" }>> | null;
  seen: Map<string, SeenLink> | null;
}

/** Notes what a datapoint, not applied yet, changes in the links of its entity. `at`: its arrival time. */
export function noteLinks(model: Model, entity: Entity, datapoint: CheckedDatapoint, at: number): void {
  const { spec, v, t1, t2, c, json } = datapoint;
  if (spec.relation === null) return;
  if (spec.kind === "plain") {
    if (entity.values[spec.index] !== json) noteBefore(entity, spec);
    return;
  }
  if (c <= 0 || t1 === null) return;
  const span = { from: Math.floor(t1), to: Math.ceil(t2 ?? t1) };
  const notes = notesOf(entity);
  notes.seen ??= new Map();
  for (const eid of targetsOf(model, spec, v)) {
    const spans = [...(notes.seen.get(keyOf(spec.id, eid))?.spans ?? []), span];
    notes.seen.set(keyOf(spec.id, eid), { kind: "seen", attr: spec.id, type: spec.relation.target, eid, at, spans });
  }
}

/** Forgets a link to an entity that was deleted. Whether anything changed. */
export function applyUnlink(model: Model, entity: Entity, { attr, type, eid, before }: Unlink): boolean {
  const spec = entity.spec.attributes.get(attr);
  if (!entity.exists || spec?.relation?.target !== type) return false;
  const value = isLater(entity, spec, before) ? undefined : readAttribute(entity, spec);
  const rest = value === undefined ? undefined : withoutTarget(model, spec, value, eid);
  if (spec.kind === "plain") {
    if (rest === value) return false;
    noteBefore(entity, spec);
  } else {
    const notes = notesOf(entity);
    const key = keyOf(attr, eid);
    if ((notes.seen?.get(key)?.at ?? 0) <= (before ?? Number.POSITIVE_INFINITY)) notes.seen?.delete(key);
    notes.forgotten ??= new Map();
    const known = notes.forgotten.get(key);
    // Of an earlier death it may be told again, after that of a later one.
    const upTo = known?.before === null || before === null ? null : Math.max(known?.before ?? before, before);
    notes.forgotten.set(key, { kind: "forgotten", attr, type, eid, before: upTo });
  }
  if (rest !== value) replaceValue(entity, spec, rest);
  return true;
}

/** Notes that the entity has no links any more. */
export function clearLinks(entity: Entity): void {
  entity.links = null;
  notesOf(entity).cleared = true;
}

/** What a flush has to write of an entity's links; from now on what it takes stands. */
export function takeLinks(model: Model, entity: Entity): { cleared: boolean; rows: LinkRow[] } | null {
  const { links } = entity;
  if (links === null) return null;
  entity.links = null;
  const { cleared, plain, forgotten, seen } = links;
  const rows: LinkRow[] = [...(forgotten?.values() ?? []), ...(seen?.values() ?? [])];
  for (const { spec, before } of plain) addDifference(model, spec, before, entity.values[spec.index], rows);
  return cleared || rows.length > 0 ? { cleared, rows } : null;
}

function notesOf(entity: Entity): LinkNotes {
  entity.links ??= { cleared: false, plain: [], forgotten: null, seen: null };
  return entity.links;
}

function noteBefore(entity: Entity, spec: AttributeSpec): void {
  const { plain } = notesOf(entity);
  if (!plain.some((noted) => noted.spec === spec)) plain.push({ spec, before: entity.values[spec.index] });
}

function keyOf(attr: string, eid: string): string {
  return `${attr}\t${eid}`;
}

/** Whether a value arrived later; of an observed one, of which only its own time is kept, whether it is of a later time. */
function isLater({ numbers }: Entity, { index }: AttributeSpec, before: number | null): boolean {
  return before !== null && (numbers[numbersEach * index] ?? 0) > before;
}

function addDifference(
  model: Model,
  spec: AttributeSpec,
  before: StoredValue | undefined,
  after: StoredValue | undefined,
  rows: LinkRow[],
): void {
  if (before === after) return;
  const old = targetsIn(model, spec, before);
  const fresh = targetsIn(model, spec, after);
  const type = spec.relation?.target ?? "";
  for (const eid of old) if (!fresh.has(eid)) rows.push({ kind: "gone", attr: spec.id, type, eid });
  for (const eid of fresh) if (!old.has(eid)) rows.push({ kind: "plain", attr: spec.id, type, eid });
}
