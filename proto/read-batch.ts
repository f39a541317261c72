import { fromBinary } from "@bufbuild/protobuf";
import { type Batch, type ClientMessage, ClientMessageSchema, type Datapoint } from "./gen/starling_pb.ts";

/**
 * The reader of a stream's messages. Nearly all of them are batches, and their datapoints are what a node reads most, so
 * a batch in the form that every encoder writes is read by hand, without the objects that only carry its values. Bytes in
 * any other form (unknown fields, a second batch, long tags, other wire types, anything malformed) are left to
 * protobuf-es, which alone decides what is accepted: what is read by hand, it accepts with the same content.
 * No text that comes out holds on to the message, as slices of one long text would.
 *
 * Source of the format: https://protobuf.dev/programming-guides/encoding/.
 */
export interface BatchReader {
  /** Throws what `fromBinary` throws for bytes that are no `ClientMessage`. */
  readonly read: (bytes: Uint8Array) => ReadMessage;
  /** The same, null for what would be left to protobuf-es. */
  readonly readPlain: (bytes: Uint8Array) => BatchMessage | null;
}

/** A `ClientMessage` whose batch may have been read by hand. */
export type ReadMessage = ClientMessage | BatchMessage;

/** A `ClientMessage` with a batch that was read by hand. */
export interface BatchMessage {
  readonly kind: { readonly case: "batch"; readonly value: PlainBatch };
}

/** A `Batch` whose values are plain. */
export interface PlainBatch extends Readonly<Pick<Batch, "atomic">> {
  /** Above 2^53 rounded. */
  readonly number: number;
  readonly predecessor: number | undefined;
  readonly datapoints: readonly PlainDatapoint[];
}

/** A `Datapoint` whose value is plain. */
export interface PlainDatapoint extends Readonly<Pick<Datapoint, "type" | "eid" | "attr">> {
  readonly v: PlainValue | undefined;
  readonly t1: number | undefined;
  readonly t2: number | undefined;
  readonly c: number | undefined;
  readonly src: string | undefined;
}

/** What a `Value` holds: an int64 beyond 2^53 is a bigint. */
export type PlainValue = string | number | bigint | boolean | JsonText;

/** JSON text that is yet to be parsed, as opposed to text. */
export class JsonText {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** A reader with a small memory of the texts that come again and again. */
export function createBatchReader(): BatchReader {
  const memory: Memory = {
    names: new Array(namesMax).fill(""),
    codes: Array.from({ length: shortTextMaxBytes + 1 }, (_, length) => new Array<number>(length).fill(0)),
  };
  const readPlain = (bytes: Uint8Array): BatchMessage | null => {
    try {
      return readMessage(new Cursor(bytes, memory));
    } catch {
      // Odd bytes, an end within a number, text that is not UTF-8: protobuf-es finds the same, or knows better.
      return null;
    }
  };
  return { readPlain, read: (bytes) => readPlain(bytes) ?? fromBinary(ClientMessageSchema, bytes) };
}

/** How many names a reader remembers; a power of two. */
const namesMax = 512;
const nameMaxBytes = 64;
/** Up to here text is built faster from its codes than by a call out of JavaScript. */
const shortTextMaxBytes = 24;
const two32 = 2 ** 32;
/** A byte-order mark is text like any other, as it is to protobuf-es. */
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Tags: field number times 8, and the wire type: 0 varint, 1 eight bytes, 2 length-delimited. */
const messageTags = { batch: 0x12 } as const;
const batchTags = { number: 0x08, predecessor: 0x10, atomic: 0x18, datapoints: 0x22 } as const;
const datapointTags = {
  type: 0x0a,
  eid: 0x12,
  attr: 0x1a,
  v: 0x22,
  t1: 0x29,
  t2: 0x31,
  c: 0x39,
  src: 0x42,
} as const;
const valueTags = { string: 0x0a, int64: 0x10, double: 0x19, bool: 0x20, json: 0x2a } as const;

/** What a reader keeps from one message to the next. */
interface Memory {
  readonly names: string[];
  /** For every length of a short text a list to gather its codes in. */
  readonly codes: readonly number[][];
}

/** Where the reading stands. Reads past the end give zeros; whoever knows the end checks it afterwards. */
class Cursor {
  at = 0;
  readonly bytes: Buffer;
  readonly view: DataView;
  readonly names: string[];
  readonly codes: readonly number[][];

