import {
  create,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import {
  type ChannelCredentials,
  type ChannelOptions,
  Client,
  credentials,
  Metadata,
  type ServiceError,
} from "@grpc/grpc-js";
import { type ErrorCode, errorCodes, StarlingError } from "./starling-error.ts";
import { assertWellFormedFields } from "./well-formed.ts";

const channelOptions: ChannelOptions = {
  "grpc.enable_retries": 0,
  // A node that stands still, or cannot be reached any more, is noticed within four seconds.
  "grpc.keepalive_time_ms": 2_000,
  "grpc.keepalive_timeout_ms": 2_000,
  "grpc.max_receive_message_length": 64 * 1024 * 1024,
  "grpc.max_send_message_length": 64 * 1024 * 1024,
  "grpc-node.flow_control_window": 4 * 1024 * 1024,
  // A connection of its own: one that is given up does not linger with others.
  "grpc.use_local_subchannel_pool": 1,
  "grpc.initial_reconnect_backoff_ms": 50,
  "grpc.min_reconnect_backoff_ms": 50,
  "grpc.max_reconnect_backoff_ms": 2_000,
};

/** A connection to one node, on which calls are made. */
export interface Dialled {
  readonly address: string;
  readonly grpc: Client;
  /** Sent as `authorization: Bearer …`. */
  readonly token: string | null;
}

export interface DialOptions {
  readonly token?: string | null;
  /** Default: plain text. */
  readonly credentials?: ChannelCredentials;
  readonly options?: ChannelOptions;
}

/** Makes a connection; nothing travels before the first call. */
export function dial(address: string, how: DialOptions = {}): Dialled {
  const channel = how.credentials ?? credentials.createInsecure();
  return {
    address,
    token: how.token ?? null,
    grpc: new Client(address, channel, { ...channelOptions, ...how.options }),
  };
}

export function metadataOf(dialled: Dialled): Metadata {
  const metadata = new Metadata();
  if (dialled.token !== null) metadata.set("authorization", `Bearer ${dialled.token}`);
  return metadata;
}

/** The path of a method on the wire. */
export function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

/** One question, one answer. Raises the StarlingError that the node sent, DEADLINE, UNAVAILABLE, or INVALID_ARGUMENT. */
export function callUnary<M extends DescMethod>(
  dialled: Dialled,
  method: M,
  request: MessageInitShape<M["input"]>,
  deadlineMs: number,
): Promise<MessageShape<M["output"]>> {
  const { grpc } = dialled;
  return new Promise((resolve, reject) => {
    assertWellFormedFields(request);
    grpc.makeUnaryRequest(
      pathOf(method),
      (message: MessageInitShape<M["input"]>) => encode(method.input, message),
      (bytes: Buffer) => decode<M>(method, bytes),
      request,
      metadataOf(dialled),
      // grpc-js wants a wall-clock time and waits by its own timer.
      { deadline: Date.now() + deadlineMs },
      (error, reply) => {
        if (error !== null) reject(fromServiceError(error, dialled.address));
        else if (reply === undefined) reject(new StarlingError("INTERNAL", "an answer without a message"));
        else resolve(reply);
      },
    );
  });
}

/** One question, many answers; ends with the signal, too. */
export async function* callStream<M extends DescMethod>(
  dialled: Dialled,
  method: M,
  request: MessageInitShape<M["input"]>,
  signal: AbortSignal | undefined,
): AsyncGenerator<MessageShape<M["output"]>, void, undefined> {
  assertWellFormedFields(request);
  const call = dialled.grpc.makeServerStreamRequest(
    pathOf(method),
    (message: MessageInitShape<M["input"]>) => encode(method.input, message),
    (bytes: Buffer) => decode<M>(method, bytes),
    request,
    metadataOf(dialled),
  );
  const onAbort = () => call.cancel();
  signal?.addEventListener("abort", onAbort, { once: true });
  if (signal?.aborted) onAbort();
  try {
    for await (const message of call) yield message as MessageShape<M["output"]>;
  } catch (error) {
    if (!signal?.aborted) throw fromServiceError(error, dialled.address);
  } finally {
    signal?.removeEventListener("abort", onAbort);
    call.cancel();
  }
}

/** A gRPC error as the StarlingError that the node meant. */
export function fromServiceError(error: unknown, address: string): StarlingError {
  if (error instanceof StarlingError) return error;
  const { metadata, details, code, message } = error as Partial<ServiceError>;
  const [named] = metadata?.get("starling-code") ?? [];
  const text = details ?? message ?? String(error);
  if (typeof named === "string" && named in errorCodes) {
    const start = `${named}: `;
    const meant = text.startsWith(start) ? text.slice(start.length) : text;
    return new StarlingError(named as ErrorCode, meant, { cause: error });
  }
  return new StarlingError(codeOf(code, text), `${address}: ${inPlainWords(text)}`, { cause: error });
}

/** What a gRPC status means that came without a code of ours. Of 8 only the text tells what is not worth another try. */
function codeOf(status: number | undefined, text: string): ErrorCode {
  switch (status) {
    case 4:
      return "DEADLINE";
    case 8:
      return text.includes("message larger than max") ? "TOO_LARGE" : "UNAVAILABLE";
    case 12:
    case 13:
      return "INTERNAL";
    default:
      return "UNAVAILABLE";
  }
}

/** What grpc-js says of a connection, without what only its authors need. */
function inPlainWords(text: string): string {
  const late = /^Deadline exceeded after ([\d.]+)s/.exec(text)?.[1];
  if (late !== undefined) return `it did not answer within ${Number(late).toFixed(1)} s`;
  return text
    .replace(/^No connection established\. Last error: (?:Error: )?/, "")
    .replace(/\.? Resolution note: $/, "");
}

function encode(schema: DescMethod["input"], message: MessageInitShape<DescMethod["input"]>): Buffer {
  const bytes = toBinary(schema, create(schema, message));
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function decode<M extends DescMethod>(method: M, bytes: Buffer): MessageShape<M["output"]> {
  const plain = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return fromBinary(method.output, plain) as MessageShape<M["output"]>;
}
