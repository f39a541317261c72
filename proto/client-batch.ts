import { create, toBinary } from "@bufbuild/protobuf";
import { jsonOf } from "./client-json.ts";
import { type Batch, BatchSchema, ClientMessageSchema, type Datapoint, type Value } from "./gen/starling_pb.ts";
import { StarlingError } from "./starling-error.ts";
import { unreachable } from "./unreachable.ts";
import { assertWellFormed } from "./well-formed.ts";
import { type BatchWriter, createBatchWriter } from "./write-batch.ts";

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
const numbersMaxBytes = 32;
/** 4 MiB less what number and predecessor may take. */
const contentMaxBytes = 4 * 1024 * 1024 - numbersMaxBytes;
/** Of a `ClientMessage` its field 2, of a `Batch` its fields 1 and 2. */
const messageTags = { batch: 0x12, number: 0x08, predecessor: 0x10 } as const;

/**
 * Encodes datapoints as one batch or, where the limits ask for it, as several. Whoever sends many gives a writer, whose
 * buffer serves them all. Raises TOO_LARGE, INVALID_VALUE.
 */
export function encodeBatches(
  datapoints: readonly ClientDatapoint[],
  atomic: boolean,
  writer: BatchWriter = createBatchWriter(),
): EncodedBatch[] {
  const { length } = datapoints;
  const content = length > batchMaxItems ? null : encodeContent(datapoints, atomic, writer);
  if (content !== null) return [{ content, count: length }];
  if (atomic) {
    const found = `${length} datapoints`;
    throw new StarlingError("TOO_LARGE", `an atomic batch fits in 10000 datapoints and 4 MiB, found ${found}`);
  }
  if (length < 2) throw new StarlingError("TOO_LARGE", "one datapoint alone takes more than 4 MiB");
  const size = length > batchMaxItems ? batchMaxItems : Math.ceil(length / 2);
  const batches: EncodedBatch[] = [];
  for (let start = 0; start < length; start += size) {
    batches.push(...encodeBatches(datapoints.slice(start, start + size), atomic, writer));
  }
  return batches;
}

/** A `ClientMessage` with a batch of this number; a predecessor of null is left out: "unknown". */
export function encodeBatchMessage(batch: EncodedBatch, number: number, predecessor: number | null): Buffer {
  const { content } = batch;
  const numbers = encodeNumbers(number, predecessor);
  const length = numbers.length + content.length;
  const message = Buffer.allocUnsafe(1 + varintLength(length) + length);
  message[0] = messageTags.batch;
  // The batch's fields in any order, as protobuf allows.
  const start = writeVarint(message, 1, length);
  message.set(numbers, start);
  message.set(content, start + numbers.length);
  return message;
}

/** A `ClientMessage` that asks when everything up to a number, which is durable, is processed. */
export function encodeSettleMessage(through: number): Buffer {
  const kind = { case: "settle", value: { through: BigInt(through) } } as const;
  return Buffer.from(toBinary(ClientMessageSchema, create(ClientMessageSchema, { kind })));
}

/** A JavaScript value as the wire says it. */
export function toWireValue(v: unknown): Value {
  return { $typeName: "starling.v1.Value", kind: kindOf(v) };
}

/** Null: more than a batch may hold. */
function encodeContent(datapoints: readonly ClientDatapoint[], atomic: boolean, writer: BatchWriter) {
  const written = writer.write(datapoints, atomic, contentMaxBytes);
  switch (written.kind) {
    case "content":
      return written.content;
    case "too-large":
      return null;
    case "odd": {
      const message = {
        $typeName: "starling.v1.Batch" as const,
        number: 0n,
        atomic,
        datapoints: datapoints.map(toWire),
      };
      const content = toBinary(BatchSchema, message);
      return content.length <= contentMaxBytes ? content : null;
    }
    default:
      return unreachable(written);
  }
}

/** A `Batch` without its content. */
function encodeNumbers(number: number, predecessor: number | null): Uint8Array {
  if (!isNumber(number) || (predecessor !== null && !isNumber(predecessor))) {
    const batch: Batch = { $typeName: "starling.v1.Batch", number: BigInt(number), atomic: false, datapoints: [] };
    if (predecessor !== null) batch.predecessor = BigInt(predecessor);
    return toBinary(BatchSchema, batch);
  }
  const bytes = new Uint8Array(numbersMaxBytes);
  bytes[0] = messageTags.number;
  const end = writeVarint(bytes, 1, number);
  if (predecessor === null) return bytes.subarray(0, end);
  bytes[end] = messageTags.predecessor;
  return bytes.subarray(0, writeVarint(bytes, end + 1, predecessor));
}

/** Whether a batch can have this number: protobuf-es knows what to say about others, and about zero. */
function isNumber(number: number): boolean {
  return Number.isSafeInteger(number) && number > 0;
}

/** A datapoint for protobuf-es: a literal, as `create` would cost more than the encoding. */
function toWire(datapoint: ClientDatapoint): Datapoint {
  assertWellFormed(datapoint);
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

/** In a varint; of a number, as bits would not hold it. */
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
