import { expect, test } from "vitest";
import { appendBegins, appendEnds, createAppendPace, flushShare } from "../../../actors/lane/append-pace.ts";

function paceOf(everyMs: number, tookMs: number) {
  const pace = createAppendPace();
  for (let now = 10_000; now < 10_000 + 100 * everyMs; now += everyMs) {
    appendBegins(pace, now, 1_000);
    appendEnds(pace, now + tookMs);
  }
  return pace;
}

test("the share is the part of the time in which an append is in flight", () => {
  expect(paceOf(100, 20).share).toBeCloseTo(0.2, 6);
  expect(paceOf(100, 100).share).toBeCloseTo(1, 6);
  expect(paceOf(100, 0).share).toBe(0);
  expect(paceOf(100, 20).everyMs).toBeCloseTo(100, 6);
});

test("a pause counts as one of the longest length, and lowers the share", () => {
  const pace = paceOf(100, 100);
  appendBegins(pace, pace.begunAt + 60_000, 1_000);
  expect(pace.everyMs).toBeCloseTo(100 + 900 / 4, 6);
  expect(pace.share).toBeLessThan(0.76);
});

test("flushes get half of what appends leave, and never nothing", () => {
  expect(flushShare(paceOf(100, 20))).toBeCloseTo(0.4, 6);
  expect(flushShare(paceOf(100, 100))).toBeCloseTo(1 / 28, 6);
});
