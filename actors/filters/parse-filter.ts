import { canonicalEid } from "../../modules/eid.ts";
import { canonicalJson, isPlainObject, parseJsonText } from "../../modules/json-value.ts";
import type { EntitySpec, Model } from "../../modules/model.ts";
import { showFound } from "../../modules/show-found.ts";
import { elementType } from "../snapshots/snapshot-key.ts";
import { readMagic } from "./filter-magic.ts";
import { invalidFilter, type KnownPath, parseFilterPath } from "./filter-path.ts";
import { regexTests } from "./filter-regex.ts";
import { type CompareOp, everything, type FilterTest, type SnapshotFilter } from "./snapshot-filter.ts";

/*
 * DP³'s filters, JSON text, to one tree. Generic ones are MongoDB's queries as far as the lists below go; `last.` before an
 * attribute may be there or not. Everything else is refused with INVALID_FILTER, which names the operator and its place;
 * values have to fit the attribute's data type.
 */

/** Bounds of one filter. */
export const filterLimits = { textMaxLength: 65_536, depthMax: 20, testsMax: 500 } as const;

export const filterOperators = [
  ...["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists"],
  ...["$regex", "$options", "$not", "$all", "$size", "$elemMatch"],
] as const;
export const filterJunctions = ["$and", "$or", "$nor"] as const;

/** A generic filter. What is empty or false in JSON (`{}`, `[]`, `null`, `0`, `""`) asks for everything. */
export function parseGenericFilter(model: Model, entity: EntitySpec, text: string): SnapshotFilter {
  const input = readText(text, "the generic filter");
  if (isNothing(input)) return everything;
  return junction({ model, entity, left: { tests: filterLimits.testsMax } }, input, "", 0);
}

/** A full-text filter: `{attr: regular expression}`, anywhere in the value and whatever the letters' case. */
export function parseFulltextFilter(entity: EntitySpec, text: string): SnapshotFilter {
  const input = readText(text, "the full-text filter");
  if (isNothing(input)) return everything;
  if (!isPlainObject(input)) throw invalidFilter("", "a full-text filter is an object of attributes and texts");
  const of = Object.entries(input).flatMap(([attr, pattern]) => {
    const path = parseFilterPath(entity, attr, attr);
    if (typeof pattern !== "string") throw invalidFilter(attr, `a text is needed: found ${showFound(pattern)}`);
    return regexTests(pattern, "i", attr).map((test) => testOf(path, test));
  });
  return { kind: "and", of };
}

interface Context {
  readonly model: Model;
  readonly entity: EntitySpec;
  readonly left: { tests: number };
}

function readText(text: string, name: string): unknown {
  if (text.length > filterLimits.textMaxLength) {
    throw invalidFilter("", `${name} has more than ${filterLimits.textMaxLength} characters`);
  }
  if (text.trim() === "") return null;
  try {
    return parseJsonText(text);
  } catch (error) {
    throw invalidFilter("", `${name} is not JSON: found ${showFound(text)}`, error);
  }
}

function isNothing(input: unknown): boolean {
  if (Array.isArray(input)) return input.length === 0;
  return !input || (isPlainObject(input) && Object.keys(input).length === 0);
}

/** An object of paths and junctions, all of which hold. */
function junction(context: Context, input: unknown, place: string, depth: number): SnapshotFilter {
  if (!isPlainObject(input)) throw invalidFilter(place, `a filter is an object: found ${showFound(input)}`);
  if (depth > filterLimits.depthMax) throw invalidFilter(place, `nested more than ${filterLimits.depthMax} deep`);
  const of = Object.entries(input).map(([name, value]): SnapshotFilter => {
    const at = place === "" ? name : `${place}.${name}`;
    if (!name.startsWith("$")) {
      return conditions(context, parseFilterPath(context.entity, name, at), value, at, depth + 1);
    }
    if (!isOneOf(filterJunctions, name)) throw unknownOperator(at, name, filterJunctions);
    const filters = listOf(value, at).map((one, i) => junction(context, one, `${at}.${i}`, depth + 1));
    if (name === "$nor") return { kind: "not", of: { kind: "or", of: filters } };
    return { kind: name === "$and" ? "and" : "or", of: filters };
  });
  const [only] = of;
  return only !== undefined && of.length === 1 ? only : { kind: "and", of };
}

