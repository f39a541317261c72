import { StarlingError } from "../proto/starling-error.ts";
import { checkT1, checkT2, timeError } from "./check-validity.ts";
import type { LooseDatapoint, Value } from "./datapoint.ts";
import { isPlainObject } from "./json-value.ts";
import type { AttributeSpec, EntitySpec, TimeseriesParams } from "./model.ts";
import { valueError } from "./named-error.ts";
import { showFound } from "./show-found.ts";
import { canonicalTimeMs } from "./time-text.ts";

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
  const series = checkSeries(entity, spec, params, loose.v);
  const lengths = new Set([...series.values()].map((values) => values.length));
  const [length = 0] = lengths;
  if (lengths.size > 1) {
    const each = [...series].map(([name, values]) => `${name} ${values.length}`).join(", ");
    throw badValue(entity, spec, `the series have different lengths: found ${each}`);
  }
  const t2 = checkSpan(entity, spec, params, { t1, given, length, series });
  return { v: Object.fromEntries(series), json: writeSeries(params, series), t1, t2 };
}

type Series = ReadonlyMap<string, readonly Value[]>;

interface Span {
  readonly t1: number;
  readonly given: number | null;
  readonly length: number;
  readonly series: Series;
}

function checkSeries(entity: EntitySpec, spec: AttributeSpec, params: TimeseriesParams, v: unknown): Series {
  const names = [...params.series.keys()].sort();
  if (!isPlainObject(v)) {
    throw badValue(entity, spec, `expected an object with the series ${names.join(", ")}, found ${showFound(v)}`);
  }
  const series = new Map<string, readonly Value[]>();
  for (const name of names) {
    const type = params.series.get(name);
    const values = Object.hasOwn(v, name) ? v[name] : undefined;
    if (type === undefined || !Array.isArray(values)) {
      throw badValue(entity, spec, `expected a list as series ${name}, found ${showFound(values)}`);
    }
    try {
      series.set(
        name,
        Array.from(values as unknown[], (value) => type.check(value)),
      );
    } catch (error) {
      throw valueError(`${entity.id}.${spec.id}: series ${name}`, error);
    }
  }
  return series;
}

/** The chunk's `t2` after the rules of its kind. */
function checkSpan(entity: EntitySpec, spec: AttributeSpec, params: TimeseriesParams, span: Span): number {
  if (params.kind === "regular") return checkRegular(entity, spec, params, span);
  if (span.length === 0) throw badValue(entity, spec, `${params.kind} series need at least one value, found none`);
  const firsts = timesOf(span.series, params.kind === "irregular" ? "time" : "time_first");
  const lasts = params.kind === "irregular" ? firsts : timesOf(span.series, "time_last");
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

function timesOf(series: Series, name: string): number[] {
  return (series.get(name) ?? []).map((time) => canonicalTimeMs(String(time)));
}

function writeSeries(params: TimeseriesParams, series: Series): string {
  const parts = [...series].map(([name, values]) => {
    const type = params.series.get(name);
    return `"${name}":[${type ? values.map((value) => type.write(value)).join(",") : ""}]`;
  });
  return `{${parts.join(",")}}`;
}

function badValue(entity: EntitySpec, spec: AttributeSpec, rule: string): StarlingError {
  return new StarlingError("INVALID_VALUE", `${entity.id}.${spec.id}: ${rule}`);
}
