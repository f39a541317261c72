import { StarlingError } from "../proto/starling-error.ts";
import { arrayType, categoryType, type DictField, dictType, linkType, setType } from "./container-type.ts";
import type { Value } from "./datapoint.ts";
import type { EidType } from "./model.ts";
import { isPrimitiveName, primitiveNames, primitiveType } from "./primitive-type.ts";
import { showFound } from "./show-found.ts";
import type { ValueType } from "./value-type.ts";

/** A parsed data type: how a value of it is checked and written. */
export interface DataType {
  /** The type as written in the configuration. */
  readonly text: string;
  /** What decides whether stored values of this type still fit (reference 2, `type_info`). */
  readonly fingerprint: string;
  /** Set for `link<…>` and for arrays and sets of links. */
  readonly link: { readonly target: string; readonly mirror: string | null } | null;
  /** Checks and canonicalises; throws StarlingError INVALID_VALUE or TOO_LARGE (depth; links also INVALID_EID). */
  readonly check: (input: unknown) => Value;
  /** The canonical JSON text of a checked value. */
  readonly write: (value: Value) => string;
  /** The checked value from its canonical JSON text. */
  readonly read: (json: string) => Value;
}

/** What parsing a type may ask the model, lazily: links are checked once every entity type is known. */
export interface DataTypeContext {
  /** The type of a link target's ids, undefined if there is no such entity type. */
  readonly eidType: (etype: string) => EidType | undefined;
}

/**
 * Parses a type of DP³'s grammar (reference 2); blanks between the parts are allowed everywhere. Without a context every
 * link target has ids of type string. Throws CONFIG with what was found and what is allowed.
 */
export function parseDataType(text: string, context: DataTypeContext = { eidType: () => "string" }): DataType {
  if (text.length > textMaxLength) throw wrong(text, `a type of at most ${textMaxLength} characters`);
  return parseType(text, { context, depth: 0, place: "outermost" });
}

/** Where a type stands; only some types may stand inside others. */
interface Position {
  readonly context: DataTypeContext;
  /** JSON containers around it. */
  readonly depth: number;
  readonly place: "outermost" | "item" | "link data";
}

const textMaxLength = 10_000;
const nestingMax = 10;
const headed = /^(array|set|link|dict|category)\s*<(.*)>$/s;
const linkBody = /^\s*([\w-]+)\s*(?:,(.*?))?(?:;\s*mirror\s*=\s*([\w-]+)\s*)?$/s;
const mirrorName = /^[A-Za-z_][A-Za-z0-9_-]*$/;
const dictField = /^\s*(\w+)\s*(\?)?\s*:\s*(\w+)\s*$/;
const categoryBody = /^\s*(\w+)\s*;(.*)$/s;
const categoryValue = /^[\p{L}\p{N}_]+$/u;

function parseType(padded: string, position: Position): ValueType {
  const text = padded.trim();
  if (position.depth > nestingMax) throw wrong(text, `types nested at most ${nestingMax} deep`);
  if (isPrimitiveName(text)) return primitiveType(text, position.depth);
  const [, head, body = ""] = headed.exec(text) ?? [];
  if (position.place === "item" && head !== "link") {
    throw wrong(text, `as the item of an array or set: ${primitiveNames.join(", ")}, link<…>`);
  }
  switch (head) {
    case "array":
      return arrayType(text, parseType(body, { ...position, depth: position.depth + 1, place: "item" }));
    case "set":
      return setType(text, parseType(body, { ...position, depth: position.depth + 1, place: "item" }));
    case "link":
      return parseLink(text, body, position);
    case "dict":
      return dictType(text, parseFields(text, body, position.depth + 1));
    case "category":
      return parseCategory(text, body, position.depth);
    default:
      throw wrong(text, `${primitiveNames.join(", ")}, array<…>, set<…>, link<…>, dict<…>, category<…>`);
  }
}

function parseLink(text: string, body: string, position: Position): ValueType {
  const parts = linkBody.exec(body);
  const [, target, dataText, mirror = null] = parts ?? [];
  if (target === undefined) throw wrong(text, "link<ETYPE>, link<ETYPE, DATA>, link<ETYPE, DATA; mirror=NAME>");
  if (mirror !== null && !mirrorName.test(mirror)) throw wrong(mirror, "a mirror name of letters, digits, _ and -");
  if (mirror !== null && position.place === "link data") throw wrong(text, "a mirror on the outermost link only");
  const data =
    dataText === undefined ? null : parseType(dataText, { ...position, depth: position.depth + 1, place: "link data" });
  return linkType({ text, target, mirror, data, eidType: position.context.eidType });
}

function parseFields(text: string, body: string, depth: number): DictField[] {
  const fields = new Map<string, DictField>();
  for (const part of body.split(",")) {
    const [, name, mark, type] = dictField.exec(part) ?? [];
    if (name === undefined || type === undefined || !isPrimitiveName(type)) {
      throw wrong(part, `in ${text}: fields as name:TYPE or name?:TYPE with one of ${primitiveNames.join(", ")}`);
    }
    if (fields.has(name)) throw wrong(name, `in ${text}: every field once`);
    fields.set(name, { name, optional: mark === "?", type: primitiveType(type, depth) });
  }
  return [...fields.values()];
}

function parseCategory(text: string, body: string, depth: number): ValueType {
  const [, baseName = "", list = ""] = categoryBody.exec(body) ?? [];
  if (!isPrimitiveName(baseName) || baseName === "json" || baseName === "special") {
    throw wrong(text, "category<BASE; VALUE, VALUE> with a primitive base other than json and special");
  }
  const base = primitiveType(baseName, depth);
  const values = list.split(",").map((part) => {
    const value = part.trim();
    if (!categoryValue.test(value)) throw wrong(value, `in ${text}: values of letters, digits and _`);
    try {
      return base.check(value);
    } catch (error) {
      throw new StarlingError("CONFIG", `not a value of ${text}: ${(error as Error).message}`, { cause: error });
    }
  });
  return categoryType(text, base, values);
}

function wrong(found: string, allowed: string): StarlingError {
  return new StarlingError("CONFIG", `not a data type: found ${showFound(found)}; allowed: ${allowed}`);
}
