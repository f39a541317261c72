import { randomUUID } from "node:crypto";
import type { Counters } from "../actors/counters.ts";
import type { Ending } from "../actors/ending.ts";
import type { HookRunner } from "../actors/hooks/hook-runner.ts";
import type { LaneLimits } from "../actors/lane/lane.ts";
import { type ClusterEngine, startEngine } from "../actors/start-engine.ts";
import type { Model } from "../modules/model.ts";
import { systemClock } from "../proto/clock.ts";
import type { NodeId } from "../proto/ids.ts";
import { armFailPoint } from "./armed-fail-point.ts";
import type { LoadedConfig } from "./config/load-config.ts";
import type { Settings } from "./config/settings.ts";
import type { Log } from "./log.ts";
import type { Modules } from "./module-loader.ts";
import type { Cluster } from "./open-cluster.ts";
import type { Database } from "./open-database.ts";
import type { Tracing } from "./open-tracing.ts";

export interface EngineParts {
  readonly node: NodeId;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly config: LoadedConfig;
  readonly database: Database;
  readonly modules: Modules;
  readonly counters: Counters;
  readonly runner: HookRunner;
  readonly cluster: Cluster;
  readonly actorModel: Model;
  readonly tracing: Tracing;
  readonly ending: Ending;
  readonly log: Log;
}

/** The engine of a node, which owns no shard yet. */
export function openEngine(parts: EngineParts): ClusterEngine {
  const { config, database, modules, runner } = parts;
  const { settings } = config;
  return startEngine({
    node: parts.node,
    store: database.store,
    queries: database.queries,
    model: parts.actorModel,
    hooks: modules.hooks,
    runHook: (hook, call) => runner.run(hook, call),
    abandon: (shard) => runner.abandon(shard),
    links: parts.cluster.links,
    limits: laneLimits(settings),
    entityShards: settings.entityShards,
    systemShards: settings.systemShards,
    lanes: settings.lanes,
    databases: 1 + settings.databaseUrls.length,
    counters: parts.counters,
    traces: parts.tracing.traces,
    ending: parts.ending,
    clock: systemClock,
    wall: Date.now,
    newSessionId: randomUUID,
    log: parts.log,
    onFailPoint: armFailPoint(parts.env),
  });
}

/** Bounds of the node as each lane's own. */
function laneLimits(settings: Settings): LaneLimits {
  const lanes = settings.lanes * (1 + settings.databaseUrls.length);
  return {
    ...settings,
    residentMaxEntities: settings.residentMaxEntities / lanes,
    residentMaxBytes: settings.residentMaxBytes / lanes,
    backlogMaxBytes: settings.backlogMaxBytes / lanes,
  };
}