/** What stands at a path: a value, or operators, all of which hold. */
function conditions(context: Context, path: KnownPath, input: unknown, place: string, depth: number): SnapshotFilter {
  if (depth > filterLimits.depthMax) throw invalidFilter(place, `nested more than ${filterLimits.depthMax} deep`);
  const value = unwrap(input, place);
  if (!isOperators(value, place)) return spend(context, path, equals(context, path, value, place), place);
  const { $options, ...operators } = value;
  const of = Object.entries(operators).map(([name, operand]): SnapshotFilter => {
    const at = `${place}.${name}`;
    if (name === "$not") return { kind: "not", of: negated(context, path, operand, at, depth) };
    if (name === "$elemMatch") return element(context, path, operand, at, depth);
    if (name === "$regex") return regex(context, path, operand, $options, at);
    return simple(context, path, name, operand, at);
  });
  if ($options !== undefined && value.$regex === undefined) throw invalidFilter(place, "$options goes with $regex");
  return of.length === 1 && of[0] !== undefined ? of[0] : { kind: "and", of };
}

function simple(context: Context, path: KnownPath, name: string, operand: unknown, place: string): SnapshotFilter {
  const test = (one: FilterTest) => spend(context, path, one, place);
  const equal = (one: unknown, at: string) => test(equals(context, path, unwrap(one, at), at));
  const each = () => listOf(operand, place).map((one, i) => equal(one, `${place}.${i}`));
  const not = (of: SnapshotFilter): SnapshotFilter => ({ kind: "not", of });
  switch (name) {
    case "$eq":
      return equal(operand, place);
    case "$ne":
      return not(equal(operand, place));
    case "$in":
      return { kind: "or", of: each() };
    case "$nin":
      return not({ kind: "or", of: each() });
    case "$all":
      return { kind: "and", of: each() };
    case "$exists":
      if (typeof operand !== "boolean") throw invalidFilter(place, `true or false: found ${showFound(operand)}`);
      return operand ? test({ kind: "exists" }) : not(test({ kind: "exists" }));
    case "$size":
      if (!Number.isSafeInteger(operand)) throw invalidFilter(place, `a whole number: found ${showFound(operand)}`);
      if (!path.key.many && path.key.kind !== "json") throw notAList(place);
      return test({ kind: "size", size: Number(operand) });
    default: {
      const op = Object.hasOwn(comparisons, name) ? comparisons[name] : undefined;
      if (op === undefined) throw unknownOperator(place, name, filterOperators);
      return test({ kind: "compare", op, json: valueAt(context, path, unwrap(operand, place), place) });
    }
  }
}

const comparisons: Readonly<Record<string, CompareOp>> = { $gt: ">", $gte: ">=", $lt: "<", $lte: "<=" };

function negated(context: Context, path: KnownPath, operand: unknown, place: string, depth: number): SnapshotFilter {
  const inner = unwrap(operand, place);
  if (!isOperators(inner, place)) throw invalidFilter(place, `operators are needed: found ${showFound(operand)}`);
  return conditions(context, path, inner, place, depth + 1);
}

/** One element of a list that fulfils all operators. */
function element(context: Context, path: KnownPath, operand: unknown, place: string, depth: number): SnapshotFilter {
  if (!path.key.many) throw notAList(place);
  const inner = negated(context, path, operand, place, depth);
  return testOf(path, { kind: "element", of: testsOf(inner, place) });
}

function testsOf(filter: SnapshotFilter, place: string): FilterTest[] {
  if (filter.kind === "and") return filter.of.flatMap((one) => testsOf(one, place));
  if (filter.kind !== "test") throw invalidFilter(place, "of one element only comparisons and $regex can be asked");
  return [filter.test];
}

