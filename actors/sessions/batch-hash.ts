import { createHash } from "node:crypto";
import { StarlingError } from "../../proto/starling-error.ts";

/**
 * A hash of some fields of an encoded protobuf message: 16 hex digits of its SHA-256. Fields outside `first` to `last`
 * do not count. Of a `Batch` the fields 3 and 4 (atomic, datapoints) are its content; its number and predecessor are not.
 * Source of the format: https://protobuf.dev/programming-guides/encoding/. Throws INVALID_ARGUMENT for bytes that are none.
 */
export function hashFields(bytes: Uint8Array, first: number, last: number): string {
  const hash = createHash("sha256");
  let start = -1;
  let at = 0;
  while (at < bytes.length) {
    const field = (bytes[at] ?? 0) >>> 3;
    const counts = field >= first && field <= last;
    if (counts && start < 0) start = at;
    if (!counts && start >= 0) {
      hash.update(bytes.subarray(start, at));
      start = -1;
    }
    at = endOfField(bytes, at);
  }
  if (start >= 0) hash.update(bytes.subarray(start));
  return hash.digest("hex").slice(0, 16);
}

/**
 * The bytes of the length-delimited field `field` of an encoded message, or null. Fields up to 15 only. Throws
 * INVALID_ARGUMENT when it stands there twice: a reader would merge both, and a hash would be of one.
 */
export function bytesOfField(bytes: Uint8Array, field: number): Uint8Array | null {
  const tag = (field << 3) | 2;
  let found: Uint8Array | null = null;
  let at = 0;
  while (at < bytes.length) {
    const end = endOfField(bytes, at);
    if (bytes[at] === tag) {
      if (found !== null)
        throw new StarlingError("INVALID_ARGUMENT", `field ${field} of the message stands there twice`);
      found = bytes.subarray(endOfVarint(bytes, at + 1), end);
    }
    at = end;
  }
  return found;
}

function endOfField(bytes: Uint8Array, at: number): number {
  const wireType = (bytes[at] ?? 0) & 7;
  const body = endOfVarint(bytes, at);
  // A small field's tag written longer than needed would be taken for another field.
  if (body > at + 1 && bytes[body - 1] === 0) throw malformed();
  if (wireType === 0) return endOfVarint(bytes, body);
  if (wireType === 1) return bounded(bytes, body + 8);
  if (wireType === 5) return bounded(bytes, body + 4);
  if (wireType !== 2) throw malformed();
  let length = 0;
  let scale = 1;
  let from = body;
  for (; (bytes[from] ?? 0) >= 0x80; from++) {
    length += ((bytes[from] ?? 0) & 0x7f) * scale;
    scale *= 128;
  }
  return bounded(bytes, from + 1 + length + (bytes[from] ?? 0) * scale);
}

function endOfVarint(bytes: Uint8Array, at: number): number {
  let end = at;
  while ((bytes[end] ?? 0) >= 0x80) end++;
  return bounded(bytes, end + 1);
}

function bounded(bytes: Uint8Array, end: number): number {
  if (end > bytes.length) throw malformed();
  return end;
}

function malformed(): StarlingError {
  return new StarlingError("INVALID_ARGUMENT", "the message is not protobuf");
}
