import { describe, expect, it } from "vitest";
import { parseDuration } from "../../modules/duration.ts";
import { canonicalTime, checkTime, timeFromMs, unixMs } from "../../modules/time-text.ts";
import { createRandom, seedOfRun } from "../support/random.ts";

/** Unix ms of a canonical text, by other means. */
function canonicalTimeMs(text: string): number {
  const fraction = text.length > 20 ? Number(text.slice(20, -1)) : 0;
  return (Date.parse(`${text.slice(0, 19)}Z`) * 1000 + fraction) / 1000;
}

describe("times", () => {
  it.each([
    ["2020-01-01", "2020-01-01T00:00:00Z"],
    ["2020-01-01T12:30", "2020-01-01T12:30:00Z"],
    ["2020-01-01 12:30:15", "2020-01-01T12:30:15Z"],
    ["2020-01-01_12:30:15z", "2020-01-01T12:30:15Z"],
    ["2020-01-01t12:30:15.5+02:00", "2020-01-01T10:30:15.500000Z"],
    ["2020-01-01T00:30:00-0130", "2020-01-01T02:00:00Z"],
    ["2020-01-01T00:00:00.123456789Z", "2020-01-01T00:00:00.123456Z"],
    ["2020-02-29", "2020-02-29T00:00:00Z"],
    ["0001-01-01", "0001-01-01T00:00:00Z"],
    [0, "1970-01-01T00:00:00Z"],
    [-1, "1969-12-31T23:59:59Z"],
    ["1577836800", "2020-01-01T00:00:00Z"],
    [1577836800.25, "2020-01-01T00:00:00.250000Z"],
    [20_000_000_000, "2603-10-11T11:33:20Z"],
    [20_000_000_001, "1970-08-20T11:33:20.001000Z"],
    [new Date(1577836800000), "2020-01-01T00:00:00Z"],
  ])("%s is %s", (input, text) => {
    expect(canonicalTime(input)).toBe(text);
    expect(canonicalTime(text)).toBe(text);
    expect(timeFromMs(canonicalTimeMs(text))).toBe(text);
    expect(unixMs(text)).toBe(canonicalTimeMs(text));
    expect(checkTime(input)).toEqual({ text, ms: canonicalTimeMs(text) });
    expect(checkTime(text)).toEqual({ text, ms: canonicalTimeMs(text) });
  });
  it.each([
    "20200101T000000",
    "2020-13-01",
    "2021-02-29",
    "2020-01-01T24:00",
    "2020-01-01T12:60",
    "2020-1-1",
    "",
    "x",
    true,
    null,
    "0000-01-01",
    Number.NaN,
    1e18,
    "2020-01-01T00:00:00+25:00",
    {},
    new Date(Number.NaN),
  ])("%s is no time", (input) => {
    expect(() => canonicalTime(input)).toThrow(/expected time, found .*allowed/);
  });
  it("t1 and t2 as numbers are milliseconds, to the microsecond", () => {
    expect(unixMs(1_600_000_000)).toBe(1_600_000_000);
    expect(unixMs(1_600_000_000_000 + 0.1232)).toBe(1_600_000_000_000.123);
    expect(unixMs("1600000000")).toBe(1_600_000_000_000);
    expect(unixMs(1e20)).toBeNull();
    expect(unixMs(null)).toBeNull();
  });
});

