import { randomUUID } from "node:crypto";
import { join, resolve } from "node:path";
import { type Counters, createCounters } from "../actors/counters.ts";
import { createEnding, type Ending, endWithinMs } from "../actors/ending.ts";
import type { Engine } from "../actors/engine.ts";
import { allHooks } from "../actors/hooks/hook-lane.ts";
import { createHookRunner, type HookRunner, hookRunnerLimits } from "../actors/hooks/hook-runner.ts";
import type { LaneLimits } from "../actors/lane/lane.ts";
import { createMessenger, createModuleActors, type Messenger } from "../actors/messenger.ts";
import { checkSchedules, startScheduleDriver } from "../actors/schedules/schedule-driver.ts";
import { createBatchMeter } from "../actors/sessions/batch-meter.ts";
import { CallSession, defaultCallLimits } from "../actors/sessions/call-session.ts";
import type { Snapshots } from "../actors/snapshots/snapshots.ts";
import { type ClusterEngine, type EngineOptions, startEngine } from "../actors/start-engine.ts";
import { modelWithBehaviours } from "../modules/behaviour-model.ts";
import type { Model } from "../modules/model.ts";
import { systemClock } from "../proto/clock.ts";
import { type NodeId, toNodeId } from "../proto/ids.ts";
import type { StarlingError } from "../proto/starling-error.ts";
import { armFailPoint } from "./armed-fail-point.ts";
import { type LoadedConfig, loadConfig } from "./config/load-config.ts";
import type { SettingSources } from "./config/read-settings.ts";
import type { Settings } from "./config/settings.ts";
import { createGate, type Gate } from "./grpc/gate.ts";
import { type GrpcServer, startGrpcServer } from "./grpc/server.ts";
import type { ServerTls } from "./grpc/server-credentials.ts";
import { describeLikeness } from "./likeness.ts";
import type { Log } from "./log.ts";
import { startLoopWatch } from "./loop-watch.ts";
import { loadModules, type Modules } from "./module-loader.ts";
import { moduleStatuses } from "./module-status.ts";
import { type Cluster, openCluster } from "./open-cluster.ts";
import { type Database, openDatabase } from "./open-database.ts";
import { openHttp } from "./open-http.ts";
import { openSecurity, type Security } from "./open-security.ts";
import { openSnapshots } from "./open-snapshots.ts";
import { openTracing, type Tracing } from "./open-tracing.ts";
import { openUpkeep } from "./open-upkeep.ts";
import { version } from "./version.ts";

/** One node, serving. */
export interface Node extends AsyncDisposable {
  readonly id: string;
  /** gRPC, `host:port`. */
  readonly address: string;
  /** Metrics and health, `host:port`; null: nowhere. */
  readonly httpAddress: string | null;
  readonly config: LoadedConfig;
  readonly engine: Engine;
  readonly snapshots: Snapshots;
  readonly modules: Modules;
  /** Settles when the node has lost what it needs to go on, with the reason. */
  readonly failed: Promise<StarlingError>;
  /** Reads certificates and tokens again. */
  reload(): Promise<void>;
  /** Finishes what is in hand, hands the shards over, and ends. Idempotent. */
  close(): Promise<void>;
}

export interface NodeOptions extends Pick<SettingSources, "env" | "flags"> {
  readonly configDir: string;
  readonly log: Log;
  /** Gives the start up. */
  readonly signal?: AbortSignal;
}

type Closing = () => Promise<void>;

/** Starts a node: opens everything in order, and closes what was opened when a later part fails. */
export async function startNode(options: NodeOptions): Promise<Node> {
  const opened: Closing[] = [];
  const close = closeOnce(opened, options.log);
  try {
    return await open(options, opened, close);
  } catch (error) {
    await close();
    throw error;
  }
}

