import { addressForms, canonicalIpv4, canonicalIpv6, canonicalMac } from "./address.ts";
import type { Value } from "./datapoint.ts";
import { canonicalJson, parseJsonText, toDoubles, writeJsonText } from "./json-value.ts";
import { canonicalTime } from "./time-text.ts";
import { assertStorable } from "./value-limits.ts";
import { refusal, type ValueType } from "./value-type.ts";
import { fitsInt64, narrow, wholeNumber } from "./whole-number.ts";

/** The names of the primitive types (reference 2). */
export const primitiveNames = [
  "tag",
  "binary",
  "string",
  "int",
  "int64",
  "float",
  "ipv4",
  "ipv6",
  "mac",
  "time",
  "special",
  "json",
] as const;
export type PrimitiveName = (typeof primitiveNames)[number];

/** Whether the text names a primitive type. */
export function isPrimitiveName(text: string): text is PrimitiveName {
  return (primitiveNames as readonly string[]).includes(text);
}

/** A primitive type; `depth` counts the JSON containers around its values. */
export function primitiveType(name: PrimitiveName, depth: number): ValueType {
  const base = { text: name, link: null, exact: false, read: JSON.parse, revive: identity };
  switch (name) {
    case "tag":
    case "binary":
      return { ...base, fingerprint: "bool", check: checkBool, write: writeBool };
    case "string":
      return { ...base, fingerprint: "string", check: checkString, write: writeText };
    case "int":
      return { ...base, fingerprint: "int", check: checkInt, write: String, read: Number };
    case "int64":
      return { ...base, fingerprint: "int", check: checkInt64, write: String, exact: true, read: readWhole, revive };
    case "float":
      return { ...base, fingerprint: "float", check: checkFloat, write: String, read: Number, revive: Number };
    case "ipv4":
      return { ...base, fingerprint: name, check: addressCheck(addressForms.ipv4, canonicalIpv4), write: writeQuoted };
    case "ipv6":
      return { ...base, fingerprint: name, check: addressCheck(addressForms.ipv6, canonicalIpv6), write: writeText };
    case "mac":
      return { ...base, fingerprint: name, check: addressCheck(addressForms.mac, canonicalMac), write: writeQuoted };
    case "time":
      return { ...base, fingerprint: name, check: canonicalTime, write: writeQuoted };
    case "json":
      return {
        ...base,
        fingerprint: name,
        check: (input) => checkJson(input, depth),
        write: writeJson,
        revive: toDoubles,
      };
    case "special":
      return {
        ...base,
        fingerprint: name,
        check: (input) => checkSpecial(input, depth),
        write: writeJson,
        revive: toDoubles,
      };
  }
}

/** The number that a text such as `" +1_000.5e3 "` means; NaN if it means none, or an infinite one. */
export function parseFloatText(text: string): number {
  if (text.length > floatTextMaxLength || !floatText.test(text)) return Number.NaN;
  return Number(text.replaceAll("_", ""));
}

const intMin = -(2 ** 31);
const intMax = 2 ** 31 - 1;
const trueTexts = new Set(["1", "on", "t", "true", "y", "yes"]);
const falseTexts = new Set(["0", "off", "f", "false", "n", "no"]);
const floatText = /^\s*[+-]?(?:\d+(?:_\d+)*(?:\.(?:\d+(?:_\d+)*)?)?|\.\d+(?:_\d+)*)(?:[eE][+-]?\d+)?\s*$/;
const floatTextMaxLength = 512;

function identity(parsed: unknown): Value {
  return parsed as Value;
}

function checkBool(input: unknown): Value {
  if (typeof input === "boolean") return input;
  if (input === 1 || input === 0) return input === 1;
  if (typeof input === "string" && input.length < 6) {
    const text = input.toLowerCase();
    if (trueTexts.has(text)) return true;
    if (falseTexts.has(text)) return false;
  }
  throw refusal("true or false (or 1, 0, yes, no, on, off, t, f, y, n)", input);
}

function writeBool(value: Value): string {
  return value === true ? "true" : "false";
}

function checkString(input: unknown): Value {
  if (typeof input !== "string") throw refusal("text", input);
  assertStorable(input);
  return input;
}

function writeText(value: Value): string {
  return writeJsonText(value as string);
}

/** Of texts in which JSON escapes nothing. */
function writeQuoted(value: Value): string {
  return `"${value}"`;
}

function checkInt(input: unknown): Value {
  if (typeof input === "number" && (input | 0) === input) return input | 0;
  const value = wholeNumber(input);
  if (typeof value === "number" && value >= intMin && value <= intMax) return value;
  throw refusal(`int, a whole number within ${intMin} and ${intMax}`, input);
}

function checkInt64(input: unknown): Value {
  const value = wholeNumber(input);
  if (value !== null && fitsInt64(value)) return value;
  if (Number.isInteger(input)) throw refusal("int64, beyond 2^53 as decimal text so that nothing is rounded", input);
  throw refusal("int64, a whole number of 64 bits", input);
}

function readWhole(json: string): Value {
  const value = Number(json);
  return Number.isSafeInteger(value) ? value : narrow(BigInt(json));
}

function revive(parsed: unknown): Value {
  return typeof parsed === "bigint" ? narrow(parsed) : (parsed as Value);
}

function checkFloat(input: unknown): Value {
  const value = typeof input === "number" ? input : looseFloat(input);
  // Infinity - Infinity and NaN - NaN are NaN; -0 becomes 0.
  if (value - value === 0) return value + 0;
  throw refusal("float, a finite number", input);
}

function looseFloat(input: unknown): number {
  if (typeof input === "boolean" || typeof input === "bigint") return Number(input);
  return typeof input === "string" ? parseFloatText(input) : Number.NaN;
}

function addressCheck(expected: string, canonical: (input: unknown) => string | null): (input: unknown) => Value {
  return (input) => {
    const value = canonical(input);
    if (value === null) throw refusal(expected, input);
    return value;
  };
}

function checkJson(input: unknown, depth: number): Value {
  const content = typeof input === "string" ? parseJsonText(input) : input;
  if (typeof content === "object" && content !== null) return canonicalJson(content, depth);
  throw refusal("a JSON object or array, or JSON text of one (a scalar is refused)", input);
}

function checkSpecial(input: unknown, depth: number): Value {
  if (input === null || input === undefined) throw refusal("any value but null", input);
  return canonicalJson(input, depth);
}

function writeJson(value: Value): string {
  return JSON.stringify(value);
}
