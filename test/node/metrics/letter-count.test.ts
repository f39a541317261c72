import { setImmediate } from "node:timers/promises";
import { expect, test } from "vitest";
import { createLetterCount } from "../../../node/metrics/letter-count.ts";
import { type ShardId, toShardId } from "../../../proto/ids.ts";
import { createManualClock } from "../../support/manual-clock.ts";

test("open letters are counted when somebody asks, at most every 15 s, and nobody waits for that", async () => {
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
  await clock.advance(14_999);
  expect([letters.read(queries), asked]).toEqual([new Map([[3, 7]]), 1]);
  answer = () => Promise.reject(new Error("PostgreSQL is away"));
  await clock.advance(1);
  expect([letters.read(queries)?.size, asked]).toEqual([1, 2]);
  await setImmediate();
  expect([letters.read(queries), asked]).toEqual([null, 2]);
});