describe("the common form of times", () => {
  const seed = seedOfRun();
  const random = createRandom(seed);
  const pick = <T>(items: readonly T[], other: T): T => items[random.between(0, items.length - 1)] ?? other;
  const padded = (value: number, width: number) => String(value).padStart(width, "0");

  /** A time or nearly one: every part is at its edges often, and beyond them sometimes. */
  function nearlyTime(): string {
    const any = random.next() < 0.5;
    const year = any ? random.between(0, 9999) : pick([0, 1, 99, 100, 1900, 1970, 2000, 2024, 2100, 9999], 4);
    const month = any ? random.between(1, 12) : pick([0, 1, 2, 2, 2, 12, 13], 4);
    const day = any ? random.between(1, 31) : pick([0, 1, 28, 29, 30, 31, 32], 4);
    const clock = [pick([0, 0, 12, 23, 24], 1), pick([0, 30, 59, 60], 1), pick([0, 30, 59, 60], 1)];
    const digits = random.between(0, 9);
    const fraction = pick(
      ["0".repeat(digits), padded(random.between(0, 10 ** digits - 1), digits).slice(0, digits)],
      "",
    );
    const point = digits > 0 || random.next() < 0.1 ? "." : "";
    const date = `${padded(year, 4)}-${padded(month, 2)}-${padded(day, 2)}`;
    return `${date}T${clock.map((part) => padded(part, 2)).join(":")}${point}${fraction}Z`;
  }

  /** Another text in the place of one character. */
  function damaged(text: string): string {
    const at = random.between(0, text.length - 1);
    return (
      text.slice(0, at) + pick(["", "x", "-", ":", " ", "0", "9", "/", "\u0660", "Z", "é"], "") + text.slice(at + 1)
    );
  }

  /** The text, null if it is no time. */
  function canonicalOrNull(text: string): string | null {
    try {
      return canonicalTime(text);
    } catch {
      return null;
    }
  }

  it(`is read as the other forms of the same time are (seed ${seed})`, () => {
    let times = 0;
    for (let i = 0; i < 6000; i++) {
      const text = nearlyTime();
      const found = canonicalOrNull(text);
      if (found !== null) times += 1;
      for (const zone of ["z", "+00:00", "-0000", ""]) {
        const other = text.slice(0, -1) + zone;
        if (canonicalOrNull(other) !== found) expect({ [other]: canonicalOrNull(other) }).toEqual({ [text]: found });
        if (unixMs(other) !== unixMs(text)) expect({ [other]: unixMs(other) }).toEqual({ [text]: unixMs(text) });
      }
      for (const separator of ["t", " ", "_"]) {
        const other = text.slice(0, 10) + separator + text.slice(11);
        if (canonicalOrNull(other) !== found) expect({ [other]: canonicalOrNull(other) }).toEqual({ [text]: found });
      }
    }
    expect(times).toBeGreaterThan(1000);
  });

  it(`is read as the language's own parser reads it, to the millisecond (seed ${seed})`, () => {
    for (let i = 0; i < 20_000; i++) {
      const text = nearlyTime();
      const [head = "", fraction = ""] = text.slice(0, -1).split(".");
      const date = new Date(`${head}Z`);
      // What the parser takes and we do not: 24:00, days that the month does not have, the year 0, a point alone.
      const exists = !Number.isNaN(date.getTime()) && date.toISOString().startsWith(head) && !head.startsWith("0000");
      // Further from 1970 a double does not hold every microsecond.
      if (fraction.length > 3 && (head < "1685" || head > "2255")) continue;
      const ms = exists && !text.includes(".Z") ? date.getTime() + Number(fraction.slice(0, 3).padEnd(3, "0")) : null;
      const found = unixMs(text);
      if ((found === null ? null : Math.floor(found)) !== ms) expect({ [text]: found }).toEqual({ [text]: ms });
    }
  });

  it(`with a damage is read as the damaged other form (seed ${seed})`, () => {
    for (let i = 0; i < 20_000; i++) {
      const text = damaged(nearlyTime());
      const other = text.replace(/[Zz]$/, "+00:00");
      if (canonicalOrNull(other) !== canonicalOrNull(text)) {
        expect({ [other]: canonicalOrNull(other) }).toEqual({ [text]: canonicalOrNull(text) });
      }
    }
  });

  it(`comes out as it went in where it is canonical (seed ${seed})`, () => {
    for (let i = 0; i < 5000; i++) {
      const ms = random.between(-62_135_596_800_000, 253_402_300_799_999);
      const text = timeFromMs(ms);
      expect(canonicalTime(text)).toBe(text);
      expect(canonicalTime(new Date(ms).toISOString())).toBe(text);
      expect(unixMs(text)).toBe(ms);
    }
  });
});

describe("durations", () => {
  it.each([
    ["5m", 300_000],
    [" 30s", 30_000],
    ["2h", 7_200_000],
    ["7d", 604_800_000],
    ["0", 0],
    [10, 10_000],
    [1.5, 1500],
    [true, 1000],
    ["PT5M", 300_000],
    ["P1D", 86_400_000],
    ["P1DT2H", 93_600_000],
    ["PT1.5S", 1500],
    ["01:30", 5_400_000],
    ["00:01:30", 90_000],
    ["1 day", 86_400_000],
    ["2 days, 01:00:00", 176_400_000],
  ])("%s is %d ms", (input, ms) => expect(parseDuration(input)).toBe(ms));
  it.each([
    "10",
    "1w",
    "1.5h",
    "5M",
    "-5m",
    "100ms",
    "inf",
    "",
    "5m ",
    "5 m",
    null,
    -1,
    Number.NaN,
    "P",
    "PT",
    {},
    "25:00",
  ])("%s is no duration", (input) => expect(() => parseDuration(input)).toThrow(/not a duration/));
});
