import { createHash, randomUUID } from "node:crypto";
import type { Counters } from "../actors/counters.ts";
import type { HookRunner } from "../actors/hooks/hook-runner.ts";
import { createNextDeadline } from "../actors/schedules/schedule-cron.ts";
import { createSnapshotComputer } from "../actors/snapshots/snapshot-computer.ts";
import { createSnapshotPace } from "../actors/snapshots/snapshot-pace.ts";
import { createSnapshotTaskSender } from "../actors/snapshots/snapshot-tasks.ts";
import { type Snapshots, startSnapshots } from "../actors/snapshots/snapshots.ts";
import type { ClusterEngine } from "../actors/start-engine.ts";
import { snapshotFormat } from "../actors/store/snapshot-rows.ts";
import type { Model } from "../modules/model.ts";
import type { SnapshotHooks } from "../modules/snapshot-hook.ts";
import { systemClock } from "../proto/clock.ts";
import { shardOf } from "../proto/shard-of.ts";
import type { LoadedConfig } from "./config/load-config.ts";
import type { Likeness } from "./likeness.ts";
import type { Log } from "./log.ts";
import type { Modules } from "./module-loader.ts";
import type { Database } from "./open-database.ts";

export interface SnapshotParts {
  readonly config: LoadedConfig;
  readonly database: Database;
  readonly engine: ClusterEngine;
  readonly modules: Modules;
  readonly actorModel: Model;
  readonly runner: HookRunner;
  readonly likeness: Likeness;
  readonly counters: Counters;
  readonly log: Log;
}

const dayMs = 24 * 3_600_000;
const noHooks: SnapshotHooks = { timeseries: new Map(), correlation: [], init: [], finalize: [] };

/** Takes part in snapshot runs. */
export function openSnapshots(parts: SnapshotParts): Snapshots {
  const { config, database, engine, modules, counters, log } = parts;
  const { settings, model, platform } = config;
  const hooks = modules.hooks.snapshot ?? noHooks;
  const { entityShards, systemShards } = settings;
  const cleaning = platform.historyManager?.snapshotCleaning ?? null;
  const computer = createSnapshotComputer({
    ...{ model, hooks, runner: parts.runner, queries: database.queries, clock: systemClock, log },
    keepEmpty: platform.snapshots.keepEmpty,
    shardOf: (type, eid) => shardOf("entity", type, eid, entityShards),
  });
  const appends = counters.histogram("append_seconds");
  const flushes = counters.histogram("flush_seconds");
  const send = { engine, model: parts.actorModel, clock: systemClock, counters, log, entityShards, systemShards };
  return startSnapshots({
    ...{
      store: database.snapshots,
      reads: database.store,
      computer,
      shards: engine.held,
      self: () => engine.self,
      counters,
      log,
    },
    ...{ entityShards, systemShards, owns: engine.ownsNow, clock: systemClock, wall: Date.now, newId: randomUUID },
    ticks: {
      learn: engine.ticks.announce,
      open: (tick) => new Set(engine.ticks.open().flatMap((cut) => (cut.tick === tick ? [cut.shard] : []))),
      passed: (shard, tick, place) => engine.ticks.pass({ shard, tick, to: place }),
    },
    isRefreshing: () => hooks.correlation.some(({ refresh }) => refresh?.flag.raised === true),
    isLinked: computer.linked.types.size > 0,
    fingerprint: createHash("sha256").update(`${parts.likeness.hash} ${snapshotFormat}`).digest("hex").slice(0, 16),
    next: isAnyStored(model)
      ? createNextDeadline(platform.snapshots.creationRate, "snapshots.yml: creation_rate")
      : null,
    cleanAt: createNextDeadline(cleaning?.schedule ?? { minute: 0 }, "history_manager.yml: snapshot_cleaning"),
    olderThanMs: cleaning?.olderThanMs ?? settings.retentionDays * dayMs,
    stallMs: settings.snapshotStallMs,
    send: createSnapshotTaskSender(send),
    pace: createSnapshotPace({
      clock: systemClock,
      writeSeconds: () => appends.sum() + flushes.sum(),
      share: settings.snapshotShare / 100,
    }),
    limits: {
      visitsMax: settings.snapshotConcurrency,
      changesMax: 100_000,
      pageMaxEntities: settings.snapshotPageMax,
      pageMaxBytes: settings.snapshotPageBytes,
      groupMaxBytes: settings.snapshotJoinBytes,
    },
  });
}

/** Without types that have snapshots no run begins by itself. */
function isAnyStored(model: Model): boolean {
  return [...model.entities.values()].some(({ snapshot }) => snapshot);
}
