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
    if (!hasLongDigits(text) || text.includes("\\u0000")) return JSON.parse(text);
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
  if (Array.isArray(input)) return mapList(input, (item) => canonicalJson(item, depth + 1));
  return canonicalObject(input, depth);
}

/** What `change` makes of every item, holes included, which are undefined to it. */
export function mapList<To>(list: readonly unknown[], change: (item: unknown) => To): To[] {
  const changed = new Array<To>(list.length);
  for (let i = 0; i < list.length; i++) changed[i] = change(list[i]);
  return changed;
}

/** Sets a key of an object under construction, so that `__proto__` is data like any other. */
export function setKey(target: Record<string, Value>, key: string, value: Value): void {
  if (key !== "__proto__") target[key] = value;
  else Object.defineProperty(target, key, { value, configurable: true, enumerable: true, writable: true });
}

/** The JSON text of a text. */
export function writeJsonText(text: string): string {
  return escaped.test(text) ? JSON.stringify(text) : `"${text}"`;
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

const longDigits = 16;
const jsonTokens = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.eE+-]*/g;
const wholeNumber = /^-?\d+$/;
/** Finds whatever JSON may have to escape: control characters, quotes, backslashes, surrogates. */
const escaped = /[^ !#-[\]-\ud7ff\ue000-\uffff]/;

/** Whether that many digits stand in a row: they would cover every place that is so far from the one before. */
function hasLongDigits(text: string): boolean {
  for (let at = longDigits - 1; at < text.length; at += longDigits) {
    let first = at;
    while (isDigitAt(text, first)) first--;
    if (first === at) continue;
    while (isDigitAt(text, at + 1)) at++;
    if (at - first >= longDigits) return true;
  }
  return false;
}

function isDigitAt(text: string, at: number): boolean {
  const code = text.charCodeAt(at);
  return code >= 0x30 && code <= 0x39;
}

function isUnsafeWhole(token: string): boolean {
  return wholeNumber.test(token) && !Number.isSafeInteger(Number(token));
}

function canonicalObject(input: object, depth: number): Value {
  if (!isPlainObject(input)) throw notJson(input);
  const canonical: Record<string, Value> = {};
  for (const key of Object.keys(input).sort()) {
    assertStorable(key);
    setKey(canonical, key, canonicalJson(input[key], depth + 1));
  }
  return canonical;
}

function notJson(input: unknown): StarlingError {
  return new StarlingError("INVALID_VALUE", `expected a value that JSON can hold, found ${showFound(input)}`);
}
