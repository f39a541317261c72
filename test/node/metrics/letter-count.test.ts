import { setImmediate } from "node:timers/promises";
import { expect, test } from "vitest";
import { createLetterCount } from "../../../node/metrics/letter-count.ts";
import { type ShardId, toShardId } from "../../../proto/ids.ts";
import { createManualClock } from "../../support/manual-clock.ts";

test("open letters are counted when somebody asks, the less often the longer it takes, and nobody waits for that", async () => {
  const clock = createManualClock();
  let asked = 0;
  let answer = async (): Promise<ReadonlyMap<ShardId, number>> => new Map([[toShardId(3), 7]]);
  const queries = {
    countDeadLetters: () => {
      asked += 1;
      return answer();
    },
  };
  const letters = createLetterCount(clock);
  expect([letters.read(queries), letters.read(queries), asked]).toEqual([null, null, 1]);
  await setImmediate();
  await clock.advance(999);
  expect([letters.read(queries), asked]).toEqual([new Map([[3, 7]]), 1]);
  answer = () => Promise.reject(new Error("PostgreSQL is away"));
  await clock.advance(1);
  expect([letters.read(queries)?.size, asked]).toEqual([1, 2]);
  await setImmediate();
  expect([letters.read(queries), asked]).toEqual([null, 2]);
  answer = () => new Promise((resolve) => clock.after(10, () => resolve(new Map())));
  for (const [ms, times] of [
    [1_000, 3],
    [2_999, 3],
    [1, 4],
  ] as const) {
    await clock.advance(ms);
    letters.read(queries);
    expect(asked).toBe(times);
  }
  answer = () => new Promise((resolve) => clock.after(2_000, () => resolve(new Map())));
  for (const [ms, times] of [
    [3_000, 5],
    [14_999, 5],
    [1, 6],
  ] as const) {
    await clock.advance(ms);
    letters.read(queries);
    expect(asked).toBe(times);
  }
});
