import { expect, test } from "vitest";
import { createHeld } from "../../../actors/lane/held-shards.ts";
import type { Lane } from "../../../actors/lane/lane.ts";
import type { Shard } from "../../../actors/lane/shard.ts";
import { shardId, toEpoch } from "../../../proto/ids.ts";

function shardOf(index: number, epoch: number): Shard {
  const id = shardId("entity", index);
  return { id, fence: { shard: id, epoch: toEpoch(epoch) } } as Shard;
}

function laneOf(...shards: Shard[]): { readonly lane: Lane } {
  return { lane: { shards: new Map(shards.map((shard) => [shard.id, shard])) } as Lane };
}

test("the list is the same one until a shard comes, goes, or comes back under another epoch", () => {
  const [one, two] = [laneOf(shardOf(0, 1), shardOf(2, 1)), laneOf(shardOf(1, 4))];
  const held = createHeld([one, two]);
  const text = (): string =>
    held()
      .map(({ shard, epoch }) => `${shard}.${epoch}`)
      .join(" ");
  const first = held();
  expect(text()).toBe("0.1 2.1 1.4");
  expect(held()).toBe(first);

  two.lane.shards.delete(shardId("entity", 1));
  expect(text()).toBe("0.1 2.1");
  const again = shardOf(2, 2);
  one.lane.shards.set(again.id, again);
  expect(text()).toBe("0.1 2.2");
  two.lane.shards.set(shardId("entity", 3), shardOf(3, 9));
  expect(text()).toBe("0.1 2.2 3.9");
  expect(held()).not.toBe(first);
  expect(held()).toBe(held());
});
