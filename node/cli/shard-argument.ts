import { InvalidArgumentError } from "commander";
import { groupOf, type ShardId, shardGroups, shardId, toShardId } from "../../proto/ids.ts";

const groupMax = 4095;

/** A shard as a person writes it: its number, or its group and its place there, `system/3`. Complaints are wrong usage. */
export function parseShard(text: string): ShardId {
  const [, name = "", digits = ""] = /^(?:([a-z]+)\/)?(\d{1,5})$/.exec(text) ?? [];
  const number = Number(digits);
  const group = shardGroups.find((known) => known === name);
  if (digits !== "" && name === "" && number < shardGroups.length * (groupMax + 1)) return toShardId(number);
  if (group !== undefined && number <= groupMax) return shardId(group, number);
  throw new InvalidArgumentError("expected the number of a shard, or its group and number as in system/3.");
}

/** A shard in words: shard 5, shard 4099 (system/3). */
export function shardText(shard: number): string {
  const id = toShardId(shard);
  const group = groupOf(id);
  return group === "entity" ? `shard ${shard}` : `shard ${shard} (${group}/${shard - shardId(group, 0)})`;
}
