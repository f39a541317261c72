import assert from "node:assert";
import { unreachable } from "../../proto/unreachable.ts";
import type {
  CompareOp,
  FilterPath,
  FilterTest,
  RegexFlags,
  SnapshotFilter,
  SnapshotSort,
} from "../filters/snapshot-filter.ts";
import type { KeyKind, SnapshotKey } from "../snapshots/snapshot-key.ts";
import type { Parameter } from "./connection.ts";
import { bodyText } from "./snapshot-rows.ts";

/*
 * The one place where filters and orders of snapshots become SQL, over a row `s` of the table.
 *
 * 1. Nothing of what a user wrote, names and values alike, stands in the text: all of it is parameters.
 * 2. A test of an attribute's value compares the very expression that its index holds (see `keyText` and snapshot-index.ts).
 *    The planner finds that index since it knows the parameters' values: so these statements are never prepared by name.
 * 3. A test may come out as null; that counts as false, also below a `not`.
 */

/** Parameters of one statement under construction. */
export interface SqlParameters {
  readonly values: readonly Parameter[];
  /** Adds one and returns its name in the text. */
  add(value: string | number): string;
}

export function createParameters(): SqlParameters {
  const values: Parameter[] = [];
  return { values, add: (value) => `$${values.push(value)}` };
}

/** A filter as an SQL condition over `s`. */
export function conditionText(filter: SnapshotFilter, parameters: SqlParameters): string {
  switch (filter.kind) {
    case "and":
    case "or": {
      const parts = filter.of.map((one) => conditionText(one, parameters));
      return parts.length === 0 ? String(filter.kind === "and") : `(${parts.join(` ${filter.kind} `)})`;
    }
    case "not":
      return `(${conditionText(filter.of, parameters)}) is not true`;
    case "test":
      return testText(filter.path, filter.test, parameters);
    default:
      return unreachable(filter);
  }
}

/** The key by which rows of `s` are ordered. */
export function sortKeyText({ attr, key }: SnapshotSort, parameters: SqlParameters): string {
  if (attr === null) return eidKeyText(key.kind, "s.eid");
  return keyText(key.kind, memberPlace(bodyText("s", attr), key, `${parameters.add(attr)}::text`));
}

/** Characters of a text that its key holds: an entry of an index has a bound. */
export const keyTextLength = 128;

/** The expression that compares values of a kind; the one that indexes hold. */
export function keyText(kind: KeyKind, { json, text }: ValuePlace): string {
  switch (kind) {
    case "text":
      return `(left(${text}, ${keyTextLength}) collate "C")`;
    case "number":
      return `(case when jsonb_typeof(${json}) = 'number' then (${json})::numeric end)`;
    case "time":
      // Without its end, fractions of a second sort behind the whole one.
      return `(rtrim(left(${text}, 32), 'Z') collate "C")`;
    case "address":
      return `starling.snapshot_address_1(${text})`;
    case "json":
      return json;
    default:
      return unreachable(kind);
  }
}

/** SQL of a value as jsonb and as text. */
export interface ValuePlace {
  readonly json: string;
  readonly text: string;
}

/** The place of an attribute's value, whose name is SQL here, or of a part of it; of a link that of its eid. */
export function memberPlace(
  body: string,
  { link }: Pick<SnapshotKey, "link">,
  name: string,
  steps: readonly string[] = [],
): ValuePlace {
  return within(body, link ? [name, "'eid'"] : [name, ...steps]);
}

/** The expression by which ids compare: their own text needs none. PostgreSQL may come by ids of other types. */
export function eidKeyText(kind: KeyKind, eid: string): string {
  if (kind === "number") return `(case when ${eid} ~ '^-?[0-9]+$' then ${eid}::numeric end)`;
  return kind === "address" ? `starling.snapshot_address_1(${eid})` : eid;
}

function within(json: string, names: readonly string[]): ValuePlace {
  const last = names.at(-1);
  if (last === undefined) return { json, text: `(${json} #>> '{}')` };
  const owner = names.slice(0, -1).reduce((inner, name) => `(${inner} -> ${name})`, json);
  return { json: `(${owner} -> ${last})`, text: `(${owner} ->> ${last})` };
}

