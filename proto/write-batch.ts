import type { ClientDatapoint } from "./client-batch.ts";
import { jsonOf } from "./client-json.ts";

/**
 * The writer of a sender's batches: the bytes that protobuf-es would write, made straight from an application's
 * datapoints, without a message object for each of them. Datapoints that it cannot write (a name that is no text, a value
 * that the wire does not know, half of a surrogate pair) are left to protobuf-es, which alone decides how they travel and what is said about them.
 *
 * It writes from the last byte to the first: what stands within a length is then written before the length, which takes
 * as few bytes as it can, and nothing is ever moved.
 *
 * Source of the format: https://protobuf.dev/programming-guides/encoding/.
 */
export interface BatchWriter {
  /** The content of a `Batch`, all but its number and predecessor, in bytes of its own. */
  readonly write: (datapoints: readonly ClientDatapoint[], atomic: boolean, maxBytes: number) => Written;
}

/** Bytes; or why there are none: more than were allowed, or datapoints for protobuf-es to judge. */
export type Written =
  | { readonly kind: "content"; readonly content: Uint8Array }
  | { readonly kind: "too-large" }
  | { readonly kind: "odd" };

/** A writer with one buffer for all its batches. */
export function createBatchWriter(): BatchWriter {
  let spare: Tail | null = null;
  return {
    write: (datapoints, atomic, maxBytes) => {
      // Taken away meanwhile: a value's `toJSON` might write a batch of its own.
      const tail = spare ?? new Tail();
      spare = null;
      tail.at = tail.bytes.length;
      try {
        const kind = writeDatapoints(tail, datapoints, maxBytes);
        if (kind !== "content") return { kind };
        if (atomic) writeByteField(tail, batchTags.atomic, 1);
        if (tail.length > maxBytes) return { kind: "too-large" };
        return { kind, content: new Uint8Array(tail.bytes.subarray(tail.at)) };
      } catch {
        // A value that is no JSON, or one that throws when it is asked: protobuf-es meets the same, from the first on.
        return { kind: "odd" };
      } finally {
        if (tail.bytes.length <= keptMaxBytes) spare = tail;
      }
    },
  };
}

const startBytes = 64 * 1024;
/** A larger buffer is not kept for the next batch. */
const keptMaxBytes = 8 * 1024 * 1024;
/** Up to here the length is one byte, and a loop over the characters is faster than a call out of JavaScript. */
const shortTextMaxLength = 127;
/** A tag and a length. */
const headMaxBytes = 6;
const two32 = 2 ** 32;
/** What the first byte of a UTF-8 character says, by how many follow it. */
const leadMarks = [0, 0xc0, 0xe0, 0xf0] as const;

/** Tags: field number times 8, and the wire type: 0 varint, 1 eight bytes, 2 length-delimited. */
const batchTags = { atomic: 0x18, datapoints: 0x22 } as const;
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

/** A buffer that is filled from its end: everything from `at` on is written. */
class Tail {
  bytes: Buffer = Buffer.allocUnsafeSlow(startBytes);
  view: DataView = viewOf(this.bytes);
  at: number = startBytes;

  get length(): number {
    return this.bytes.length - this.at;
  }

  /** Room for so many more bytes. */
  makeRoom(bytes: number): void {
    if (this.at < bytes) this.#grow(this.length + bytes);
  }

  #grow(lengthMin: number): void {
    const written = this.bytes.subarray(this.at);
    this.bytes = Buffer.allocUnsafeSlow(2 ** Math.ceil(Math.log2(lengthMin)));
    this.view = viewOf(this.bytes);
    this.at = this.bytes.length - written.length;
    this.bytes.set(written, this.at);
  }
}

function viewOf({ buffer, byteOffset, byteLength }: Buffer): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}

/** Ends early with more than `maxBytes`. */
function writeDatapoints(tail: Tail, datapoints: readonly ClientDatapoint[], maxBytes: number): Written["kind"] {
  for (let i = datapoints.length - 1; i >= 0; i--) {
    const datapoint = datapoints[i];
    if (datapoint == null || !writeDatapoint(tail, datapoint)) return "odd";
    if (tail.length > maxBytes) return "too-large";
  }
  return "content";
}

/** False: not a datapoint that can be written here. */
function writeDatapoint(tail: Tail, datapoint: ClientDatapoint): boolean {
  const { type, eid, attr, v, t1, t2, c, src } = datapoint;
  if (typeof type !== "string" || typeof attr !== "string") return false;
  const before = tail.length;
  if (src != null) {
    if (typeof src !== "string") return false;
    writeText(tail, datapointTags.src, src);
  }
  if (c != null) {
    if (typeof c !== "number") return false;
    writeDouble(tail, datapointTags.c, c);
  }
  if (t2 != null) writeDouble(tail, datapointTags.t2, typeof t2 === "number" ? t2 : Number(t2));
  if (t1 != null) writeDouble(tail, datapointTags.t1, typeof t1 === "number" ? t1 : Number(t1));
  const beforeValue = tail.length;
  if (!writeValue(tail, v)) return false;
  writeHead(tail, datapointTags.v, tail.length - beforeValue);
  // Empty text is what a field holds that is not there.
  const id = typeof eid === "string" ? eid : String(eid);
  if (attr !== "") writeText(tail, datapointTags.attr, attr);
  if (id !== "") writeText(tail, datapointTags.eid, id);
  if (type !== "") writeText(tail, datapointTags.type, type);
  writeHead(tail, batchTags.datapoints, tail.length - before);
  return true;
}

