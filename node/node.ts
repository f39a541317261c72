import { randomUUID } from "node:crypto";
import { resolve } from "node:path";
import { createCounters } from "../actors/counters.ts";
import { createEnding, endWithinMs } from "../actors/ending.ts";
import type { Engine } from "../actors/engine.ts";
import { allHooks } from "../actors/hooks/hook-lane.ts";
import { createMessenger } from "../actors/messenger.ts";
import { createBatchMeter } from "../actors/sessions/batch-meter.ts";
import { CallSession, defaultCallLimits } from "../actors/sessions/call-session.ts";
import type { Snapshots } from "../actors/snapshots/snapshots.ts";
import type { ClusterEngine } from "../actors/start-engine.ts";
import { systemClock } from "../proto/clock.ts";
import { toNodeId } from "../proto/ids.ts";
import type { StarlingError } from "../proto/starling-error.ts";
import { type LoadedConfig, loadConfig } from "./config/load-config.ts";
import type { SettingSources } from "./config/read-settings.ts";
import type { GrpcServer } from "./grpc/server.ts";
import { describeLikeness } from "./likeness.ts";
import type { Log } from "./log.ts";
import type { Modules } from "./module-loader.ts";
import { openActors } from "./open-actors.ts";
import { openCluster } from "./open-cluster.ts";
import { openDatabase } from "./open-database.ts";
import { openEngine } from "./open-engine.ts";
import { openHttp } from "./open-http.ts";
import { openModules } from "./open-modules.ts";
import { openSecurity } from "./open-security.ts";
import { openServer } from "./open-server.ts";
import { openSnapshots } from "./open-snapshots.ts";
import { openTracing } from "./open-tracing.ts";
import { openUpkeep } from "./open-upkeep.ts";

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
  const parts = { node: id, config, counters, log };
  const tracing = await openTracing({ settings, node: id, counters, clock: systemClock, log });
  opened.push(() => tracing.close());
  const meter = createBatchMeter({ counters, clock: systemClock, traces: tracing.traces });
  const types = [...model.entities.keys()];
  const security = await openSecurity({ settings, configDir: options.configDir, types, counters, log });
  opened.push(async () => security.close());
  const http = await openHttp({ settings, counters, tls: security.tls, clock: systemClock, log });
  opened.push(() => http.close());
  const database = await openDatabase({
    ...{ ...parts, settings, dataDir, model },
    ...(options.signal && { signal: options.signal }),
  });
  opened.push(() => database.close());
  const ending = createEnding({
    clock: systemClock,
    withinMs: endWithinMs,
    pings: database.pings,
    onGivenUp: (at, { message }) =>
      log.warn({ database: at, problem: message }, "nothing more is written to postgresql"),
  });
  opened.push(async () => ending.close());

  // Modules reach the engine, and the engine runs their hooks: it is there before the first hook runs.
  let engine: ClusterEngine | null = null;
  const { modules, runner, actorModel } = await openModules(
    { ...parts, configDir: options.configDir, dataDir, engine: () => engine },
    opened,
  );

  const likeness = describeLikeness(config, modules);
  // Its connections carry the links of other nodes, too: they end when these have ended.
  let edge: GrpcServer | null = null;
  opened.push(async () => edge?.close());
  const signal = givenUpWith(database.lost, options.signal);
  const cluster = await openCluster({ ...parts, settings, database, likeness, security: security.links, signal });
  opened.push(() => cluster.close());
  const { env } = options;
  const serving = openEngine({ ...parts, env, database, modules, runner, cluster, actorModel, tracing, ending });
  engine = serving;
  opened.push(() => serving.close());
  const calls = new CallSession({ engine: serving, clock: systemClock, meter, ...defaultCallLimits });
  opened.push(() => calls.close(callsGraceMs));
  const messenger = createMessenger({ engine: serving, calls, model: actorModel, clock: systemClock });

  let snapshots: Snapshots | null = null;
  const faces = { database, modules, cluster, security, actorModel, meter, snapshots: () => snapshots };
  const server = await openServer({ ...parts, ...faces, engine: serving });
  edge = server;
  opened.push(() => server.finish());
  const membership = await cluster.join(server.address);
  await unlessGivenUp(serving.join(membership, { alone: cluster.alone }), signal);
  const { clusterId, ping } = database;
  const hooks = allHooks(modules.hooks);
  http.serve({ engine: serving, membership, links: cluster.links, hooks, model: actorModel, clusterId, ping });
  opened.push(async () => {
    http.leave();
    if (cluster.alone) return;
    server.leaving();
    await serving.handOver(handOverWithinMs);
  });
  opened.push(openActors(modules, { ...parts, messenger, engine: serving }));
  const runs = openSnapshots({ ...parts, database, engine: serving, modules, runner, actorModel, likeness });
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
  opened.push(whileAnswered(openUpkeep({ ...parts, database, calls, engine: serving })));
  const { address } = server;
  const httpAddress = http.address;
  const { name } = membership.self;
  log.info({ address, http: httpAddress, name, node: id, model: model.hash, cluster: clusterId }, "serving");
  const failed = new Promise<StarlingError>((fail) => {
    serving.onHealth((problem) => {
      if (problem !== null && (problem.code === "FENCED" || problem.code === "INTERNAL")) fail(problem);
    });
    void database.lost.then(fail);
  });
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

/** Gives the start up for the caller's reason, or for what the node has lost. */
function givenUpWith(lost: Promise<StarlingError>, signal: AbortSignal | undefined): AbortSignal {
  const controller = new AbortController();
  void lost.then((problem) => controller.abort(problem));
  return AbortSignal.any([controller.signal, ...(signal === undefined ? [] : [signal])]);
}

/** Raises the reason for which a start is given up as soon as it is: what is waited for may never come, and is closed. */
async function unlessGivenUp(starting: Promise<void>, signal: AbortSignal): Promise<void> {
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

/** A node that leaves hands its shards over first, if there is somebody to have them. */
const handOverWithinMs = 20_000;

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