function testText(path: FilterPath, test: FilterTest, parameters: SqlParameters): string {
  const { attr, key } = path;
  if (attr === null) return valueTest(key.kind, { json: "s.eid", text: "s.eid" }, test, parameters);
  const name = `${parameters.add(attr)}::text`;
  const body = bodyText("s", attr);
  const steps = path.steps.map((step) => `${parameters.add(step)}::text`);
  const whole = within(body, [name]);
  switch (test.kind) {
    case "absent":
    case "exists":
      return valueTest(key.kind, within(body, [name, ...steps]), test, parameters);
    case "size":
      return sizeText(key.many ? whole : memberPlace(body, key, name, steps), test.size, parameters);
    case "element":
      return someElement(whole, key, steps, (place) => {
        return test.of.map((one) => valueTest(key.kind, place, one, parameters)).join(" and ");
      });
    default:
      break;
  }
  if (!key.many) return valueTest(key.kind, memberPlace(body, key, name, steps), test, parameters);
  if (test.kind === "compare" && test.op === "=" && steps.length === 0) {
    // Their index knows what lists contain.
    const element = key.link ? `[{"eid":${test.json}}]` : test.json;
    return `${whole.json} @> ${parameters.add(element)}::text::jsonb`;
  }
  return someElement(whole, key, steps, (place) => valueTest(key.kind, place, test, parameters));
}

function someElement(
  whole: ValuePlace,
  { link }: SnapshotKey,
  steps: readonly string[],
  test: (place: ValuePlace) => string,
): string {
  const list = `case jsonb_typeof(${whole.json}) when 'array' then ${whole.json} else jsonb_build_array(${whole.json}) end`;
  const place = within("e.value", link ? ["'eid'"] : steps);
  return `exists (select from jsonb_array_elements(${list}) e(value) where ${test(place)})`;
}

function sizeText({ json }: ValuePlace, size: number, parameters: SqlParameters): string {
  return `case when jsonb_typeof(${json}) = 'array' then jsonb_array_length(${json}) end = ${parameters.add(size)}::int8`;
}

/** A test of one value. */
function valueTest(kind: KeyKind, place: ValuePlace, test: FilterTest, parameters: SqlParameters): string {
  switch (test.kind) {
    case "absent":
      return `${place.text} is null`;
    case "exists":
      return `${place.json} is not null`;
    case "size":
      return sizeText(place, test.size, parameters);
    case "prefix":
      return prefixText(kind, place, test.text, parameters);
    case "match":
      return `regexp_like(${place.text}, ${parameters.add(test.pattern)}::text, ${parameters.add(flagsText(test.flags))}::text)`;
    case "compare":
      return compareText(kind, place, test, parameters);
    case "element":
      return assert.fail("an element has no elements of its own");
    default:
      return unreachable(test);
  }
}

function prefixText(kind: KeyKind, place: ValuePlace, text: string, parameters: SqlParameters): string {
  const whole = () => `${place.text} collate "C" ^@ ${parameters.add(text)}::text`;
  if (isEid(place) || kind !== "text") return whole();
  const start = [...text].slice(0, keyTextLength).join("");
  const indexed = `${keyText(kind, place)} ^@ ${parameters.add(start)}::text`;
  return start.length === text.length ? indexed : `(${indexed} and ${whole()})`;
}

function compareText(
  kind: KeyKind,
  place: ValuePlace,
  { op, json }: { readonly op: CompareOp; readonly json: string },
  parameters: SqlParameters,
): string {
  const text = json.startsWith('"') ? (JSON.parse(json) as string) : json;
  const key = isEid(place) ? eidKeyText(kind, place.text) : keyText(kind, place);
  switch (kind) {
    case "text":
      if (isEid(place)) return `${key} ${op} ${parameters.add(text)}::text`;
      return textCompare(key, place.text, op, text, parameters);
    case "time":
      return `${key} ${op} ${parameters.add(text.replace(/Z$/, ""))}::text`;
    case "number":
      return `${key} ${op} ${parameters.add(text)}::text::numeric`;
    case "address":
      return `${key} ${op} ${parameters.add(text)}::text::inet`;
    case "json":
      if (op === "=") return `${key} = ${parameters.add(json)}::text::jsonb`;
      if (!json.startsWith('"')) return `${keyText("number", place)} ${op} ${parameters.add(json)}::text::numeric`;
      return `(jsonb_typeof(${place.json}) = 'string' and ${place.text} collate "C" ${op} ${parameters.add(text)}::text)`;
    default:
      return unreachable(kind);
  }
}

function isEid({ json, text }: ValuePlace): boolean {
  return json === text;
}

/** A text shorter than keys are compares with a key as with the whole. */
function textCompare(key: string, whole: string, op: CompareOp, text: string, parameters: SqlParameters): string {
  if (text.length < keyTextLength) return `${key} ${op} ${parameters.add(text)}::text`;
  const exact = `${whole} collate "C" ${op} ${parameters.add(text)}::text`;
  if (op !== "=") return exact;
  return `(${key} = left(${parameters.add(text)}::text, ${keyTextLength}) and ${exact})`;
}

/** DP³'s flags as PostgreSQL's: there `.` and `^` know no lines unless asked. */
function flagsText({ i, m, s, x }: RegexFlags): string {
  const lines = m ? (s ? "w" : "n") : s ? "s" : "p";
  return `${lines}${i ? "i" : ""}${x ? "x" : ""}`;
}
