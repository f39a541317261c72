import { shardOf } from "../../proto/shard-of.ts";
import type { Expectation, ExpectedDatapoint } from "./expectation.ts";
import { parseNumber } from "./expectation.ts";
import { epochMs, thingAttributes } from "./things.ts";

/** Which mirror each thing derives for: one of its own shard, or one of another. */
export type FanoutMode = "own" | "other";

/** The derivations of `fanout`, a pure function of mode and number of things: the module and the check share it. */
export interface FanoutTargets {
  /** Number of the mirror. */
  targetOf(thing: number): number;
  /** Things that derive for a mirror. */
  sourcesOf(mirror: number): readonly number[];
}

const shards = 256;

/** As many mirrors as things. A thing takes turns among the mirrors of its shard, or of the next one that has any. */
export function createFanoutTargets(mode: FanoutMode, things: number): FanoutTargets {
  const mirrors = Array.from({ length: shards }, (): number[] => []);
  for (let i = 0; i < things; i++) mirrors[shardOf("entity", "mirror", `mirror-${i}`, shards)]?.push(i);
  const targets = new Uint32Array(things);
  const sources = new Map<number, number[]>();
  for (let thing = 0; thing < things; thing++) {
    const own: number = shardOf("entity", "thing", `thing-${thing}`, shards);
    const candidates = candidatesOf(mirrors, mode === "own" ? own : (own + 1) % shards);
    const target = candidates[thing % candidates.length] ?? 0;
    targets[thing] = target;
    const known = sources.get(target);
    if (known === undefined) sources.set(target, [thing]);
    else known.push(thing);
  }
  return { targetOf: (thing) => targets[thing] ?? 0, sourcesOf: (mirror) => sources.get(mirror) ?? [] };
}

function candidatesOf(mirrors: readonly (readonly number[])[], first: number): readonly number[] {
  for (let i = 0; i < shards; i++) {
    const found = mirrors[(first + i) % shards] ?? [];
    if (found.length > 0) return found;
  }
  throw new Error("there are no mirrors");
}

/** Number of the datapoint that derives from a thing's attribute; its value, and its time in ms after the epoch. */
export function derivedOrdinal(thing: number, attribute: number): number {
  return thing * thingAttributes.length + attribute;
}

/** What mirrors hold once every attribute of every thing has come once. */
export function expectMirrors(mode: FanoutMode, things: number): Expectation {
  const targets = createFanoutTargets(mode, things);
  const width = thingAttributes.length;
  const numbers = Array.from({ length: things }, (_, i) => i).filter((mirror) => targets.sourcesOf(mirror).length > 0);
  const places = new Map(numbers.map((mirror, place) => [mirror, place]));
  const mirrorAt = (place: number): number => numbers[place] ?? 0;
  return {
    type: "mirror",
    entities: numbers.length,
    eidOf: (place) => `mirror-${mirrorAt(place)}`,
    numberOf: (eid) => places.get(parseNumber(eid, "mirror-", things) ?? -1) ?? null,
    attributesOf: (place) => {
      const sources = targets.sourcesOf(mirrorAt(place));
      const newest = derivedOrdinal(Math.max(...sources), width - 1);
      const at = epochMs + newest;
      return [{ attr: "o_seen", json: String(newest), t1: at, t2: at, count: sources.length * width }];
    },
    historyLength: (place) => targets.sourcesOf(mirrorAt(place)).length * width,
    historyAt: (place, attr, t1): ExpectedDatapoint | null => {
      const ordinal = t1 - epochMs;
      const thing = Math.floor(ordinal / width);
      if (attr !== "o_seen" || thing < 0 || thing >= things || targets.targetOf(thing) !== mirrorAt(place)) return null;
      return { ordinal, json: String(ordinal), t2: t1 };
    },
  };
}
