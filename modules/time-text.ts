import { StarlingError } from "../proto/starling-error.ts";
import { showFound } from "./show-found.ts";

/** What a time may look like, for messages. */
export const timeForms = "YYYY-MM-DD, YYYY-MM-DDTHH:MM[:SS[.f]][Z or ±HH:MM], or Unix time as a number";

/** The years 1 to 9999, which every party from PostgreSQL to Python can hold; Unix ms. */
const timeMinMs = -62_135_596_800_000;
const timeMaxMs = 253_402_300_800_000;
/** A bare number up to this is Unix seconds, a greater one milliseconds (reference 2.2). */
const secondsMax = 2e10;

const timeText = /^(\d{4})-(\d\d)-(\d\d)(?:[Tt _](\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(Z|z|[+-]\d\d:?\d\d)?)?$/;
const numberText = /^\s*[+-]?\d+(?:\.\d*)?\s*$/;

/** A time of day in parts that lose nothing: whole milliseconds since 1970 and 0 to 999 µs. */
interface Instant {
  readonly ms: number;
  readonly micros: number;
}

/** Unix ms of a time as `t1` and `t2` carry it: number or bigint of *milliseconds*, Date, or text; null if it is none. */
export function unixMs(input: unknown): number | null {
  if (typeof input === "number") {
    if (!(input >= timeMinMs && input < timeMaxMs)) return null;
    return Number.isInteger(input) ? input : Math.round(input * 1000) / 1000;
  }
  if (input instanceof Date) return unixMs(input.getTime());
  const instant = typeof input === "string" ? parseText(input) : null;
  return instant === null ? null : msOf(instant);
}

/**
 * Canonical text `YYYY-MM-DDTHH:MM:SS[.ffffff]Z` of a value of type `time`; naive times are UTC. Numbers and numeric
 * texts are Unix seconds up to 2·10^10 and milliseconds above. Throws INVALID_VALUE.
 */
export function canonicalTime(input: unknown): string {
  return checkTime(input).text;
}

/** The same with the Unix ms of the text. Throws INVALID_VALUE. */
export function checkTime(input: unknown): { readonly text: string; readonly ms: number } {
  if (typeof input === "string") {
    const plain = parsePlain(input);
    if (plain !== null) return { text: writePlain(input, plain), ms: msOf(plain) };
  }
  const instant = parseInstant(input);
  if (instant === null) {
    throw new StarlingError("INVALID_VALUE", `expected time, found ${showFound(input)}; allowed: ${timeForms}`);
  }
  return { text: writeTime(instant), ms: msOf(instant) };
}

/** Canonical text of Unix ms. */
export function timeFromMs(ms: number): string {
  return writeTime(splitMs(ms));
}

function parseInstant(input: unknown): Instant | null {
  if (typeof input === "string") return parseText(input);
  if (typeof input === "bigint") return parseNumber(Number(input));
  if (typeof input === "number") return parseNumber(input);
  return input instanceof Date ? bounded(splitMs(input.getTime())) : null;
}

function parseNumber(input: number): Instant | null {
  return bounded(splitMs(Math.abs(input) <= secondsMax ? input * 1000 : input));
}

function parseText(text: string): Instant | null {
  if (text.length > 64) return null;
  const plain = parsePlain(text);
  if (plain !== null) return plain;
  const parts = timeText.exec(text);
  if (!parts) return numberText.test(text) ? parseNumber(Number(text)) : null;
  const [, year, month, day, hour = "0", minute = "0", second = "0", fraction = "", zone] = parts;
  if (Number(hour) > 23 || Number(minute) > 59 || Number(second) > 59) return null;
  const date = new Date(0);
  date.setUTCFullYear(Number(year), Number(month) - 1, Number(day));
  if (date.getUTCMonth() !== Number(month) - 1 || date.getUTCDate() !== Number(day)) return null;
  const offsetMin = offsetMinutes(zone);
  if (offsetMin === null) return null;
  const micros = Number(fraction.slice(0, 6).padEnd(6, "0"));
  const minutes = Number(hour) * 60 + Number(minute) - offsetMin;
  const ms = date.getTime() + minutes * 60_000 + Number(second) * 1000 + Math.floor(micros / 1000);
  return bounded({ ms, micros: micros % 1000 });
}

/**
 * The form that nearly every party writes, `YYYY-MM-DDTHH:MM:SS[.f]Z` with one to six digits of fraction, from the year
 * 100: with smaller years nobody is in a hurry. Null for any other text, be it a time or not.
 */
function parsePlain(text: string): Instant | null {
  const { length } = text;
  if (length < 20 || length === 21 || length > 27 || text.charCodeAt(length - 1) !== codeOf.Z) return null;
  if (text.charCodeAt(4) !== codeOf.dash || text.charCodeAt(7) !== codeOf.dash) return null;
  if (text.charCodeAt(13) !== codeOf.colon || text.charCodeAt(16) !== codeOf.colon) return null;
  if (text.charCodeAt(10) !== codeOf.T || (length > 20 && text.charCodeAt(19) !== codeOf.dot)) return null;
  const year = digitsAt(text, 0, 4);
  const month = digitsAt(text, 5, 7);
  const day = digitsAt(text, 8, 10);
  if (year < 100 || month < 1 || month > 12 || day < 1 || day > daysOf(year, month)) return null;
  const hour = digitsAt(text, 11, 13);
  const minute = digitsAt(text, 14, 16);
  const second = digitsAt(text, 17, 19);
  if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59) return null;
  let micros = length === 20 ? 0 : digitsAt(text, 20, length - 1);
  if (micros < 0) return null;
  for (let digits = length - 21; digits < 6; digits++) micros *= 10;
  const seconds = daysSince1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
  const millis = Math.floor(micros / 1000);
  return { ms: seconds * 1000 + millis, micros: micros - millis * 1000 };
}

