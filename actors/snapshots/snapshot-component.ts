import { StarlingError } from "../../proto/starling-error.ts";
import type { LinkPair, SnapshotLinks } from "./snapshot-link.ts";

/*
 * Which entities of a tick are computed together: the connected components over links that hooks go over, whatever the direction.
 * Union-find over numbers, without recursion: a chain of a million entities takes no stack. Links to entities that do not exist
 * connect like others; whoever reads the members finds out.
 */

/** Entities that are linked with one another, by their keys, in order; the least key stands for all. */
export type Component = readonly string[];

/** The links of all linked entities of a tick. */
export interface LinkGraph {
  /** Raises TOO_LARGE when there are more than it may hold. */
  add(pair: LinkPair): void;
  /** In the order of their least keys. Entities without such links are in none. */
  components(): Component[];
  /** Who links to an entity, by the mirror that shows it: canonical eids. Not to be called before all are added. */
  sourcesOf(key: string): ReadonlyMap<string, readonly string[]>;
  readonly pairs: number;
}

/** Bounds on what is held in memory: some hundred bytes for a key, twelve for a pair. */
export interface LinkGraphLimits {
  readonly keysMax: number;
  readonly pairsMax: number;
}

export const linkGraphLimits: LinkGraphLimits = { keysMax: 5_000_000, pairsMax: 20_000_000 };

/** A graph without links. */
export function createLinkGraph({ list }: SnapshotLinks, limits: LinkGraphLimits = linkGraphLimits): LinkGraph {
  const keys: string[] = [];
  const numbers = new Map<string, number>();
  const pairs = createTriples();
  let incoming: Incoming | null = null;
  const numberOf = (key: string): number => {
    const known = numbers.get(key);
    if (known !== undefined) return known;
    if (keys.length >= limits.keysMax) throw tooLarge(`${limits.keysMax} entities`);
    numbers.set(key, keys.length);
    return keys.push(key) - 1;
  };
  return {
    add: ({ from, link, to }) => {
      if (pairs.count >= limits.pairsMax) throw tooLarge(`${limits.pairsMax} links`);
      pairs.push(numberOf(from), link, numberOf(to));
      incoming = null;
    },
    components: () => {
      const sets = createSets(keys.length);
      const joined = new Uint8Array(keys.length);
      for (let i = 0; i < pairs.count; i++) {
        const [from, link, to] = pairs.at(i);
        if (list[link]?.connects !== true) continue;
        joined[from] = joined[to] = 1;
        sets.join(from, to);
      }
      return group(keys, (number) => (joined[number] === 1 ? sets.find(number) : null));
    },
    sourcesOf: (key) => {
      incoming ??= indexIncoming(keys.length, pairs);
      const sources = new Map<string, string[]>();
      for (const i of incoming.of(numbers.get(key) ?? -1)) {
        const [from, link] = pairs.at(i);
        const mirror = list[link]?.mirror;
        if (mirror === undefined || mirror === null) continue;
        const source = keys[from] ?? "";
        const eid = source.slice(source.indexOf("\t") + 1);
        const known = sources.get(mirror);
        if (known === undefined) sources.set(mirror, [eid]);
        else known.push(eid);
      }
      return sources;
    },
    get pairs() {
      return pairs.count;
    },
  };
}

function tooLarge(what: string): StarlingError {
  return new StarlingError(
    "TOO_LARGE",
    `the snapshot run has more than ${what}, which is what a node may hold at once`,
  );
}

/** Lists of the members of each set, `setOf` a number; null: of none. */
function group(keys: readonly string[], setOf: (number: number) => number | null): Component[] {
  const members = new Map<number, string[]>();
  for (const [number, key] of keys.entries()) {
    const set = setOf(number);
    if (set === null) continue;
    const known = members.get(set);
    if (known === undefined) members.set(set, [key]);
    else known.push(key);
  }
  const components = [...members.values()];
  for (const component of components) component.sort();
  return components.sort(([a = ""], [b = ""]) => (a < b ? -1 : 1));
}

interface Sets {
  find(number: number): number;
  join(a: number, b: number): void;
}

/** Union by size; finding halves the path. */
function createSets(count: number): Sets {
  const parents = Int32Array.from({ length: count }, (_, number) => number);
  const sizes = new Int32Array(count).fill(1);
  const parentOf = (number: number): number => parents[number] as number;
  const find = (number: number): number => {
    let at = number;
    while (parentOf(at) !== at) {
      parents[at] = parentOf(parentOf(at));
      at = parentOf(at);
    }
    return at;
  };
  const join = (a: number, b: number): void => {
    const [x, y] = [find(a), find(b)];
    if (x === y) return;
    const [small, large] = (sizes[x] as number) < (sizes[y] as number) ? [x, y] : [y, x];
    parents[small] = large;
    sizes[large] = (sizes[large] as number) + (sizes[small] as number);
  };
  return { find, join };
}

/** A growing list of three numbers each. */
function createTriples() {
  let numbers = new Int32Array(3 * 1024);
  let count = 0;
  return {
    push: (a: number, b: number, c: number): void => {
      if (3 * count === numbers.length) {
        const larger = new Int32Array(2 * numbers.length);
        larger.set(numbers);
        numbers = larger;
      }
      numbers[3 * count] = a;
      numbers[3 * count + 1] = b;
      numbers[3 * count + 2] = c;
      count++;
    },
    at: (i: number): readonly [number, number, number] => [
      numbers[3 * i] as number,
      numbers[3 * i + 1] as number,
      numbers[3 * i + 2] as number,
    ],
    get count() {
      return count;
    },
  };
}

interface Incoming {
  /** The places of the pairs that lead to a number, in the order in which they were added. */
  of(number: number): Int32Array;
}

/** Counting sort by target. */
function indexIncoming(keys: number, pairs: ReturnType<typeof createTriples>): Incoming {
  const ends = new Int32Array(keys + 1);
  for (let i = 0; i < pairs.count; i++) {
    const to = pairs.at(i)[2];
    ends[to + 1] = (ends[to + 1] as number) + 1;
  }
  for (let number = 0; number < keys; number++) {
    ends[number + 1] = (ends[number + 1] as number) + (ends[number] as number);
  }
  const starts = ends.slice(0, keys);
  const places = new Int32Array(pairs.count);
  for (let i = 0; i < pairs.count; i++) {
    const to = pairs.at(i)[2];
    const place = starts[to] as number;
    starts[to] = place + 1;
    places[place] = i;
  }
  return { of: (number) => (number < 0 ? places.subarray(0, 0) : places.subarray(ends[number], ends[number + 1])) };
}
