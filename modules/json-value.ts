import { StarlingError } from "../proto/starling-error.ts";
import type { Value } from "./datapoint.ts";
import { showFound } from "./show-found.ts";
import { assertStorable, valueMaxDepth } from "./value-limits.ts";

/**
 * JSON text to a value, whole numbers beyond 2^53 as bigint instead of rounded.
 * Throws INVALID_VALUE for text that is not JSON.
 */
export function parseJsonText(text: string): unknown {
  try {
    // A text that itself holds an escaped U+0000 could imitate the mark below; it is refused later on anyway.
    if (!longDigits.test(text) || text.includes("\\u0000")) return JSON.parse(text);
    const marked = text.replace(jsonTokens, (token) => (isUnsafeWhole(token) ? `"\\u0000${token}"` : token));
    return JSON.parse(marked, (_key, value: unknown) => {
      return typeof value === "string" && value.startsWith("\u0000") ? BigInt(value.slice(1)) : value;
    });
  } catch (error) {
    throw new StarlingError("INVALID_VALUE", `expected JSON text, found ${showFound(text)}`, { cause: error });
  }
}

/**
 * A canonical copy of any JSON value: keys sorted, nothing shared with the input, all texts storable.
 * `depth` counts the containers around it. Throws INVALID_VALUE, and TOO_LARGE below the greatest depth.
 */
export function canonicalJson(input: unknown, depth: number): Value {
  switch (typeof input) {
    case "string":
      assertStorable(input);
      return input;
    case "boolean":
      return input;
    case "number":
      if (Number.isFinite(input)) return input === 0 ? 0 : input;
      throw notJson(input);
    case "bigint":
      if (BigInt(Number(input)) === input) return Number(input);
      throw new StarlingError("INVALID_VALUE", `${input} cannot be kept exactly within JSON: send it as text`);
    default:
      break;
  }
  if (input === null) return null;
  if (typeof input !== "object") throw notJson(input);
  if (depth >= valueMaxDepth) {
    throw new StarlingError("TOO_LARGE", `JSON is nested more than ${valueMaxDepth} deep`);
  }
  if (Array.isArray(input)) return Array.from(input as unknown[], (item) => canonicalJson(item, depth + 1));
  return canonicalObject(input, depth);
}

/** Numbers that only exact parsing made bigint, as the numbers they were: for types whose numbers are doubles. */
export function toDoubles(parsed: unknown): Value {
  if (typeof parsed === "bigint") return Number(parsed);
  if (typeof parsed !== "object" || parsed === null) return parsed as Value;
  if (Array.isArray(parsed)) return parsed.map(toDoubles);
  return Object.fromEntries(Object.entries(parsed).map(([key, value]) => [key, toDoubles(value)]));
}

/** Whether the input is an object as JSON knows it: no list, no Date, no class of anybody's. */
export function isPlainObject(input: unknown): input is Readonly<Record<string, unknown>> {
  if (typeof input !== "object" || input === null || Array.isArray(input)) return false;
  const prototype: unknown = Object.getPrototypeOf(input);
  return prototype === Object.prototype || prototype === null || Object.getPrototypeOf(prototype) === null;
}

const longDigits = /\d{16}/;
const jsonTokens = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.eE+-]*/g;
const wholeNumber = /^-?\d+$/;

function isUnsafeWhole(token: string): boolean {
  return wholeNumber.test(token) && !Number.isSafeInteger(Number(token));
}

function canonicalObject(input: object, depth: number): Value {
  if (!isPlainObject(input)) throw notJson(input);
  const keys = Object.keys(input).sort();
  // fromEntries defines keys, so that `__proto__` is data like any other.
  return Object.fromEntries(
    keys.map((key) => {
      assertStorable(key);
      return [key, canonicalJson(input[key], depth + 1)];
    }),
  );
}

function notJson(input: unknown): StarlingError {
  return new StarlingError("INVALID_VALUE", `expected a value that JSON can hold, found ${showFound(input)}`);
}
