import { Cron as Croner } from "croner";
import { isPlainObject } from "../../modules/json-value.ts";
import type { Cron } from "../../modules/schedule.ts";
import { StarlingError } from "../../proto/starling-error.ts";

/** The first deadline after an instant, both in Unix milliseconds; null: there is none any more. */
export type NextDeadline = (after: number) => number | null;

/**
 * When a schedule is due, as a pure function. A string is croner's, in UTC. A dictionary is DP³'s, so APScheduler's: fields
 * that are less significant than the least significant one given are at their minimum, all others are free; day and day of
 * week both have to fit; weeks are ISO's, and weeks and days of the week begin with Monday (0). A time of day that a change to
 * summer time leaves out is due when the clock has gone on. Raises MODULE, after `where`.
 */
export function createNextDeadline(cron: Cron, where: string): NextDeadline {
  const { pattern, timezone, week } = typeof cron === "string" ? fromText(cron) : fromFields(cron, where);
  let croner: Croner;
  try {
    croner = new Croner(pattern, { timezone, paused: true, domAndDow: true });
    croner.nextRun(new Date(0));
  } catch (error) {
    throw wrong(where, `${JSON.stringify(cron)} is no schedule: ${error instanceof Error ? error.message : error}`);
  }
  const calendar = createCalendar(timezone);
  const nextOf = (after: number): number | null => croner.nextRun(new Date(after))?.getTime() ?? null;
  const find = (after: number): number | null => {
    let next = nextOf(after);
    // Week 53 comes once in seven years at the latest, and with a day that fits once in a few more.
    for (let weeks = 0; week !== null && weeks < weeksMax; weeks++) {
      if (next === null || calendar.weekOf(next) === week) return next;
      next = nextOf(calendar.endOfWeek(next));
    }
    return week === null ? next : null;
  };
  // Who waits for a deadline asks again and again, and it costs much to find: until it has come it is the same.
  let found: { readonly after: number; readonly next: number } | null = null;
  return (after) => {
    if (found !== null && found.after <= after && after < found.next) return found.next;
    const next = find(after);
    found = next === null ? null : { after, next };
    return next;
  };
}

const weeksMax = 60 * 53;

interface Parsed {
  readonly pattern: string;
  readonly timezone: string;
  readonly week: number | null;
}

function fromText(pattern: string): Parsed {
  return { pattern, timezone: "UTC", week: null };
}

/** From the most to the least significant, with bounds, as APScheduler has them. */
const fields = [
  ["year", 1970, 9999],
  ["month", 1, 12],
  ["day", 1, 31],
  ["week", 1, 53],
  ["day_of_week", 0, 6],
  ["hour", 0, 23],
  ["minute", 0, 59],
  ["second", 0, 59],
] as const;
type Field = (typeof fields)[number][0];
const weekdays = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

function fromFields(cron: unknown, where: string): Parsed {
  if (!isPlainObject(cron)) throw wrong(where, "a schedule is croner's text or a dictionary");
  const names = fields.map(([name]): string => name);
  for (const key of Object.keys(cron)) {
    if (key !== "timezone" && !names.includes(key)) throw wrong(where, `unknown field '${key}' of a schedule`);
  }
  const given = fields.map(([name]) => cron[name] !== undefined && cron[name] !== null);
  const least = given.lastIndexOf(true);
  const parts = new Map<Field, string>();
  for (const [index, [name, min, max]] of fields.entries()) {
    // Nothing given: every second. Days of the week and weeks have no minimum: they are free.
    const free = index < least || least < 0 || name === "week" || name === "day_of_week";
    const text = given[index] ? String(cron[name]).toLowerCase() : free ? "*" : String(min);
    parts.set(name, valuesOf(name, text, [min, max], where));
  }
  const part = (name: Field): string => parts.get(name) ?? "*";
  const week = part("week");
  if (week !== "*" && !/^\d+$/.test(week)) throw wrong(where, `'week' of a schedule is one number: found ${week}`);
  const time = `${part("second")} ${part("minute")} ${part("hour")}`;
  const pattern = `${time} ${part("day")} ${part("month")} ${part("day_of_week")} ${part("year")}`;
  const timezone = typeof cron.timezone === "string" ? cron.timezone : "UTC";
  return { pattern, timezone, week: week === "*" ? null : Number(week) };
}

const pattern = /^(?:\*|\*\/\d+|\w+-\w+|\w+(?:,\w+)*)$/;

/** A field as croner reads it, as a list where the two count differently. */
function valuesOf(name: Field, text: string, [min, max]: readonly [number, number], where: string): string {
  const refuse = () =>
    wrong(where, `'${name}' of a schedule is ${JSON.stringify(text)}: ${min} to ${max}, a,b or a-b or */n`);
  if (!pattern.test(text)) throw refuse();
  if (text === "*") return "*";
  const step = text.startsWith("*/") ? Number(text.slice(2)) : null;
  const numbers = text.split(/[,-]/).map((part) => numberOf(name, part));
  const [from = min, to = max] = numbers;
  if (step === 0 || (step === null && numbers.some((n) => !(n >= min && n <= max)))) throw refuse();
  if (text.includes("-") && from > to) throw refuse();
  if (step === null && !text.includes("-")) return numbers.map((n) => shown(name, n)).join(",");
  // Years are many: their lists are ranges.
  if (name === "year") return text;
  const [first, last] = step === null ? [from, to] : [min, max];
  const list: string[] = [];
  for (let n = first; n <= last; n += step ?? 1) list.push(shown(name, n));
  return list.join(",");
}

function numberOf(name: Field, part: string): number {
  const weekday = name === "day_of_week" ? weekdays.indexOf(part) : -1;
  if (weekday !== -1) return weekday;
  return /^\d+$/.test(part) ? Number(part) : Number.NaN;
}

/** Croner's week begins with Sunday, as 0 or 7. */
function shown(name: Field, value: number): string {
  return String(name === "day_of_week" ? value + 1 : value);
}

const dayMs = 86_400_000;

/** Days as a time zone has them, as milliseconds of their midnight in UTC. */
function createCalendar(timeZone: string) {
  const format = new Intl.DateTimeFormat("en", { timeZone, year: "numeric", month: "numeric", day: "numeric" });
  const dayOf = (at: number): number => {
    const parts = new Map(format.formatToParts(at).map(({ type, value }) => [type, Number(value)]));
    return Date.UTC(parts.get("year") ?? 0, (parts.get("month") ?? 1) - 1, parts.get("day") ?? 1);
  };
  const weekdayOf = (day: number): number => (new Date(day).getUTCDay() + 6) % 7;
  return {
    /** The number of the week by ISO 8601: that of the year in which its Thursday lies. */
    weekOf: (at: number): number => {
      const day = dayOf(at);
      const thursday = day + (3 - weekdayOf(day)) * dayMs;
      const newYear = Date.UTC(new Date(thursday).getUTCFullYear(), 0, 1);
      return 1 + Math.floor((thursday - newYear) / (7 * dayMs));
    },
    /** The last second of the week, or, where the clock changes in between, of a day shortly before. */
    endOfWeek: (at: number): number => {
      let end = at + (6 - weekdayOf(dayOf(at))) * dayMs;
      const day = dayOf(end);
      for (const step of [3_600_000, 60_000, 1000]) while (dayOf(end + step) === day) end += step;
      return end;
    },
  };
}

function wrong(where: string, what: string): StarlingError {
  return new StarlingError("MODULE", `${where}: ${what}`);
}