/** Chooses the kind as `toWireValue` does. False: not a value that can be written here. */
function writeValue(tail: Tail, v: unknown): boolean {
  switch (typeof v) {
    case "string":
      writeText(tail, valueTags.string, v);
      return true;
    case "number":
      if (Number.isSafeInteger(v) && !Object.is(v, -0)) writeInt64(tail, v | 0, Math.floor(v / two32));
      else writeDouble(tail, valueTags.double, v);
      return true;
    case "boolean":
      writeByteField(tail, valueTags.bool, v ? 1 : 0);
      return true;
    case "bigint":
      if (BigInt.asIntN(64, v) !== v) return false;
      writeInt64(tail, Number(BigInt.asIntN(32, v)), Number(v >> 32n));
      return true;
    case "object":
      if (v instanceof Date) {
        // Throws for an invalid one.
        writeText(tail, valueTags.string, v.toISOString());
        return true;
      }
      return writeJson(tail, v);
    default:
      return false;
  }
}

function writeJson(tail: Tail, v: object | null): boolean {
  const text: unknown = jsonOf(v);
  // None of an object whose `toJSON` gives none.
  if (typeof text !== "string") return false;
  writeText(tail, valueTags.json, text);
  return true;
}

function writeText(tail: Tail, tag: number, text: string): void {
  const { length } = text;
  if (length > shortTextMaxLength) return writeLongText(tail, tag, text);
  tail.makeRoom(length + headMaxBytes);
  const { bytes } = tail;
  const start = tail.at - length;
  let union = 0;
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i);
    union |= code;
    bytes[start + i] = code;
  }
  // What is not ASCII is written again, over the same bytes.
  if (union >= 0x80) return writeWideText(tail, tag, text);
  bytes[start - 1] = length;
  bytes[start - 2] = tag;
  tail.at = start - 2;
}

/** Short text beyond ASCII, from its last character on. */
function writeWideText(tail: Tail, tag: number, text: string): void {
  tail.makeRoom(3 * text.length);
  const { bytes, at: end } = tail;
  let at = end;
  for (let i = text.length - 1; i >= 0; i--) {
    let code = text.charCodeAt(i);
    if (code >= 0xd800 && code < 0xe000) {
      code = text.codePointAt(i - 1) ?? 0;
      if (code < 0x10000) throw lone();
      i -= 1;
    }
    const more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    for (let k = 0; k < more; k++, code >>= 6) bytes[--at] = 0x80 | (code & 0x3f);
    bytes[--at] = (leadMarks[more] ?? 0) | code;
  }
  tail.at = at;
  writeHead(tail, tag, end - at);
}

function writeLongText(tail: Tail, tag: number, text: string): void {
  if (!text.isWellFormed()) throw lone();
  const length = Buffer.byteLength(text);
  tail.makeRoom(length);
  tail.at -= length;
  tail.bytes.write(text, tail.at, length, "utf8");
  writeHead(tail, tag, length);
}

/** Half of a pair, which UTF-8 does not have: refused with the words of `assertWellFormed`. */
function lone(): Error {
  return new Error("a lone surrogate");
}

function writeDouble(tail: Tail, tag: number, value: number): void {
  tail.makeRoom(9);
  const at = tail.at - 9;
  tail.bytes[at] = tag;
  tail.view.setFloat64(at + 1, value, true);
  tail.at = at;
}

/** Two's complement in two halves of 32 bits. */
function writeInt64(tail: Tail, lower: number, upper: number): void {
  tail.makeRoom(11);
  const { bytes } = tail;
  let at = tail.at - (upper === 0 ? varintLength(lower) : Math.floor((70 - Math.clz32(upper)) / 7));
  tail.at = at - 1;
  bytes[tail.at] = valueTags.int64;
  let low = lower >>> 0;
  let high = upper >>> 0;
  while (high !== 0 || low >= 0x80) {
    bytes[at++] = (low & 0x7f) | 0x80;
    low = ((low >>> 7) | (high << 25)) >>> 0;
    high >>>= 7;
  }
  bytes[at] = low;
}

function writeByteField(tail: Tail, tag: number, value: number): void {
  tail.makeRoom(2);
  tail.at -= 2;
  tail.bytes[tail.at] = tag;
  tail.bytes[tail.at + 1] = value;
}

/** A tag, and the length of what is already written behind it. */
function writeHead(tail: Tail, tag: number, length: number): void {
  tail.makeRoom(headMaxBytes);
  const { bytes } = tail;
  let at = tail.at - varintLength(length);
  tail.at = at - 1;
  bytes[tail.at] = tag;
  let rest = length;
  for (; rest >= 0x80; rest >>>= 7) bytes[at++] = (rest & 0x7f) | 0x80;
  bytes[at] = rest;
}

/** How many bytes a varint takes: seven bits in each. */
function varintLength(value: number): number {
  return Math.floor((38 - Math.clz32(value | 1)) / 7);
}
