import type { Counters } from "../actors/counters.ts";
import { startHistoryKeeper } from "../actors/history/history-keeper.ts";
import { startCollector } from "../actors/lifetimes/collector.ts";
import { startLinkKeeper } from "../actors/links/link-keeper.ts";
import { createNextDeadline } from "../actors/schedules/schedule-cron.ts";
import type { CallSession } from "../actors/sessions/call-session.ts";
import type { ClusterEngine } from "../actors/start-engine.ts";
import type { Fence } from "../actors/store/store.ts";
import { systemClock } from "../proto/clock.ts";
import { groupOf, type ShardId } from "../proto/ids.ts";
import { shardOf } from "../proto/shard-of.ts";
import type { LoadedConfig } from "./config/load-config.ts";
import type { Log } from "./log.ts";
import type { Database } from "./open-database.ts";

interface UpkeepParts {
  readonly config: LoadedConfig;
  readonly database: Pick<Database, "histories" | "obituaries" | "lifetimes">;
  readonly calls: CallSession;
  readonly engine: ClusterEngine;
  readonly counters: Counters;
  readonly log: Log;
}

/**
 * What is done in the background for the entities of this node's shards: histories are folded and cleaned, links to the dead
 * forgotten, lives ended that are over. Returns the end of it.
 */
export function openUpkeep(parts: UpkeepParts): () => Promise<void> {
  const { config, database, calls, engine, counters, log } = parts;
  const { histories, garbageCollector } = config.platform;
  const common = { model: config.model, counters, log, clock: systemClock, wall: Date.now };
  const sender = {
    calls,
    shardOf: (type: string, eid: string) => shardOf("entity", type, eid, engine.entityShards),
  };
  const shards = entityShardsOf(engine);
  const written = counters.counter("obituaries_written");
  const keepers = [
    startHistoryKeeper({
      ...{ ...common, histories: database.histories, shards },
      foldAt: createNextDeadline(histories.aggregation, "history_manager.yml: aggregation_schedule"),
      cleanAt: createNextDeadline(histories.cleaning, "history_manager.yml: datapoint_cleaning_schedule"),
    }),
    startLinkKeeper({
      ...{ ...common, ...sender, obituaries: database.obituaries, shards },
      news: () => written.value,
    }),
    startCollector({
      ...{ ...common, ...sender, lifetimes: database.lifetimes, shards },
      next: createNextDeadline(garbageCollector.collectionRate, "garbage_collector.yml: collection_rate"),
    }),
  ];
  return async () => void (await Promise.all(keepers.map((keeper) => keeper.close())));
}

/** One list for as long as the shards are the same. */
function entityShardsOf(engine: ClusterEngine): () => readonly ShardId[] {
  let held: readonly Fence[] = [];
  let shards: readonly ShardId[] = [];
  return () => {
    const now = engine.held();
    if (now !== held) shards = now.flatMap(({ shard }) => (groupOf(shard) === "entity" ? [shard] : []));
    held = now;
    return shards;
  };
}
