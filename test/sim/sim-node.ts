import { create, toBinary } from "@bufbuild/protobuf";
import { createCounters } from "../../actors/counters.ts";
import { createEnding, endWithinMs } from "../../actors/ending.ts";
import { createHookRunner, hookRunnerLimits } from "../../actors/hooks/hook-runner.ts";
import type { LaneLimits } from "../../actors/lane/lane.ts";
import { startCollector } from "../../actors/lifetimes/collector.ts";
import { startLinkKeeper } from "../../actors/links/link-keeper.ts";
import { createMessenger, type Messenger } from "../../actors/messenger.ts";
import { startScheduleDriver } from "../../actors/schedules/schedule-driver.ts";
import { CallSession } from "../../actors/sessions/call-session.ts";
import { coordinatorShard } from "../../actors/snapshots/snapshot-coordinator.ts";
import { type ClusterEngine, startEngine } from "../../actors/start-engine.ts";
import type { Coordinator } from "../../cluster/coordinator.ts";
import { joinMembership } from "../../cluster/membership/join-membership.ts";
import type { Membership } from "../../cluster/membership/membership.ts";
import type { CoordinatorCall, CoordinatorFault, MemoryCoordinator } from "../../cluster/memory-coordinator.ts";
import { anyone } from "../../node/grpc/gate.ts";
import { IngestService } from "../../node/grpc/ingest-service.ts";
import { defaultGrpcLimits } from "../../node/grpc/server.ts";
import { type SendRequest, SendRequestSchema } from "../../proto/gen/starling_pb.ts";
import { groupOf, type NodeId, type ShardId, toNodeId } from "../../proto/ids.ts";
import { shardOf } from "../../proto/shard-of.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { MemoryNetwork } from "../support/memory-links.ts";
import type { MemoryStore } from "../support/memory-store.ts";
import { actorModel, createModule, model } from "./load.ts";
import type { Scheduler } from "./scheduler.ts";
import { openSimStream, type SimStream, type SimStreamListener } from "./sim-call.ts";
import { type CoordinatorStore, startSimCoordinator } from "./sim-coordinator.ts";
import { createSimCells, SimProcess } from "./sim-process.ts";
import { connectSimRuns, connectSimStore, createSimSessions, pingSimStore, type StoreFault } from "./sim-store.ts";

/** What all nodes of a run have in common, and what befalls them. */
export interface SimWorld {
  readonly scheduler: Scheduler;
  readonly random: () => number;
  readonly network: MemoryNetwork;
  readonly coordinator: MemoryCoordinator;
  readonly database: MemoryStore;
  readonly runs: CoordinatorStore;
  readonly entityShards: number;
  readonly isBroken: () => boolean;
  /** A hook of the node ends its process, if it still does. */
  readonly onFatal: (node: string, v: string) => boolean;
  /** Whether schedules go on. */
  readonly isScheduling: () => boolean;
  /** Whether snapshot runs go on. */
  readonly isTicking: () => boolean;
  readonly onWrongCall: (text: string) => void;
  /** A node's database is another than it was: its process is to end. */
  readonly onOtherWorld: (node: string) => void;
  /** By the node's name. */
  readonly storeFault: (node: string, call: string) => StoreFault;
  readonly coordinatorFault: (node: string, call: CoordinatorCall) => CoordinatorFault;
  readonly latencyMs: () => number;
  /** A lane failed, or something else that is never to happen. */
  readonly onBug: (text: string) => void;
  readonly newId: (prefix: string) => string;
  readonly addresses: () => readonly string[];
  readonly trace: (node: string, text: string, fields: object) => void;
}

/** One start of a node: the composition of `node/node.ts`, in a simulated process. */
export interface SimNode {
  readonly name: string;
  readonly process: SimProcess;
  readonly engine: ClusterEngine;
  readonly messenger: Messenger;
  /** Null until it has joined. */
  readonly membership: Membership | null;
  /** Calls to the store and hooks that have not ended. */
  readonly inFlight: number;
  readonly pendingCalls: ReadonlyMap<string, number>;
  readonly counters: Readonly<Record<string, number>>;
  stream(listener: SimStreamListener): SimStream;
  send(request: SendRequest): Promise<unknown>;
  /** Leaves in order; resolves when the process could end. */
  stop(): Promise<void>;
  /** Nothing of it runs any more. */
  kill(): void;
}

