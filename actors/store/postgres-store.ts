import type { Model } from "../../modules/model.ts";
import type { StarlingError } from "../../proto/starling-error.ts";
import { acquire, createOwnersReader, release } from "./acquire.ts";
import { append } from "./append.ts";
import {
  type Connection,
  type ConnectionOptions,
  createConnection,
  createPool,
  createSilences,
  type Pool,
} from "./connection.ts";
import { adoptCoordinator, keepCoordinator } from "./coordinator.ts";
import { countDeadLetters, discardDeadLetter, listDeadLetters, readDeadLetter } from "./dead-letter.ts";
import { type ExclusiveLock, type ExclusiveLockOptions, lockExclusively } from "./exclusive-lock.ts";
import { findParts } from "./find-parts.ts";
import { flush, forgetPlaces } from "./flush.ts";
import { cleanHistory, foldHistory, listUnfolded, readHistoryPages, readHistoryRows, readHorizons } from "./history.ts";
import { joinAppends } from "./join-appends.ts";
import { listInhabitants, readLooks } from "./lifetime.ts";
import { findLinks, findReferred, findReferrers } from "./link.ts";
import { load } from "./load.ts";
import { type ClusterExpectation, migrate } from "./migrations.ts";
import { bury, readObituaries, readPlaces } from "./obituary.ts";
import { createPartitions, dropPartitions, type Partitions } from "./partition.ts";
import { createPostgresSnapshots } from "./postgres-snapshots.ts";
import { countEntities, findRaw, listEntities } from "./query.ts";
import { readChannel, readLog } from "./read-log.ts";
import { closeSession, findClosed, openSession, useSession } from "./session.ts";
import { forgetChannels, forgetSessions } from "./session-life.ts";
import { indexSnapshots } from "./snapshot-index.ts";
import type { SnapshotQueries } from "./snapshot-queries.ts";
import { createSnapshotQueries, searchTimeoutMs } from "./snapshot-query.ts";
import type { SnapshotStore } from "./snapshot-store.ts";
import type { Histories, Lifetimes, Queries, Store } from "./store.ts";
import type { Obituaries } from "./stored-link.ts";
import { keepModel } from "./stored-model.ts";
import { createTickReads } from "./tick-pages.ts";
import { readUnpassed } from "./unpassed.ts";
import { loseElsewhere, unlessFenced, type WorldWatch, watchWorld } from "./world.ts";

