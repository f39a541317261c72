import { timeFromMs } from "../../modules/time-text.ts";
import type { AttributeAt, EntityRecord, RawEntry, RecordAt } from "../../proto/entities-client.ts";
import { formatCount, formatTime, type Output, shorten, toJson } from "./output.ts";

const valueWidth = 60;

/** A record for people: its attributes, one a line. */
export function printRecord(output: Output, record: EntityRecord): void {
  const title = output.paint("bold", `${record.type} ${shorten(record.eid, 200)}`);
  output.print(`${title}  ${output.paint("dim", `since ${formatTime(record.createdAt)}`)}`);
  if (record.at !== null) printAt(output, record.at);
  else {
    const rows = Object.entries(record.attributes).map(([attr, { v, t1, t2, n }]) => {
      return [attr, valueText(v), formatCount(n), validityText(t1, t2)];
    });
    output.table(["attribute", "value", "datapoints", "valid"], rows);
  }
  for (const [token, until] of Object.entries(record.ttlTokens))
    output.print(`lives until ${formatTime(until)} (${token})`);
  for (const [attr, entries] of Object.entries(record.history)) {
    output.print();
    output.print(output.paint("bold", `${attr}, newest first`));
    const lines = entries.map(({ v, t1, t2, c }) => [formatTime(t1), formatTime(t2), String(c), valueText(v)]);
    output.table(["from", "until", "confidence", "value"], lines);
  }
}

/** What was current at an instant, a value a line. */
function printAt(output: Output, { at, complete, attributes }: RecordAt): void {
  const rows = Object.entries(attributes).flatMap(([attr, known]) => {
    if (known.present === true) return known.values.map(({ v }) => [attr, valueText(v), "", "present value"]);
    const note = known.complete ? "" : " (incomplete)";
    if (known.values.length === 0) return [[attr, "", "", "not kept so long"]];
    return known.values.map(({ v, c, t1, t2 }) => {
      return [attr, valueText(v), String(Math.round(c * 1e4) / 1e4), `${validityText(t1, t2)}${note}`];
    });
  });
  output.print(`at ${formatTime(at)}`);
  output.table(["attribute", "value", "confidence", "valid"], rows);
  if (!complete) output.note("incomplete: retention has taken what could have been current then");
}

function validityText(t1: number, t2: number): string {
  return t1 === t2 ? formatTime(t1) : `${formatTime(t1)} … ${formatTime(t2)}`;
}

/** A value in at most one line of a table. */
export function valueText(v: unknown): string {
  return shorten(typeof v === "string" ? v : toJson(v), valueWidth);
}

/** A record for programs: times as text. */
export function recordJson(record: EntityRecord): object {
  const { type, eid, createdAt, attributes, history, ttlTokens, token, at } = record;
  if (at !== null)
    return { type, eid, ...at, at: timeFromMs(at.at), attributes: mapValues(at.attributes, attributeAtJson) };
  return {
    type,
    eid,
    createdAt: timeFromMs(createdAt),
    attributes: mapValues(attributes, validityJson),
    ...(Object.keys(history).length > 0 ? { history: mapValues(history, (list) => list.map(validityJson)) } : {}),
    ...(Object.keys(ttlTokens).length > 0 ? { ttlTokens: mapValues(ttlTokens, timeFromMs) } : {}),
    ...(token === null ? {} : { token }),
  };
}

/** A raw datapoint for programs, in the form that `send` reads. */
export function rawJson(entry: RawEntry): object {
  const { t1, t2, at, asOf: _, ...rest } = entry;
  return {
    ...rest,
    ...(t1 === null ? {} : { t1: timeFromMs(t1) }),
    ...(t2 === null ? {} : { t2: timeFromMs(t2) }),
    at: timeFromMs(at),
  };
}

function attributeAtJson(known: AttributeAt): object {
  if (known.present === true) return { ...known, values: known.values.map(({ v, t1 }) => ({ v, t1: timeFromMs(t1) })) };
  return { ...known, values: known.values.map(validityJson) };
}

function validityJson<T extends { readonly t1: number; readonly t2: number }>(value: T): object {
  return { ...value, t1: timeFromMs(value.t1), t2: timeFromMs(value.t2) };
}

function mapValues<T, R>(values: Readonly<Record<string, T>>, map: (value: T) => R): Record<string, R> {
  return Object.fromEntries(Object.entries(values).map(([key, value]) => [key, map(value)]));
}
