import { expect, test } from "vitest";
import { createCounters } from "../../../actors/counters.ts";
import { createSettler, type Settled } from "../../../actors/sessions/settler.ts";
import type { Unpassed } from "../../../actors/store/unpassed.ts";
import { type ShardId, toEpoch, toSeq, toShardId } from "../../../proto/ids.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { createManualClock } from "../../support/manual-clock.ts";

const shard = toShardId(3);

/** A segment with parts of two lines each. */
function headOf(of: ShardId, seq: number, ...parts: (readonly [channel: string, number: number])[]) {
  const p = parts.map(([channel, number], at) => [channel, number, null, "00ff", 2 * at, 2]);
  return { shard: of, seq: toSeq(seq), head: JSON.stringify({ p, a: [], c: [] }) };
}

function watermarkOf(of: ShardId, seq: number) {
  return { shard: of, epoch: toEpoch(1), seq: toSeq(seq) };
}

function start() {
  const clock = createManualClock();
  const counters = createCounters();
  const world = { unpassed: { heads: [], watermarks: [], owing: 0 } as Unpassed, fails: false };
  const asked: (readonly string[])[] = [];
  const store = {
    readUnpassed: async (channels: readonly string[]) => {
      asked.push(channels);
      if (world.fails) throw new StarlingError("STORE", "it is away");
      return world.unpassed;
    },
  };
  const settler = createSettler({ store, clock, counters });
  const settled: string[] = [];
  const wait = (channel: string, through: number) =>
    settler.settle(channel, through, ({ watermarks }: Settled) => {
      settled.push(`${channel} ${through} ${watermarks.map(({ seq }) => seq).join()}`);
    });
  return { clock, counters, world, asked, settler, settled, wait };
}

test("a number is settled when no watermark has a part of the channel up to it before it", async () => {
  const { clock, world, settled, wait } = start();
  world.unpassed = { heads: [headOf(shard, 5, ["c:a", 6], ["c:a", 7])], watermarks: [watermarkOf(shard, 4)], owing: 0 };
  wait("c:a", 6);
  wait("c:a", 5);
  expect(settled).toEqual([]);
  await clock.advance(250);
  expect(settled).toEqual(["c:a 5 4"]);
  // Seq 6 is the last one of batch 6, and 5 is not.
  world.unpassed = { ...world.unpassed, watermarks: [watermarkOf(shard, 5)] };
  await clock.advance(250);
  expect(settled).toHaveLength(1);
  world.unpassed = { ...world.unpassed, watermarks: [watermarkOf(shard, 6)] };
  await clock.advance(250);
  expect(settled).toEqual(["c:a 5 4", "c:a 6 6"]);
  expect(clock.timers).toBe(0);
});

test("a shard without a watermark has passed nothing, and every shard counts", async () => {
  const { clock, world, settled, wait } = start();
  const other = toShardId(4);
  world.unpassed = { heads: [headOf(other, 1, ["c:a", 1])], watermarks: [watermarkOf(shard, 9)], owing: 0 };
  wait("c:a", 1);
  await clock.advance(1_000);
  expect(settled).toEqual([]);
  world.unpassed = { ...world.unpassed, watermarks: [watermarkOf(shard, 9), watermarkOf(other, 2)] };
  await clock.advance(250);
  expect(settled).toEqual(["c:a 1 9,2"]);
});

test("all who wait are asked for at once, a channel once, and nobody is asked for in vain", async () => {
  const { clock, asked, settled, wait, settler } = start();
  wait("c:a", 1);
  wait("c:b", 1);
  wait("c:a", 2);
  const cancel = wait("c:c", 1);
  cancel();
  await clock.advance(250);
  expect(asked).toEqual([["c:a", "c:b"]]);
  expect(settled).toEqual(["c:a 1 ", "c:b 1 ", "c:a 2 "]);
  await clock.advance(10_000);
  expect(asked).toHaveLength(1);
  wait("c:a", 3);
  settler.close();
  await clock.advance(10_000);
  expect(asked).toHaveLength(1);
});

test("a store that does not answer is counted, and asked again", async () => {
  const { clock, counters, world, asked, settled, wait } = start();
  world.fails = true;
  wait("c:a", 1);
  await clock.advance(600);
  expect(asked).toHaveLength(2);
  expect(counters.read()).toEqual({ settle_looks_failed: 2 });
  world.fails = false;
  await clock.advance(250);
  expect(settled).toEqual(["c:a 1 "]);
});

test("who waits long keeps nobody else waiting, however many they are", async () => {
  const { clock, world, settled, wait } = start();
  const heads = Array.from({ length: 1_500 }, (_, at) => headOf(shard, 2 * at + 1, [`c:${at}`, 1]));
  world.unpassed = { heads, watermarks: [], owing: 0 };
  for (let at = 0; at < 1_500; at++) wait(`c:${at}`, 1);
  wait("c:last", 1);
  await clock.advance(500);
  expect(settled).toEqual(["c:last 1 "]);
});