/** The store in PostgreSQL. */
export interface PostgresStore extends Store, Queries, Histories, Lifetimes, Obituaries {
  readonly clusterId: string;
  readonly snapshots: SnapshotStore;
  readonly snapshotQueries: SnapshotQueries;
  /** One round trip. Raises STORE. */
  ping(): Promise<void>;
  /** The same on a connection of its own, which waits for nothing else. */
  pingAlone(): Promise<void>;
  /** Asks whether this is still the same server and timeline (R25). Raises FENCED if not. */
  checkWorld(): Promise<void>;
  /** See {@link keepModel}. Raises MODEL_CHANGED. */
  keepModel(model: Model): Promise<void>;
  /** See {@link indexSnapshots}; of a large table it takes a while. */
  indexSnapshots(model: Model): Promise<number>;
  /** Makes the partitions of a day (Unix ms) and the two after it. */
  ensurePartitions(at: number): Promise<void>;
  /** See {@link dropPartitions}: returns the days that went. */
  dropPartitions(before: number): Promise<string[]>;
  /** See `session-life.ts`. */
  forgetSessions(): Promise<number>;
  forgetChannels(): Promise<number>;
  /** Of lanes that have ended, by `flush.ts`. */
  forgetPlaces(): Promise<number>;
  /** The coordinator that the cluster's nodes meet at (R22): the one that stands, else `identity`, which stands from now on; null asks. */
  keepCoordinator(identity: string | null): Promise<string | null>;
  /** Lets another coordinator stand. */
  adoptCoordinator(identity: string): Promise<void>;
  /** See {@link lockExclusively}. */
  lockExclusively(options: ExclusiveLockOptions): Promise<ExclusiveLock>;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface PostgresStoreOptions extends ClusterExpectation {
  readonly url: string;
  /** At most so many appends, and so many flushes, run at once. */
  readonly lanes: number;
  /** Connections for reads; default 4. */
  readonly readers?: number;
  /** Shown in pg_stat_activity; default "starling". */
  readonly application?: string;
  readonly statementTimeoutMs?: number;
  readonly connectTimeoutMs?: number;
  /** Statements that may wait for a connection of their pool. */
  readonly waitingMax?: number;
  /** The server, or its timeline, became another: every call raises FENCED from now on, and writes lose their shards (R25). */
  readonly onOtherWorld?: (error: StarlingError) => void;
  /** See {@link ConnectionOptions.onError}. */
  readonly onError?: (errorClass: string) => void;
}

/** Connections that a node may have to one database: its pools, the lock, the upkeep of partitions, looks for a lost statement and for another world. */
export function connectionsOf({ lanes, readers }: { readonly lanes: number; readonly readers: number }): number {
  return 2 * lanes + readers + searchersOf(readers) + controlSize + guardSize + snapshotsSize + 4;
}

const readersDefault = 4;
const controlSize = 2;
const guardSize = 1;
const snapshotsSize = 2;
/** What people search for waits for its like alone. */
const searchersOf = (readers: number): number => Math.max(1, Math.floor(readers / 2));
const searchesMax = 100;

interface Pools {
  readonly append: Pool;
  readonly flush: Pool;
  readonly reads: Pool;
  readonly search: Pool;
  readonly control: Pool;
  readonly guard: Pool;
  readonly snapshots: Pool;
}

/** Of a connection that never comes about: a node waits for it where it would ask whether it may have shards. */
const connectDefaultMs = 4_000;

/** Connects, migrates and makes today's partitions. Raises STORE, STORE_FATAL, CONFIG, WRONG_CLUSTER. */
export async function openPostgresStore(options: PostgresStoreOptions): Promise<PostgresStore> {
  const world = watchWorld((error) => options.onOtherWorld?.(error));
  const connect = {
    onSession: world.check,
    barred: () => world.problem,
    url: options.url,
    application: options.application ?? "starling",
    statementTimeoutMs: options.statementTimeoutMs ?? 30_000,
    connectTimeoutMs: options.connectTimeoutMs ?? connectDefaultMs,
    silences: createSilences(),
    ...(options.onError && { onError: options.onError }),
  };
  const pool = (size: number) => createPool({ ...connect, size, waitingMax: options.waitingMax ?? 10_000 });
  const pools: Pools = {
    append: pool(options.lanes),
    flush: pool(options.lanes),
    reads: pool(options.readers ?? readersDefault),
    search: createPool({
      ...{ ...connect, statementTimeoutMs: searchTimeoutMs, prepare: false },
      ...{ size: searchersOf(options.readers ?? readersDefault), waitingMax: searchesMax },
    }),
    control: pool(controlSize),
    guard: pool(guardSize),
    snapshots: pool(snapshotsSize),
  };
  const partitions = createPartitions(pools.control);
  try {
    const clusterId = await pools.control.alone((connection) => migrate(connection, options));
    await partitions.ensureAhead(Date.now());
    const entityShards = options.shards.entity ?? 0;
    return createStore({ pools, partitions, clusterId, connect, entityShards, world });
  } catch (error) {
    await closeAll(pools);
    throw error;
  }
}

async function closeAll(pools: Pools): Promise<void> {
  await Promise.all(Object.values(pools).map((pool: Pool) => pool.close()));
}

function createStore(parts: {
  pools: Pools;
  partitions: Partitions;
  clusterId: string;
  connect: Omit<ConnectionOptions, "onClose">;
  entityShards: number;
  world: WorldWatch;
}): PostgresStore {
  const { pools, partitions, clusterId, connect, entityShards, world } = parts;
  const { reads, search, control } = pools;
  /** On a connection of its own: it may take long, or hold up what uses another one. */
  const maintain = async <T>(work: (connection: Connection) => Promise<T>, timeoutMs?: number): Promise<T> => {
    const maintenance = createConnection({
      ...connect,
      ...(timeoutMs !== undefined && { statementTimeoutMs: timeoutMs }),
    });
    try {
      return await work(maintenance);
    } finally {
      await maintenance.close();
    }
  };
  let pings: Connection | null = null;
  let closing: Promise<void> | null = null;
  const close = () => {
    closing ??= Promise.all([closeAll(pools), pings?.close()]).then(() => undefined);
    return closing;
  };
  return {
    clusterId,
    acquire: (node, shards, terms) => acquire(pools, node, shards, terms),
    // In another world there is nothing of this node's to give up.
    release: (fences, node) => release(control, fences, node).catch(unlessFenced(() => undefined)),
    append: joinAppends(
      (node, request) => append(pools.append, partitions, node, request).catch(loseElsewhere(request.fences)),
      setImmediate,
    ),
    flush: (node, request) => flush(pools.flush, node, request).catch(loseElsewhere(request.fences)),
    load: (keys) => load(reads, keys),
    readLog: (shard, after, limit) => readLog(reads, shard, after, limit),
    findParts: (asked) => findParts(reads, asked),
    readUnpassed: (channels) => readUnpassed(reads, channels),
    places: () => readPlaces(control),
    readChannel: (shard, channel) => readChannel(reads, shard, channel),
    openSession: (session, opening) => openSession(control, session, opening),
    closeSession: (session) => closeSession(control, session),
    findClosed: (sessions) => findClosed(control, sessions),
    useSession: (session) => useSession(control, session),
    list: (request) => listEntities(reads, request),
    count: (type) => countEntities(reads, type),
    raw: (request) => findRaw(reads, request),
    historyRows: (keys, max) => readHistoryRows(reads, keys, max),
    historyPages: (windows) => readHistoryPages(reads, windows),
    historyHorizons: (type) => readHorizons(reads, type),
    snapshots: createPostgresSnapshots(pools.snapshots),
    unfolded: (after, limit) => listUnfolded(control, after, limit),
    fold: (request) => foldHistory(control, request),
    clean: (request) => cleanHistory(control, request),
    links: (query) => findLinks(reads, query),
    snapshotQueries: createSnapshotQueries({ reads, search, entityShards }),
    obituaries: (shards, limit) => readObituaries(control, shards, limit),
    referrers: (target, after, limit) => findReferrers(reads, target, after, limit),
    bury: (obituary) => bury(control, obituary),
    toLookAt: (shards, by, after, limit) => readLooks(control, shards, { by, after, limit }),
    inhabitants: (request) => listInhabitants(control, request),
    referred: (query) => findReferred(control, query),
    deadLetters: (request) => listDeadLetters(reads, request),
    deadLetter: (id) => readDeadLetter(reads, id),
    countDeadLetters: () => countDeadLetters(reads),
    discardDeadLetter: (id) => discardDeadLetter(control, id),
    readOwners: createOwnersReader(control),
    ...createTickReads(pools.snapshots),
    keepModel: (model) => control.alone((connection) => keepModel(connection, model)),
    indexSnapshots: (model) => maintain((connection) => indexSnapshots(connection, model), 0),
    ensurePartitions: (at) => partitions.ensureAhead(at),
    dropPartitions: (before) => {
      partitions.forget();
      return maintain((connection) => dropPartitions(connection, before));
    },
    forgetSessions: () => maintain(forgetSessions),
    forgetChannels: () => maintain(forgetChannels),
    forgetPlaces: () => maintain(forgetPlaces),
    keepCoordinator: (identity) => keepCoordinator(control, identity),
    adoptCoordinator: (identity) => adoptCoordinator(control, identity),
    lockExclusively: (options) => lockExclusively(connect, options),
    ping: async () => {
      await control.query("select 1");
    },
    pingAlone: async () => {
      pings ??= createConnection(connect);
      await pings.query("select 1");
    },
    // On a connection of its own: an old one may be with the old server while new ones are not.
    checkWorld: () => maintain(world.check),
    close,
    [Symbol.asyncDispose]: close,
  };
}
