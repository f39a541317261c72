import { beforeEach, expect, test } from "vitest";
import { createDeliverer } from "../../../actors/lane/deliverer.ts";
import type { LaneMessage } from "../../../actors/lane/lane.ts";
import { createLaneTimers } from "../../../actors/lane/lane-timers.ts";
import type { Part, PartListener } from "../../../actors/lane/part.ts";
import type { Shard } from "../../../actors/lane/shard.ts";
import { shardId } from "../../../proto/ids.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { createManualClock } from "../../support/manual-clock.ts";

const source = { id: shardId("entity", 0) } as Shard;
const busy = new StarlingError("UNAVAILABLE", "nobody is there");
let offers: { readonly parts: readonly Part[]; readonly listener: PartListener }[] = [];
let due: (() => void)[] = [];
let posted: LaneMessage[] = [];
let isOwned = true;

beforeEach(() => {
  [offers, due, posted, isOwned] = [[], [], [], true];
});

function start() {
  return createDeliverer({
    owns: () => isOwned,
    offer: (parts, listener) => void offers.push({ parts, listener }),
    post: (message) => void posted.push(message),
    after: (_, run) => void due.push(run),
    onFailPoint: () => {},
  });
}

function partOf(number: number, target: number): Part {
  const shard = shardId("entity", target);
  const rest = { predecessor: null, hash: "", tasks: [], rejections: [], bytes: 10 };
  return { kind: "part", position: number, number, shard, channel: "s:0", ...rest };
}

function tell(offer: number, news: readonly object[]): void {
  offers[offer]?.listener(news as never);
}

const refusal = (position: number) => ({ kind: "refused", position, error: busy });
const numbers = () => offers.map(({ parts }) => parts.map(({ number }) => number));

test("what is refused goes again together, in the order of its numbers", () => {
  const deliver = start();
  for (const number of [1, 2, 3]) deliver(source, partOf(number, 1));
  tell(2, [refusal(3)]);
  tell(0, [refusal(1), refusal(2)]);
  expect(due).toHaveLength(1);
  due[0]?.();
  expect(numbers()).toEqual([[1], [2], [3], [1, 2, 3]]);
});

test("what comes up for a target that refuses waits behind what it refused; other targets do not wait", () => {
  const deliver = start();
  deliver(source, partOf(1, 1));
  tell(0, [refusal(1)]);
  deliver(source, partOf(2, 1));
  deliver(source, partOf(3, 2));
  expect(numbers()).toEqual([[1], [3]]);
  due[0]?.();
  expect(numbers()).toEqual([[1], [3], [1, 2]]);
  deliver(source, partOf(4, 1));
  expect(numbers().at(-1)).toEqual([4]);
});

test("a part that is durable and whose owner went is offered again until it is processed", () => {
  const deliver = start();
  deliver(source, partOf(1, 1));
  tell(0, [{ kind: "durable", position: 1 }]);
  tell(0, [refusal(1)]);
  due[0]?.();
  tell(1, [
    { kind: "durable", position: 1 },
    { kind: "processed", position: 1, obligations: 0 },
  ]);
  tell(1, [refusal(1)]);
  expect(due).toHaveLength(1);
  expect(posted.map(({ kind }) => kind)).toEqual(["delivered", "delivered", "lines-done"]);
});

test("what a shard has left to deliver when it goes is not offered again", () => {
  const deliver = start();
  deliver(source, partOf(1, 1));
  tell(0, [refusal(1)]);
  isOwned = false;
  due[0]?.();
  expect(offers).toHaveLength(1);
});

test("what is refused when the lane has ended does not go again", async () => {
  const clock = createManualClock();
  const timers = createLaneTimers(clock);
  const deliver = createDeliverer({
    ...{ owns: () => true, post: () => {}, after: timers.after, onFailPoint: () => {} },
    offer: (parts, listener) => void offers.push({ parts, listener }),
  });
  deliver(source, partOf(1, 1));
  tell(0, [refusal(1)]);
  expect(clock.timers).toBe(1);
  await clock.advance(100);
  expect(numbers()).toEqual([[1], [1]]);
  timers.end();
  tell(1, [refusal(1)]);
  expect(clock.timers).toBe(0);
});