const codeOf = { dash: 0x2d, dot: 0x2e, colon: 0x3a, T: 0x54, Z: 0x5a } as const;
const zero = 0x30;

/** The number that these digits mean, -1 if others are among them. */
function digitsAt(text: string, from: number, end: number): number {
  let value = 0;
  for (let i = from; i < end; i++) {
    const digit = text.charCodeAt(i) - zero;
    if (digit < 0 || digit > 9) return -1;
    value = value * 10 + digit;
  }
  return value;
}

function daysOf(year: number, month: number): number {
  if (month === 2) return year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0) ? 29 : 28;
  return month === 4 || month === 6 || month === 9 || month === 11 ? 30 : 31;
}

/** Howard Hinnant's days_from_civil: the year begins in March, so that the leap day is its last. */
function daysSince1970(year: number, month: number, day: number): number {
  const y = month > 2 ? year : year - 1;
  const dayOfYear = Math.floor((153 * (month > 2 ? month - 3 : month + 9) + 2) / 5) + day - 1;
  return y * 365 + Math.floor(y / 4) - Math.floor(y / 100) + Math.floor(y / 400) + dayOfYear - 719_468;
}

/** `text` itself where it is canonical, as `writeTime` would write it otherwise. */
function writePlain(text: string, { ms, micros }: Instant): string {
  if (text.length === 20) return text;
  if (micros === 0 && ms % 1000 === 0) return `${text.slice(0, 19)}Z`;
  return text.length === 27 ? text : `${text.slice(0, -1).padEnd(26, "0")}Z`;
}

/** Whole milliseconds stay whole, also before 1684 and after 2255, where a double holds no microseconds since 1970. */
function msOf({ ms, micros }: Instant): number {
  return micros === 0 ? ms : (ms * 1000 + micros) / 1000;
}

function offsetMinutes(zone: string | undefined): number | null {
  if (zone === undefined || zone === "Z" || zone === "z") return 0;
  const hours = Number(zone.slice(1, 3));
  const minutes = Number(zone.slice(-2));
  if (hours > 23 || minutes > 59) return null;
  return (zone.startsWith("-") ? -1 : 1) * (hours * 60 + minutes);
}

function bounded(instant: Instant): Instant | null {
  return instant.ms >= timeMinMs && instant.ms < timeMaxMs ? instant : null;
}

function splitMs(input: number): Instant {
  const whole = Math.floor(input);
  const micros = Math.round((input - whole) * 1000);
  return micros === 1000 ? { ms: whole + 1, micros: 0 } : { ms: whole, micros };
}

function writeTime({ ms, micros }: Instant): string {
  const iso = new Date(ms).toISOString();
  const fraction = iso.slice(20, 23) + String(micros).padStart(3, "0");
  return fraction === "000000" ? `${iso.slice(0, 19)}Z` : `${iso.slice(0, 19)}.${fraction}Z`;
}