async function open(options: NodeOptions, opened: Closing[], close: Closing): Promise<Node> {
  const { log } = options;
  const id = toNodeId(randomUUID());
  const config = await loadConfig(options.configDir, options);
  const { settings, model } = config;
  log.level = settings.logLevel;
  for (const sentence of config.ignored) log.info({}, sentence);
  const dataDir = resolve(settings.dataDir);
  const counters = createCounters({ measures: settings.httpListen !== "none" });
  const tracing = await openTracing({ settings, node: id, counters, clock: systemClock, log });
  opened.push(() => tracing.close());
  const meter = createBatchMeter({ counters, clock: systemClock, traces: tracing.traces });
  const types = [...model.entities.keys()];
  const security = await openSecurity({ settings, configDir: options.configDir, types, counters, log });
  opened.push(async () => security.close());
  const http = await openHttp({ settings, counters, tls: security.tls, clock: systemClock, log });
  opened.push(() => http.close());
  const database = await openDatabase({
    settings,
    dataDir,
    log,
    node: id,
    model,
    counters,
    ...(options.signal && { signal: options.signal }),
  });
  opened.push(() => database.close());
  const ending = createEnding({
    clock: systemClock,
    withinMs: endWithinMs,
    pings: database.pings,
    onGivenUp: (at, { message }) =>
      log.warn({ database: at, problem: message }, "what postgresql has not yet is left in the log"),
  });
  opened.push(async () => ending.close());

  const modules = await loadModules({
    modulesDir: config.modulesDir ?? options.configDir,
    enabled: config.enabledModules,
    moduleConfigs: Object.fromEntries(config.moduleConfigs) as Parameters<typeof loadModules>[0]["moduleConfigs"],
    model,
    platformConfig: { nodeName: id, model, config: platformFiles(config) },
    hookDefaults: {
      concurrency: settings.hookConcurrency,
      timeoutMs: settings.hookTimeoutMs,
      retries: settings.hookRetries,
    },
    log: (module) => log.child({ module }),
    cacheDir: join(dataDir, "modules"),
    clock: systemClock,
  });
  checkSchedules(modules.scheduled);
  const actorModel = modelWithBehaviours(model, modules.behaviours);
  const watch = startLoopWatch({ hooks: allHooks(modules.hooks).map((hook) => hook.id), clock: systemClock, log });
  opened.push(() => watch.close());

  // The runner asks the engine for records, the engine runs hooks: the engine is there before the first hook runs.
  let engine: Engine | null = null;
  const runner: HookRunner = createHookRunner({
    hooks: modules.hooks,
    model: actorModel,
    limits: { ...hookRunnerLimits, tasksMax: settings.hookTasksMax, bytesMax: settings.hookTasksMaxBytes },
    clock: systemClock,
    random: Math.random,
    counters,
    log: (hook) => log.child({ module: hook.module, hook: hook.name }),
    getRecord: async (type, eid) => (await engine?.get(type, String(eid), null))?.view ?? null,
    mark: watch.mark,
  });
  opened.push(async () => runner.close());

  await modules.start();
  opened.push(() => modules.stop());

  const likeness = describeLikeness(config, modules);
  // Its connections carry the links of other nodes, too: they end when these have ended.
  let edge: GrpcServer | null = null;
  opened.push(async () => edge?.close());
  const cluster = await openCluster({
    settings,
    database,
    node: id,
    likeness,
    security: security.links,
    counters,
    log,
    signal: options.signal,
  });
  opened.push(() => cluster.close());
  const serving = startEngine(
    engineOptions(options, { id, config, database, modules, counters, runner, cluster, actorModel, tracing, ending }),
  );
  engine = serving;
  opened.push(() => serving.close());
  const calls = new CallSession({ engine: serving, clock: systemClock, meter, ...defaultCallLimits });
  opened.push(() => calls.close(callsGraceMs));
  const messenger = createMessenger({ engine: serving, calls, model: actorModel, clock: systemClock });

  let snapshots: Snapshots | null = null;
  const server = await startGrpcServer({
    engine: serving,
    model,
    actorModel,
    listen: settings.listen,
    tls: serverTls(security, settings),
    gate: gateOf(security, counters),
    node: id,
    clusterId: database.clusterId,
    version,
    modules: () => moduleStatuses(modules, model, counters),
    addresses: cluster.addresses,
    elsewhere: cluster.elsewhere,
    name: cluster.name,
    addServices: (grpc) => cluster.links.addTo(grpc),
    onSessionTaken: serving.onSessionTaken,
    owners: serving.owners,
    meter,
    control: serving.control,
    snapshots: { queries: database.snapshotQueries, runs: () => snapshots },
    log,
    limits: {
      creditBatches: settings.creditBatches,
      creditBytes: settings.creditBytes,
      maxStreams: settings.sessionMaxCount,
    },
  });
  edge = server;
  opened.push(() => server.finish());
  const membership = await cluster.join(server.address);
  await unlessGivenUp(serving.join(membership, { alone: cluster.alone }), options.signal);
  const { clusterId, ping } = database;
  const hooks = allHooks(modules.hooks);
  http.serve({ engine: serving, membership, links: cluster.links, hooks, model: actorModel, clusterId, ping });
  opened.push(async () => {
    http.leave();
    if (cluster.alone) return;
    server.leaving();
    await serving.handOver(handOverWithinMs);
  });
  opened.push(openActors(modules, { messenger, engine: serving, counters, log }));
  const runs = openSnapshots({
    config,
    database,
    engine: serving,
    modules,
    runner,
    actorModel,
    likeness,
    counters,
    log,
  });
  snapshots = runs;
  // What is with the store happens as a whole or not at all.
  const whileAnswered = (end: Closing): Closing => {
    const text = "what the node does by itself has not ended";
    return async () => {
      ending.begin();
      await ending.wait(end(), { text }).catch((error: unknown) => log.warn({ problem: String(error) }, text));
    };
  };
  opened.push(whileAnswered(() => runs.close()));
  opened.push(whileAnswered(openUpkeep({ config, database, calls, engine: serving, counters, log })));
  const { name } = membership.self;
  const httpAddress = http.address;
  log.info(
    { address: server.address, http: httpAddress, name, node: id, model: model.hash, cluster: database.clusterId },
    "serving",
  );
  const failed = new Promise<StarlingError>((fail) => {
    serving.onHealth((problem) => {
      if (problem !== null && (problem.code === "FENCED" || problem.code === "INTERNAL")) fail(problem);
    });
    void database.lost.then(fail);
  });
  const { address } = server;
  const { reload } = security;
  return {
    id,
    address,
    httpAddress,
    config,
    engine: serving,
    snapshots: runs,
    modules,
    failed,
    reload,
    close,
    [Symbol.asyncDispose]: close,
  };
}

