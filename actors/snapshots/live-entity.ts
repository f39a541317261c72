import type { Value } from "../../modules/datapoint.ts";
import { type LiveChange, type LiveEntity, withoutRecords } from "../../modules/linked-view.ts";
import type { AttributeSpec } from "../../modules/model.ts";
import { showFound } from "../../modules/show-found.ts";
import type { SnapshotValues } from "../../modules/snapshot-hook.ts";
import { StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import { type EntityAt, readValues } from "../history/entity-at.ts";
import { deepFreeze } from "../value-copy.ts";
import { type HookReport, noteProblem } from "./snapshot-report.ts";

/** An entity of a run while correlation hooks work on it: its values as hooks see them, and as they are stored. */
export class Live implements LiveEntity {
  readonly at: EntityAt;
  #values: SnapshotValues | null = null;
  #changed: Set<AttributeSpec> | null = null;

  constructor(at: EntityAt) {
    this.at = at;
  }

  /** Read when the first hook asks. */
  get values(): SnapshotValues {
    this.#values ??= readValues(this.at);
    return this.#values;
  }

  /** Sets a value, canonical and frozen, with its confidences; undefined: takes it away. */
  set(spec: AttributeSpec, value: Value | undefined, c: Value | undefined): void {
    const { texts, confidences } = this.at;
    this.#changed ??= new Set();
    this.#changed.add(spec);
    texts[spec.index] = value === undefined ? undefined : writeMany(spec, value);
    confidences[spec.index] = c === undefined ? undefined : JSON.stringify(c);
    if (this.#values === null) return;
    assign(this.#values, spec.id, value);
    assign(this.#values, `${spec.id}#c`, c);
  }

  /** Attributes that have been set. */
  get changed(): Iterable<AttributeSpec> {
    return this.#changed ?? [];
  }
}

/** Whether an attribute has a list of values. */
export function hasMany({ kind, multiValue }: AttributeSpec): boolean {
  return kind === "observations" && multiValue;
}

/**
 * Takes over what a call of a hook changed. What the hook did not declare (`declared`: attributes as `type.attr`) and what the
 * model refuses stays as it was, and is told in the report. A value that was set without a confidence is fully confident; null
 * takes a value away, like undefined.
 */
export function applyChanges(
  changes: readonly LiveChange<Live>[],
  declared: ReadonlySet<string>,
  own: HookReport,
): void {
  for (const [entity, attributes] of byAttribute(changes)) {
    const { spec: type, eid } = entity.at;
    for (const [attr, change] of attributes) {
      const spec = attr === "eid" ? undefined : type.attributes.get(attr);
      if (spec === undefined || !declared.has(`${type.id}.${attr}`)) {
        noteProblem(
          own,
          "undeclared",
          `${type.id} ${eid}: changed '${attr}', which 'mayChange' does not name: left as it was`,
        );
        continue;
      }
      try {
        applyChange(entity, spec, change);
      } catch (error) {
        const { message, code } = toStarlingError(error);
        noteProblem(own, "refused", `${type.id} ${eid}: ${attr} left as it was: ${message} (${code})`);
      }
    }
  }
}

/** Changes of a confidence alone name the value as well: what a call changes does not depend on other calls. */
export function withValues(changes: readonly LiveChange<Live>[]): readonly LiveChange<Live>[] {
  const alone = changes.filter(
    ({ entity, name }) =>
      name.endsWith("#c") && !changes.some((other) => other.entity === entity && `${other.name}#c` === name),
  );
  if (alone.length === 0) return changes;
  const values = alone.map(({ entity, name }) => {
    const attr = name.slice(0, -2);
    return { entity, name: attr, value: entity.values[attr] };
  });
  return [...changes, ...values];
}

/** What became of one attribute. */
interface AttributeChange {
  value?: unknown;
  c?: unknown;
}

function byAttribute(changes: readonly LiveChange<Live>[]): Map<Live, Map<string, AttributeChange>> {
  const entities = new Map<Live, Map<string, AttributeChange>>();
  for (const { entity, name, value } of changes) {
    const attributes = entities.get(entity) ?? new Map<string, AttributeChange>();
    entities.set(entity, attributes);
    const isConfidence = name.endsWith("#c");
    const attr = isConfidence ? name.slice(0, -2) : name;
    const change = attributes.get(attr) ?? {};
    attributes.set(attr, change);
    if (isConfidence) change.c = value;
    else change.value = value;
  }
  return entities;
}

function applyChange(entity: Live, spec: AttributeSpec, change: AttributeChange): void {
  const value = checkValue(spec, change.value);
  if (spec.kind !== "observations" || value === undefined) return entity.set(spec, value, undefined);
  entity.set(spec, value, checkConfidence(spec, value, change.c ?? undefined));
}

function checkValue(spec: AttributeSpec, value: unknown): Value | undefined {
  const { dataType } = spec;
  if (value === undefined || value === null || dataType === null) return undefined;
  if (!hasMany(spec)) return deepFreeze(dataType.check(withoutRecords(value)));
  if (!Array.isArray(value)) throw invalid(`expected a list of values, found ${showFound(value)}`);
  if (value.length === 0) return undefined;
  return Object.freeze(value.map((one: unknown) => deepFreeze(dataType.check(withoutRecords(one)))));
}

function checkConfidence(spec: AttributeSpec, value: Value, c: unknown): Value {
  if (!hasMany(spec)) return c === undefined ? 1 : checkOne(c);
  const { length } = value as readonly Value[];
  if (c === undefined) return Object.freeze(new Array<number>(length).fill(1));
  if (Array.isArray(c) && c.length === length) return Object.freeze(c.map(checkOne));
  throw invalid(`expected ${length} confidences, one for each value, found ${showFound(c)}`);
}

function checkOne(c: unknown): number {
  if (typeof c === "number" && c >= 0 && c <= 1) return c;
  throw invalid(`expected a confidence within 0 and 1, found ${showFound(c)}`);
}

function invalid(what: string): StarlingError {
  return new StarlingError("INVALID_VALUE", what);
}

function writeMany(spec: AttributeSpec, value: Value): string {
  const write = spec.dataType?.write ?? String;
  return hasMany(spec) ? `[${(value as readonly Value[]).map((one) => write(one)).join(",")}]` : write(value);
}

function assign(values: SnapshotValues, name: string, value: Value | undefined): void {
  if (value === undefined) delete values[name];
  else values[name] = value;
}
