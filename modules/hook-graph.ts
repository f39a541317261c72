/**
 * The hook graph: a hook that reads an attribute runs after every hook that may change it. Attributes are those of a type,
 * not of one entity, so a hook that reads `["link", "x"]` and changes `["x"]` of the same type closes a cycle.
 */

/** A hook as the graph knows it. */
export interface GraphHook {
  readonly id: string;
  /** Attributes as `type.attr`. */
  readonly reads: readonly string[];
  readonly changes: readonly string[];
}

export type HookOrder =
  | {
      readonly kind: "ordered";
      /** Places in the list that was given, in the order in which the hooks run. */
      readonly order: readonly number[];
    }
  | {
      readonly kind: "cycle";
      /** Hooks and attributes in turn: each hook changes the attribute behind it; ends with the hook it begins with. */
      readonly cycle: readonly string[];
    };

/** Topological order; where it leaves a choice, the hook that comes first in the list runs first. */
export function planHookOrder(hooks: readonly GraphHook[]): HookOrder {
  const readers = readersOf(hooks);
  const waits = hooks.map(() => 0);
  const followers = hooks.map(({ changes }) => followersOf(changes, readers));
  for (const those of followers) for (const index of those.keys()) waits[index] = (waits[index] ?? 0) + 1;
  const left = new Set(hooks.keys());
  const order: number[] = [];
  for (;;) {
    const next = firstReady(left, waits);
    if (next === null) break;
    left.delete(next);
    order.push(next);
    for (const index of followers[next]?.keys() ?? []) waits[index] = (waits[index] ?? 0) - 1;
  }
  if (left.size === 0) return { kind: "ordered", order };
  return { kind: "cycle", cycle: findCycle(hooks, followers, left) };
}

/** A hook's followers, and the attribute over which each of them follows. */
type Followers = ReadonlyMap<number, string>;

/** In the order of the list: whoever is ready and stands first. */
function firstReady(left: ReadonlySet<number>, waits: readonly number[]): number | null {
  for (const index of left) if (waits[index] === 0) return index;
  return null;
}

function readersOf(hooks: readonly GraphHook[]): ReadonlyMap<string, readonly number[]> {
  const readers = new Map<string, number[]>();
  for (const [index, { reads }] of hooks.entries()) {
    for (const attribute of new Set(reads)) {
      const known = readers.get(attribute);
      if (known === undefined) readers.set(attribute, [index]);
      else known.push(index);
    }
  }
  return readers;
}

function followersOf(changes: readonly string[], readers: ReadonlyMap<string, readonly number[]>): Followers {
  const followers = new Map<number, string>();
  for (const attribute of changes) {
    for (const reader of readers.get(attribute) ?? []) if (!followers.has(reader)) followers.set(reader, attribute);
  }
  return followers;
}

/** A shortest cycle through the first hook that stands on one. */
function findCycle(
  hooks: readonly GraphHook[],
  followers: readonly Followers[],
  left: ReadonlySet<number>,
): readonly string[] {
  for (const start of left) {
    const path = findWayBack(followers, start);
    if (path === null) continue;
    const names = path.flatMap((index, place) => {
      const next = path[place + 1] ?? start;
      return [hooks[index]?.id ?? "", followers[index]?.get(next) ?? ""];
    });
    return [...names, hooks[start]?.id ?? ""];
  }
  throw new Error("hooks wait for one another, and there is no cycle");
}

/** Breadth first: the hooks from `start` on over which it is reached again. */
function findWayBack(followers: readonly Followers[], start: number): readonly number[] | null {
  const paths: (readonly number[])[] = [[start]];
  const seen = new Set<number>();
  for (const path of paths) {
    for (const next of followers[path.at(-1) ?? start]?.keys() ?? []) {
      if (next === start) return path;
      if (seen.has(next)) continue;
      seen.add(next);
      paths.push([...path, next]);
    }
  }
  return null;
}
