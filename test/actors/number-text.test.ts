import { expect, test } from "vitest";
import { hex32, timeText } from "../../actors/number-text.ts";

test("times are written as JavaScript writes them", () => {
  const times = [0, 1, -1, 0.5, 999_999_999, 1e9, 1e9 + 1, 1_767_225_600_000, 1_767_225_600_001, 1_767_226_000_000.125];
  for (const ms of [...times, -62_135_596_800_000, 253_402_300_799_999, 1e15, 1e21, Number.NaN]) {
    expect(String(timeText(ms))).toBe(String(ms));
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
