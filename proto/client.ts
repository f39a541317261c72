import { type AdminClient, createAdminClient } from "./admin-client.ts";
import { type ClientDatapoint, type EncodedBatch, encodeBatches } from "./client-batch.ts";
import { type Dialler, openDialler, type ReachOptions } from "./client-dialler.ts";
import { ClientLink } from "./client-link.ts";
import { type BatchOutcome, type ClientRejection, ClientSession, type ClientToken } from "./client-session.ts";
import { ClientTally } from "./client-tally.ts";
import { type Clock, systemClock } from "./clock.ts";
import { createEntitiesClient, type EntitiesClient } from "./entities-client.ts";
import { type Ack, AckLevel } from "./gen/starling_pb.ts";
import { createOwnerClient } from "./owner-client.ts";
import { createOwnerMap } from "./owner-map.ts";
import { OwnerSession, type OwnerSessionOptions } from "./owner-session.ts";
import { askOwners, OwnerSessions } from "./owner-sessions.ts";
import { defaultWindow } from "./send-window.ts";
import { createSnapshotsClient, type SnapshotsClient } from "./snapshots-client.ts";
import { StarlingError } from "./starling-error.ts";
import { createBatchWriter } from "./write-batch.ts";

export interface ConnectOptions extends ReachOptions {
  /** `host:port` of a node; or of several, which are tried in turn. */
  readonly address?: string;
  readonly addresses?: readonly string[];
  /** A named session outlives the process: the same batches under the same numbers are taken once. */
  readonly session?: { readonly name: string };
  /** The number of the first batch; default 1. Of a named session the caller keeps count. */
  readonly startNumber?: number;
  /** When `send` resolves; default `durable`. */
  readonly level?: "durable" | "processed";
  readonly onAck?: (ack: AckRange) => void;
  /** Called when a connection to a node broke or could not be made. The client tries the next one by itself. */
  readonly onBreak?: (error: StarlingError) => void;
  /**
   * Learns which node owns what, and sends everything straight to its owner, in a session with each. Datapoints of an entity
   * keep their order, by type and id as written here; a whole `send` is numbered instead of each batch, and acknowledged
   * when all its parts are, so in any order. Not with `session`, `startNumber` or `atomic`. `maxInFlight` holds per node.
   */
  readonly ownerAware?: boolean;
  /** Batches that may wait for their durable acknowledgement at once; default 8 of at most 4,000 datapoints, or else two. */
  readonly maxInFlight?: number;
  /** Refuses to talk to another cluster. */
  readonly clusterId?: string;
  /** The trace (W3C) that everything sent belongs to: nodes that trace follow it, if it is sampled. */
  readonly traceparent?: string;
  /** How long `connect` tries; default 60 s. */
  readonly connectMs?: number;
  /** How long a broken connection is tried again before everything in flight fails; default 60 s. */
  readonly giveUpAfterMs?: number;
  /** Bounds each call of `entities` and `admin`; default 30 s. */
  readonly callMs?: number;
  readonly clock?: Clock;
  readonly random?: () => number;
}

/** Batches that reached a level. */
export interface AckRange {
  readonly level: "durable" | "processed";
  readonly first: number;
  readonly last: number;
  readonly accepted: number;
}

/** What became of the datapoints of one `send`. */
export interface SendOutcome {
  readonly accepted: number;
  /** `index` counts within the datapoints given to `send`. */
  readonly rejections: readonly ClientRejection[];
  readonly tokens: readonly ClientToken[];
  readonly obligations: number;
  /** The number of the first batch. */
  readonly number: number;
}

/** What became of everything written since the last `flush`. */
export interface FlushOutcome {
  readonly accepted: number;
  readonly rejected: number;
  /** The first thousand. */
  readonly rejections: readonly (ClientRejection & { readonly number: number })[];
}

/** A session with the cluster. */
export interface Client extends AsyncDisposable {
  readonly session: string;
  readonly entities: EntitiesClient;
  readonly admin: AdminClient;
  readonly snapshots: SnapshotsClient;
  /** Sends datapoints; resolves when they have reached the session's level. Waits for credit. */
  send(datapoints: readonly ClientDatapoint[], options?: { readonly atomic?: boolean }): Promise<SendOutcome>;
  /** Sends datapoints; resolves when there is room for more. `flush` says what became of them. */
  write(datapoints: readonly ClientDatapoint[]): Promise<void>;
  /** Waits until everything written has reached the session's level. */
  flush(): Promise<FlushOutcome>;
  /** Waits for everything in flight, then ends the session (a named one stays). */
  close(): Promise<void>;
}

/**
 * Connects to a cluster. Raises UNAVAILABLE when no node answers in time, and at once WRONG_CLUSTER, VERSION_MISMATCH,
 * SESSION_CLOSED, and INVALID_ARGUMENT for options that do not go together.
 */
export async function connect(options: ConnectOptions): Promise<Client> {
  const addresses = options.addresses ?? (options.address === undefined ? [] : [options.address]);
  if (addresses.length === 0) throw new StarlingError("INVALID_ARGUMENT", "an address is needed to connect to");
  const level = options.level === "processed" ? AckLevel.PROCESSED : AckLevel.DURABLE;
  const { maxInFlight, clock = systemClock } = options;
  const window = maxInFlight === undefined ? defaultWindow : { batches: maxInFlight, items: Number.POSITIVE_INFINITY };
  const dialler = await openDialler({ ...options, addresses, clock });
  const common = {
    addresses,
    hello: { level, clusterId: options.clusterId ?? "" },
    ...{ dialler, clock },
    traceparent: options.traceparent ?? null,
    random: options.random ?? Math.random,
    connectMs: options.connectMs ?? 60_000,
    giveUpAfterMs: options.giveUpAfterMs ?? 60_000,
    onBreak: options.onBreak,
  };
  try {
    return options.ownerAware
      ? await connectToOwners(options, { ...common, level, window })
      : await connectToOne(options, { ...common, level, window });
  } catch (error) {
    dialler.close();
    throw error;
  }
}

