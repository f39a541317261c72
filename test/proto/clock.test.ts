import { expect, test } from "vitest";
import { atBeat, systemClock, untilBeat } from "../../proto/clock.ts";
import { createManualClock } from "../support/manual-clock.ts";

function dueAt(nowMs: number, ms: number): number {
  return nowMs + untilBeat({ ...createManualClock(), now: () => nowMs }, ms);
}

test("what is done about every so often is done at the nearest beat, whenever it was begun", () => {
  expect(dueAt(0, 200)).toBe(200);
  expect(dueAt(200.4, 200)).toBe(400);
  expect(dueAt(290, 1_000)).toBe(1_200);
  expect(dueAt(310, 1_000)).toBe(1_400);
  expect(dueAt(5_000.2, 500)).toBeCloseTo(5_600, 6);
});

test("what is shorter than a beat is waited for as it is", () => {
  expect(dueAt(290, 199)).toBe(489);
  expect(dueAt(290, 0)).toBe(290);
});

test("who comes late is told by how much", () => {
  let now = 250;
  let fire = (): void => {};
  const after = (_: number, run: () => void): (() => void) => {
    fire = run;
    return () => {};
  };
  const clock = { ...createManualClock(), now: () => now, after };
  const late: number[] = [];
  atBeat(clock, 500, (ms) => late.push(ms));
  now = 845;
  fire();
  atBeat(clock, 200, (ms) => late.push(ms));
  now = 999;
  fire();
  expect(late).toEqual([45, 0]);
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

test("a timer of this process is never early: who looks then how long it was finds all of it", async () => {
  const waits = Array.from({ length: 100 }, (_, index) => 20 + index * 0.37);
  const passed = waits.map(
    (ms) =>
      new Promise<boolean>((resolve) => {
        const begun = systemClock.now();
        systemClock.after(ms, () => resolve(systemClock.now() - begun >= ms));
      }),
  );
  expect(await Promise.all(passed)).toEqual(waits.map(() => true));
});
