import { expect, test } from "vitest";
import { hex32, readNumber, timeText } from "../../../actors/log/number-text.ts";

test("times are written as JavaScript writes them", () => {
  const times = [0, 1, -1, 0.5, 999_999_999, 1e9, 1e9 + 1, 1_767_225_600_000, 1_767_225_600_001, 1_767_226_000_000.125];
  for (const ms of [...times, -62_135_596_800_000, 253_402_300_799_999, 1e15, 1e21, Number.NaN]) {
    expect(String(timeText(ms))).toBe(String(ms));
  }
});

test("numbers are read at their places as JavaScript reads them", () => {
  const exact = [0, 7, 1_767_225_600_000, 900_000_000_000_000, 9_007_199_254_740_991, 2 ** 53 + 2, 1e21];
  for (const value of [...exact, -1, 0.5, 1_767_225_600_000.125, -62_135_596_800_000, 1e-7, Number.POSITIVE_INFINITY]) {
    const text = `9\t${value}\t9`;
    expect(readNumber(text, 2, text.length - 2)).toBe(value);
  }
});

test("hashes have eight digits", () => {
  expect([0, 1, 0xffff, 0x10000, 0xdeadbeef, 0xffffffff].map(hex32)).toEqual([
    "00000000",
    "00000001",
    "0000ffff",
    "00010000",
    "deadbeef",
    "ffffffff",
  ]);
});
