import type { LooseDatapoint } from "../../modules/datapoint.ts";

/** What a reader found at one place of its input: a datapoint, or why there is none. */
export type ReadItem = ReadPlace &
  (
    | { readonly kind: "datapoint"; readonly datapoint: LooseDatapoint }
    | { readonly kind: "malformed"; readonly message: string }
  );

export interface ReadPlace {
  /** From 1, of the input. */
  readonly line: number;
  /** From 1, of a JSON array, whose elements may all be on one line. */
  readonly element?: number;
}

/** Bytes of one input, in pieces of any size. */
export type ByteSource = AsyncIterable<Uint8Array>;

/** The longest line, element or CSV record that is read; what is longer is malformed. */
export const itemMaxBytes = 8 * 1024 * 1024;

const byteOrderMark = 0xfeff;

/** A parsed JSON value as a datapoint; `id` may stand for `eid`, as in DP³. */
export function toReadItem(value: unknown, line: number): ReadItem {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return { kind: "malformed", line, message: `expected a datapoint object, found ${describe(value)}` };
  }
  const fields = value as Readonly<Record<string, unknown>>;
  const { type, attr, v, t1, t2, c, src } = fields;
  const eid = fields.eid ?? fields.id;
  return { kind: "datapoint", line, datapoint: { type, eid, attr, v, t1, t2, c, src } };
}

/** JSON text as a datapoint, or the parser's complaint. */
export function parseReadItem(text: string, line: number): ReadItem {
  try {
    return toReadItem(parseJson(text.charCodeAt(0) === byteOrderMark ? text.slice(1) : text), line);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return { kind: "malformed", line, message: `not JSON: ${message}` };
  }
}

/** `JSON.parse` that keeps integers beyond 2^53 exact, as bigint. */
export function parseJson(text: string): unknown {
  if (!/\d{16}/.test(text)) return JSON.parse(text);
  // U+0000 cannot stand in any stored value, so that a string marked by it is one of ours.
  const marked = text.replace(/"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g, (token) => {
    if (token.startsWith('"') || !/^-?\d{16,}$/.test(token)) return token;
    return Number.isSafeInteger(Number(token)) ? token : `"\\u0000int:${token}"`;
  });
  return JSON.parse(marked, (_key, value: unknown) =>
    typeof value === "string" && /^\0int:-?\d+$/.test(value) ? BigInt(value.slice(5)) : value,
  );
}

function describe(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "an array" : `a ${typeof value}`;
}
