import type { DescService } from "@bufbuild/protobuf";
import { logVerbosity, Server, type ServerCredentials, setLogVerbosity } from "@grpc/grpc-js";
import type { Engine } from "../../actors/engine.ts";
import { createMessenger } from "../../actors/messenger.ts";
import { type BatchMeter, createBatchMeter } from "../../actors/sessions/batch-meter.ts";
import { CallSession, defaultCallLimits } from "../../actors/sessions/call-session.ts";
import { defaultCredits } from "../../actors/sessions/stream.ts";
import type { Model } from "../../modules/model.ts";
import { type Clock, systemClock } from "../../proto/clock.ts";
import { file_grpc_health, Health } from "../../proto/gen/grpc/health_pb.ts";
import { ServerReflection } from "../../proto/gen/grpc/reflection_pb.ts";
import { Actors, Admin, Entities, file_starling, Ingest, Snapshots } from "../../proto/gen/starling_pb.ts";
import type { SessionId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { type Access, access } from "./access.ts";
import { createActorsHandlers } from "./actors-service.ts";
import { type AdminOptions, createAdminHandlers, type ModuleStatus } from "./admin-service.ts";
import { createEntitiesHandlers } from "./entities-service.ts";
import { type Gate, openGate } from "./gate.ts";
import { HealthService } from "./health.ts";
import { widenConnectionWindows, widenStreamWindows } from "./http2-door.ts";
import { IngestService } from "./ingest-service.ts";
import { alphaServiceName, createReflection } from "./reflection.ts";
import { type ServerTls, serverCredentials } from "./server-credentials.ts";
import { addService } from "./service.ts";
import { createSnapshotsHandlers, type SnapshotsFace } from "./snapshots-service.ts";

export interface GrpcServerOptions {
  readonly engine: Engine;
  readonly model: Model;
  /** With the behaviours of modules; default the model. */
  readonly actorModel?: Model;
  /** `host:port`, or a port alone for loopback; port 0 takes a free one. */
  readonly listen: string;
  /** Null, the default: plain text. */
  readonly tls?: ServerTls | null;
  /** Who may call; default: everyone. */
  readonly gate?: Gate;
  readonly node: string;
  readonly name?: AdminOptions["name"];
  readonly clusterId: string;
  readonly version: string;
  readonly modules: () => readonly ModuleStatus[];
  /** gRPC addresses of the cluster's nodes; default this one alone. */
  readonly addresses?: () => readonly string[];
  /** Those to which clients can go when this node leaves; default none. */
  readonly elsewhere?: () => readonly string[];
  /** Adds services of others, before the server is bound. */
  readonly addServices?: (server: Server) => void;
  /** Tells of sessions that were opened on other nodes. */
  readonly onSessionTaken?: (listener: (session: SessionId, opening: number) => void) => () => void;
  /** Where the shards of entities are; default: nobody knows. */
  readonly owners?: AdminOptions["owners"];
  /** Default: one that counts with the engine's counters. */
  readonly meter?: BatchMeter;
  readonly control?: AdminOptions["control"];
  /** Default: there is no service of snapshots. */
  readonly snapshots?: SnapshotsFace;
  readonly log: GrpcLog;
  readonly clock?: Clock;
  readonly limits?: Partial<GrpcLimits>;
}

export interface GrpcLog {
  info(fields: object, message: string): void;
}

/** Bounds of the gRPC edge. */
export interface GrpcLimits {
  readonly creditBatches: number;
  readonly creditBytes: number;
  /** Batches of one `processed` stream that are durable but not processed. */
  readonly unprocessedMax: number;
  readonly maxStreams: number;
  readonly maxCalls: number;
  /** Bytes of the batches of calls without a session. */
  readonly maxBytes: number;
  readonly helloMs: number;
  /** How long a client may leave its acknowledgements unread. */
  readonly stalledMs: number;
  /** How often the session of an open stream is noted to be in use. */
  readonly useEveryMs: number;
  /** How often it is asked whether the sessions of open streams were opened again or closed elsewhere. */
  readonly lookEveryMs: number;
  /** How long `close` waits for what is in hand. */
  readonly closeGraceMs: number;
}

export interface GrpcServer {
  /** `host:port` as bound. */
  readonly address: string;
  /** Says NOT_SERVING, and sends clients to the other nodes; they are served until `close`. */
  leaving(): void;
  /**
   * Lets clients finish for `closeGraceMs`, those without another node until nothing of them is in flight; then ends their
   * streams and refuses new ones. What others serve here, as the links of nodes, goes on. Idempotent.
   */
  finish(): Promise<void>;
  /** Finishes, then ends every connection. Idempotent. */
  close(): Promise<void>;
}

export const defaultGrpcLimits: GrpcLimits = {
  ...defaultCredits,
  ...defaultCallLimits,
  maxStreams: 1_000,
  helloMs: 10_000,
  stalledMs: 60_000,
  useEveryMs: 3_600_000,
  lookEveryMs: 5_000,
  closeGraceMs: 5_000,
};

/** A batch of 4 MiB and what surrounds it; what is just above gets TOO_LARGE from us instead of an end of the stream. */
const messageMaxBytes = 8 * 1024 * 1024;
const windowBytes = 4 * 1024 * 1024;

const channelOptions = {
  "grpc.max_receive_message_length": messageMaxBytes,
  "grpc.max_send_message_length": 64 * 1024 * 1024,
  "grpc.keepalive_time_ms": 20_000,
  "grpc.keepalive_timeout_ms": 10_000,
  "grpc.keepalive_permit_without_calls": 1,
};

/** Serves Ingest, Entities, Snapshots, Admin, Actors, health and reflection. Raises ADDRESS_IN_USE and CONFIG. */
export async function startGrpcServer(options: GrpcServerOptions): Promise<GrpcServer> {
  // What grpc-js would write to stderr comes back as an error all the same; GRPC_VERBOSITY brings it back.
  if (process.env.GRPC_VERBOSITY === undefined) setLogVerbosity(logVerbosity.NONE);
  const edge = new GrpcEdge(options);
  await edge.start();
  return edge;
}

class GrpcEdge implements GrpcServer {
  readonly #options: GrpcServerOptions;
  readonly #clock: Clock;
  readonly #limits: GrpcLimits;
  readonly #server = new Server(channelOptions);
  readonly #calls: CallSession;
  readonly #ingest: IngestService;
  readonly #health: HealthService;
  #address = "";
  #status: "serving" | "leaving" | "finished" = "serving";
  readonly #unsubscribe: () => void;
  /** Calls with one answer each that have none yet. */
  #unanswered = 0;
  #finished: Promise<void> | null = null;
  #closed: Promise<void> | null = null;

  constructor(options: GrpcServerOptions) {
    const { engine, model, node, clusterId } = options;
    const clock = options.clock ?? systemClock;
    const limits = { ...defaultGrpcLimits, ...options.limits };
    const addresses = () => this.#addresses();
    const streamLimits = { ...limits, model, node, clusterId, addresses, entityShards: engine.entityShards };
    this.#options = options;
    this.#clock = clock;
    this.#limits = limits;
    const meter = options.meter ?? createBatchMeter({ counters: engine.counters, clock });
    this.#calls = new CallSession({ engine, clock, meter, maxCalls: limits.maxCalls, maxBytes: limits.maxBytes });
    this.#ingest = new IngestService({ ...limits, engine, clock, meter, calls: this.#calls, limits: streamLimits });
    this.#health = new HealthService(
      engine,
      served.map(({ typeName }) => typeName),
    );
    this.#addServices();
    this.#unsubscribe =
      options.onSessionTaken?.((session, opening) => this.#ingest.take(session, opening)) ?? (() => {});
  }

  get address(): string {
    return this.#address;
  }

  async start(): Promise<void> {
    try {
      this.#address = await bind(this.#server, this.#options.listen, serverCredentials(this.#options.tls ?? null));
    } catch (error) {
      this.#health.close();
      throw error;
    }
    this.#options.log.info({ address: this.#address }, "grpc server started");
  }

  leaving(): void {
    if (this.#status !== "serving") return;
    this.#status = "leaving";
    this.#health.leave();
    this.#ingest.leave(this.#elsewhere());
  }

  finish(): Promise<void> {
    this.#finished ??= this.#finish();
    return this.#finished;
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  #addresses(): readonly string[] {
    return this.#options.addresses?.() ?? [this.#address];
  }

  #elsewhere(): readonly string[] {
    return this.#options.elsewhere?.() ?? [];
  }

  /** Whether clients are still to go. Who has nowhere to go has when nothing of it is in flight. */
  #hasGuests(): boolean {
    return this.#elsewhere().length > 0 ? this.#ingest.streams > 0 : this.#ingest.isBusy;
  }

  #addServices(): void {
    const { engine, model, gate = openGate } = this.#options;
    const clock = this.#clock;
    const behind = <S extends DescService>(rules: Access<S>) => ({ gate, rules });
    const onCall = () => this.#onCall();
    const leaves = () => this.#status !== "serving";
    const admin = createAdminHandlers({ owners: () => [], ...this.#options, clock, leaves });
    const reflection = { serverReflectionInfo: createReflection([file_starling, file_grpc_health]) };
    addService(this.#server, Ingest, { onCall, handlers: this.#ingest.handlers, access: behind(access.ingest) });
    const entities = createEntitiesHandlers({ engine, model, calls: this.#calls, now: Date.now });
    addService(this.#server, Entities, { onCall, handlers: entities, access: behind(access.entities) });
    addService(this.#server, Admin, { onCall, handlers: admin, access: behind(access.admin) });
    const { actorModel = model, snapshots: face } = this.#options;
    if (face !== undefined) {
      const handlers = createSnapshotsHandlers({ face, model, entityShards: engine.entityShards });
      addService(this.#server, Snapshots, { onCall, handlers, access: behind(access.snapshots) });
    }
    const messenger = createMessenger({ engine, calls: this.#calls, model: actorModel, clock });
    addService(this.#server, Actors, {
      onCall,
      handlers: createActorsHandlers(messenger),
      access: behind(access.actors),
    });
    addService(this.#server, Health, { onCall, handlers: this.#health.handlers, access: "open" });
    addService(this.#server, ServerReflection, { onCall, handlers: reflection, access: "open" });
    addService(this.#server, ServerReflection, {
      onCall,
      handlers: reflection,
      access: "open",
      name: alphaServiceName,
    });
    this.#options.addServices?.(this.#server);
  }

  /** Returns what to call with the answer. Raises UNAVAILABLE at the end. */
  #onCall(): () => void {
    if (this.#status === "finished") throw stopping();
    this.#unanswered += 1;
    return () => {
      this.#unanswered -= 1;
    };
  }

  async #finish(): Promise<void> {
    const clock = this.#clock;
    this.leaving();
    const until = clock.now() + this.#limits.closeGraceMs;
    await this.#whileBefore(until, () => this.#hasGuests());
    this.#status = "finished";
    this.#ingest.close(stopping());
    await this.#calls.close(Math.max(0, until - clock.now()));
    this.#health.close();
    this.#unsubscribe();
    await this.#whileBefore(clock.now() + answerMs, () => this.#unanswered > 0);
  }

  async #close(): Promise<void> {
    await this.finish();
    await shutDown(this.#server, this.#clock);
    this.#options.log.info({ address: this.#address }, "grpc server closed");
  }

  async #whileBefore(untilMs: number, isBusy: () => boolean): Promise<void> {
    const clock = this.#clock;
    while (isBusy() && clock.now() < untilMs) await new Promise<void>((resolve) => clock.after(10, resolve));
  }
}

const served = [Ingest, Entities, Snapshots, Admin, Actors];
/** How long an answer may take to reach its client at the end; what is left then is cut. */
const answerMs = 1_000;

function stopping(): StarlingError {
  return new StarlingError("UNAVAILABLE", "the node is stopping");
}

async function bind(server: Server, listen: string, credentials: ServerCredentials): Promise<string> {
  const { host, port } = parseListen(listen);
  widenStreamWindows(server, windowBytes);
  const bound = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`${host}:${port}`, credentials, (error, boundPort) => {
      if (error === null) resolve(boundPort);
      else reject(toBindError(error, host, port));
    });
  });
  widenConnectionWindows(server, windowBytes);
  return `${host}:${bound}`;
}

function parseListen(listen: string): { host: string; port: number } {
  const match = /^(?:(\[[0-9a-fA-F:.]+\]|[^:[\]]+):)?(\d{1,5})$/.exec(listen);
  const port = Number(match?.[2]);
  if (match === null || port > 65_535) {
    throw new StarlingError(
      "CONFIG",
      `${JSON.stringify(listen)} is no address to listen on: write host:port or a port`,
    );
  }
  return { host: match[1] ?? "127.0.0.1", port };
}

function toBindError(error: Error, host: string, port: number): StarlingError {
  if (!/EADDRINUSE/.test(error.message)) {
    return new StarlingError("CONFIG", `cannot listen on ${host}:${port}: ${error.message}`, { cause: error });
  }
  const remedy = "stop the other program, or choose another port (0 takes a free one)";
  return new StarlingError("ADDRESS_IN_USE", `gRPC port ${port} on ${host} is taken: ${remedy}`, { cause: error });
}

async function shutDown(server: Server, clock: Clock): Promise<void> {
  await new Promise<void>((resolve) => {
    const cancel = clock.after(answerMs, resolve);
    server.tryShutdown(() => {
      cancel();
      resolve();
    });
  });
  server.forceShutdown();
}
