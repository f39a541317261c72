import { connect } from "node:http2";
import { fromBinary } from "@bufbuild/protobuf";
import { type Ack, type NodeMessage, NodeMessageSchema } from "../../proto/gen/starling_pb.ts";

/** An ingest stream of bare HTTP/2: it reads when the test says so, and breaks off where the test says so. */
export interface Http2Stream {
  /** A message, whole or only so much of it. */
  write(message: Buffer, bytes?: number): void;
  /** Reads from now on; what comes stands in `answers`. */
  read(): void;
  readonly answers: readonly NodeMessage["kind"][];
  acks(): Ack[];
  /** Ends the connection as a process does that is killed. */
  destroy(): void;
}

/** A client's first message: versions 1 to 1, a new session, the level `durable`. */
export const helloMessage = Buffer.from([0x0a, 0x04, 0x08, 0x01, 0x10, 0x01]);

const headBytes = 5;

/** Opens a stream; nothing is read of it yet. */
export function openHttp2Stream(address: string): Http2Stream {
  const session = connect(`http://${address}`);
  const stream = session.request({
    ":method": "POST",
    ":path": "/starling.v1.Ingest/Stream",
    "content-type": "application/grpc",
    te: "trailers",
  });
  session.on("error", () => {}); // its end is what tests ask for
  stream.on("error", () => {});
  let rest: Buffer = Buffer.alloc(0);
  const answers: NodeMessage["kind"][] = [];
  const onData = (chunk: Buffer): void => {
    rest = Buffer.concat([rest, chunk]);
    while (rest.length >= headBytes && rest.length >= headBytes + rest.readUInt32BE(1)) {
      const end = headBytes + rest.readUInt32BE(1);
      answers.push(fromBinary(NodeMessageSchema, new Uint8Array(rest.subarray(headBytes, end))).kind);
      rest = rest.subarray(end);
    }
  };
  return {
    write: (message, bytes = message.length) => {
      const head = Buffer.alloc(headBytes);
      head.writeUInt32BE(message.length, 1);
      stream.write(Buffer.concat([head, message.subarray(0, bytes)]));
    },
    read: () => void stream.on("data", onData),
    answers,
    acks: () => answers.flatMap((kind) => (kind.case === "ack" ? [kind.value] : [])),
    destroy: () => session.destroy(),
  };
}
