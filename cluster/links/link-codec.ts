import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { type Frame, FrameSchema, type Hello as WireHello } from "../../proto/gen/link_pb.ts";
import { toNodeId } from "../../proto/ids.ts";
import { type ErrorCode, errorCodes, StarlingError } from "../../proto/starling-error.ts";
import { unreachable } from "../../proto/unreachable.ts";
import { readFrequentFrame, writeFrequentFrame } from "./frequent-frame.ts";
import type { Hello, LinkFrame } from "./link-frame.ts";

/** A frame as bytes; grpc-js wants a Buffer. */
export function encodeFrame(frame: LinkFrame): Buffer {
  const bytes =
    frame.kind === "beat" || frame.kind === "batch"
      ? writeFrequentFrame(frame)
      : toBinary(FrameSchema, create(FrameSchema, toInit(frame)));
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The frame that stands in bytes. Raises INVALID_ARGUMENT for what is none. */
export function decodeFrame(bytes: Uint8Array): LinkFrame {
  try {
    // A Buffer would make Buffers of all that is cut out of it.
    const plain = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return readFrequentFrame(plain) ?? fromFrame(fromBinary(FrameSchema, plain));
  } catch (error) {
    if (error instanceof StarlingError) throw error;
    throw new StarlingError("INVALID_ARGUMENT", "a frame that cannot be read", { cause: error });
  }
}

type FrameInit = MessageInitShape<typeof FrameSchema>;

function toInit(frame: LinkFrame): FrameInit {
  switch (frame.kind) {
    case "hello":
    case "welcome":
      return { kind: { case: frame.kind, value: frame.hello } };
    case "refusal":
      return { kind: { case: "refusal", value: { code: frame.code, message: frame.message } } };
    case "ready":
      return { kind: { case: "ready", value: { order: frame.order } } };
    case "beat": {
      const { number, echo, heldMs, reaches } = frame;
      const held = heldMs === null ? {} : { heldMs };
      return { kind: { case: "beat", value: { number, echo, ...held, reaches: [...reaches] } } };
    }
    case "batch": {
      const { bodies, returnedBytes } = frame;
      return { kind: { case: "batch", value: { bodies: bodies as Uint8Array<ArrayBuffer>[], returnedBytes } } };
    }
    case "farewell":
      return { kind: { case: "farewell", value: {} } };
    case "relay": {
      const { from, to, connection } = frame;
      return { kind: { case: "relay", value: { from, to, connection, frame: toInit(frame.frame) } } };
    }
    case "relay-end": {
      const { from, to, connection } = frame;
      return { kind: { case: "relayEnd", value: { from, to, connection } } };
    }
    default:
      return unreachable(frame);
  }
}

function fromFrame({ kind }: Frame): LinkFrame {
  switch (kind.case) {
    case "hello":
    case "welcome":
      return { kind: kind.case, hello: fromHello(kind.value) };
    case "refusal":
      return { kind: "refusal", code: toCode(kind.value.code), message: kind.value.message };
    case "ready":
      return { kind: "ready", order: kind.value.order };
    case "beat": {
      const { number, echo, heldMs, reaches } = kind.value;
      return { kind: "beat", number, echo, heldMs: heldMs ?? null, reaches: reaches.map(toNodeId) };
    }
    case "batch":
      return { kind: "batch", bodies: kind.value.bodies, returnedBytes: kind.value.returnedBytes };
    case "farewell":
      return { kind: "farewell" };
    case "relay": {
      const { from, to, connection, frame } = kind.value;
      if (frame === undefined) throw new StarlingError("INVALID_ARGUMENT", "a relayed frame without content");
      return { kind: "relay", from: toNodeId(from), to: toNodeId(to), connection, frame: fromFrame(frame) };
    }
    case "relayEnd": {
      const { from, to, connection } = kind.value;
      return { kind: "relay-end", from: toNodeId(from), to: toNodeId(to), connection };
    }
    case undefined:
      throw new StarlingError("INVALID_ARGUMENT", "a frame of no known kind");
    default:
      return unreachable(kind);
  }
}

function fromHello(hello: WireHello): Hello {
  const { clusterId, protocolMin, protocolMax, name, modelHash, creditBytes, connection } = hello;
  const node = toNodeId(hello.node);
  const meant = toNodeId(hello.meant);
  if (hello.node === "") throw new StarlingError("INVALID_ARGUMENT", "a hello without the id of a node");
  return { clusterId, protocolMin, protocolMax, node, name, meant, modelHash, creditBytes, connection };
}

/** A later version may know more codes. */
function toCode(code: string): ErrorCode {
  return Object.hasOwn(errorCodes, code) ? (code as ErrorCode) : "UNAVAILABLE";
}
