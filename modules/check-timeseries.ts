import { StarlingError } from "../proto/starling-error.ts";
import { checkItems } from "./check-items.ts";
import { checkT1, checkT2, timeError } from "./check-validity.ts";
import type { DataType } from "./data-type.ts";
import type { LooseDatapoint, Value } from "./datapoint.ts";
import { isPlainObject, setKey } from "./json-value.ts";
import type { AttributeSpec, EntitySpec, TimeseriesKind, TimeseriesParams } from "./model.ts";
import { valueError } from "./named-error.ts";
import { showFound } from "./show-found.ts";
import { checkTime } from "./time-text.ts";

/** A checked chunk of a timeseries. */
export interface TimeseriesChunk {
  readonly v: Value;
  readonly json: string;
  readonly t1: number;
  readonly t2: number;
}

/**
 * Checks a chunk (reference 3.3): every configured series present, all of one length, times in order and within `t1` and
 * `t2`; a `t2` that was left out is derived. Unknown series are dropped. Throws INVALID_VALUE, INVALID_TIME, TOO_LARGE.
 */
export function checkTimeseries(
  entity: EntitySpec,
  spec: AttributeSpec,
  params: TimeseriesParams,
  loose: Pick<LooseDatapoint, "v" | "t1" | "t2">,
): TimeseriesChunk {
  const t1 = checkT1(entity, spec, loose.t1);
  const given = checkT2(entity, spec, loose.t2, t1);
  const columns = columnsOf(params);
  const lists = checkLists(entity, spec, columns, loose.v);
  const length = checkLengths(entity, spec, lists);
  const t2 = checkSpan(entity, spec, params, { t1, given, length, lists });
  const v: Record<string, Value> = {};
  for (const { column, values } of lists) setKey(v, column.name, values);
  return { v, json: writeLists(lists, length), t1, t2 };
}

/** A series as configured. */
interface Column {
  readonly name: string;
  /** What stands before its values in a chunk's JSON text. */
  readonly head: string;
  readonly type: DataType;
  /** The chunk's order and span are decided by this series. */
  readonly isTime: boolean;
}

/** A checked series. */
interface List {
  readonly column: Column;
  readonly values: readonly Value[];
  /** Unix ms of a series of times, else empty. */
  readonly times: readonly number[];
}

interface Span {
  readonly t1: number;
  readonly given: number | null;
  readonly length: number;
  readonly lists: readonly List[];
}

const timeNames: Readonly<Record<TimeseriesKind, readonly string[]>> = {
  regular: [],
  irregular: ["time"],
  irregular_intervals: ["time_first", "time_last"],
};

const noTimes: readonly number[] = [];

/** Derived from what never changes, so that the names are sorted once and not for every chunk. */
const columnsByParams = new WeakMap<TimeseriesParams, readonly Column[]>();

/** The series in the order of their names. */
function columnsOf(params: TimeseriesParams): readonly Column[] {
  const known = columnsByParams.get(params);
  if (known !== undefined) return known;
  const times = timeNames[params.kind];
  const series = [...params.series].sort(([a], [b]) => (a < b ? -1 : 1));
  const columns = series.map(([name, type], index) => {
    return { name, head: `${index === 0 ? "{" : ","}"${name}":[`, type, isTime: times.includes(name) };
  });
  columnsByParams.set(params, columns);
  return columns;
}

function checkLists(entity: EntitySpec, spec: AttributeSpec, columns: readonly Column[], v: unknown): List[] {
  if (!isPlainObject(v)) {
    const names = columns.map(({ name }) => name).join(", ");
    throw badValue(entity, spec, `expected an object with the series ${names}, found ${showFound(v)}`);
  }
  const lists = new Array<List>(columns.length);
  for (const [index, column] of columns.entries()) {
    const { name } = column;
    const given = Object.hasOwn(v, name) ? v[name] : undefined;
    if (!Array.isArray(given)) {
      throw badValue(entity, spec, `expected a list as series ${name}, found ${showFound(given)}`);
    }
    try {
      lists[index] = column.isTime
        ? checkTimes(column, given)
        : { column, values: checkItems(column.type, given), times: noTimes };
    } catch (error) {
      throw valueError(`${entity.id}.${spec.id}: series ${name}`, error);
    }
  }
  return lists;
}

