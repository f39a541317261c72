import { expect, test } from "vitest";
import { allShards } from "../../cluster/shards.ts";
import { groupOf, shardId } from "../../proto/ids.ts";
import { hashOf, shardOf } from "../../proto/shard-of.ts";

test("a cluster has each shard of each group once", () => {
  const shards = allShards({ entity: 256, system: 16 });
  expect(new Set(shards).size).toBe(272);
  expect(shards.filter((shard) => groupOf(shard) === "entity")).toHaveLength(256);
  expect(groupOf(shardId("system", 15))).toBe("system");
});

test("the shard of an entity is fixed for ever", () => {
  expect(hashOf("airport", "SEA")).toBe(hashOf("airport", "SEA"));
  expect(["SEA", "ATL", "é", "", "日本"].map((eid) => shardOf("entity", "airport", eid, 256))).toMatchInlineSnapshot(`
    [
      225,
      161,
      104,
      4,
      229,
    ]
  `);
});

test("entities spread evenly over the shards, also those that are numbered", () => {
  const counts = new Map<number, number>();
  for (let i = 0; i < 100_000; i++) {
    const shard = shardOf("entity", "thing", `thing-${i}`, 256);
    counts.set(shard, (counts.get(shard) ?? 0) + 1);
  }
  expect(counts.size).toBe(256);
  // 391 each on average; six standard deviations around it.
  for (const count of counts.values()) expect(Math.abs(count - 390.6)).toBeLessThan(6 * Math.sqrt(390.6));
});
