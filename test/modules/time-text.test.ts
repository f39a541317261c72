import { describe, expect, it } from "vitest";
import { parseDuration } from "../../modules/duration.ts";
import { canonicalTime, canonicalTimeMs, timeFromMs, unixMs } from "../../modules/time-text.ts";

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
