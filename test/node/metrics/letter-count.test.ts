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
  const read = async (ms: number): Promise<number> => {
    await clock.advance(ms);
    letters.read(queries);
    return asked;
  };
  const takes = (ms: number) => () =>
    new Promise<ReadonlyMap<ShardId, number>>((resolve) => clock.after(ms, () => resolve(new Map())));
  answer = takes(10);
  expect([await read(1_000), await read(3_009), await read(1)]).toEqual([3, 3, 4]);
  answer = takes(20_000);
  expect([await read(3_010), await read(34_999), await read(1)]).toEqual([5, 5, 6]);
});
