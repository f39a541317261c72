import { setTimeout as delay } from "node:timers/promises";
import type { Counters } from "../actors/counters.ts";
import { coordinatorShard } from "../actors/snapshots/snapshot-coordinator.ts";
import { createShardedSnapshots } from "../actors/store/postgres-snapshots.ts";
import { openPostgresStore, type PostgresStore } from "../actors/store/postgres-store.ts";
import { createShardedSnapshotQueries } from "../actors/store/sharded-snapshot-queries.ts";
import {
  createShardedHistories,
  createShardedLifetimes,
  createShardedObituaries,
  createShardedStore,
} from "../actors/store/sharded-store.ts";
import type { SnapshotQueries } from "../actors/store/snapshot-queries.ts";
import type { SnapshotStore } from "../actors/store/snapshot-store.ts";
import type { Histories, Lifetimes, Queries, Store } from "../actors/store/store.ts";
import type { Obituaries } from "../actors/store/stored-link.ts";
import type { Model } from "../modules/model.ts";
import type { ShardId } from "../proto/ids.ts";
import { StarlingError } from "../proto/starling-error.ts";
import type { Settings } from "./config/settings.ts";
import { startEmbeddedPostgres } from "./embedded-postgres.ts";
import type { Log } from "./log.ts";

/** The node's durable storage: one database or several, given or embedded, held by this node or by those of its cluster. */
export interface Database {
  readonly store: Store;
  readonly queries: Queries;
  readonly histories: Histories;
  readonly snapshots: SnapshotStore;
  readonly snapshotQueries: SnapshotQueries;
  readonly obituaries: Obituaries;
  readonly lifetimes: Lifetimes;
  readonly clusterId: string;
  /** One round trip to each database. Raises STORE. */
  ping(): Promise<void>;
  /** Of each database, on a connection of its own. */
  readonly pings: readonly (() => Promise<void>)[];
  /** See {@link PostgresStore.keepCoordinator}. */
  keepCoordinator(identity: string | null): Promise<string | null>;
  /** Settles when this node no longer holds the database. */
  readonly lost: Promise<StarlingError>;
  close(): Promise<void>;
}

export interface DatabaseOptions {
  readonly settings: Settings;
  /** Absolute. */
  readonly dataDir: string;
  readonly log: Log;
  readonly node: string;
  readonly model: Model;
  readonly counters: Counters;
  readonly signal?: AbortSignal;
}

const retryEveryMs = 1000;
const housekeepingEveryMs = 10 * 60_000;
const sessionsEveryMs = 6 * 3_600_000;
const worldEveryMs = 10_000;
const dayMs = 24 * 3_600_000;

