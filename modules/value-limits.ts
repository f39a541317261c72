import { StarlingError } from "../proto/starling-error.ts";
import { showFound } from "./show-found.ts";

/** Bounds that hold for every value, so that PostgreSQL never refuses what the edge accepted (design R4). */
export const eidMaxBytes = 1024;
export const sourceMaxBytes = 1024;
export const valueMaxBytes = 1024 * 1024;
export const valueMaxDepth = 100;

/** A UTF-16 unit takes at most three bytes of UTF-8: shorter texts need no count. */
const UNIT_MAX_BYTES = 3;
/** Finds a unit worth a closer look; U+0000 and surrogates are among them, common text is not. */
const suspicious = /[^\t\n\r -\ud7ff\ue000-\uffff]/;
const loneSurrogate = /\p{Surrogate}/u;

/** Whether PostgreSQL and UTF-8 can hold the text: no U+0000, no lone surrogate. */
export function isStorableText(text: string): boolean {
  if (!suspicious.test(text)) return true;
  return !text.includes("\u0000") && !loneSurrogate.test(text);
}

/** A text that can be stored, of any: U+0000 as JSON writes it, half of a surrogate pair as U+FFFD. */
export function toStorableText(text: string): string {
  return isStorableText(text) ? text : text.toWellFormed().replaceAll("\0", "\\u0000");
}

/** Throws INVALID_VALUE unless the text can be stored. */
export function assertStorable(text: string): void {
  if (isStorableText(text)) return;
  throw new StarlingError(
    "INVALID_VALUE",
    `text holds U+0000 or a lone surrogate, which cannot be stored: found ${showFound(text)}`,
  );
}

/** Whether the text takes at most `maxBytes` of UTF-8. */
export function fitsBytes(text: string, maxBytes: number): boolean {
  return text.length * UNIT_MAX_BYTES <= maxBytes || Buffer.byteLength(text) <= maxBytes;
}
