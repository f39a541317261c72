import type { ShardId } from "../../proto/ids.ts";
import { entityKey } from "../history/entity-at.ts";
import type { SnapshotStore, SnapshotValueLinks } from "../store/snapshot-store.ts";
import type { EntityKey } from "../store/store.ts";
import { type Component, createLinkGraph } from "./snapshot-component.ts";
import type { LinkPair, SnapshotLinks } from "./snapshot-link.ts";
import { comparePlaces } from "./tick-image.ts";

/**
 * Which entities of linked types are computed together, and by which shard. Every node finds the same from the values of the
 * tick, which do not change any more once all shards are visited: nothing has to be agreed on.
 *
 * A group belongs to the shard of its first member that exists. Entities without links are groups of their own.
 */
export interface SnapshotGroups {
  /** The groups of a shard, in the order of their places. */
  of(shard: ShardId): readonly SnapshotGroup[];
  /** Who links to an entity: see `LinkGraph`. */
  sourcesOf(key: string): ReadonlyMap<string, readonly string[]>;
}

export interface SnapshotGroup {
  /** The member that it is known by. */
  readonly place: EntityKey;
  /** Those that exist, in the order of their keys. */
  readonly members: readonly EntityKey[];
  /** Of their values. */
  readonly bytes: number;
}

export interface GroupOptions {
  readonly store: Pick<SnapshotStore, "readValueLinks">;
  readonly links: SnapshotLinks;
  /** Only groups that are concerned by what changed in this tick; null: all of them. */
  readonly changedIn: number | null;
  readonly signal: AbortSignal;
}

/** Rows of links that are read at once. */
const linksMax = 5_000;

interface Existing extends EntityKey {
  readonly bytes: number;
}

/** Reads the links of all values. Raises TOO_LARGE when there are more than a node may hold. */
export async function findGroups(options: GroupOptions): Promise<SnapshotGroups> {
  const { links, changedIn } = options;
  const graph = createLinkGraph(links);
  const existing = new Map<string, Existing>();
  const changes = changedIn === null ? null : createChanges(links);
  const pairsOf = createLinkReader(links);
  for await (const { shard, type, eid, tick, links: text, was, bytes } of readAll(options)) {
    const from = entityKey(type, eid);
    const own = pairsOf(text, from);
    if (bytes > 0) {
      existing.set(from, { shard, type, eid, bytes });
      for (const pair of own) graph.add(pair);
    }
    changes?.add(own);
    if (tick === changedIn) changes?.note(from, own, pairsOf(was, from));
  }
  const isChanged = changes?.find() ?? (() => true);
  const groups = new Map<ShardId, SnapshotGroup[]>();
  const put = (keys: Component): void => {
    const members = keys.flatMap((key) => existing.get(key) ?? []);
    for (const key of keys) existing.delete(key);
    const [place] = members;
    if (place === undefined || !keys.some(isChanged)) return;
    const bytes = members.reduce((sum, one) => sum + one.bytes, 0);
    const known = groups.get(place.shard);
    if (known === undefined) groups.set(place.shard, [{ place, members, bytes }]);
    else known.push({ place, members, bytes });
  };
  for (const component of graph.components()) put(component);
  for (const key of [...existing.keys()]) put([key]);
  for (const list of groups.values()) list.sort((a, b) => comparePlaces(a.place, b.place));
  return { of: (shard) => groups.get(shard) ?? [], sourcesOf: (key) => graph.sourcesOf(key) };
}

async function* readAll({ store, signal }: GroupOptions): AsyncGenerator<SnapshotValueLinks> {
  for (let after: EntityKey | null = null; ; ) {
    const rows: readonly SnapshotValueLinks[] = await store.readValueLinks(after, linksMax);
    signal.throwIfAborted();
    yield* rows;
    after = rows.at(-1) ?? null;
    if (after === null || rows.length < linksMax) return;
  }
}

/**
 * Whom changes of some concern: all that they are, or were, linked with over links that hooks go over; and those whose mirrors
 * show one of them, or did.
 */
function createChanges(links: SnapshotLinks) {
  // The links of now and of before, as one graph.
  const graph = createLinkGraph(links);
  const noted = new Set<string>();
  return {
    add: (pairs: readonly LinkPair[]): void => {
      for (const pair of pairs) graph.add(pair);
    },
    note: (key: string, now: readonly LinkPair[], before: readonly LinkPair[]): void => {
      noted.add(key);
      for (const pair of before) graph.add(pair);
      for (const { link, to } of [...now, ...before]) if (links.list[link]?.mirror !== null) noted.add(to);
    },
    find: (): ((key: string) => boolean) => {
      for (const component of graph.components()) {
        if (component.some((key) => noted.has(key))) for (const key of component) noted.add(key);
      }
      return (key) => noted.has(key);
    },
  };
}

/** An entity's links as a row of values keeps them: JSON of attribute and target, by names that outlive a run. */
export function writeLinks(pairs: readonly LinkPair[], { list }: SnapshotLinks): string {
  if (pairs.length === 0) return "";
  return JSON.stringify(pairs.map(({ link, to }) => [list[link]?.attr ?? "", to.slice(to.indexOf("\t") + 1)]));
}

/** Reads what {@link writeLinks} wrote. */
function createLinkReader({ list }: SnapshotLinks) {
  const placeOf = new Map(list.map(({ type, attr }, index) => [`${type}\t${attr}`, index]));
  return (text: string, from: string): LinkPair[] => {
    if (text === "") return [];
    const type = from.slice(0, from.indexOf("\t"));
    return (JSON.parse(text) as [string, string][]).flatMap(([attr, eid]) => {
      const link = placeOf.get(`${type}\t${attr}`);
      const target = link === undefined ? undefined : list[link]?.target;
      return link === undefined || target === undefined ? [] : [{ from, link, to: entityKey(target, eid) }];
    });
  };
}
