import type { LooseDatapoint } from "../../modules/datapoint.ts";
import { timeForms, unixMs } from "../../modules/time-text.ts";
import type { ClientDatapoint } from "../../proto/client-batch.ts";
import { type ErrorCode, StarlingError } from "../../proto/starling-error.ts";
import { assertWellFormed } from "../../proto/well-formed.ts";

/** A bare number up to this is Unix seconds, a greater one milliseconds: DP³'s rule for times in files. */
const secondsMax = 2e10;

/**
 * A datapoint from a file as the client sends it. Only what cannot travel is refused here, with the code that the node
 * would give; everything else is the node's to judge. Throws INVALID_ARGUMENT, INVALID_EID, INVALID_VALUE,
 * INVALID_TIME, INVALID_CONFIDENCE.
 */
export function toClientDatapoint(loose: LooseDatapoint): ClientDatapoint {
  const { eid, v } = loose;
  if (typeof eid !== "string" && typeof eid !== "bigint" && !(typeof eid === "number" && Number.isFinite(eid))) {
    throw refused("INVALID_EID", "eid", "a text or a number", eid);
  }
  if (v === undefined) throw refused("INVALID_VALUE", "v", "a value", v);
  if (typeof v === "bigint" && BigInt.asIntN(64, v) !== v) {
    throw refused("INVALID_VALUE", "v", "a whole number within 64 bits", v);
  }
  const datapoint = {
    type: text(loose.type, "type"),
    eid,
    attr: text(loose.attr, "attr"),
    v,
    t1: time(loose.t1, "t1"),
    t2: time(loose.t2, "t2"),
    c: confidence(loose.c),
    src: loose.src === undefined || loose.src === null ? null : text(loose.src, "src"),
  };
  assertWellFormed(datapoint);
  return datapoint;
}

/** An upper bound of the bytes that a datapoint takes on the wire. */
export function wireBytesMax(datapoint: ClientDatapoint): number {
  const { type, eid, attr, v, src } = datapoint;
  const letters = type.length + String(eid).length + attr.length + (src?.length ?? 0);
  const value = typeof v === "string" ? v.length : typeof v === "object" ? jsonLength(v) : 12;
  // A UTF-16 unit takes at most three bytes in UTF-8; the rest is tags, lengths and three doubles.
  return 3 * (letters + value) + 64;
}

function jsonLength(value: unknown): number {
  return JSON.stringify(value, (_key, item: unknown) => (typeof item === "bigint" ? `${item}` : item)).length;
}

function text(value: unknown, key: string): string {
  if (typeof value === "string") return value;
  throw refused("INVALID_ARGUMENT", key, "a text", value);
}

function time(value: unknown, key: string): number | null {
  if (value === undefined || value === null || value === "") return null;
  const seconds = typeof value === "number" && Math.abs(value) <= secondsMax;
  const ms = unixMs(seconds ? value * 1000 : value);
  if (ms === null) throw refused("INVALID_TIME", key, timeForms, value);
  return ms;
}

function confidence(value: unknown): number | null {
  if (value === undefined || value === null) return null;
  const number = typeof value === "string" && value.trim() !== "" ? Number(value) : value;
  if (typeof number !== "number" || Number.isNaN(number)) throw refused("INVALID_CONFIDENCE", "c", "a number", value);
  return number;
}

function refused(code: ErrorCode, key: string, expected: string, found: unknown): StarlingError {
  const shown = typeof found === "bigint" ? `${found}` : (JSON.stringify(found) ?? "nothing");
  const short = shown.length > 80 ? `${shown.slice(0, 79)}…` : shown;
  return new StarlingError(code, `${key}: expected ${expected}, found ${short}`);
}
