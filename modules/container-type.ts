import { checkItems } from "./check-items.ts";
import type { Eid, Value } from "./datapoint.ts";
import { parseEid } from "./eid.ts";
import { isPlainObject, parseJsonText, setKey, writeJsonText } from "./json-value.ts";
import type { EidType } from "./model.ts";
import { valueError } from "./named-error.ts";
import { refusal, type ValueType } from "./value-type.ts";

/** A field of a dict. */
export interface DictField {
  readonly name: string;
  readonly optional: boolean;
  readonly type: ValueType;
}

/** What a link is made of; `eidType` knows the target's ids once the model is complete. */
export interface LinkParts {
  readonly text: string;
  readonly target: string;
  readonly mirror: string | null;
  readonly data: ValueType | null;
  readonly eidType: (etype: string) => EidType | undefined;
}

/** `array<…>`: values in the order they came. */
export function arrayType(text: string, item: ValueType): ValueType {
  return sequenceType(text, item, (values) => values);
}

/** `set<…>`: each value once, numbers in ascending order, everything else in the order of its JSON text. */
export function setType(text: string, item: ValueType): ValueType {
  return sequenceType(text, item, (values) => {
    const byJson = new Map(values.map((value) => [item.write(value), value]));
    return [...byJson].sort(compareItems).map(([, value]) => value);
  });
}

/** `dict<…>`: fields sorted by name; an optional field that is left out is null, an unknown one is dropped. */
export function dictType(text: string, unsorted: readonly DictField[]): ValueType {
  const fields = [...unsorted].sort((a, b) => (a.name < b.name ? -1 : 1));
  const shape = fields.map(({ name, optional, type }) => `${name}${optional ? "?" : ""}:${type.fingerprint}`);
  const revive = (parsed: unknown): Value => {
    const stored = isPlainObject(parsed) ? parsed : {};
    return Object.fromEntries(fields.map(({ name, type }) => [name, reviveField(type, stored[name])]));
  };
  return withRead({
    text,
    fingerprint: `dict<${shape.join(",")}>`,
    link: null,
    exact: fields.some((field) => field.type.exact),
    check: (input) => {
      if (!isPlainObject(input)) throw refusal(`an object of type ${text}`, input);
      const checked: Record<string, Value> = {};
      for (const field of fields) setKey(checked, field.name, checkField(field, input));
      return checked;
    },
    write: (value) => {
      const held = value as Readonly<Record<string, Value>>;
      return `{${fields.map(({ name, type }) => `"${name}":${writeField(type, held[name])}`).join(",")}}`;
    },
    revive,
  });
}

/** `link<…>`: `{ eid }`, or `{ eid, data }` if the link carries data; any other key is refused. */
export function linkType({ text, target, mirror, data, eidType }: LinkParts): ValueType {
  const keys = data === null ? "{eid}" : "{eid, data}";
  const check = (input: unknown): Value => {
    if (!isPlainObject(input) || !hasExactly(input, data !== null)) {
      throw refusal(`a link, an object with exactly ${keys}`, input);
    }
    const type = eidType(target);
    if (type === undefined) throw refusal(`a link to a type of the model, not to ${target}`, input);
    const eid = parseEid(type, input.eid);
    return data === null ? { eid } : { eid, data: data.check(input.data) };
  };
  const write = (value: Value): string => {
    const link = value as { eid: Eid; data: Value };
    const eid = typeof link.eid === "string" ? writeJsonText(link.eid) : String(link.eid);
    return data === null ? `{"eid":${eid}}` : `{"eid":${eid},"data":${data.write(link.data)}}`;
  };
  const revive = (parsed: unknown): Value => {
    const { eid, data: held } = parsed as { eid: Eid; data: unknown };
    return data === null ? { eid } : { eid, data: data.revive(held) };
  };
  return withRead({
    text,
    fingerprint: `link<${target},${data === null ? "None" : data.fingerprint}>`,
    link: { target, mirror },
    exact: true,
    check,
    write,
    revive,
  });
}

/** `category<…>`: exactly one of the values, compared in the base type without coercion of texts. */
export function categoryType(text: string, base: ValueType, values: readonly Value[]): ValueType {
  const allowed = new Set(values);
  const expected = `one of ${values.slice(0, 20).map(String).join(", ")}${values.length > 20 ? ", …" : ""}`;
  const compared = categoryInput(base);
  return {
    ...base,
    text,
    fingerprint: `category<${base.fingerprint}>`,
    check: (input) => {
      const value = compared(input);
      if (value === undefined || !allowed.has(value)) throw refusal(expected, input);
      return value;
    },
  };
}

function withRead(type: Omit<ValueType, "read">): ValueType {
  const parse = type.exact ? parseJsonText : JSON.parse;
  return { ...type, read: (json) => type.revive(parse(json)) };
}

function sequenceType(text: string, item: ValueType, arrange: (values: Value[]) => Value[]): ValueType {
  return withRead({
    text,
    fingerprint: `list[${item.fingerprint}]`,
    link: item.link,
    exact: item.exact,
    check: (input) => {
      if (!Array.isArray(input)) throw refusal(`a list of type ${text}`, input);
      return arrange(checkItems(item, input));
    },
    write: (value) => `[${(value as readonly Value[]).map((one) => item.write(one)).join(",")}]`,
    revive: (parsed) => (parsed as unknown[]).map((one) => item.revive(one)),
  });
}

function compareItems([aJson, a]: [string, Value], [bJson, b]: [string, Value]): number {
  const numeric = isNumeric(a) && isNumeric(b) && a !== b;
  if (numeric) return a < b ? -1 : 1;
  return aJson < bJson ? -1 : 1;
}

function isNumeric(value: Value): value is number | bigint {
  return typeof value === "number" || typeof value === "bigint";
}

function checkField({ name, optional, type }: DictField, input: Readonly<Record<string, unknown>>): Value {
  const given = Object.hasOwn(input, name) ? input[name] : undefined;
  if (given === undefined || (given === null && optional)) {
    if (optional) return null;
    throw refusal(`an object with the key ${name}`, input);
  }
  try {
    return type.check(given);
  } catch (error) {
    throw valueError(`key ${name}`, error);
  }
}

function writeField(type: ValueType, value: Value | undefined): string {
  return value === null || value === undefined ? "null" : type.write(value);
}

function reviveField(type: ValueType, stored: unknown): Value {
  return stored === null || stored === undefined ? null : type.revive(stored);
}

function hasExactly(input: Readonly<Record<string, unknown>>, withData: boolean): boolean {
  for (const key in input) {
    if (key !== "eid" && !(withData && key === "data")) return false;
  }
  return Object.hasOwn(input, "eid") && Object.hasOwn(input, "data") === withData;
}

/** The input as a value of the base type, undefined if it has another type. */
function categoryInput(base: ValueType): (input: unknown) => Value | undefined {
  switch (base.fingerprint) {
    case "int":
    case "float":
      return (input) => (typeof input === "string" ? undefined : base.check(input));
    case "bool":
      return (input) => (input === 1 || input === 0 ? input === 1 : (input as Value));
    default:
      return base.check;
  }
}
