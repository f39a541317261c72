import type { Counters } from "../actors/counters.ts";
import type { BatchMeter } from "../actors/sessions/batch-meter.ts";
import type { Snapshots } from "../actors/snapshots/snapshots.ts";
import type { ClusterEngine } from "../actors/start-engine.ts";
import type { Model } from "../modules/model.ts";
import type { NodeId } from "../proto/ids.ts";
import type { LoadedConfig } from "./config/load-config.ts";
import type { Settings } from "./config/settings.ts";
import { createGate, type Gate } from "./grpc/gate.ts";
import { type GrpcServer, startGrpcServer } from "./grpc/server.ts";
import type { ServerTls } from "./grpc/server-credentials.ts";
import type { Log } from "./log.ts";
import type { Modules } from "./module-loader.ts";
import { moduleStatuses } from "./module-status.ts";
import type { Cluster } from "./open-cluster.ts";
import type { Database } from "./open-database.ts";
import type { Security } from "./open-security.ts";
import { version } from "./version.ts";

export interface ServerParts {
  readonly node: NodeId;
  readonly config: LoadedConfig;
  readonly engine: ClusterEngine;
  readonly actorModel: Model;
  readonly modules: Modules;
  readonly database: Database;
  readonly cluster: Cluster;
  readonly security: Security;
  readonly meter: BatchMeter;
  readonly counters: Counters;
  /** Null until they are there. */
  readonly snapshots: () => Snapshots | null;
  readonly log: Log;
}

/** The gRPC server of a node: for clients, for people, and for the links of other nodes. Raises ADDRESS_IN_USE, CONFIG. */
export function openServer(parts: ServerParts): Promise<GrpcServer> {
  const { config, engine, modules, database, cluster, security, counters } = parts;
  const { settings, model } = config;
  return startGrpcServer({
    engine,
    model,
    actorModel: parts.actorModel,
    listen: settings.listen,
    tls: serverTls(security, settings),
    gate: gateOf(security, counters),
    node: parts.node,
    clusterId: database.clusterId,
    version,
    modules: () => moduleStatuses(modules, model, counters),
    addresses: cluster.addresses,
    elsewhere: cluster.elsewhere,
    name: cluster.name,
    addServices: (grpc) => cluster.links.addTo(grpc),
    onSessionTaken: engine.onSessionTaken,
    owners: engine.owners,
    meter: parts.meter,
    control: engine.control,
    snapshots: { queries: database.snapshotQueries, runs: parts.snapshots },
    log: parts.log,
    limits: {
      creditBatches: settings.creditBatches,
      creditBytes: settings.creditBytes,
      maxStreams: settings.sessionMaxCount,
    },
  });
}

function serverTls({ tls }: Security, { tlsCa, tlsClientAuth }: Settings): ServerTls | null {
  if (tls === null) return null;
  return { files: tls, asksForCertificate: tlsCa !== null, requiresCertificate: tlsClientAuth === "required" };
}

function gateOf({ tls, tokens }: Security, counters: Counters): Gate {
  const transport = tls === null ? "plain" : "tls";
  return createGate({ tokens, transport, wall: Date.now, count: (name) => counters.add(name) });
}
