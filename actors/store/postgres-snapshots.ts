import type { ShardId } from "../../proto/ids.ts";
import type { Pool } from "./connection.ts";
import { readChanges } from "./snapshot-changes.ts";
import { createPageWriter } from "./snapshot-pages.ts";
import { createValueReads, readTasks, readValueLinks } from "./snapshot-read.ts";
import {
  addRequest,
  beginRun,
  dropAnswer,
  dropRuns,
  endRun,
  noteNode,
  noteRun,
  readAnswers,
  readNodes,
  readOwnerNodes,
  readRequest,
  readRequests,
  readRuns,
  readTicks,
} from "./snapshot-run.ts";
import type { SnapshotStore } from "./snapshot-store.ts";
import {
  cleanSnapshots,
  dropMarks,
  dropTasks,
  findRefused,
  readMarks,
  readProgress,
  writeForeign,
  writeValues,
} from "./snapshot-write.ts";

/** The snapshots of one database. */
export function createPostgresSnapshots(pool: Pool): SnapshotStore {
  return {
    readRuns: (request) => readRuns(pool, request),
    readTicks: () => readTicks(pool),
    beginRun: (owner, run) => beginRun(pool, owner, run),
    noteRun: (owner, tick, progress) => noteRun(pool, owner, tick, progress),
    endRun: (owner, tick, end) => endRun(pool, owner, tick, end),
    dropRuns: (owner, before) => dropRuns(pool, owner, before),
    addRequest: (request) => addRequest(pool, request),
    readRequests: () => readRequests(pool),
    readRequest: (id) => readRequest(pool, id),
    readOwnerNodes: () => readOwnerNodes(pool),
    noteNode: (note) => noteNode(pool, note),
    readNodes: (tick) => readNodes(pool, tick),
    readAnswers: () => readAnswers(pool),
    dropAnswer: (tick, page) => dropAnswer(pool, tick, page),
    readProgress: (tick) => readProgress(pool, tick),
    readMarks: (tick) => readMarks(pool, tick),
    readChanges: (request) => readChanges(pool, request),
    ...createPageWriter(pool),
    findRefused: (rows) => findRefused(pool, rows),
    writeForeign: (tick, rows) => writeForeign(pool, tick, rows),
    readTasks: (shards, limit) => readTasks(pool, shards, limit),
    dropTasks: (writer, tick, page) => dropTasks(pool, writer, tick, page),
    cleanSnapshots: (shard, upTo, limit) => cleanSnapshots(pool, shard, upTo, limit),
    dropMarks: () => dropMarks(pool),
    readValueLinks: (after, limit) => readValueLinks(pool, after, limit),
    ...createValueReads(pool),
    writeValues: (writer, tick, rows) => writeValues(pool, writer, tick, rows),
  };
}

/** The snapshots of several databases: each shard's in its own, runs in that of the coordinator's shard. */
export function createShardedSnapshots(
  stores: readonly SnapshotStore[],
  storeOf: (shard: ShardId) => SnapshotStore,
  home: SnapshotStore,
): SnapshotStore {
  const group = <T extends { readonly shard: ShardId }>(rows: readonly T[]) => {
    const parts = new Map<SnapshotStore, T[]>();
    for (const row of rows) {
      const part = parts.get(storeOf(row.shard));
      if (part === undefined) parts.set(storeOf(row.shard), [row]);
      else part.push(row);
    }
    return [...parts];
  };
  return {
    ...home,
    readOwnerNodes: async () => [...new Set((await Promise.all(stores.map((store) => store.readOwnerNodes()))).flat())],
    readProgress: async (tick) => {
      const found = await Promise.all(stores.map((store) => store.readProgress(tick)));
      const sum = (field: "visited" | "done") => found.reduce((total, one) => total + one[field], 0);
      return { visited: sum("visited"), done: sum("done"), text: found.map(({ text }) => text).join() };
    },
    readMarks: async (tick) => (await Promise.all(stores.map((store) => store.readMarks(tick)))).flat(),
    openVisit: (writer, tick, base) => storeOf(writer.shard).openVisit(writer, tick, base),
    readChanges: async (request) => {
      const parts = group(request.shards.map((shard) => ({ shard })));
      const found = await Promise.all(
        parts.map(([store, part]) => store.readChanges({ ...request, shards: part.map(({ shard }) => shard) })),
      );
      const all = found.flatMap((some) => some ?? []);
      return found.includes(null) || all.length > request.limit ? null : all;
    },
    writePage: async (writer, page) => {
      // Members of a component stand in several: their rows first, each guarded by its own shard's mark, then the cursor.
      const own = storeOf(writer.shard);
      for (const [store, rows] of group(page.rows)) if (store !== own) await store.writeForeign(page.tick, rows);
      return own.writePage(writer, { ...page, rows: page.rows.filter(({ shard }) => storeOf(shard) === own) });
    },
    readTasks: async (shards, limit) => {
      const parts = group(shards.map((shard) => ({ shard })));
      const found = parts.map(([store, part]) =>
        store.readTasks(
          part.map(({ shard }) => shard),
          limit,
        ),
      );
      return (await Promise.all(found)).flat();
    },
    dropTasks: (writer, tick, page) => storeOf(writer.shard).dropTasks(writer, tick, page),
    cleanSnapshots: (shard, upTo, limit) => storeOf(shard).cleanSnapshots(shard, upTo, limit),
    dropMarks: async () => void (await Promise.all(stores.map((store) => store.dropMarks()))),
    readValueLinks: async (after, limit) => {
      const found = await Promise.all(stores.map((store) => store.readValueLinks(after, limit)));
      const all = found.flat().sort((a, b) => a.shard - b.shard || compare(a.eid, b.eid) || compare(a.type, b.type));
      return all.slice(0, limit);
    },
    writeValues: async (writer, tick, rows) => {
      const own = writer === null ? null : storeOf(writer.shard);
      for (const [store, some] of group(rows)) {
        if ((await store.writeValues(store === own ? writer : null, tick, some)) === "lost") return "lost";
      }
      return "written";
    },
    readValues: async (keys) => {
      const found = group(keys).map(([store, part]) => store.readValues(part));
      return (await Promise.all(found)).flat();
    },
  };
}

/** As PostgreSQL's collation "C" does. */
function compare(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
