import { timeFromMs } from "../../modules/time-text.ts";
import type { EntityRecord, RawEntry } from "../../proto/entities-client.ts";
import { formatCount, formatTime, type Output, shorten, toJson } from "./output.ts";

const valueWidth = 60;

/** A record for people: its attributes, one a line. */
export function printRecord(output: Output, record: EntityRecord): void {
  const title = output.paint("bold", `${record.type} ${shorten(record.eid, 200)}`);
  output.print(`${title}  ${output.paint("dim", `since ${formatTime(record.createdAt)}`)}`);
  const rows = Object.entries(record.attributes).map(([attr, { v, t1, t2, n }]) => {
    const validity = t1 === t2 ? formatTime(t1) : `${formatTime(t1)} … ${formatTime(t2)}`;
    return [attr, valueText(v), formatCount(n), validity];
  });
  output.table(["attribute", "value", "datapoints", "valid"], rows);
  for (const [token, until] of Object.entries(record.ttlTokens))
    output.print(`lives until ${formatTime(until)} (${token})`);
  for (const [attr, entries] of Object.entries(record.history)) {
    output.print();
    output.print(output.paint("bold", `${attr}, newest first`));
    const lines = entries.map(({ v, t1, t2, c }) => [formatTime(t1), formatTime(t2), String(c), valueText(v)]);
    output.table(["from", "until", "confidence", "value"], lines);
  }
}

/** A value in at most one line of a table. */
export function valueText(v: unknown): string {
  return shorten(typeof v === "string" ? v : toJson(v), valueWidth);
}

/** A record for programs: times as text. */
export function recordJson(record: EntityRecord): object {
  const { type, eid, createdAt, attributes, history, ttlTokens, token } = record;
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
  const { t1, t2, at, ...rest } = entry;
  return {
    ...rest,
    ...(t1 === null ? {} : { t1: timeFromMs(t1) }),
    ...(t2 === null ? {} : { t2: timeFromMs(t2) }),
    at: timeFromMs(at),
  };
}

function validityJson<T extends { readonly t1: number; readonly t2: number }>(value: T): object {
  return { ...value, t1: timeFromMs(value.t1), t2: timeFromMs(value.t2) };
}

function mapValues<T, R>(values: Readonly<Record<string, T>>, map: (value: T) => R): Record<string, R> {
  return Object.fromEntries(Object.entries(values).map(([key, value]) => [key, map(value)]));
}
