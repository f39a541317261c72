import type { AttributeSpec } from "../../modules/model.ts";
import { createLineText, type LineText, lengthOf, put, putUnit, takeText } from "../log/line-text.ts";
import { putNumber, putTime } from "../log/number-text.ts";
import { type LargeValue, markState, splitState } from "../store/large-value.ts";
import type { StoredEntity } from "../store/store.ts";
import { bytesOfValue, type Entity, numbersEach } from "./entity.ts";
import { createLargeRows, isLarge } from "./large-rows.ts";

/** How an attribute is written. Short ones are half as long; nodes of the version before cannot read them. */
export type StateForm = "long" | "short";

/**
 * The record as JSON text: `{"attr":{"v","t1","t2","c","n"}, "#ttl":{…}}`, or short `{"attr":[v,t1,n,t2,c], "#ttl":{…}}`, where the
 * last ones are left out that say the least: n = 1, t2 = t1, c = 1. Both are read, also side by side. Large values are not in it, see
 * store/large-value.ts. Of a `whole` record they are, all that the model of now knows.
 */
export function writeState(entity: Entity, part: "row" | "whole" = "row", form: StateForm = "long"): string {
  const { values, numbers, spec, large, unknown, ttlTokens } = entity;
  const text = createLineText(statePage);
  let marked = large === null || part === "whole" ? "" : large.unknown;
  for (let index = 0; index < values.length; index++) {
    const value = values[index];
    const attribute = spec.attributeList[index];
    if (value === undefined || attribute === undefined) continue;
    if (part === "row" && isLarge(value)) {
      marked += `${marked === "" ? "" : ","}"${attribute.id}":{${numbersText(numbers, index)}`;
      continue;
    }
    beginMember(text);
    put(text, attribute.id);
    put(text, form === "short" ? '":[' : '":{"v":');
    put(text, typeof value === "string" ? value : (attribute.dataType?.write(value) ?? "null"));
    putUnit(text, comma);
    if (form === "short") putShortNumbers(text, numbers, index);
    else putNumbers(text, numbers, index);
  }
  if (unknown !== "") {
    put(text, lengthOf(text) === 0 ? "{" : ",");
    put(text, unknown);
  }
  if (ttlTokens !== null) {
    beginMember(text);
    put(text, `#ttl":${JSON.stringify(ttlTokens)}`);
  }
  const isEmpty = lengthOf(text) === 0;
  if (isEmpty && marked === "") return "{}";
  // The last unit is not taken.
  put(text, "}\n");
  const state = takeText(text);
  return marked === "" ? state : `${markState(marked, isEmpty ? "" : state.slice(0, -1))}}`;
}

/** Where states are written, one after another. */
const statePage = Buffer.allocUnsafeSlow(65_536);

function beginMember(text: LineText): void {
  put(text, lengthOf(text) === 0 ? '{"' : ',"');
}

function putNumbers(text: LineText, numbers: readonly number[], index: number): void {
  const first = numbersEach * index;
  const c = numbers[first + 2] ?? 0;
  put(text, '"t1":');
  putTime(text, numbers[first] ?? 0);
  put(text, ',"t2":');
  putTime(text, numbers[first + 1] ?? 0);
  put(text, ',"c":');
  if (c === 1) putUnit(text, one);
  else put(text, String(c));
  put(text, ',"n":');
  putNumber(text, numbers[first + 3] ?? 0);
  putUnit(text, close);
}

function putShortNumbers(text: LineText, numbers: readonly number[], index: number): void {
  const first = numbersEach * index;
  const [t1 = 0, t2 = 0, c = 0, n = 0] = [numbers[first], numbers[first + 1], numbers[first + 2], numbers[first + 3]];
  const isLong = t2 !== t1 || c !== 1;
  putTime(text, t1);
  if (isLong || n !== 1) {
    putUnit(text, comma);
    putNumber(text, n);
  }
  if (isLong) {
    putUnit(text, comma);
    putTime(text, t2);
  }
  if (c !== 1) {
    putUnit(text, comma);
    put(text, String(c));
  }
  putUnit(text, closeList);
}

function numbersText(numbers: readonly number[], index: number): string {
  const text = createLineText();
  putNumbers(text, numbers, index);
  putUnit(text, newline);
  return takeText(text);
}

const [newline, comma, one, closeList, close] = [10, 44, 49, 93, 125];

/** Fills an activation from what is stored; attributes that the model no longer has are kept as they stand. */
export function restoreEntity(entity: Entity, stored: StoredEntity | null): void {
  entity.status = "resident";
  if (stored === null) return;
  entity.exists = !stored.tombstone;
  entity.created = stored.created;
  entity.createdAt = stored.createdAt;
  entity.applied = entity.flushed = entity.flushing = stored.applied;
  if (!stored.tombstone) readState(entity, stored);
  entity.bytes += bytesOfLoaded(entity, stored.state.length);
}

/** A text that was cut out of another one, and is no shorter than this, holds that one as a whole. */
const cutMin = 13;

function bytesOfLoaded({ values, unknown }: Entity, stateLength: number): number {
  let bytes = 0;
  let rest = stateLength;
  let held = unknown !== "";
  for (const value of values) {
    bytes += bytesOfValue(value);
    const length = typeof value === "string" ? value.length : 0;
    if (value === undefined || isLarge(value)) continue;
    rest -= length;
    held ||= length >= cutMin;
  }
  return held ? bytes + rest : bytes;
}

