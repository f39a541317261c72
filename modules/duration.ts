import { StarlingError } from "../proto/starling-error.ts";
import { showFound } from "./show-found.ts";

/** What a duration may look like, for messages. */
export const durationForms =
  'digits with s, m, h or d ("5m"), "0", a number of seconds, "HH:MM:SS" or ISO 8601 ("PT5M")';

const unitMs = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const durationMaxMs = 999_999_999 * unitMs.d;
const suffixed = /^\s*(\d+)([smhd])$/;
const clock = /^(?:(\d+) days?(?:, )?)?(?:(\d{1,2}):(\d{2})(?::(\d{2})(\.\d{1,6})?)?)?$/;
const iso = /^P(?=.)(?:(\d+)W)?(?:(\d+)D)?(?:T(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d{1,6})?)S)?)?$/;

/**
 * A duration of DP³'s grammar (reference 0.3) in milliseconds: a number is seconds, text is one of `durationForms`.
 * Throws INVALID_VALUE.
 */
export function parseDuration(input: unknown): number {
  const ms = durationMs(input);
  if (ms === null || ms < 0 || ms > durationMaxMs) {
    throw new StarlingError("INVALID_VALUE", `not a duration: found ${showFound(input)}; allowed: ${durationForms}`);
  }
  return ms;
}

function durationMs(input: unknown): number | null {
  if (typeof input === "number") return Number.isFinite(input) ? Math.round(input * 1000) : null;
  if (typeof input === "boolean") return input ? 1000 : 0;
  if (typeof input !== "string" || input.length > 64) return null;
  if (input === "0") return 0;
  const short = suffixed.exec(input);
  if (short) return Number(short[1]) * unitMs[short[2] as keyof typeof unitMs];
  const long = iso.exec(input);
  if (long) {
    const [, weeks, days, hours, minutes, seconds] = long;
    return sumMs(count(weeks) * 7 + count(days), count(hours), count(minutes), count(seconds));
  }
  const clocked = input === "" ? null : clock.exec(input);
  if (!clocked) return null;
  const [, days, hours, minutes, seconds, fraction] = clocked;
  if (count(minutes) > 59 || count(seconds) > 59 || count(hours) > 23) return null;
  return sumMs(count(days), count(hours), count(minutes), count(seconds) + count(fraction));
}

function count(digits: string | undefined): number {
  return digits === undefined ? 0 : Number(digits);
}

function sumMs(days: number, hours: number, minutes: number, seconds: number): number {
  return days * unitMs.d + hours * unitMs.h + minutes * unitMs.m + Math.round(seconds * unitMs.s);
}
