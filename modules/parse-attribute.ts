import type { ConfigSection } from "./config-section.ts";
import { type DataType, type DataTypeContext, parseDataType } from "./data-type.ts";
import type { AttributeKind, AttributeSpec, HistoryParams, TimeseriesKind, TimeseriesParams } from "./model.ts";

/** What an attribute or entity may be called. */
export const idPattern = /^[A-Za-z_][A-Za-z0-9_-]*$/;
export const idForm = "letters, digits, _ and -, not beginning with a digit or -";

const kinds: readonly AttributeKind[] = ["plain", "observations", "timeseries"];
const seriesKinds: readonly TimeseriesKind[] = ["regular", "irregular", "irregular_intervals"];
const seriesTypes = ["int", "int64", "float", "time"] as const;
const maxItemsMax = 2 ** 31 - 1;
const timeType = parseDataType("time");
const implicitSeries: Readonly<Record<TimeseriesKind, readonly string[]>> = {
  regular: [],
  irregular: ["time"],
  irregular_intervals: ["time_first", "time_last"],
};

/** Where an attribute stands in its entity type. */
export interface AttributePlace {
  readonly id: string;
  readonly index: number;
  readonly context: DataTypeContext;
}

/** Parses one attribute (reference 1.2), reporting every problem; null if it cannot be used at all. */
export function parseAttribute(section: ConfigSection, place: AttributePlace): AttributeSpec | null {
  if (!idPattern.test(place.id)) section.report(null, "not a name for an attribute", idForm, place.id);
  section.raw("id");
  section.raw("t");
  const kind = section.choice("type", kinds);
  const common = {
    id: place.id,
    index: place.index,
    name: section.text("name"),
    description: section.text("description", ""),
    ttlMs: section.duration("ttl", null) ?? 0,
    readOnly: false,
  };
  if (kind === null) {
    // Without its kind nothing more can be said about an attribute's keys.
    if (section.raw("data_type") !== undefined) readDataType(section, "data_type", place.context);
    return null;
  }
  const own = kind === "timeseries" ? parseTimeseries(section) : parseValued(section, kind, place.context);
  section.finish();
  return own && { ...common, ...own, kind };
}

/** A data type at a key, problems reported; null if it is none. */
export function readDataType(section: ConfigSection, key: string, context: DataTypeContext): DataType | null {
  const value = section.raw(key);
  if (typeof value !== "string") {
    section.report(key, value === undefined ? "is missing" : "must be text", "a data type such as int", value);
    return null;
  }
  try {
    return parseDataType(value, context);
  } catch (error) {
    const [, allowed] = (error as Error).message.split("; allowed: ");
    section.report(key, "not a data type", allowed ?? (error as Error).message, value);
    return null;
  }
}

type OwnParts = Omit<AttributeSpec, "id" | "index" | "name" | "description" | "ttlMs" | "readOnly" | "kind">;

function parseValued(
  section: ConfigSection,
  kind: "plain" | "observations",
  context: DataTypeContext,
): OwnParts | null {
  const dataType = readDataType(section, "data_type", context);
  const observed = kind === "observations";
  const parts = {
    editable: section.bool("editable", false),
    confidence: observed && section.bool("confidence", false),
    multiValue: observed && section.bool("multi_value", false),
    historyForceGraph: observed && section.bool("history_force_graph", false),
    history: observed ? parseHistory(section.section("history_params")) : null,
    timeseries: null,
  };
  return dataType && { ...parts, dataType, relation: dataType.link };
}

function parseHistory(section: ConfigSection | null): HistoryParams {
  if (section === null) {
    return {
      maxAgeMs: null,
      maxItems: null,
      expireTimeMs: null,
      preValidityMs: 0,
      postValidityMs: 0,
      aggregate: true,
    };
  }
  const unbounded = section.raw("expire_time") === "inf";
  const history = {
    maxAgeMs: section.duration("max_age", null),
    maxItems:
      section.raw("max_items") === null ? null : section.int("max_items", 0, { min: 1, max: maxItemsMax }) || null,
    expireTimeMs: unbounded ? Number.POSITIVE_INFINITY : section.duration("expire_time", null),
    preValidityMs: section.duration("pre_validity", null) ?? 0,
    postValidityMs: section.duration("post_validity", null) ?? 0,
    aggregate: section.bool("aggregate", true),
  };
  section.finish();
  return history;
}

function parseTimeseries(section: ConfigSection): OwnParts | null {
  const kind = section.choice("timeseries_type", seriesKinds);
  const series = parseSeries(section.section("series"));
  const params = section.section("timeseries_params");
  const maxAgeMs = params?.duration("max_age", null) ?? null;
  const timeStepMs = params?.duration("time_step", null) ?? null;
  params?.finish();
  if (kind === null) return null;
  if (kind === "regular" && !timeStepMs) {
    (params ?? section).report("time_step", "a regular timeseries needs a time step above 0", "e.g. 10m", timeStepMs);
  }
  for (const name of implicitSeries[kind]) series.set(name, timeType);
  if (series.size === 0) section.report("series", "a regular timeseries needs a series", "name: {data_type: int}", {});
  return {
    dataType: null,
    editable: false,
    relation: null,
    confidence: false,
    multiValue: false,
    historyForceGraph: false,
    history: null,
    timeseries: timeseriesParams(kind, maxAgeMs, timeStepMs, series),
  };
}

function timeseriesParams(
  kind: TimeseriesKind,
  maxAgeMs: number | null,
  timeStepMs: number | null,
  series: ReadonlyMap<string, DataType>,
): TimeseriesParams {
  return { kind, maxAgeMs, timeStepMs: kind === "regular" ? timeStepMs : null, series };
}

function parseSeries(section: ConfigSection | null): Map<string, DataType> {
  const series = new Map<string, DataType>();
  for (const [name, one] of section?.sections() ?? []) {
    if (!idPattern.test(name)) one.report(null, "not a name for a series", idForm, name);
    const type = one.choice("data_type", seriesTypes);
    one.finish();
    if (type !== null) series.set(name, parseDataType(type));
  }
  return series;
}
