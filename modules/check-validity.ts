import { StarlingError } from "../proto/starling-error.ts";
import type { AttributeSpec, EntitySpec } from "./model.ts";
import { showFound } from "./show-found.ts";
import { timeForms, unixMs } from "./time-text.ts";

/** `t1` of an attribute with history, in Unix ms; throws INVALID_TIME. */
export function checkT1(entity: EntitySpec, spec: AttributeSpec, t1: unknown): number {
  const ms = unixMs(t1);
  if (ms !== null) return ms;
  const rule = t1 === undefined || t1 === null ? `${spec.kind} need t1` : "t1 is not a time";
  throw timeError(entity, spec, `${rule}: found ${showFound(t1)}; allowed: ${timeForms}`);
}

/** `t2` in Unix ms, null if it was left out (also as `""`, or as 0 after 1970); throws INVALID_TIME if before `t1`. */
export function checkT2(entity: EntitySpec, spec: AttributeSpec, t2: unknown, t1: number): number | null {
  if (t2 === undefined || t2 === null || t2 === "" || (t2 === 0 && t1 > 0)) return null;
  const ms = unixMs(t2);
  if (ms === null) throw timeError(entity, spec, `t2 is not a time: found ${showFound(t2)}; allowed: ${timeForms}`);
  if (ms < t1) throw timeError(entity, spec, `t2 is before t1: found t1 ${t1} and t2 ${ms}`);
  return ms;
}

/** INVALID_TIME about an attribute. */
export function timeError(entity: EntitySpec, spec: AttributeSpec, rule: string): StarlingError {
  return new StarlingError("INVALID_TIME", `${entity.id}.${spec.id}: ${rule}`);
}
