import { expect, test } from "vitest";
import { liveAgain } from "./live-again.ts";

const mendedMs = 1_000_000;
const owned = { mendedMs, unowned: [], ownedMs: 700 };

test("what waits while faults last does not count, nor how long before their end it was sent", () => {
  const acks = [
    { sentMs: mendedMs - 60_000, ackedMs: mendedMs - 1_000 },
    { sentMs: mendedMs - 60_000, ackedMs: mendedMs + 2_000 },
    { sentMs: mendedMs + 5_000, ackedMs: mendedMs + 5_010 },
  ];
  expect(liveAgain({ ...owned, acks })).toEqual({ liveMs: 2_000, problems: [] });
});

test("a batch that waits for longer after the last fault is told, whenever it was sent", () => {
  for (const sentMs of [mendedMs - 5_000, mendedMs + 30_000]) {
    const acks = [{ sentMs, ackedMs: Math.max(sentMs, mendedMs) + 15_001 }];
    expect(liveAgain({ ...owned, acks }).problems).toEqual(["after the last fault a batch has waited for 15001 ms"]);
  }
});

test("shards that nobody owns are told", () => {
  const { problems } = liveAgain({ ...owned, unowned: ["shard 3 is held by nobody"], ownedMs: 15_200, acks: [] });
  expect(problems).toEqual(["15000 ms after the last fault: shard 3 is held by nobody"]);
});