/** As their type checks them, but each is read only once, for its text and for its place in time. */
function checkTimes(column: Column, given: readonly unknown[]): List {
  const values = new Array<string>(given.length);
  const times = new Array<number>(given.length);
  let i = 0;
  try {
    for (; i < given.length; i++) {
      const { text, ms } = checkTime(given[i]);
      values[i] = text;
      times[i] = ms;
    }
  } catch (error) {
    throw valueError(`position ${i}`, error);
  }
  return { column, values, times };
}

function checkLengths(entity: EntitySpec, spec: AttributeSpec, lists: readonly List[]): number {
  const length = lists[0]?.values.length ?? 0;
  for (const { values } of lists) {
    if (values.length === length) continue;
    const each = lists.map((list) => `${list.column.name} ${list.values.length}`).join(", ");
    throw badValue(entity, spec, `the series must all have the same length: found ${each}`);
  }
  return length;
}

/** The chunk's `t2` after the rules of its kind. */
function checkSpan(entity: EntitySpec, spec: AttributeSpec, params: TimeseriesParams, span: Span): number {
  if (params.kind === "regular") return checkRegular(entity, spec, params, span);
  if (span.length === 0) throw badValue(entity, spec, `${params.kind} series need at least one value, found none`);
  const firsts = timesOf(span, params.kind === "irregular" ? "time" : "time_first");
  const lasts = params.kind === "irregular" ? firsts : timesOf(span, "time_last");
  const first = firsts[0] ?? Number.NaN;
  const last = lasts.at(-1) ?? Number.NaN;
  if (params.kind === "irregular") checkAscending(entity, spec, firsts);
  else checkIntervals(entity, spec, firsts, lasts);
  const t2 = span.given ?? Math.max(last, span.t1);
  if (span.t1 > first) {
    throw timeError(entity, spec, `t1 is after the first time of the series: found t1 ${span.t1} and ${first}`);
  }
  if (t2 < last) throw timeError(entity, spec, `t2 is before the last time of the series: found t2 ${t2} and ${last}`);
  return t2;
}

function checkRegular(entity: EntitySpec, spec: AttributeSpec, params: TimeseriesParams, span: Span): number {
  const stepMs = params.timeStepMs ?? 0;
  const end = Math.round((span.t1 + span.length * stepMs) * 1000) / 1000;
  if (span.given === null || span.given === end) return end;
  throw timeError(
    entity,
    spec,
    `t2 must be t1 + ${span.length} · ${stepMs} ms, which is ${end}: found t1 ${span.t1} and t2 ${span.given}`,
  );
}

function checkAscending(entity: EntitySpec, spec: AttributeSpec, times: readonly number[]): void {
  const at = times.findIndex((time, index) => index > 0 && time < (times[index - 1] ?? time));
  if (at !== -1) throw badValue(entity, spec, `time must not go backwards: found it at position ${at}`);
}

function checkIntervals(
  entity: EntitySpec,
  spec: AttributeSpec,
  firsts: readonly number[],
  lasts: readonly number[],
): void {
  const at = firsts.findIndex((first, index) => first > (lasts[index] ?? first));
  if (at !== -1) throw badValue(entity, spec, `time_first must not be after time_last: found it at position ${at}`);
}

function timesOf({ lists }: Span, name: string): readonly number[] {
  for (const list of lists) if (list.column.name === name) return list.times;
  return [];
}

/** In one piece: text that was put together bit by bit would hold on to all of its bits. */
function writeLists(lists: readonly List[], length: number): string {
  const bits = new Array<string>(lists.length * (2 * length + 2) + 1);
  let at = 0;
  for (const { column, values } of lists) {
    const quote = column.isTime && length > 0 ? '"' : "";
    const joint = column.isTime ? '","' : ",";
    bits[at++] = column.head;
    for (let i = 0; i < length; i++) {
      bits[at++] = i === 0 ? quote : joint;
      bits[at++] = column.isTime ? (values[i] as string) : column.type.write(values[i] as Value);
    }
    bits[at++] = `${quote}]`;
  }
  bits[at] = lists.length === 0 ? "{}" : "}";
  return bits.join("");
}

function badValue(entity: EntitySpec, spec: AttributeSpec, rule: string): StarlingError {
  return new StarlingError("INVALID_VALUE", `${entity.id}.${spec.id}: ${rule}`);
}
