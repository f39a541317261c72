import {
  create,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { type ChannelOptions, Client, credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { pathOf } from "../../proto/client-call.ts";
import type { Clock } from "../../proto/clock.ts";
import { type ErrorCode, StarlingError } from "../../proto/starling-error.ts";

/*
 * Calls to one etcd through any of its members.
 *
 * 1. Every call ends within its deadline, which the given clock measures; none is sent twice.
 * 2. One member is used at a time. A call or a stream that it fails moves on to the next one, for whoever comes next.
 * 3. A connection that worked, and on which a call then ran out of time, is replaced: it may be half open, and a new one tells
 *    at once. What still runs on the old one ends by itself. As the system keeps a connection to a silent peer for long after
 *    it was closed, one that never worked is kept for some seconds; no longer, as what it has lost does not come back.
 * 4. With one member a call waits for the connection within its deadline; with several it fails at once, so that a dead
 *    member costs one refusal, not a deadline.
 * 5. A member that is cut off from etcd's leader refuses calls and streams (`hasleader`), else it would stay silent.
 */
export interface EtcdConnectionOptions {
  /** `http://host:port`, `host:port` or `host`; the port is 2379 by default. */
  readonly endpoints: readonly string[];
  readonly clock: Clock;
  readonly timeoutMs: number;
  /** Whether a call waits for the connection instead of failing at once; default: with one member (4). */
  readonly isPatient?: boolean;
}

/** A stream in both directions. */
export interface EtcdStream<M extends DescMethod> {
  write(request: MessageInitShape<M["input"]>): void;
  /** Ends it; the listener hears nothing more. */
  cancel(): void;
  /** The same, because the member did not answer. */
  giveUp(): void;
}

/** What comes over a stream. `onEnd` comes once, last. */
export interface EtcdListener<M extends DescMethod> {
  readonly onMessage: (message: MessageShape<M["output"]>) => void;
  readonly onEnd: (error: StarlingError) => void;
}

/** As much of a grpc-js call as is needed to end it. */
interface Cancellable {
  cancel(): void;
}

interface Member {
  readonly address: string;
  client: Client | null;
  openedAtMs: number;
  /** Whether a call on the connection has succeeded. */
  works: boolean;
}

const defaultPort = 2379;
const pendingMax = 1_000;
/** How long a connection that never worked is kept although calls on it run out of time. */
const keepMs = 4_000;
const channelOptions: ChannelOptions = {
  "grpc.enable_retries": 0,
  "grpc.enable_http_proxy": 0,
  // etcd cuts clients that ping more often than every 5 s.
  "grpc.keepalive_time_ms": 6_000,
  "grpc.keepalive_timeout_ms": 2_000,
  "grpc.max_receive_message_length": 64 * 1024 * 1024,
  "grpc.use_local_subchannel_pool": 1,
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 1_000,
  "grpc.dns_min_time_between_resolutions_ms": 1_000,
};

export class EtcdConnection {
  readonly #members: readonly Member[];
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #metadata: Metadata;
  /** Ends what is under way, one entry per call or stream. */
  readonly #pending = new Set<(error: StarlingError) => void>();
  #current = 0;
  #status: "open" | "closed" = "open";

  /** Nothing travels before the first call. Raises CONFIG for endpoints that are none. */
  constructor(options: EtcdConnectionOptions) {
    this.#members = options.endpoints.map((endpoint) => ({
      address: parseEndpoint(endpoint),
      client: null,
      openedAtMs: 0,
      works: false,
    }));
    if (this.#members.length === 0) throw new StarlingError("CONFIG", "no endpoint of etcd is given");
    this.#clock = options.clock;
    this.#timeoutMs = options.timeoutMs;
    this.#metadata = new Metadata({ waitForReady: options.isPatient ?? this.#members.length === 1 });
    this.#metadata.set("hasleader", "true");
  }

  /**
   * One question, one answer. Raises UNAVAILABLE (the outcome is unknown), NOT_FOUND, INTERNAL (etcd refuses the request as
   * wrong), CONFIG (etcd refuses this client).
   */
  ask<M extends DescMethod>(method: M, request: MessageInitShape<M["input"]>): Promise<MessageShape<M["output"]>> {
    return new Promise((resolve, reject) => {
      const member = this.#member();
      const started: Cancellable[] = [];
      const finish = (then: () => void) => {
        if (!this.#pending.delete(fail)) return;
        stopTimer();
        then();
      };
      const fail = (error: StarlingError) => {
        finish(() => {
          for (const call of started) call.cancel();
          reject(error);
        });
      };
      const onError = (error: StarlingError) => {
        if (!this.#pending.has(fail)) return;
        this.#onFailure(member, error);
        fail(error);
      };
      const onReply = (reply: MessageShape<M["output"]>) => {
        onAnswer(member, client);
        finish(() => resolve(reply));
      };
      this.#pending.add(fail);
      const stopTimer = this.#clock.after(this.#timeoutMs, () => {
        if (this.#pending.has(fail)) this.#onTimeout(member, client);
        fail(new StarlingError("UNAVAILABLE", `etcd at ${member.address} did not answer within ${this.#timeoutMs} ms`));
      });
      const client = this.#clientOf(member);
      const call = client.makeUnaryRequest(
        pathOf(method),
        (message: MessageInitShape<M["input"]>) => encode(method, message),
        (bytes: Buffer) => decode<M>(method, bytes),
        request,
        this.#metadata,
        (error, reply) => {
          if (error !== null) onError(toStarlingError(error, member.address));
          else if (reply !== undefined) onReply(reply);
        },
      );
      started.push(call);
    });
  }

  /** A stream to the member in use. Raises UNAVAILABLE when closed. */
  open<M extends DescMethod>(method: M, listener: EtcdListener<M>): EtcdStream<M> {
    const member = this.#member();
    const client = this.#clientOf(member);
    const call = client.makeBidiStreamRequest(
      pathOf(method),
      (request: MessageInitShape<M["input"]>) => encode(method, request),
      (bytes: Buffer) => decode<M>(method, bytes),
      this.#metadata,
    );
    const finish = (then: () => void) => {
      if (!this.#pending.delete(fail)) return;
      call.cancel();
      then();
    };
    const fail = (error: StarlingError) => finish(() => listener.onEnd(error));
    this.#pending.add(fail);
    call.on("data", (message: MessageShape<M["output"]>) => {
      if (!this.#pending.has(fail)) return;
      onAnswer(member, client);
      listener.onMessage(message);
    });
    const onError = (error: StarlingError) => {
      if (!this.#pending.has(fail)) return;
      this.#onFailure(member, error);
      fail(error);
    };
    call.on("end", () => onError(new StarlingError("UNAVAILABLE", `etcd at ${member.address} ended the stream`)));
    call.on("error", (error: ServiceError) => onError(toStarlingError(error, member.address)));
    return {
      write: (request) => void call.write(request),
      cancel: () => finish(() => {}),
      giveUp: () => finish(() => this.#onTimeout(member, client)),
    };
  }

  /** Ends everything that is under way with UNAVAILABLE. Idempotent. */
  close(): void {
    this.#status = "closed";
    for (const fail of [...this.#pending]) fail(closedError());
    for (const member of this.#members) {
      member.client?.close();
      member.client = null;
    }
  }

  #member(): Member {
    const member = this.#members[this.#current];
    if (this.#status === "closed" || member === undefined) throw closedError();
    if (this.#pending.size < pendingMax) return member;
    throw new StarlingError("UNAVAILABLE", `${pendingMax} calls to etcd are under way already`);
  }

  #clientOf(member: Member): Client {
    if (member.client !== null) return member.client;
    member.openedAtMs = this.#clock.now();
    member.works = false;
    member.client = new Client(member.address, credentials.createInsecure(), channelOptions);
    return member.client;
  }

  #onFailure(member: Member, error: StarlingError): void {
    if (error.code === "UNAVAILABLE") this.#leave(member);
  }

  /** Calls on a connection that was replaced run out of time, too: they say nothing of the new one. */
  #onTimeout(member: Member, client: Client): void {
    if (member.client !== client) return;
    this.#leave(member);
    if (!member.works && this.#clock.now() - member.openedAtMs < keepMs) return;
    client.close();
    member.client = null;
  }

  /** Several calls may fail together: only the first of them moves on. */
  #leave(member: Member): void {
    if (this.#members[this.#current] === member) this.#current = (this.#current + 1) % this.#members.length;
  }
}

/** The connection works, if it is still the one in use. */
function onAnswer(member: Member, client: Client): void {
  if (member.client === client) member.works = true;
}

function parseEndpoint(text: string): string {
  const match = /^(?:http:\/\/)?(\[[0-9a-f:.]+\]|[^\s:/[\]]+)(?::(\d{1,5}))?\/?$/i.exec(text.trim());
  if (match === null) {
    const wanted = "http://host:port or host:port (TLS is not supported)";
    throw new StarlingError("CONFIG", `${JSON.stringify(text)} is no endpoint of etcd: ${wanted}`);
  }
  return `${match[1]}:${match[2] ?? defaultPort}`;
}

function closedError(): StarlingError {
  return new StarlingError("UNAVAILABLE", "the connection to etcd is closed");
}

function toStarlingError(error: ServiceError, address: string): StarlingError {
  return new StarlingError(codeOf(error.code), `etcd at ${address}: ${error.details}`, { cause: error });
}

/** Whatever may pass by itself is UNAVAILABLE, also a store that is full or a member that has no leader. */
function codeOf(code: status): ErrorCode {
  switch (code) {
    case status.NOT_FOUND:
      return "NOT_FOUND";
    case status.INVALID_ARGUMENT:
      return "INTERNAL";
    case status.UNAUTHENTICATED:
    case status.PERMISSION_DENIED:
    case status.UNIMPLEMENTED:
      return "CONFIG";
    default:
      return "UNAVAILABLE";
  }
}

function encode<M extends DescMethod>(method: M, message: MessageInitShape<M["input"]>): Buffer {
  const bytes = toBinary(method.input, create(method.input, message));
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function decode<M extends DescMethod>(method: M, bytes: Buffer): MessageShape<M["output"]> {
  const plain = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return fromBinary(method.output, plain, { readUnknownFields: false }) as MessageShape<M["output"]>;
}
