import { expect, test } from "vitest";
import { appendBegins, appendEnds, createAppendPace, flushShare } from "../../../actors/lane/append-pace.ts";

function paceOf(everyMs: number, tookMs: number) {
  const pace = createAppendPace();
  for (let now = 10_000; now < 10_000 + 400 * everyMs; now += everyMs) {
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

test("appends that come in bursts take the part of the time that they take, not that of the burst", () => {
  const pace = createAppendPace();
  let now = 10_000;
  for (let burst = 0; burst < 50; burst++) {
    for (let i = 0; i < 5; i++) {
      appendBegins(pace, now, 1_000);
      appendEnds(pace, now + 5);
      now += 5;
    }
    now += 65;
  }
  expect(pace.share).toBeGreaterThan(0.2);
  expect(pace.share).toBeLessThan(0.4);
});

test("a pause counts as one of the longest length, and lowers the share", () => {
  const pace = paceOf(100, 100);
  appendBegins(pace, pace.begunAt + 60_000, 1_000);
  expect(pace.everyMs).toBeCloseTo(100 + 900 / 4, 6);
  expect(pace.share).toBeLessThan(0.66);
});

test("flushes get half of the time, less the more of it appends take, and never nothing", () => {
  expect(flushShare(paceOf(100, 20))).toBeCloseTo(0.5, 6);
  expect(flushShare(paceOf(100, 50))).toBeCloseTo(0.25, 6);
  expect(flushShare(paceOf(100, 70))).toBeCloseTo(0.09, 6);
  expect(flushShare(paceOf(100, 100))).toBeCloseTo(1 / 28, 6);
});