/**
 * Opens the database; one that does not answer is waited for, which is said once. Raises MODEL_CHANGED when its records
 * do not fit the model.
 */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  const { settings, dataDir, log } = options;
  const opened: (() => Promise<void>)[] = [];
  const close = async (): Promise<void> => {
    for (const each of opened.splice(0).reverse()) await each();
  };
  try {
    let { databaseUrl } = settings;
    if (databaseUrl === null) {
      const embedded = await startEmbeddedPostgres({ dataDir, log });
      opened.push(() => embedded.close());
      databaseUrl = embedded.url;
    }
    let fail: (error: StarlingError) => void = () => {};
    const lost = new Promise<StarlingError>((resolve) => {
      fail = resolve;
    });
    const first = await openStore(databaseUrl, options, fail);
    opened.push(() => first.close());
    const name = `node ${options.node} pid ${process.pid}`;
    const lock = await first.lockExclusively({ name, shared: settings.etcd !== null, onLost: fail });
    opened.push(() => lock.close());
    const stores: [PostgresStore, ...PostgresStore[]] = [first];
    for (const url of settings.databaseUrls) {
      const next = await openStore(url, options, fail);
      opened.push(() => next.close());
      stores.push(next);
    }
    // After the lock: another node's database is not judged. Each database judges by the entities that it holds.
    for (const store of stores) await store.keepModel(options.model);
    opened.push(keepHouse(stores, settings.retentionDays, log), keepIndexes(stores, options));
    const storeOf = (shard: ShardId): PostgresStore => stores[shard % stores.length] ?? first;
    const warnOf = ({ code, message }: StarlingError, count: number): void =>
      log.warn({ shards: count, code, problem: message }, "a database gave no shards");
    const spread = stores.length === 1 ? first : createShardedStore(stores, storeOf, warnOf);
    const snapshotQueries = createShardedSnapshotQueries(
      stores.map((store) => store.snapshotQueries),
      (shard) => storeOf(shard).snapshotQueries,
    );
    const histories = stores.length === 1 ? first : createShardedHistories(stores, storeOf);
    const home = storeOf(coordinatorShard(settings.systemShards)).snapshots;
    const snapshots =
      stores.length === 1
        ? home
        : createShardedSnapshots(
            stores.map((store) => store.snapshots),
            (shard) => storeOf(shard).snapshots,
            home,
          );
    const lifetimes = stores.length === 1 ? first : createShardedLifetimes(stores, storeOf);
    const obituaries = stores.length === 1 ? first : createShardedObituaries(stores, storeOf);
    const keepCoordinator = first.keepCoordinator;
    const ping = async (): Promise<void> => void (await Promise.all(stores.map((store) => store.ping())));
    return {
      store: spread,
      queries: spread,
      histories,
      snapshots,
      snapshotQueries,
      obituaries,
      lifetimes,
      clusterId: first.clusterId,
      ping,
      pings: stores.map((store) => store.pingAlone),
      keepCoordinator,
      lost,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Connections for reads: PostgreSQL's are few, and nodes of a cluster share them. */
export function readersOf({ etcd }: Pick<Settings, "etcd">): number {
  return etcd === null ? 4 : 2;
}

async function openStore(
  url: string,
  { settings, log, signal, counters, node }: DatabaseOptions,
  onOtherWorld: (error: StarlingError) => void,
): Promise<PostgresStore> {
  for (let attempt = 0; ; attempt++) {
    // What an attempt that failed has found goes with it.
    let problem: StarlingError | null = null;
    let tell = (error: StarlingError): void => {
      problem = error;
    };
    try {
      const { lanes, entityShards, systemShards, storeTimeoutMs } = settings;
      const shards = { entity: entityShards, system: systemShards };
      const readers = readersOf(settings);
      const onError = (errorClass: string) => counters.add(`database_errors/${errorClass}`);
      const on = { onOtherWorld: (error: StarlingError) => tell(error), onError };
      // So that who looks into pg_stat_activity sees whose sessions they are.
      const named = { application: `starling ${node}`, statementTimeoutMs: storeTimeoutMs };
      const store = await openPostgresStore({ url, lanes, readers, shards, ...named, ...on });
      tell = onOtherWorld;
      if (problem !== null) onOtherWorld(problem);
      return store;
    } catch (error) {
      if (!(error instanceof StarlingError) || !error.retryable) throw error;
      if (attempt === 0) log.warn({ problem: error.message }, "waiting for postgresql");
      await delay(retryEveryMs, undefined, signal && { signal });
    }
  }
}

/**
 * Makes partitions of the log ahead of time and drops those that are old and passed (R8), every ten minutes; forgets sessions,
 * channels and lanes that are over, every six hours; asks every ten seconds whether the databases are still the same (R25). Returns the end
 * of all.
 */
function keepHouse(stores: readonly PostgresStore[], retentionDays: number, log: Log): () => Promise<void> {
  const partitions = async (): Promise<void> => {
    for (const store of stores) {
      await store.ensurePartitions(Date.now());
      const dropped = await store.dropPartitions(Date.now() - retentionDays * dayMs);
      if (dropped.length > 0) log.info({ days: dropped }, "partitions of the log dropped");
    }
  };
  const sessions = async (): Promise<void> => {
    let [forgotten, channels] = [0, 0];
    for (const store of stores) {
      forgotten += await store.forgetSessions();
      channels += await store.forgetChannels();
      await store.forgetPlaces();
    }
    if (forgotten + channels > 0) log.info({ sessions: forgotten, channels }, "sessions forgotten");
  };
  // Another world tells `onOtherWorld`; a server that does not answer is asked again.
  let asking: Promise<unknown> | null = null;
  const ask = (): void => {
    asking ??= Promise.all(stores.map((store) => store.checkWorld().catch(() => undefined))).finally(() => {
      asking = null;
    });
  };
  const timer = setInterval(ask, worldEveryMs);
  timer.unref();
  const ends = [
    keep(partitions, housekeepingEveryMs, (err) => log.warn({ err }, "the log's partitions could not be kept")),
    keep(sessions, sessionsEveryMs, (err) => log.warn({ err }, "old sessions could not be forgotten")),
  ];
  return async () => {
    clearInterval(timer);
    await Promise.all([asking, ...ends.map((end) => end())]);
  };
}

/** Does something now and ever again, one run after another. Returns the end of it, which waits for the one at hand. */
function keep(run: () => Promise<void>, everyMs: number, onFailure: (error: unknown) => void): () => Promise<void> {
  let running: Promise<void> = Promise.resolve();
  const again = (): void => {
    running = running.then(run).catch(onFailure);
  };
  const timer = setInterval(again, everyMs);
  timer.unref();
  again();
  return () => {
    clearInterval(timer);
    return running;
  };
}

/** Brings the indexes of snapshots in line with the model, while the node serves already. Returns the end of it. */
function keepIndexes(stores: readonly PostgresStore[], { model, log }: DatabaseOptions): () => Promise<void> {
  const run = async (): Promise<void> => {
    for (const store of stores) {
      const changed = await store.indexSnapshots(model);
      if (changed > 0) log.info({ indexes: changed }, "indexes of snapshots changed");
    }
  };
  const done = run().catch((error: unknown) => log.warn({ err: error }, "snapshots could not be indexed"));
  return () => done;
}
