import { expect, test } from "vitest";
import { atBeat, beatAfter } from "../../proto/clock.ts";
import { createManualClock } from "../support/manual-clock.ts";

test("what is done about every so often is done at the nearest beat, whenever it was begun", () => {
  expect(beatAfter(0, 200)).toBe(200);
  expect(beatAfter(200.4, 200)).toBe(400);
  expect(beatAfter(290, 1_000)).toBe(1_200);
  expect(beatAfter(310, 1_000)).toBe(1_400);
  expect(beatAfter(5_000.2, 500)).toBe(5_600);
});

test("what is shorter than a beat is waited for as it is", () => {
  expect(beatAfter(290, 199)).toBe(489);
  expect(beatAfter(290, 0)).toBe(290);
});

test("what was begun at different times comes together", async () => {
  const clock = createManualClock();
  const at = new Set<number>();
  let runs = 0;
  const again = (ms: number): void => {
    atBeat(clock, ms, () => {
      at.add(clock.now());
      runs++;
      again(ms);
    });
  };
  for (const ms of [200, 500, 1_000]) {
    again(ms);
    await clock.advance(37);
  }
  await clock.advance(10_000);
  expect(runs).toBeGreaterThan(60);
  expect(at.size).toBeLessThanOrEqual(51);
});
