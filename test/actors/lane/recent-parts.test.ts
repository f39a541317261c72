import { expect, test } from "vitest";
import { planAdmission } from "../../../actors/lane/channel.ts";
import type { Part } from "../../../actors/lane/part.ts";
import {
  addRecent,
  besideOf,
  countPassed,
  forgetPassed,
  recentAt,
  setDurable,
} from "../../../actors/lane/recent-parts.ts";
import { createChannel } from "../../../actors/lane/shard.ts";
import { shardId, toSeq } from "../../../proto/ids.ts";

/** A channel with parts of these numbers, each at the position of its number. */
function channelOf(...numbers: number[]) {
  const channel = createChannel(0);
  for (const number of numbers) addRecent(channel, { number, hash: `h${number}`, size: 1, listener: null }, number);
  return channel;
}

function offered(number: number, hash = `h${number}`): Part {
  const own = { kind: "part", position: 0, shard: shardId("entity", 0), channel: "c:s" } as const;
  return { ...own, number, predecessor: number - 1, hash, tasks: [], rejections: [], bytes: 0 };
}

test("the watermark passes durable parts only, and those whole", () => {
  const channel = channelOf(1, 2, 4);
  setDurable(channel, 1, toSeq(1), toSeq(2));
  setDurable(channel, 2, toSeq(3), toSeq(5));
  expect([1, 2, 4, 5, 99].map((watermark) => countPassed(channel, toSeq(watermark)))).toEqual([0, 1, 1, 2, 2]);
});

test("what is passed is forgotten, and what lies beside it; the others keep their places", () => {
  const channel = channelOf(1, 2, 4);
  const { recent } = channel;
  if (recent === null) throw new Error("nothing is recent");
  for (const number of [1, 4]) besideOf(recent, number).rejections = [{ index: number, code: "BUSY", message: "" }];
  setDurable(channel, 1, toSeq(1), toSeq(2));
  setDurable(channel, 2, toSeq(3), toSeq(5));
  forgetPassed(channel, 1);
  expect([...(recent.beside?.keys() ?? [])]).toEqual([4]);
  expect(recentAt(recent, 0)).toEqual({ number: 2, position: 2, listener: null, firstSeq: 3, lastSeq: 5 });
  setDurable(channel, 4, toSeq(6), toSeq(6));
  expect(recentAt(recent, 1)).toEqual({ number: 4, position: 4, listener: null, firstSeq: 6, lastSeq: 6 });
  forgetPassed(channel, 2);
  expect(channel.recent).toBe(null);
});

test("parts become durable in the order in which they were taken", () => {
  const channel = channelOf(1, 2);
  expect(() => setDurable(channel, 2, toSeq(1), toSeq(1))).toThrow(/out of turn/);
});

test("R10: a repeat is known by number and hash among the recent parts, and by the log alone below them", () => {
  const channel = channelOf(1, 2, 4);
  setDurable(channel, 1, toSeq(1), toSeq(1));
  forgetPassed(channel, 1);
  expect(planAdmission(channel, offered(4))).toMatchObject({ kind: "repeat", index: 1 });
  expect(planAdmission(channel, offered(4, "other")).kind).toBe("changed");
  expect([1, 3].map((number) => planAdmission(channel, offered(number)).kind)).toEqual(["look-up", "look-up"]);
  expect([5, 6].map((number) => planAdmission(channel, offered(number)).kind)).toEqual(["append", "gap"]);
});
