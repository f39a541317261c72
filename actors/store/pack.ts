import { timeText } from "../log/number-text.ts";
import type { EntityKey } from "./store.ts";

/*
 * Bulk data as text: rows joined by U+001E, columns by U+001F; of many rows rather each column as a text of its own,
 * which PostgreSQL splits faster. Array parameters would be escaped element by element, and one JSON document costs
 * both sides more (measured: reference/performance.md). JSON text and log lines hold neither character, so values
 * pass as they are; only where one does (in an entity id, say) all values of the call are escaped, and PostgreSQL is
 * told to unescape.
 */

/** Packs the rows of one call. Columns are numbers, or texts that went through `text`. */
export interface Packer {
  /** One column of a row: escaped if the call is. */
  readonly text: (value: string) => string;
  /** Joins rows; `row` gives a row's columns, joined by U+001F. */
  rows<Row>(rows: readonly Row[], row: (row: Row) => string): string;
  /** Joins rows of one column, and escapes them if the call is: many values are searched as one text. */
  readonly column: (values: readonly string[]) => string;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what has to be escaped
const special = /[\x1d-\x1f]/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what has to be escaped
const specials = /[\x1d-\x1f]/g;
const marks: Readonly<Record<string, string>> = { "\x1d": "\x1dd", "\x1e": "\x1de", "\x1f": "\x1df" };

/** Runs `pack` without escaping, and once more with it if a value needs it. */
export function packAll<T>(pack: (packer: Packer) => T): { packed: T; escaped: boolean } {
  try {
    return { packed: pack(createPacker(false)), escaped: false };
  } catch (error) {
    if (error !== needsEscape) throw error;
    return { packed: pack(createPacker(true)), escaped: true };
  }
}

const needsEscape = Symbol("a value needs to be escaped");

function createPacker(escaped: boolean): Packer {
  const text = (value: string): string => {
    if (!hasSpecial(value)) return value;
    if (!escaped) throw needsEscape;
    return value.replace(specials, (c) => marks[c] ?? c);
  };
  const column = (values: readonly string[]): string => {
    if (escaped) return values.map(text).join("\x1e");
    const joined = values.join("\x1e");
    if (hasMore(joined, values.length - 1)) throw needsEscape;
    return joined;
  };
  return { text, rows: (rows, row) => rows.map(row).join("\x1e"), column };
}

/** Whether a text holds what needs to be escaped beside `joints` U+001E. */
function hasMore(joined: string, joints: number): boolean {
  if (joined.includes("\x1f") || joined.includes("\x1d")) return true;
  let at = -1;
  for (let i = 0; i < joints; i++) at = joined.indexOf("\x1e", at + 1);
  return joined.includes("\x1e", at + 1);
}

/** Three searches for one character are many times faster on long text than one expression. */
function hasSpecial(value: string): boolean {
  if (value.length < 64) return special.test(value);
  return value.includes("\x1e") || value.includes("\x1f") || value.includes("\x1d");
}

/** Keys of entities, column by column. */
export function packKeys(
  { rows, text }: Packer,
  keys: readonly EntityKey[],
): [shards: string, types: string, eids: string] {
  return [packNumbers(keys.map((k) => k.shard)), rows(keys, (k) => text(k.type)), rows(keys, (k) => text(k.eid))];
}

/** Numbers as the text of a PostgreSQL array. */
export function packNumbers(numbers: readonly number[]): string {
  return `{${((numbers[0] ?? 0) < 1e12 ? numbers : textsOfTimes(numbers)).join(",")}}`;
}

/** The engine is slow with numbers beyond 31 bits, and times of arrival come in runs: whatever came in one append. */
function textsOfTimes(times: readonly number[]): string[] {
  let last = Number.NaN;
  let text = "";
  return times.map((ms) => {
    if (ms !== last) text = timeText(ms);
    last = ms;
    return text;
  });
}

/** The opposite of `array_to_string(…, ',')`. */
export function unpackNumbers(text: string | null | undefined): number[] {
  return text === null || text === undefined || text === "" ? [] : text.split(",").map(Number);
}