  constructor({ buffer, byteOffset, byteLength }: Uint8Array, { names, codes }: Memory) {
    this.bytes = Buffer.from(buffer, byteOffset, byteLength);
    this.view = new DataView(buffer, byteOffset, byteLength);
    this.names = names;
    this.codes = codes;
  }
}

function readMessage(cursor: Cursor): BatchMessage {
  if (readByte(cursor) !== messageTags.batch) throw odd();
  const end = readEnd(cursor);
  if (end !== cursor.bytes.length) throw odd();
  return { kind: { case: "batch", value: readBatch(cursor, end) } };
}

function readBatch(cursor: Cursor, end: number): PlainBatch {
  let number = 0;
  let predecessor: number | undefined;
  let atomic = false;
  const datapoints: PlainDatapoint[] = [];
  while (cursor.at < end) {
    switch (readByte(cursor)) {
      case batchTags.datapoints:
        datapoints.push(readDatapoint(cursor, readEnd(cursor)));
        break;
      case batchTags.number:
        number = readUint64(cursor);
        break;
      case batchTags.predecessor:
        predecessor = readUint64(cursor);
        break;
      case batchTags.atomic:
        atomic = readBool(cursor);
        break;
      default:
        throw odd();
    }
  }
  if (cursor.at !== end) throw odd();
  return { number, predecessor, atomic, datapoints };
}

function readDatapoint(cursor: Cursor, end: number): PlainDatapoint {
  let type = "";
  let eid = "";
  let attr = "";
  let v: PlainValue | undefined;
  let t1: number | undefined;
  let t2: number | undefined;
  let c: number | undefined;
  let src: string | undefined;
  while (cursor.at < end) {
    switch (readByte(cursor)) {
      case datapointTags.type:
        type = readName(cursor);
        break;
      case datapointTags.eid:
        eid = readText(cursor);
        break;
      case datapointTags.attr:
        attr = readName(cursor);
        break;
      case datapointTags.v:
        // A second value is merged into the first: an empty one changes nothing.
        v = readValue(cursor, readEnd(cursor), v);
        break;
      case datapointTags.t1:
        t1 = readDouble(cursor);
        break;
      case datapointTags.t2:
        t2 = readDouble(cursor);
        break;
      case datapointTags.c:
        c = readDouble(cursor);
        break;
      case datapointTags.src:
        src = readName(cursor);
        break;
      default:
        throw odd();
    }
  }
  if (cursor.at !== end) throw odd();
  return { type, eid, attr, v, t1, t2, c, src };
}

function readValue(cursor: Cursor, end: number, before: PlainValue | undefined): PlainValue | undefined {
  let value = before;
  while (cursor.at < end) {
    switch (readByte(cursor)) {
      case valueTags.string:
        value = readText(cursor);
        break;
      case valueTags.int64:
        value = readInt64(cursor);
        break;
      case valueTags.double:
        value = readDouble(cursor);
        break;
      case valueTags.bool:
        value = readBool(cursor);
        break;
      case valueTags.json:
        value = new JsonText(readText(cursor));
        break;
      default:
        throw odd();
    }
  }
  if (cursor.at !== end) throw odd();
  return value;
}

function readByte(cursor: Cursor): number {
  return cursor.bytes[cursor.at++] ?? 0;
}

function readBool(cursor: Cursor): boolean {
  const byte = readByte(cursor);
  if (byte >= 0x80) throw odd();
  return byte !== 0;
}

function readDouble(cursor: Cursor): number {
  const value = cursor.view.getFloat64(cursor.at, true);
  cursor.at += 8;
  return value;
}

/** The end of what a length announces; within the message. */
function readEnd(cursor: Cursor): number {
  let length = readByte(cursor);
  if (length >= 0x80) length = readLongLength(cursor, length & 0x7f);
  const end = cursor.at + length;
  if (end > cursor.bytes.length) throw odd();
  return end;
}

function readLongLength(cursor: Cursor, low: number): number {
  let length = low;
  for (let shift = 7; shift < 28; shift += 7) {
    const byte = readByte(cursor);
    length |= (byte & 0x7f) << shift;
    if (byte < 0x80) return length;
  }
  throw odd();
}

function readUint64(cursor: Cursor): number {
  const value = readInt64(cursor);
  return value < 0 || typeof value === "bigint" ? Number(BigInt.asUintN(64, BigInt(value))) : value;
}

function readInt64(cursor: Cursor): number | bigint {
  let low = 0;
  for (let shift = 0; shift < 28; shift += 7) {
    const byte = readByte(cursor);
    low |= (byte & 0x7f) << shift;
    if (byte < 0x80) return low;
  }
  return readLongInt64(cursor, low);
}

/** An int64 of more than four bytes, whose lower 28 bits are read. */
function readLongInt64(cursor: Cursor, low: number): number | bigint {
  const middle = readByte(cursor);
  const lower = (low | ((middle & 0x0f) << 28)) >>> 0;
  let upper = (middle & 0x70) >> 4;
  let last = middle;
  for (let shift = 3; last >= 0x80; shift += 7) {
    if (shift > 31) throw odd();
    last = readByte(cursor);
    upper |= (last & 0x7f) << shift;
  }
  const value = upper * two32 + lower;
  return Number.isSafeInteger(value) ? value : (BigInt(upper) << 32n) | BigInt(lower);
}

/** Text that is likely to come again: a remembered text with these bytes, or a new one in the place of another. */
function readName(cursor: Cursor): string {
  const { bytes, names, at: start } = cursor;
  const end = readEnd(cursor);
  const from = cursor.at;
  const length = end - from;
  if (length > nameMaxBytes) {
    cursor.at = start;
    return readText(cursor);
  }
  let hash = length;
  for (let i = from; i < end; i++) hash = (Math.imul(hash, 31) + (bytes[i] ?? 0)) | 0;
  const place = (hash ^ (hash >>> 9)) & (namesMax - 1);
  const known = names[place] ?? "";
  if (known.length === length && isAsciiAt(bytes, from, known)) {
    cursor.at = end;
    return known;
  }
  cursor.at = start;
  const text = readText(cursor);
  // As many units as bytes: ASCII.
  if (text.length === length) names[place] = text;
  return text;
}

function isAsciiAt(bytes: Uint8Array, from: number, text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    if (text.charCodeAt(i) !== bytes[from + i]) return false;
  }
  return true;
}

function readText(cursor: Cursor): string {
  const end = readEnd(cursor);
  const { bytes, at: start } = cursor;
  cursor.at = end;
  const codes = cursor.codes[end - start];
  if (codes !== undefined) {
    let union = 0;
    for (let i = start; i < end; i++) {
      const byte = bytes[i] ?? 0;
      union |= byte;
      codes[i - start] = byte;
    }
    if (union < 0x80) return String.fromCharCode.apply(null, codes);
  }
  const text = bytes.toString("utf8", start, end);
  // The mark stands for bytes that are not UTF-8, unless the text itself holds it.
  return text.includes("\ufffd") ? utf8.decode(bytes.subarray(start, end)) : text;
}

function odd(): Error {
  return new Error("bytes for protobuf-es to judge");
}
