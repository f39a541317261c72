import type { ConfigSection } from "../../modules/config-section.ts";

/** A schedule as DP³'s configuration writes it (reference 0.2): the fields that were given, as text. */
export interface CronDict {
  readonly second?: string;
  readonly minute?: string;
  readonly hour?: string;
  readonly day?: string;
  readonly day_of_week?: string;
  readonly week?: string;
  readonly month?: string;
  readonly year?: string;
  readonly timezone?: string;
}

const bounds = {
  second: [0, 59],
  minute: [0, 59],
  hour: [0, 23],
  day: [1, 31],
  day_of_week: [0, 6],
  week: [1, 53],
  month: [1, 12],
  year: [1970, 9999],
} as const;
const weekdays = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const pattern = /^(?:\*|\*\/\d+|\w+-\w+|\w+(?:,\w+)*)$/;

/** Reads a cron dict at a key; null if it is missing without a fallback (a problem if required). */
export function readCron(section: ConfigSection, key: string, fallback: CronDict): CronDict;
export function readCron(section: ConfigSection, key: string, fallback?: CronDict): CronDict | null;
export function readCron(section: ConfigSection, key: string, fallback?: CronDict): CronDict | null {
  const dict = section.section(key, fallback === undefined ? "required" : "optional");
  if (dict === null) return fallback ?? null;
  const cron: Record<string, string> = {};
  for (const field of Object.keys(bounds) as (keyof typeof bounds)[]) {
    const value = dict.raw(field);
    if (value === undefined) continue;
    const text = String(value).toLowerCase();
    if (isField(field, value, text)) cron[field] = text;
    else dict.report(field, "does not fit the schedule", fieldForm(field), value);
  }
  const timezone = dict.text("timezone", "UTC");
  if (isTimezone(timezone)) cron.timezone = timezone;
  else dict.report("timezone", "no such time zone", "a name such as UTC or Europe/Prague", timezone);
  dict.finish();
  return cron;
}

function isField(field: keyof typeof bounds, value: unknown, text: string): boolean {
  if (typeof value !== "number" && typeof value !== "string") return false;
  if (!pattern.test(text)) return false;
  if (text.startsWith("*")) return text === "*" || Number(text.slice(2)) > 0;
  const numbers = text.split(/[,-]/).map((part) => numberOf(field, part));
  const [low, high] = bounds[field];
  if (!numbers.every((number) => number >= low && number <= high)) return false;
  const [from = 0, to = 0] = numbers;
  return !text.includes("-") || from <= to;
}

function numberOf(field: keyof typeof bounds, part: string): number {
  const weekday = field === "day_of_week" ? weekdays.indexOf(part) : -1;
  if (weekday !== -1) return weekday;
  return /^\d+$/.test(part) ? Number(part) : Number.NaN;
}

function fieldForm(field: keyof typeof bounds): string {
  const [low, high] = bounds[field];
  const names = field === "day_of_week" ? " or mon … sun" : "";
  return `${low} to ${high}${names}, as n, "a,b", "a-b", "*/n" or "*"`;
}

function isTimezone(name: string): boolean {
  try {
    return new Intl.DateTimeFormat("en", { timeZone: name }) !== null;
  } catch {
    // Intl throws for a name it does not know: that is the answer.
    return false;
  }
}