function regex(context: Context, path: KnownPath, operand: unknown, options: unknown, place: string): SnapshotFilter {
  if (typeof operand !== "string") throw invalidFilter(place, `a text is needed: found ${showFound(operand)}`);
  const flags = options ?? "";
  if (typeof flags !== "string") throw invalidFilter(place, `$options is a text: found ${showFound(options)}`);
  const of = regexTests(operand, flags, place).map((test) => spend(context, path, test, place));
  return of.length === 1 && of[0] !== undefined ? of[0] : { kind: "and", of };
}

function equals(context: Context, path: KnownPath, value: unknown, place: string): FilterTest {
  if (value === null) return { kind: "absent" };
  return { kind: "compare", op: "=", json: valueAt(context, path, value, place) };
}

/** The canonical JSON text of a value that is compared with what stands at a path. */
function valueAt({ model, entity }: Context, { key, spec, attr }: KnownPath, value: unknown, place: string): string {
  try {
    if (spec === null) return JSON.stringify(canonicalEid(entity, value));
    if (key.link) {
      const target = model.entities.get(spec.dataType?.link?.target ?? "") ?? entity;
      const eid = canonicalEid(target, isPlainObject(value) && Object.keys(value).join() === "eid" ? value.eid : value);
      return target.idDataType === "int" ? eid : JSON.stringify(eid);
    }
    if (attr !== spec.id && typeof value !== "number") throw new Error(`a number is needed: found ${showFound(value)}`);
    const type = key.kind === "json" || attr !== spec.id ? null : elementType(spec);
    return type === null ? JSON.stringify(canonicalJson(value, 0)) : type.write(type.check(value));
  } catch (error) {
    throw invalidFilter(place, error instanceof Error ? error.message : String(error), error);
  }
}

/** The value behind a magic string; a range becomes operators. */
function unwrap(input: unknown, place: string): unknown {
  if (typeof input !== "string") return input;
  const magic = readMagic(input);
  if (magic === null) throw invalidFilter(place, `${showFound(input)} does not hold what its name says`);
  return magic.kind === "range" ? { $gte: magic.first, $lte: magic.last } : magic.value;
}

function isOperators(value: unknown, place: string): value is Readonly<Record<string, unknown>> {
  if (!isPlainObject(value)) return false;
  const names = Object.keys(value);
  const operators = names.filter((name) => name.startsWith("$"));
  if (operators.length > 0 && operators.length < names.length) {
    throw invalidFilter(place, "operators and names do not go together");
  }
  const unknown = operators.find((name) => !isOneOf(filterOperators, name));
  if (unknown !== undefined) throw unknownOperator(`${place}.${unknown}`, unknown, filterOperators);
  return operators.length > 0;
}

function spend({ left }: Context, path: KnownPath, test: FilterTest, place: string): SnapshotFilter {
  left.tests -= 1;
  if (left.tests < 0) throw invalidFilter(place, `a filter has at most ${filterLimits.testsMax} comparisons`);
  return testOf(path, test);
}

function testOf({ attr, steps, key }: KnownPath, test: FilterTest): SnapshotFilter {
  return { kind: "test", path: { attr, steps, key }, test };
}

function notAList(place: string) {
  return invalidFilter(place, "the attribute holds one value, not a list");
}

function listOf(value: unknown, place: string): readonly unknown[] {
  if (Array.isArray(value) && value.length > 0) return value as readonly unknown[];
  throw invalidFilter(place, `a list that is not empty: found ${showFound(value)}`);
}

function isOneOf<T extends string>(names: readonly T[], name: string): name is T {
  return (names as readonly string[]).includes(name);
}

function unknownOperator(place: string, name: string, known: readonly string[]) {
  return invalidFilter(place, `${name} is not among the operators here: ${known.join(", ")}`);
}
