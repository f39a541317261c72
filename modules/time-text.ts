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
  return instant === null ? null : (instant.ms * 1000 + instant.micros) / 1000;
}

/**
 * Canonical text `YYYY-MM-DDTHH:MM:SS[.ffffff]Z` of a value of type `time`; naive times are UTC. Numbers and numeric
 * texts are Unix seconds up to 2·10^10 and milliseconds above. Throws INVALID_VALUE.
 */
export function canonicalTime(input: unknown): string {
  const instant = parseInstant(input);
  if (instant === null) {
    throw new StarlingError("INVALID_VALUE", `expected time, found ${showFound(input)}; allowed: ${timeForms}`);
  }
  return writeTime(instant);
}

/** Unix ms of a canonical text. */
export function canonicalTimeMs(text: string): number {
  const fraction = text.length > 20 ? Number(text.slice(20, -1)) : 0;
  return (Date.parse(`${text.slice(0, 19)}Z`) * 1000 + fraction) / 1000;
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