async function connectToOne(options: ConnectOptions, common: OwnerSessionOptions): Promise<Client> {
  const { level, window, dialler } = common;
  const { startNumber = 1, onAck } = options;
  const session = new ClientSession({ startNumber, level, window });
  const link = new ClientLink({
    ...common,
    session,
    sessionId: options.session?.name ?? "",
    named: options.session !== undefined,
    onAck: (ack) => onAck?.(rangeOf(ack)),
  });
  await link.connected();
  return new SessionClient({ session, link, dialler, callMs: options.callMs ?? 30_000 });
}

async function connectToOwners(options: ConnectOptions, common: OwnerSessionOptions): Promise<Client> {
  if (options.session !== undefined || options.startNumber !== undefined) {
    const text =
      "ownerAware goes with neither a named session nor a start number: its batches have no numbers of their own";
    throw new StarlingError("INVALID_ARGUMENT", text);
  }
  const { clock, dialler, addresses } = common;
  const home = new OwnerSession(common);
  try {
    const reply = await askOwners(await home.connected());
    const map = createOwnerMap(reply.entityShards);
    map.learn(reply);
    const open = (owners: readonly string[]) =>
      new OwnerSession({ ...common, addresses: [...owners, ...addresses], connectMs: common.giveUpAfterMs });
    const sessions = new OwnerSessions({ home, map, open, clock, dialler });
    const { level = "durable", callMs = 30_000, onAck = () => {} } = options;
    return createOwnerClient({ sessions, level, clock, callMs, onAck });
  } catch (error) {
    await home.close(0);
    throw error;
  }
}

const closeGraceMs = 5_000;

interface SessionClientParts {
  readonly session: ClientSession;
  readonly link: ClientLink;
  readonly dialler: Dialler;
  readonly callMs: number;
}

class SessionClient implements Client {
  readonly entities: EntitiesClient;
  readonly admin: AdminClient;
  readonly snapshots: SnapshotsClient;
  readonly #session: ClientSession;
  readonly #link: ClientLink;
  readonly #dialler: Dialler;
  readonly #writer = createBatchWriter();
  readonly #written = new ClientTally();
  #closing: Promise<void> | null = null;

  constructor({ session, link, dialler, callMs }: SessionClientParts) {
    this.#session = session;
    this.#link = link;
    this.#dialler = dialler;
    this.entities = createEntitiesClient(() => link.connected(), callMs);
    this.admin = createAdminClient(() => link.connected(), callMs);
    this.snapshots = createSnapshotsClient(() => link.connected(), callMs);
  }

  get session(): string {
    return this.#link.sessionId;
  }

  async send(
    datapoints: readonly ClientDatapoint[],
    options: { readonly atomic?: boolean } = {},
  ): Promise<SendOutcome> {
    const added: { readonly number: number; readonly outcome: Promise<BatchOutcome> }[] = [];
    for (const batch of this.#encode(datapoints, options.atomic ?? false)) added.push(await this.#session.add(batch));
    const outcomes = await Promise.all(added.map((one) => one.outcome));
    return joined(outcomes);
  }

  async write(datapoints: readonly ClientDatapoint[]): Promise<void> {
    for (const batch of this.#encode(datapoints, false)) {
      const { outcome } = await this.#session.add(batch);
      // The session keeps an error: `flush` and the next `write` raise it.
      this.#written.add(outcome);
    }
  }

  async flush(): Promise<FlushOutcome> {
    await this.#written.settled();
    const { failure } = this.#session;
    if (failure !== null) throw failure;
    return this.#written.take();
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    await this.#written.settled();
    const { failure } = this.#session;
    if (failure === null) await this.#session.settled();
    await this.#link.close(closeGraceMs);
    this.#dialler.close();
  }

  #encode(datapoints: readonly ClientDatapoint[], atomic: boolean): EncodedBatch[] {
    if (this.#closing !== null) throw new StarlingError("UNAVAILABLE", "the client is closed");
    if (datapoints.length === 0)
      throw new StarlingError("INVALID_ARGUMENT", "an empty batch: a batch has at least one datapoint");
    return encodeBatches(datapoints, atomic, this.#writer);
  }
}

function joined(outcomes: readonly BatchOutcome[]): SendOutcome {
  let start = 0;
  const rejections: ClientRejection[] = [];
  for (const outcome of outcomes) {
    for (const rejection of outcome.rejections) rejections.push({ ...rejection, index: start + rejection.index });
    start += outcome.count;
  }
  return {
    accepted: outcomes.reduce((sum, one) => sum + one.accepted, 0),
    rejections,
    tokens: outcomes.flatMap((one) => one.tokens),
    obligations: outcomes.reduce((sum, one) => sum + one.obligations, 0),
    number: outcomes[0]?.number ?? 0,
  };
}

function rangeOf(ack: Ack): AckRange {
  const level = ack.level === AckLevel.PROCESSED ? "processed" : "durable";
  return { level, first: Number(ack.first), last: Number(ack.last), accepted: Number(ack.accepted) };
}
