import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import type { ClientDuplexStream } from "@grpc/grpc-js";
import { type Dialled, fromServiceError, metadataOf, pathOf } from "./client-call.ts";
import {
  type Ack,
  ClientMessageSchema,
  type HelloSchema,
  Ingest,
  type NodeMessage,
  NodeMessageSchema,
  type Problem,
  type Welcome,
} from "./gen/starling_pb.ts";
import { type ErrorCode, errorCodes, StarlingError } from "./starling-error.ts";

/** What comes over a stream. `onEnd` comes once, last: null after an ending without an error. */
export interface StreamListener {
  readonly onWelcome: (welcome: Welcome) => void;
  readonly onAck: (ack: Ack) => void;
  readonly onLeaving: (addresses: readonly string[]) => void;
  readonly onDrain: () => void;
  readonly onEnd: (error: StarlingError | null) => void;
}

/** One ingest stream. */
export interface ClientStream {
  write(message: Buffer): boolean;
  /** Ends the session for good, then the stream. */
  closeSession(): void;
  /** Sends no more; the node answers what it has and ends the stream. */
  halfClose(): void;
  cancel(): void;
}

/** Opens a stream and greets; `traceparent`: the trace (W3C) that its batches belong to. */
export function openClientStream(
  dialled: Dialled,
  hello: MessageInitShape<typeof HelloSchema>,
  listener: StreamListener,
  traceparent: string | null = null,
): ClientStream {
  const metadata = metadataOf(dialled);
  if (traceparent !== null) metadata.set("traceparent", traceparent);
  const call: ClientDuplexStream<Buffer, NodeMessage> = dialled.grpc.makeBidiStreamRequest(
    pathOf(Ingest.method.stream),
    (message: Buffer) => message,
    (bytes: Buffer) => fromBinary(NodeMessageSchema, new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)),
    metadata,
  );
  let ended = false;
  const end = (error: StarlingError | null) => {
    if (ended) return;
    ended = true;
    call.cancel();
    listener.onEnd(error);
  };
  call.on("data", ({ kind }: NodeMessage) => {
    if (ended) return;
    if (kind.case === "welcome") listener.onWelcome(kind.value);
    else if (kind.case === "ack") listener.onAck(kind.value);
    else if (kind.case === "leaving") listener.onLeaving(kind.value.addresses);
    else if (kind.case === "problem") end(fromProblem(kind.value));
  });
  call.on("drain", () => {
    if (!ended) listener.onDrain();
  });
  call.on("end", () => end(null));
  call.on("error", (error) => end(fromServiceError(error, dialled.address)));
  call.write(encode({ kind: { case: "hello", value: hello } }));
  return {
    write: (message) => call.write(message),
    closeSession: () => {
      call.write(encode({ kind: { case: "close", value: {} } }));
      call.end();
    },
    halfClose: () => call.end(),
    cancel: () => end(null),
  };
}

function fromProblem(problem: Problem): StarlingError {
  const code =
    problem.code in errorCodes ? (problem.code as ErrorCode) : problem.retryable ? "UNAVAILABLE" : "INTERNAL";
  const number = Number(problem.number);
  return new StarlingError(code, number > 0 ? `batch ${number}: ${problem.message}` : problem.message);
}

function encode(message: MessageInitShape<typeof ClientMessageSchema>): Buffer {
  const bytes = toBinary(ClientMessageSchema, create(ClientMessageSchema, message));
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