/** Unix ms at a time of the simulation. */
export function wallAt(ms: number): number {
  return 1_767_225_600_000 + Math.floor(ms);
}

export const systemShards = 2;
/** The shard of the coordinator of snapshot runs. */
export const coordinatorHome = coordinatorShard(systemShards);
export const prefix = "/starling/sim/";
const protocol = { protocolMin: 1, protocolMax: 2 } as const;

export const laneLimits: LaneLimits = {
  appendMaxDatapoints: 200,
  flushIntervalMs: 300,
  flushMaxEntities: 5,
  flushMaxBytes: 1e9,
  lagMaxEntries: 40,
  lagMaxBytes: 1e7,
  backlogMaxBytes: 1e7,
  residentMaxEntities: 30,
  residentMaxBytes: 1e7,
  passivateAfterMs: 1000,
  chainMaxDepth: 16,
  obligationAfterMs: 700,
  obligationAfterSeqs: 10_000,
};

const collectEveryMs = 700;

/** Starts a node; it joins by itself. */
export function startSimNode(world: SimWorld, name: string): SimNode {
  const { scheduler, network, database, random } = world;
  const address = `${name}:7800`;
  const skewMs = 300 * (random() - 0.5);
  const process = new SimProcess(scheduler.clock, 150 + skewMs);
  const { clock } = process;
  const counters = createCounters();
  const say = (fields: object, text: string): void => world.trace(name, text, fields);
  const log = { debug: () => {}, info: say, warn: say, error: say };
  const wall = (): number => wallAt(scheduler.clock.now() + skewMs);
  const first = toNodeId(world.newId(`${name}-`));
  let membership: Membership | null = null;
  let inFlight = 0;
  const pendingCalls = new Map<string, number>();
  const way = {
    ...{ process, clock: scheduler.clock },
    sessions: createSimSessions(database, () => process.enter(() => world.onOtherWorld(name))),
    faultOf: (call: string) => world.storeFault(name, call),
    onPending: (change: 1 | -1, call: string) => {
      inFlight += change;
      pendingCalls.set(call, (pendingCalls.get(call) ?? 0) + change);
    },
  };
  const store = connectSimStore({ ...way, database });
  const { isBroken, onWrongCall } = world;
  const onFatal = (v: string): boolean => world.onFatal(name, v);
  const { hooks, scheduled } = createModule({ clock, log, random, isBroken, onFatal, onWrongCall });
  const runner = createHookRunner({
    ...{ hooks, model: actorModel, clock, random, counters },
    limits: hookRunnerLimits,
    log: () => log,
    getRecord: async (type, eid) => (await engine.get(type, String(eid), null))?.view ?? null,
  });
  const links = network.links(
    () => ({ id: membership?.self.id ?? first, name, address }),
    { clusterId: "sim", modelHash: model.hash, clock, log, counters, ...protocol },
    (run) => process.enter(run),
  );
  const cells = createSimCells(clock, (error) => world.onBug(`${name}: ${String((error as Error).stack ?? error)}`));
  const ending = createEnding({ clock, withinMs: endWithinMs, pings: [() => pingSimStore(way)] });
  const engine = startEngine({
    ...{
      node: first,
      store,
      queries: store,
      model: actorModel,
      hooks,
      links,
      limits: laneLimits,
      counters,
      clock,
      log,
      cells,
    },
    runHook: (hook, call) => runner.run(hook, call),
    abandon: (shard) => runner.abandon(shard),
    ...{ entityShards: world.entityShards, systemShards, lanes: 2, databases: 1 },
    wall,
    newSessionId: () => world.newId("session-"),
    ending,
  });
  const limits = {
    ...defaultGrpcLimits,
    ...{ model, entityShards: world.entityShards, clusterId: "sim", node: name, addresses: world.addresses },
  };
  const calls = new CallSession({ engine, clock, maxCalls: limits.maxCalls, maxBytes: limits.maxBytes });
  const messenger = createMessenger({ engine, calls, model: actorModel, clock });
  const driver = startScheduleDriver({
    ...{ scheduled, engine, messenger, clock, wall, counters, log: () => log },
    owns: (shard) => world.isScheduling() && engine.ownsNow(shard),
  });
  const endCoordinator = startSimCoordinator({
    ...{ store: connectSimRuns(way, world.runs), engine, clock, wall, counters, log, isTicking: world.isTicking },
    ...{ entityShards: world.entityShards, home: coordinatorHome },
  });
  const upkeep = {
    ...{ calls, model: actorModel, clock, wall, counters, log },
    shardOf: (type: string, eid: string) => shardOf("entity", type, eid, world.entityShards),
    shards: (): ShardId[] =>
      engine.status().shards.flatMap(({ shard }) => (groupOf(shard) === "entity" ? [shard] : [])),
  };
  const written = counters.counter("obituaries_written");
  const keepers = [
    startLinkKeeper({ ...upkeep, obituaries: store, news: () => written.value }),
    startCollector({ ...upkeep, lifetimes: store, patienceMs: 200, next: (after) => after + collectEveryMs }),
  ];
  const ingest = new IngestService({ ...limits, engine, clock, limits, calls });
  engine.onSessionTaken((session, opening) => ingest.take(session, opening));

  const ids: NodeId[] = [first];
  const coordinator = connectSimCoordinator(world, name, process);
  const stopping = new AbortController();
  const join = async (): Promise<void> => {
    membership = await joinMembership({
      ...{ coordinator, clock, random, prefix, log },
      newId: () => ids.shift() ?? toNodeId(world.newId(`${name}-`)),
      record: { name, address, version: "0", ...protocol, modelHash: model.hash },
      leaseTtlMs: 4000,
      joinTimeoutMs: 120_000,
      signal: stopping.signal,
    });
    await engine.join(membership, { alone: false });
  };
  join().catch((error: unknown) => {
    if (!stopping.signal.aborted) world.onBug(`${name} did not join: ${String(error)}`);
  });

  return {
    name,
    process,
    engine,
    messenger,
    pendingCalls,
    get membership() {
      return membership;
    },
    get inFlight() {
      return inFlight + runner.pending;
    },
    get counters() {
      return counters.read();
    },
    stream: (listener) =>
      openSimStream({
        ...{ world: scheduler.clock, process, latencyMs: world.latencyMs, listener },
        serve: (call) => void ingest.handlers.stream(call, anyone),
      }),
    send: (request) => {
      const message = create(SendRequestSchema, request);
      const call = { deadlineMs: 10_000, caller: anyone, traceparent: null };
      const context = { signal: new AbortController().signal, ...call };
      return ingest.handlers.send({ message, bytes: toBinary(SendRequestSchema, message) }, context);
    },
    stop: async () => {
      stopping.abort(new StarlingError("UNAVAILABLE", "the node is stopping"));
      ingest.leave(world.addresses().filter((other) => other !== address));
      await driver.close();
      ending.begin();
      const own = Promise.all([endCoordinator(), ...keepers.map((keeper) => keeper.close())]);
      const text = "what the node does by itself has not ended";
      await ending.wait(own, { text }).catch((error: unknown) => say({ problem: String(error) }, text));
      await engine.handOver(20_000);
      ingest.close(new StarlingError("UNAVAILABLE", "the node is stopping"));
      await engine.close();
      await membership?.close();
      await links.close();
      runner.close();
      await cells.close();
    },
    kill: () => {
      process.kill();
      network.kill(address);
    },
  };
}

/** A node's way to the coordinator: what it says reaches the process, if there is one. */
function connectSimCoordinator(world: SimWorld, name: string, process: SimProcess): Coordinator {
  const client = world.coordinator.client((call) => world.coordinatorFault(name, call));
  const wrap =
    <A extends unknown[], T>(call: (...args: A) => Promise<T>) =>
    (...args: A): Promise<T> =>
      process.answer<T>((resolve, reject) => void call(...args).then(resolve, reject));
  return {
    identity: wrap(client.identity),
    grant: wrap(client.grant),
    keepAlive: wrap(client.keepAlive),
    revoke: wrap(client.revoke),
    commit: wrap(client.commit),
    list: wrap(client.list),
    watch: (watched, onHint) => client.watch(watched, () => process.enter(onHint)),
    close: client.close,
  };
}
