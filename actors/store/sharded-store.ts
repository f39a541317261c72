import assert from "node:assert";
import { type ShardId, toShardId } from "../../proto/ids.ts";
import { StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import { parseLetterId } from "./dead-letter.ts";
import type {
  AcquiredShard,
  AppendRequest,
  AskedPart,
  DueLook,
  FlushRequest,
  Histories,
  Lifetimes,
  Queries,
  SegmentHead,
  ShardOwner,
  Store,
  WriteResult,
} from "./store.ts";
import type { LinkAt, LinkEnd, LinksQuery, Obituaries } from "./stored-link.ts";

/**
 * One store over several databases, each with its own shards; sessions live in the first. A flush is split per database:
 * each part commits on its own, which every part's fences and `applied < new` allow. An append is never split: its
 * caller groups by database (R2), and `storeOf` tells it how. `onNotAcquired` is told of each database that failed in an
 * acquiring in which others gave their shards, and how many of its own were asked for.
 */
export function createShardedStore<S extends Store & Queries>(
  stores: readonly [S, ...S[]],
  storeOf: (shard: ShardId) => S,
  onNotAcquired: (problem: StarlingError, shards: number) => void = () => {},
): Store & Queries {
  const [first] = stores;
  const split = <T extends { shard: ShardId }>(rows: readonly T[]): Map<S, T[]> => {
    const parts = new Map<S, T[]>();
    for (const row of rows) {
      const store = storeOf(row.shard);
      const part = parts.get(store);
      if (part === undefined) parts.set(store, [row]);
      else part.push(row);
    }
    return parts;
  };
  const each = async <T extends { shard: ShardId }, R>(
    rows: readonly T[],
    run: (store: S, part: T[]) => Promise<R[]>,
  ) => (await Promise.all([...split(rows)].map(([store, part]) => run(store, part)))).flat();
  let lastRead: readonly (readonly ShardOwner[])[] = [];
  let all: readonly ShardOwner[] = [];
  const letterStore = (id: string): S => storeOf(toShardId(parseLetterId(id)[0]));
  return {
    acquire: async (node, shards, terms) => {
      const parts = [...split(shards.map((shard) => ({ shard })))];
      const asked = parts.map(async ([store, part]): Promise<Acquiring> => {
        const ids = part.map(({ shard }) => shard);
        return await store.acquire(node, ids, terms).then(
          (acquired) => ({ status: "taken", acquired }),
          (problem: unknown) => ({ status: "failed", problem, shards: ids.length }),
        );
      });
      return takenOf(await Promise.all(asked), onNotAcquired);
    },
    readOwners: async () => {
      const readings = await Promise.all(stores.map((store) => store.readOwners()));
      const read = readings.map(({ owners }) => owners);
      if (read.some((owners, index) => owners !== lastRead[index])) all = read.flat();
      lastRead = read;
      const newest = (ticks: readonly number[]): number => Math.max(...ticks);
      const tick = newest(readings.map((reading) => reading.tick));
      return { owners: all, tick, endedTick: newest(readings.map(({ endedTick }) => endedTick)) };
    },
    readTickPage: (request, windowsOf) => storeOf(request.shard).readTickPage(request, windowsOf),
    release: async (fences, node) => {
      await each(fences, (store, part) => store.release(part, node).then(() => []));
    },
    append: (node, request) => {
      const store = onlyStore(request, storeOf) ?? first;
      return store.append(node, request);
    },
    flush: async (node, request): Promise<WriteResult> => {
      // The ends of all logs, of which each database knows its own.
      const places = request.obituaries === undefined ? undefined : await placesOf(stores);
      const parts = splitFlush({ ...request, ...(places && { places }) }, storeOf);
      const results = await Promise.all([...parts].map(([store, part]) => store.flush(node, part)));
      return { lost: results.flatMap(({ lost }) => lost) };
    },
    load: (keys) => each(keys, (store, part) => store.load(part)),
    readLog: (shard, after, limit) => storeOf(shard).readLog(shard, after, limit),
    findParts: async (asked) => {
      const found = new Map<AskedPart, SegmentHead | null>();
      await each(asked, async (store, part) => {
        for (const [index, head] of (await store.findParts(part)).entries()) {
          const one = part[index];
          if (one !== undefined) found.set(one, head);
        }
        return [];
      });
      return asked.map((one) => found.get(one) ?? null);
    },
    readUnpassed: async (channels) => {
      const found = await Promise.all(stores.map((store) => store.readUnpassed(channels)));
      return {
        heads: found.flatMap(({ heads }) => heads),
        watermarks: found.flatMap(({ watermarks }) => watermarks),
        owing: found.reduce((sum, { owing }) => sum + owing, 0),
      };
    },
    places: () => placesOf(stores),
    readChannel: (shard, channel) => storeOf(shard).readChannel(shard, channel),
    openSession: (session, opening) => first.openSession(session, opening),
    closeSession: (session) => first.closeSession(session),
    findClosed: (sessions) => first.findClosed(sessions),
    useSession: (session) => first.useSession(session),
    raw: (request) => storeOf(request.shard).raw(request),
    historyRows: (keys, max) => each(keys, (store, part) => store.historyRows(part, max)),
    historyPages: (windows) => each(windows, (store, part) => store.historyPages(part)),
    historyHorizons: async (type) => {
      const horizons = new Map<string, number>();
      for (const found of await Promise.all(stores.map((store) => store.historyHorizons(type)))) {
        for (const [attr, t2] of found) horizons.set(attr, Math.max(horizons.get(attr) ?? t2, t2));
      }
      return horizons;
    },
    links: (query) => (query.reverse ? reverseLinks(stores, query) : storeOf(query.shard).links(query)),
    deadLetter: (id) => letterStore(id).deadLetter(id),
    discardDeadLetter: (id) => letterStore(id).discardDeadLetter(id),
    ...mergedQueries(stores),
  };
}

/** What became of an acquiring in one database. */
type Acquiring =
  | { readonly status: "taken"; readonly acquired: readonly AcquiredShard[] }
  | { readonly status: "failed"; readonly problem: unknown; readonly shards: number };

/**
 * What the databases that answered gave: its epochs have grown, so whoever asked has to have it. Shards of the others are missing,
 * as are those that somebody else claims, and are asked for again. Raises what one of them raised where all of them failed, or where
 * another try cannot help.
 */
function takenOf(
  answers: readonly Acquiring[],
  onNotAcquired: (problem: StarlingError, shards: number) => void,
): AcquiredShard[] {
  const failed = answers.filter((answer) => answer.status === "failed");
  const final = failed.find(({ problem }) => !(problem instanceof StarlingError && problem.retryable));
  const raised = final ?? (failed.length === answers.length ? failed[0] : undefined);
  if (raised !== undefined) throw raised.problem;
  for (const { problem, shards } of failed) onNotAcquired(toStarlingError(problem), shards);
  return answers.flatMap((answer) => (answer.status === "taken" ? answer.acquired : []));
}

async function placesOf(stores: readonly Pick<Store, "places">[]) {
  return (await Promise.all(stores.map((store) => store.places()))).flat();
}

/** Sources may be in any shard: every database answers. */
async function reverseLinks(stores: readonly Queries[], query: LinksQuery): Promise<LinkAt[]> {
  return mergeLinks(await Promise.all(stores.map((store) => store.links(query))), query.limit);
}

function mergeLinks<Link extends LinkEnd>(lists: readonly Link[][], limit: number): Link[] {
  return lists.flat().sort(compareEnds).slice(0, limit);
}

/** As the databases order them: by attribute, type and eid, each by its bytes. */
function compareEnds(a: LinkEnd, b: LinkEnd): number {
  return compareText(a.attr, b.attr) || compareText(a.type, b.type) || compareText(a.eid, b.eid);
}

function compareText(a: string, b: string): number {
  return a === b ? 0 : Buffer.compare(Buffer.from(a), Buffer.from(b));
}

/** The upkeep of links over several databases: obituaries of a shard are in its own, sources in all. */
export function createShardedObituaries(
  stores: readonly Obituaries[],
  storeOf: (shard: ShardId) => Obituaries,
): Obituaries {
  return {
    places: () => placesOf(stores),
    obituaries: async (shards, limit) => {
      const asked = stores.map((store) =>
        store.obituaries(
          shards.filter((shard) => storeOf(shard) === store),
          limit,
        ),
      );
      return (await Promise.all(asked)).flat().slice(0, limit);
    },
    referrers: async (target, after, limit) =>
      mergeLinks(await Promise.all(stores.map((store) => store.referrers(target, after, limit))), limit),
    bury: (obituary) => storeOf(obituary.shard).bury(obituary),
  };
}

/** The upkeep of lifetimes over several databases: each shard's in its own. */
export function createShardedLifetimes(
  stores: readonly Lifetimes[],
  storeOf: (shard: ShardId) => Lifetimes,
): Lifetimes {
  return {
    toLookAt: async (shards, by, after, limit) => {
      const asked = stores.map((store) =>
        store.toLookAt(
          shards.filter((shard) => storeOf(shard) === store),
          by,
          after,
          limit,
        ),
      );
      return (await Promise.all(asked)).flat().sort(compareLooks).slice(0, limit);
    },
    inhabitants: async ({ shards, ...request }) => {
      const asked = stores.map((store) =>
        store.inhabitants({ ...request, shards: shards.filter((shard) => storeOf(shard) === store) }),
      );
      return (await Promise.all(asked))
        .flat()
        .sort((a, b) => compareText(a.eid, b.eid))
        .slice(0, request.limit);
    },
    // Sources may be anywhere.
    referred: async (query) => [...new Set((await Promise.all(stores.map((store) => store.referred(query)))).flat())],
    places: () => placesOf(stores),
  };
}

/** As the databases order them. */
function compareLooks(a: DueLook, b: DueLook): number {
  return a.at - b.at || a.shard - b.shard || compareText(a.type, b.type) || compareText(a.eid, b.eid);
}

/** The upkeep of histories over several databases: each shard's in its own, horizons in all. */
export function createShardedHistories(
  stores: readonly Histories[],
  storeOf: (shard: ShardId) => Histories,
): Histories {
  return {
    historyRows: (keys, max) => onlyOf(keys, storeOf).historyRows(keys, max),
    historyPages: (windows) => onlyOf(windows, storeOf).historyPages(windows),
    unfolded: (after, limit) => storeOf(after.shard).unfolded(after, limit),
    fold: (request) => onlyOf(request.rows, storeOf).fold(request),
    clean: async (request) => {
      const gone = await Promise.all(stores.map((store) => store.clean(request)));
      return gone.reduce((sum, count) => sum + count, 0);
    },
  };
}

/** Folds are made shard by shard. */
function onlyOf<S>(rows: readonly { readonly shard: ShardId }[], storeOf: (shard: ShardId) => S): S {
  const [one, ...others] = new Set(rows.map(({ shard }) => storeOf(shard)));
  assert(one !== undefined && others.length === 0, "a fold spans several databases");
  return one;
}

/** Questions about all shards: every database answers, and the answers are merged in the order of one. */
function mergedQueries(
  stores: readonly Queries[],
): Pick<Queries, "list" | "count" | "deadLetters" | "countDeadLetters"> {
  return {
    list: async (request) => {
      const lists = await Promise.all(stores.map((store) => store.list(request)));
      return lists
        .flat()
        .sort((a, b) => compareText(a.eid, b.eid))
        .slice(0, request.limit);
    },
    count: async (type) => {
      const total = new Map<string, number>();
      for (const counts of await Promise.all(stores.map((store) => store.count(type)))) {
        for (const [name, count] of counts) total.set(name, (total.get(name) ?? 0) + count);
      }
      return total;
    },
    countDeadLetters: async () => {
      const counts = await Promise.all(stores.map((store) => store.countDeadLetters()));
      return new Map(counts.flatMap((each) => [...each]));
    },
    deadLetters: async (request) => {
      const lists = await Promise.all(stores.map((store) => store.deadLetters(request)));
      const sorted = lists.flat().sort((a, b) => a.shard - b.shard || a.seq - b.seq || numberOf(a.id) - numberOf(b.id));
      return sorted.slice(0, request.limit);
    },
  };
}

function numberOf(id: string): number {
  return Number(id.slice(id.lastIndexOf("-") + 1));
}

function onlyStore<S>(request: AppendRequest, storeOf: (shard: ShardId) => S): S | undefined {
  const rows = [...request.fences, ...request.segments, ...(request.closings ?? [])];
  const stores = new Set(rows.map(({ shard }) => storeOf(shard)));
  assert(stores.size <= 1, "an append group spans several databases");
  return [...stores][0];
}

function splitFlush<S>(request: FlushRequest, storeOf: (shard: ShardId) => S): Map<S, FlushRequest> {
  const parts = new Map<S, FlushRequest>();
  for (const store of new Set(request.fences.map(({ shard }) => storeOf(shard)))) {
    const here = <T extends { shard: ShardId }>(rows: readonly T[]) =>
      rows.filter((row) => storeOf(row.shard) === store);
    parts.set(store, {
      order: request.order ?? null,
      fences: here(request.fences),
      entities: here(request.entities),
      history: here(request.history),
      ...(request.links && { links: here(request.links) }),
      ...(request.obituaries && { obituaries: here(request.obituaries) }),
      ...(request.places && { places: request.places }),
      ...(request.looks && { looks: here(request.looks) }),
      progress: here(request.progress),
      refused: here(request.refused),
      deadLetters: here(request.deadLetters),
      obligations: here(request.obligations ?? []),
      attempts: here(request.attempts ?? []),
      ...(request.images && { images: here(request.images) }),
      ...(request.marks && { marks: here(request.marks) }),
    });
  }
  return parts;
}
