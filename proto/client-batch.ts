import { toBinary } from "@bufbuild/protobuf";
import { BatchSchema, type Datapoint, type Value } from "./gen/starling_pb.ts";
import { StarlingError } from "./starling-error.ts";

/** A datapoint as an application writes it. */
export interface ClientDatapoint {
  readonly type: string;
  readonly eid: string | number | bigint;
  readonly attr: string;
  /** Arrays, objects and null travel as JSON; a Date as ISO text. */
  readonly v: unknown;
  /** Unix milliseconds or a Date; none for plain attributes. */
  readonly t1?: number | Date | null | undefined;
  readonly t2?: number | Date | null | undefined;
  /** Confidence, 0 to 1; default 1. */
  readonly c?: number | null | undefined;
  readonly src?: string | null | undefined;
}

/** Datapoints as they travel: encoded once, so that a repeat has the very same bytes. */
export interface EncodedBatch {
  /** Of a `Batch`, all but its number and predecessor. */
  readonly content: Uint8Array;
  readonly count: number;
}

const batchMaxItems = 10_000;
/** 4 MiB less what number and predecessor may take. */
const contentMaxBytes = 4 * 1024 * 1024 - 32;

/** Encodes datapoints as one batch or, where the limits ask for it, as several. Raises TOO_LARGE, INVALID_VALUE. */
export function encodeBatches(datapoints: readonly ClientDatapoint[], atomic: boolean): EncodedBatch[] {
  if (datapoints.length > batchMaxItems) return splitAndEncode(datapoints, atomic, batchMaxItems);
  const message = { $typeName: "starling.v1.Batch" as const, number: 0n, atomic, datapoints: datapoints.map(toWire) };
  const content = toBinary(BatchSchema, message);
  if (content.length <= contentMaxBytes) return [{ content, count: datapoints.length }];
  return splitAndEncode(datapoints, atomic, Math.ceil(datapoints.length / 2));
}

/** A `ClientMessage` with a batch of this number; a predecessor of null is left out: "unknown". */
export function encodeBatchMessage(batch: EncodedBatch, number: number, predecessor: number | null): Buffer {
  const { content } = batch;
  const head = { $typeName: "starling.v1.Batch" as const, number: BigInt(number), atomic: false, datapoints: [] };
  const numbers = toBinary(BatchSchema, predecessor === null ? head : { ...head, predecessor: BigInt(predecessor) });
  const length = numbers.length + content.length;
  const message = Buffer.allocUnsafe(1 + varintLength(length) + length);
  // Field 2, length-delimited; then fields in any order, as protobuf allows.
  message[0] = 0x12;
  const start = writeVarint(message, 1, length);
  message.set(numbers, start);
  message.set(content, start + numbers.length);
  return message;
}

/** A JavaScript value as the wire says it. */
export function toWireValue(v: unknown): Value {
  return { $typeName: "starling.v1.Value", kind: kindOf(v) };
}

function splitAndEncode(datapoints: readonly ClientDatapoint[], atomic: boolean, size: number): EncodedBatch[] {
  const found = `${datapoints.length} datapoints`;
  if (atomic)
    throw new StarlingError("TOO_LARGE", `an atomic batch fits in 10000 datapoints and 4 MiB, found ${found}`);
  if (datapoints.length < 2) throw new StarlingError("TOO_LARGE", "one datapoint alone takes more than 4 MiB");
  const batches: EncodedBatch[] = [];
  for (let start = 0; start < datapoints.length; start += size) {
    batches.push(...encodeBatches(datapoints.slice(start, start + size), atomic));
  }
  return batches;
}

/** Written as a literal, not by `create`: that would cost more than the encoding. */
function toWire(datapoint: ClientDatapoint): Datapoint {
  const { type, eid, attr, v, t1, t2, c, src } = datapoint;
  const message: Datapoint = {
    $typeName: "starling.v1.Datapoint",
    type,
    eid: typeof eid === "string" ? eid : String(eid),
    attr,
    v: toWireValue(v),
  };
  if (t1 != null) message.t1 = Number(t1);
  if (t2 != null) message.t2 = Number(t2);
  if (c != null) message.c = c;
  if (src != null) message.src = src;
  return message;
}

function kindOf(v: unknown): Value["kind"] {
  switch (typeof v) {
    case "string":
      return { case: "string", value: v };
    case "number":
      if (Number.isSafeInteger(v) && !Object.is(v, -0)) return { case: "int64", value: String(v) };
      return { case: "double", value: v };
    case "boolean":
      return { case: "bool", value: v };
    case "bigint":
      if (BigInt.asIntN(64, v) === v) return { case: "int64", value: String(v) };
      throw new StarlingError("INVALID_VALUE", `${v} does not fit 64 bits`);
    case "object":
      if (v instanceof Date) return { case: "string", value: isoOf(v) };
      return { case: "json", value: jsonOf(v) };
    default:
      throw new StarlingError("INVALID_VALUE", `a value cannot be of type ${typeof v}`);
  }
}

function isoOf(date: Date): string {
  if (Number.isNaN(date.getTime())) throw new StarlingError("INVALID_VALUE", "an invalid Date");
  return date.toISOString();
}

/** JSON text, with bigints as whole numbers. */
function jsonOf(v: unknown): string {
  try {
    return JSON.stringify(v);
  } catch {
    // A bigint within, or a cycle, which throws below as well.
    return jsonWithBigints(v, 0);
  }
}

function jsonWithBigints(v: unknown, depth: number): string {
  if (depth > 100) throw new StarlingError("INVALID_VALUE", "a value is nested more than 100 deep");
  if (typeof v === "bigint") return String(v);
  if (Array.isArray(v)) return `[${v.map((item) => jsonWithBigints(item, depth + 1)).join(",")}]`;
  if (typeof v !== "object" || v === null || v instanceof Date) return JSON.stringify(v) ?? "null";
  const members = Object.entries(v).filter(([, item]) => item !== undefined);
  return `{${members.map(([key, item]) => `${JSON.stringify(key)}:${jsonWithBigints(item, depth + 1)}`).join(",")}}`;
}

function varintLength(value: number): number {
  let length = 1;
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 128)) length++;
  return length;
}

function writeVarint(target: Uint8Array, at: number, value: number): number {
  let end = at;
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 128)) target[end++] = (rest % 128) | 0x80;
  target[end++] = rest;
  return end;
}
