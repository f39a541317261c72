import { StarlingError } from "../proto/starling-error.ts";
import { checkTimeseries } from "./check-timeseries.ts";
import { checkT1, checkT2 } from "./check-validity.ts";
import type { DataType } from "./data-type.ts";
import type { CheckedDatapoint, Eid, LooseDatapoint, Value } from "./datapoint.ts";
import { parseEid } from "./eid.ts";
import type { AttributeSpec, EntitySpec, Model } from "./model.ts";
import { namedError, valueError } from "./named-error.ts";
import { parseFloatText } from "./primitive-type.ts";
import { showFound } from "./show-found.ts";
import { fitsBytes, isStorableText, sourceMaxBytes, valueMaxBytes } from "./value-limits.ts";

/**
 * The check at the edge: a datapoint of the wire, a file or a hook against the model (reference 3). `t1` and `t2` are Unix
 * ms, a Date or text. Throws UNKNOWN_TYPE, UNKNOWN_ATTRIBUTE, READ_ONLY, INVALID_EID, INVALID_VALUE, INVALID_TIME,
 * INVALID_CONFIDENCE, TOO_LARGE, and INVALID_ARGUMENT for a source that is not text; messages name `type.attr`.
 */
export function checkDatapoint(model: Model, loose: LooseDatapoint): CheckedDatapoint {
  const entity = findEntity(model, loose.type);
  return checkDatapointOf(entity, checkEid(entity, loose.eid), loose);
}

/** The entity type of that name; throws UNKNOWN_TYPE. */
export function findEntity(model: Model, type: unknown): EntitySpec {
  const entity = typeof type === "string" ? model.entities.get(type) : undefined;
  if (entity === undefined) throw new StarlingError("UNKNOWN_TYPE", `no entity type ${showFound(type)}`);
  return entity;
}

/** The typed id of an entity; throws INVALID_EID and TOO_LARGE with the type's name. */
export function checkEid(entity: EntitySpec, eid: unknown): Eid {
  try {
    return parseEid(entity.idDataType, eid);
  } catch (error) {
    throw namedError(`eid of ${entity.id}`, error);
  }
}

/** The check of everything but type and eid, which the caller has found; throws as `checkDatapoint` does. */
export function checkDatapointOf(
  entity: EntitySpec,
  eid: Eid,
  loose: Omit<LooseDatapoint, "type" | "eid">,
): CheckedDatapoint {
  const spec = findAttribute(entity, loose.attr);
  const c = loose.c === undefined || loose.c === 1 ? 1 : checkConfidence(entity, spec, loose.c);
  const src = loose.src === undefined || loose.src === null ? null : checkSource(entity, spec, loose.src);
  if (spec.timeseries !== null) {
    const { v, json, t1, t2 } = checkTimeseries(entity, spec, spec.timeseries, loose);
    assertValueFits(entity, spec, json);
    return { type: entity.id, eid, attr: spec.id, v, t1, t2, c, src, spec, json, line: null };
  }
  if (spec.dataType === null) throw new StarlingError("INTERNAL", `${entity.id}.${spec.id} has no data type`);
  const v = checkValue(entity, spec, spec.dataType, loose.v);
  const json = spec.dataType.write(v);
  assertValueFits(entity, spec, json);
  let t1: number | null = null;
  let t2: number | null = null;
  if (spec.kind !== "plain") {
    t1 = checkT1(entity, spec, loose.t1);
    t2 = checkT2(entity, spec, loose.t2, t1) ?? t1;
  }
  return { type: entity.id, eid, attr: spec.id, v, t1, t2, c, src, spec, json, line: null };
}

function findAttribute(entity: EntitySpec, attr: unknown): AttributeSpec {
  const spec = typeof attr === "string" ? entity.attributes.get(attr) : undefined;
  if (spec === undefined) {
    throw new StarlingError("UNKNOWN_ATTRIBUTE", `entity type ${entity.id} has no attribute ${showFound(attr)}`);
  }
  if (spec.readOnly) {
    throw new StarlingError("READ_ONLY", `${entity.id}.${spec.id}: a mirror is computed and takes no datapoints`);
  }
  return spec;
}

function checkConfidence(entity: EntitySpec, spec: AttributeSpec, input: unknown): number {
  const c = typeof input === "string" ? parseFloatText(input) : Number(input);
  if (input !== null && typeof input !== "object" && c >= 0 && c <= 1) return c + 0;
  throw new StarlingError(
    "INVALID_CONFIDENCE",
    `${entity.id}.${spec.id}: the confidence must be within 0 and 1: found ${showFound(input)}`,
  );
}

function checkSource(entity: EntitySpec, spec: AttributeSpec, src: unknown): string {
  if (typeof src !== "string") throw sourceError(entity, spec, `must be text or null: found ${showFound(src)}`);
  if (!fitsBytes(src, sourceMaxBytes)) {
    const text = `src takes at most ${sourceMaxBytes} bytes: found ${showFound(src)}`;
    throw new StarlingError("TOO_LARGE", `${entity.id}.${spec.id}: ${text}`);
  }
  if (!isStorableText(src)) throw sourceError(entity, spec, "holds U+0000 or a lone surrogate");
  return src;
}

function sourceError(entity: EntitySpec, spec: AttributeSpec, rule: string): StarlingError {
  return new StarlingError("INVALID_ARGUMENT", `${entity.id}.${spec.id}: src ${rule}`);
}

function checkValue(entity: EntitySpec, spec: AttributeSpec, type: DataType, input: unknown): Value {
  try {
    return type.check(input);
  } catch (error) {
    throw valueError(`${entity.id}.${spec.id}`, error);
  }
}

function assertValueFits(entity: EntitySpec, spec: AttributeSpec, json: string): void {
  if (fitsBytes(json, valueMaxBytes)) return;
  const bytes = Buffer.byteLength(json);
  throw new StarlingError(
    "TOO_LARGE",
    `${entity.id}.${spec.id}: a value takes at most ${valueMaxBytes} bytes of JSON: found ${bytes}`,
  );
}
