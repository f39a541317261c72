import { randomUUID } from "node:crypto";
import { openPostgresStore } from "../actors/store/postgres-store.ts";
import { openEtcd } from "../cluster/etcd/etcd.ts";
import { readMark } from "../cluster/guarded-coordinator.ts";
import { systemClock } from "../proto/clock.ts";
import { StarlingError } from "../proto/starling-error.ts";
import type { Settings } from "./config/settings.ts";

export interface Adopted {
  readonly clusterId: string;
  readonly etcd: readonly string[];
}

/**
 * Makes the etcd of the settings the one that the cluster's nodes meet at, in place of one that is gone (R22). While this
 * runs no node may: DATA_FOLDER_TAKEN names one that does. Raises CONFIG, UNAVAILABLE, STORE.
 */
export async function adoptEtcd(settings: Settings): Promise<Adopted> {
  const { databaseUrl, databaseUrls, etcd: endpoints, entityShards, systemShards } = settings;
  if (databaseUrl === null || endpoints === null) {
    throw new StarlingError("CONFIG", "to adopt an etcd, etcd and database_url have to be set");
  }
  const shards = { entity: entityShards, system: systemShards };
  const etcd = openEtcd({ endpoints, clock: systemClock });
  const closings: (() => Promise<void>)[] = [() => etcd.close()];
  try {
    const first = await openPostgresStore({ url: databaseUrl, lanes: 1, shards });
    closings.push(() => first.close());
    const lock = await first.lockExclusively({ name: `adopting, pid ${process.pid}`, onLost: () => {} });
    closings.push(() => lock.close());
    const mark = await readMark(etcd, `/starling/${first.clusterId}/`, randomUUID);
    if (mark === null) throw new StarlingError("UNAVAILABLE", "etcd did not keep the cluster's mark: try again");
    await first.adoptCoordinator(mark.value);
    for (const url of databaseUrls) {
      const store = await openPostgresStore({ url, lanes: 1, shards });
      closings.push(() => store.close());
      await store.adoptCoordinator(mark.value);
    }
    return { clusterId: first.clusterId, etcd: endpoints };
  } finally {
    for (const close of closings.reverse()) await close();
  }
}
