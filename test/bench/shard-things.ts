import { shardOf } from "../../proto/shard-of.ts";
import { type Expectation, expectRanges } from "./expectation.ts";
import { type ThingAttribute, type ThingDatapoint, thingAttributes, thingDatapoint } from "./things.ts";

/** Things by their shards, and datapoints for them, each the next one of its entity and attribute. */
export interface ShardThings {
  /** Numbers of the shard's entities. */
  of(shard: number): readonly number[];
  next(entity: number, attr: ThingAttribute): ThingDatapoint;
  /** What must be stored of all that `next` gave. */
  expectation(): Expectation;
}

/** At least so many entities for each of the shards. */
export function createShardThings(shards: number, perShard: number): ShardThings {
  const byShard = Array.from({ length: shards }, (): number[] => []);
  let population = 0;
  while (byShard.some(({ length }) => length < perShard)) {
    byShard[shardOf("entity", "thing", `thing-${population}`, shards)]?.push(population);
    population += 1;
  }
  const counts = new Map<number, number[]>();
  return {
    of: (shard) => byShard[shard] ?? [],
    next: (entity, attr) => {
      const attribute = thingAttributes.indexOf(attr);
      const known = counts.get(entity) ?? thingAttributes.map(() => 0);
      const generation = known[attribute] ?? 0;
      known[attribute] = generation + 1;
      counts.set(entity, known);
      return thingDatapoint(entity, attribute, generation, population);
    },
    expectation: () =>
      expectRanges({ population, entities: population }, (number, attribute) => {
        const to = counts.get(number)?.[attribute] ?? 0;
        return to > 0 ? [{ from: 0, to }] : [];
      }),
  };
}
