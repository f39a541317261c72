import {
  type ChannelOptions,
  Client,
  Metadata,
  type MethodDefinition,
  type ServerDuplexStream,
  type ServiceError,
} from "@grpc/grpc-js";
import type { Clock } from "../../proto/clock.ts";
import { Link } from "../../proto/gen/link_pb.ts";
import { StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import { sessionBehind } from "./call-certificate.ts";
import { decodeFrame, encodeFrame } from "./link-codec.ts";
import type { LinkFrame, WireKind } from "./link-frame.ts";
import type { LinkSecurity } from "./link-security.ts";
import type { Wire, WireListener } from "./link-wire.ts";
import type { Peer } from "./links.ts";

const channelOptions: ChannelOptions = {
  "grpc.enable_retries": 0,
  // A connection of its own, per wire and per attempt.
  "grpc.use_local_subchannel_pool": 1,
  // What was given up in a black hole goes at last; heartbeats notice sooner.
  "grpc.keepalive_time_ms": 10_000,
  "grpc.keepalive_timeout_ms": 5_000,
  "grpc.keepalive_permit_without_calls": 1,
  "grpc.max_receive_message_length": 8 * 1024 * 1024,
  "grpc.max_send_message_length": 8 * 1024 * 1024,
  "grpc-node.flow_control_window": 4 * 1024 * 1024,
};

/** How long a wire that ends in order may take to send what was written. */
const lingerMs = 500;

const paths: Readonly<Record<WireKind, string>> = {
  control: `/${Link.typeName}/${Link.method.control.name}`,
  data: `/${Link.typeName}/${Link.method.data.name}`,
};

/** How a server serves one kind of wire. */
export function methodOf(kind: WireKind): MethodDefinition<LinkFrame, LinkFrame> {
  return {
    path: paths[kind],
    requestStream: true,
    responseStream: true,
    requestSerialize: encodeFrame,
    requestDeserialize: decodeFrame,
    responseSerialize: encodeFrame,
    responseDeserialize: decodeFrame,
  };
}

export interface GrpcWireOptions {
  readonly kind: WireKind;
  readonly clock: Clock;
  readonly security: LinkSecurity;
}

/** Opens a wire to a node. */
export function dialGrpcWire(peer: Peer, options: GrpcWireOptions, listener: WireListener): Wire {
  const { kind, clock, security } = options;
  let client: Client;
  try {
    const reach = security.dial(peer);
    client = new Client(peer.address, reach.credentials, { ...channelOptions, ...reach.options });
  } catch (error) {
    clock.soon(() => listener.onEnd(toStarlingError(error)));
    return { kind, write: () => true, end: async () => {}, cut: () => {} };
  }
  const call = client.makeBidiStreamRequest(paths[kind], encodeFrame, decodeFrame, new Metadata());
  const shut = createShutter(clock, listener, () => {
    call.cancel();
    client.close();
  });
  call.on("data", (frame: LinkFrame) => shut.onFrame(frame));
  call.on("drain", () => shut.onDrain());
  call.on("error", (error: ServiceError) => shut.onEnd(`the connection is broken: ${error.details || error.message}`));
  call.on("end", () => shut.onEnd("the node has ended the connection"));
  return {
    kind,
    write: (frame) => (shut.isOpen() ? call.write(frame) : true),
    end: () => shut.end(() => call.end()),
    cut: () => shut.cut(),
  };
}

/** A wire that another node has opened; `accept` says who hears it. */
export function acceptGrpcWire(
  call: ServerDuplexStream<LinkFrame, LinkFrame>,
  { kind, clock, security }: GrpcWireOptions,
  accept: (wire: Wire) => WireListener,
): void {
  const session = sessionBehind(call);
  const listener: WireListener = {
    onFrame: (frame) => ears.onFrame(frame),
    onDrain: () => ears.onDrain(),
    onEnd: (problem) => ears.onEnd(problem),
  };
  const shut = createShutter(clock, listener, () => {
    // The connection is this wire's alone: without it nothing lingers in a black hole.
    if (session !== null) session.destroy();
    else call.end();
  });
  const ears = accept({
    kind,
    judge: ({ name }) => security.judgeCaller(call, name),
    write: (frame) => (shut.isOpen() ? call.write(frame) : true),
    end: () => shut.end(() => call.end()),
    cut: () => shut.cut(),
  });
  call.on("data", (frame: LinkFrame) => shut.onFrame(frame));
  call.on("drain", () => shut.onDrain());
  call.on("error", (error: Error) => shut.onEnd(`the connection is broken: ${error.message}`));
  call.on("cancelled", () => shut.onEnd("the connection is broken"));
  call.on("end", () => shut.onEnd("the node has ended the connection"));
}

interface Shutter {
  isOpen(): boolean;
  onFrame(frame: LinkFrame): void;
  onDrain(): void;
  onEnd(text: string): void;
  end(finish: () => void): Promise<void>;
  cut(): void;
}

/** The end of a stream, told once: by the other side, or by this one, which then hears no more. */
function createShutter(clock: Clock, listener: WireListener, release: () => void): Shutter {
  let status: "open" | "ending" | "closed" = "open";
  let onClosed = () => {};
  const close = (): void => {
    status = "closed";
    release();
    onClosed();
  };
  return {
    isOpen: () => status === "open",
    onFrame: (frame) => {
      if (status === "open") listener.onFrame(frame);
    },
    onDrain: () => {
      if (status === "open") listener.onDrain();
    },
    onEnd: (text) => {
      const isTold = status === "open";
      if (status !== "closed") close();
      if (isTold) listener.onEnd(new StarlingError("UNAVAILABLE", text));
    },
    end: async (finish) => {
      if (status !== "open") return;
      status = "ending";
      await new Promise<void>((resolve) => {
        const cancel = clock.after(lingerMs, close);
        onClosed = () => {
          cancel();
          resolve();
        };
        finish();
      });
    },
    cut: () => {
      if (status !== "closed") close();
    },
  };
}
