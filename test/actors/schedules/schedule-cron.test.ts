import { expect, test } from "vitest";
import { createNextDeadline } from "../../../actors/schedules/schedule-cron.ts";
import type { Cron } from "../../../modules/schedule.ts";

function deadlines(cron: Cron, after: string, count: number): string[] {
  const next = createNextDeadline(cron, "test");
  const found: string[] = [];
  let at: number | null = Date.parse(after);
  while (found.length < count && at !== null) {
    at = next(at);
    if (at !== null) found.push(new Date(at).toISOString().replace(".000Z", "Z"));
  }
  return found;
}

const newYear = "2026-01-01T00:00:00Z";

test.each<[string, Cron, string, string[]]>([
  ["croner's five fields, in UTC", "30 2 * * *", newYear, ["2026-01-01T02:30:00Z", "2026-01-02T02:30:00Z"]],
  ["six fields, from within a second", "*/20 * * * * *", "2026-01-01T00:00:00.500Z", ["2026-01-01T00:00:20Z"]],
  ["an empty dictionary: every second", {}, newYear, ["2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z"]],
  ["less significant fields at their minimum", { hour: 3 }, newYear, ["2026-01-01T03:00:00Z", "2026-01-02T03:00:00Z"]],
  ["more significant ones free", { minute: "*/30" }, newYear, ["2026-01-01T00:30:00Z", "2026-01-01T01:00:00Z"]],
  ["Monday is 0", { day_of_week: 0 }, newYear, ["2026-01-05T00:00:00Z", "2026-01-12T00:00:00Z"]],
  ["and Sunday 6", { day_of_week: "5-6" }, newYear, ["2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z"]],
  [
    "names, and steps from Monday",
    { day_of_week: "*/3", hour: 1 },
    newYear,
    ["2026-01-01T01:00:00Z", "2026-01-04T01:00:00Z"],
  ],
  [
    "day and day of week both have to fit",
    { day: 13, day_of_week: "fri" },
    newYear,
    ["2026-02-13T00:00:00Z", "2026-03-13T00:00:00Z"],
  ],
  ["a month: its first day", { month: 3 }, newYear, ["2026-03-01T00:00:00Z", "2027-03-01T00:00:00Z"]],
  ["a year, and nothing after it", { year: "2027", month: 12 }, newYear, ["2027-12-01T00:00:00Z"]],
  ["a week of ISO's", { week: 1, day_of_week: 0 }, newYear, ["2027-01-04T00:00:00Z", "2028-01-03T00:00:00Z"]],
  ["the rare week 53", { week: 53, day_of_week: 3 }, newYear, ["2026-12-31T00:00:00Z", "2032-12-30T00:00:00Z"]],
  ["a list", { second: "5,10" }, newYear, ["2026-01-01T00:00:05Z", "2026-01-01T00:00:10Z"]],
])("%s", (_, cron, after, expected) => {
  const found = deadlines(cron, after, 2);
  expect(found.slice(0, expected.length)).toEqual(expected);
  if (JSON.stringify(cron).includes("2027")) expect(found).toHaveLength(1);
});

test("a time that a change to summer time leaves out is due an hour later, one that comes twice is due once", () => {
  const cron = { hour: 2, minute: 30, timezone: "Europe/Prague" };
  expect(deadlines(cron, "2026-03-28T12:00:00Z", 2)).toEqual(["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]);
  expect(deadlines(cron, "2026-10-24T12:00:00Z", 2)).toEqual(["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
});

test.each<[Cron, string]>([
  ["every day", "is no schedule"],
  ["61 * * * *", "is no schedule"],
  [{ minute: "60" }, "'minute' of a schedule"],
  [{ hour: "5-3" }, "'hour' of a schedule"],
  [{ minute: "*/0" }, "'minute' of a schedule"],
  [{ week: "1,2" }, "'week' of a schedule is one number"],
  [{ hours: 3 } as Cron, "unknown field 'hours'"],
  [{ hour: 3, timezone: "Mars" }, "is no schedule"],
])("%j is refused", (cron, text) => {
  expect(() => createNextDeadline(cron, "module m: schedule 's'")).toThrow(text);
});