function serverTls({ tls }: Security, { tlsCa, tlsClientAuth }: Settings): ServerTls | null {
  if (tls === null) return null;
  return { files: tls, asksForCertificate: tlsCa !== null, requiresCertificate: tlsClientAuth === "required" };
}

function gateOf({ tls, tokens }: Security, counters: Counters): Gate {
  const transport = tls === null ? "plain" : "tls";
  return createGate({ tokens, transport, wall: Date.now, count: (name) => counters.add(name) });
}

/** Raises the reason for which a start is given up as soon as it is: what is waited for may never come, and is closed. */
async function unlessGivenUp(starting: Promise<void>, signal = new AbortController().signal): Promise<void> {
  let giveUp = () => {};
  const givenUp = new Promise<never>((_, reject) => {
    giveUp = () => reject(signal.reason);
  });
  signal.addEventListener("abort", giveUp, { once: true });
  if (signal.aborted) giveUp();
  // Whichever comes later is nobody's.
  for (const one of [starting, givenUp]) one.catch(() => undefined);
  try {
    await Promise.race([starting, givenUp]);
  } finally {
    signal.removeEventListener("abort", giveUp);
  }
}

/** How long messages of modules may be on their way at the end. */
const callsGraceMs = 1_000;

/** Lets modules reach actors, and runs their schedules. Returns the end of the latter. */
function openActors(
  modules: Modules,
  parts: { messenger: Messenger; engine: ClusterEngine; counters: Counters; log: Log },
): Closing {
  const { messenger, engine, counters, log } = parts;
  modules.actors.open(createModuleActors(messenger));
  const driver = startScheduleDriver({
    ...{ scheduled: modules.scheduled, engine, messenger, owns: engine.ownsNow, counters },
    ...{ clock: systemClock, wall: Date.now, log: (module) => log.child({ module }) },
  });
  return () => driver.close();
}

/** A node that leaves hands its shards over first, if there is somebody to have them. */
const handOverWithinMs = 20_000;

interface EngineParts {
  readonly id: NodeId;
  readonly config: LoadedConfig;
  readonly database: Database;
  readonly modules: Modules;
  readonly counters: Counters;
  readonly runner: HookRunner;
  readonly cluster: Cluster;
  readonly actorModel: Model;
  readonly tracing: Tracing;
  readonly ending: Ending;
}

function engineOptions({ env, log }: NodeOptions, parts: EngineParts): EngineOptions {
  const { config, database, modules, runner } = parts;
  const { settings } = config;
  return {
    node: parts.id,
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
    log,
    onFailPoint: armFailPoint(env),
  };
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

/** What modules see of the configuration directory. */
function platformFiles(config: LoadedConfig): Readonly<Record<string, unknown>> {
  const { moduleConfigs, ...core } = config.platform;
  return { core, modules: Object.fromEntries(moduleConfigs) };
}

/** Closes in reverse order, once; a part that fails to close does not keep the others open. */
function closeOnce(opened: Closing[], log: Log): Closing {
  let closing: Promise<void> | null = null;
  const run = async (): Promise<void> => {
    for (const close of opened.splice(0).reverse()) {
      await close().catch((error: unknown) => log.error({ err: error }, "a part of the node failed to close"));
    }
  };
  return () => {
    closing ??= run();
    return closing;
  };
}
