/**
 * Text in the making, most of it Latin-1: characters go to a page of bytes, and a string is made of all of them at once, not
 * one for each field of each datapoint. What is wide or long stands apart, as a piece.
 */
export interface LineText {
  /** What came before the page's content. */
  readonly pieces: string[];
  /** Null: every piece stands apart. */
  readonly page: Buffer | null;
  /** Units on the page, and in the pieces. */
  used: number;
  apart: number;
  /**
   * Start and end of what the line of each datapoint that is not plain holds from the attribute on, in order: see
   * `writeTail` in `line.ts`.
   */
  readonly tails: number[];
}

/** Above, copying a string unit by unit costs more than a string apart. */
const longPiece = 256;

/** An empty text; a page belongs to one text until {@link takeText}. */
export function createLineText(page: Buffer | null = null): LineText {
  return { pieces: [], page, used: 0, apart: 0, tails: [] };
}

/** UTF-16 code units so far. */
export function lengthOf(text: LineText): number {
  return text.apart + text.used;
}

/** Appends a piece. */
export function put(text: LineText, piece: string): void {
  const { page, used } = text;
  const { length } = piece;
  if (page === null || length > longPiece || used + length > page.length) return putApart(text, piece);
  for (let i = 0; i < length; i++) {
    const unit = piece.charCodeAt(i);
    if (unit > 0xff) return putApart(text, piece);
    page[used + i] = unit;
  }
  text.used = used + length;
}

/** Appends an ASCII character. */
export function putUnit(text: LineText, unit: number): void {
  const { page, used } = text;
  if (page === null || used === page.length) return putApart(text, String.fromCharCode(unit));
  page[used] = unit;
  text.used = used + 1;
}

/** Appends a piece as JSON text. */
export function putQuoted(text: LineText, piece: string): void {
  const page = roomFor(text, piece.length + 2);
  const { used } = text;
  if (page !== null) {
    page[used] = quote;
    text.used = used + 1;
    if (putPlain(text, piece)) return putUnit(text, quote);
    text.used = used;
  }
  put(text, JSON.stringify(piece));
}

/** Appends a piece if it is printable ASCII without quotes and backslashes, and there is room; says whether it did. */
export function putPlain(text: LineText, piece: string): boolean {
  const { length } = piece;
  const page = length > longPiece ? null : roomFor(text, length);
  if (page === null) return false;
  const { used } = text;
  for (let i = 0; i < length; i++) {
    const unit = piece.charCodeAt(i);
    if (unit < 0x20 || unit > 0x7e || unit === quote || unit === backslash) return false;
    page[used + i] = unit;
  }
  text.used = used + length;
  return true;
}

const [quote, backslash] = [34, 92];

/** Room for `units` on the page: then the caller writes there from `used` on. Null: there is none. */
export function roomFor(text: LineText, units: number): Buffer | null {
  const { page } = text;
  if (page !== null && text.used + units > page.length) leavePage(text, page);
  return page === null || units > page.length ? null : page;
}

/** All of it but the last unit, and leaves the page to others. */
export function takeText(text: LineText): string {
  const { page, pieces, used } = text;
  if (pieces.length === 0) return page === null || used === 0 ? "" : page.toString("latin1", 0, used - 1);
  if (page !== null) leavePage(text, page);
  return pieces.join("").slice(0, -1);
}

function putApart(text: LineText, piece: string): void {
  if (text.page !== null) leavePage(text, text.page);
  text.pieces.push(piece);
  text.apart += piece.length;
}

function leavePage(text: LineText, page: Buffer): void {
  if (text.used === 0) return;
  text.pieces.push(page.toString("latin1", 0, text.used));
  text.apart += text.used;
  text.used = 0;
}