/** One attribute of a state: where its value begins and ends, and where its last bracket stands. */
export interface StateMember {
  readonly attr: string;
  readonly isShort: boolean;
  readonly start: number;
  readonly end: number;
  readonly close: number;
}

const [shortHead, longHead] = ['":[', '":{"v":'];

/** The member that begins at a place; null: there is none of an attribute. No attribute's name begins with #. */
export function memberAt(state: string, at: number): StateMember | null {
  if (state.startsWith('"#', at)) return null;
  const quote = state.indexOf('"', at + 1);
  const isShort = state.startsWith(shortHead, quote);
  if (!isShort && !state.startsWith(longHead, quote)) return null;
  const start = quote + (isShort ? shortHead : longHead).length;
  const end = endOfValue(state, start);
  return { attr: state.slice(at + 1, quote), isShort, start, end, close: state.indexOf(isShort ? "]" : "}", end) };
}

/**
 * Reads what {@link writeState} wrote. JSON.parse would lose the text of the values (and int64 beyond 2^53), so each
 * attribute's text is kept and only parsed when a hook reads it.
 */
function readState(entity: Entity, { state, large }: StoredEntity): void {
  const marked = splitState(state);
  if (marked.large !== "") readLarge(entity, marked.large, large);
  let { at } = marked;
  while (at < state.length - 1) {
    if (state.startsWith('"#ttl":', at)) {
      entity.ttlTokens = JSON.parse(state.slice(at + 7, -1)) as Record<string, number>;
      return;
    }
    const member = memberAt(state, at);
    if (member === null) throw new Error(`the stored state of ${entity.spec.id} ${entity.eid} is damaged at ${at}`);
    const { attr, isShort, start, end, close } = member;
    const spec = entity.spec.attributes.get(attr);
    if (spec === undefined) {
      entity.unknown += `${entity.unknown === "" ? "" : ","}${state.slice(at, close + 1)}`;
    } else {
      entity.values[spec.index] = state.slice(start, end);
      const numbers = state.slice(end + 1, close);
      if (isShort) readShortNumbers(entity, spec, numbers);
      else readNumbers(entity, spec, `{${numbers}}`);
    }
    at = close + 2;
  }
}

function readNumbers(entity: Entity, spec: AttributeSpec, text: string): void {
  const { t1, t2, c, n } = JSON.parse(text) as { t1: number; t2: number; c: number; n: number };
  setNumbers(entity, spec, [t1, t2, c, n]);
}

function readShortNumbers(entity: Entity, spec: AttributeSpec, text: string): void {
  setNumbers(entity, spec, shortNumbers(text));
}

type Numbers = readonly [t1: number, t2: number, c: number, n: number];

function shortNumbers(text: string): Numbers {
  const [t1 = 0, n = 1, t2 = t1, c = 1] = text.split(",").map(Number);
  return [t1, t2, c, n];
}

function setNumbers({ numbers }: Entity, spec: AttributeSpec, [t1, t2, c, n]: Numbers): void {
  const first = numbersEach * spec.index;
  numbers[first] = t1;
  numbers[first + 1] = t2;
  numbers[first + 2] = c;
  numbers[first + 3] = n;
}

/** A whole record's state with all its attributes long, as clients get them; values as they stand. */
export function longState(state: string): string {
  const members: string[] = [];
  let at = 1;
  for (let member = memberAt(state, at); member !== null; member = memberAt(state, at)) {
    const { attr, isShort, start, end, close } = member;
    const [t1, t2, c, n] = isShort ? shortNumbers(state.slice(end + 1, close)) : [];
    const long = `"${attr}":{"v":${state.slice(start, end)},"t1":${t1},"t2":${t2},"c":${c},"n":${n}}`;
    members.push(isShort ? long : state.slice(at, close + 1));
    at = close + 2;
  }
  // What is of no attribute comes last.
  if (at < state.length - 1) members.push(state.slice(at, -1));
  return `{${members.join(",")}}`;
}

/** Reads what the mark names, `"attr":{…}` each; the values come beside the state. */
function readLarge(entity: Entity, marked: string, large: readonly LargeValue[] = []): void {
  const rows = createLargeRows();
  entity.large = rows;
  for (const [text, attr = "", numbers = ""] of marked.matchAll(/"([^"]+)":(\{[^}]*\})/g)) {
    const spec = entity.spec.attributes.get(attr);
    if (spec === undefined) {
      rows.unknown += `${rows.unknown === "" ? "" : ","}${text}`;
      continue;
    }
    const body = large.find((value) => value.attr === attr)?.body;
    if (typeof body !== "string")
      throw new Error(`a large value of ${entity.spec.id} ${entity.eid} is missing: ${attr}`);
    entity.values[spec.index] = body;
    rows.byIndex.set(spec.index, "current");
    readNumbers(entity, spec, numbers);
  }
}

/** Index of the first character after the JSON value that begins at `start` within a list or an object. */
export function endOfValue(text: string, start: number): number {
  let depth = 0;
  let quoted = false;
  for (let i = start; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (quoted) {
      if (c === 92) i++;
      else if (c === 34) quoted = false;
    } else if (c === 34) quoted = true;
    else if (c === 123 || c === 91) depth++;
    else if (c === 125 || c === 93) depth--;
    else if (c === 44 && depth === 0) return i;
  }
  return text.length;
}
