import type { Server, ServerDuplexStream } from "@grpc/grpc-js";
import type { NodeId } from "../../proto/ids.ts";
import { acceptGrpcWire, dialGrpcWire, methodOf } from "./grpc-link-wire.ts";
import type { LinkFrame, WireKind } from "./link-frame.ts";
import { LinkHub } from "./link-hub.ts";
import type { LinkOptions } from "./link-options.ts";
import type { LinkSecurity } from "./link-security.ts";
import type { Links } from "./links.ts";

/** Links over gRPC. */
export interface GrpcLinks extends Links {
  /** Adds the service that other nodes dial; before the server is bound. */
  addTo(server: Server): void;
  /** Whether messages go straight to a peer, over a third node, or nowhere. */
  pathOf(peer: NodeId): "direct" | "relayed" | "down";
  /** How long a heartbeat takes to a peer and back; null: it is not known. */
  roundTripMsOf(peer: NodeId): number | null;
  /** The hash of the model of a peer whose link is up. */
  modelHashOf(peer: NodeId): string | null;
}

/** Links of this node; nothing is dialled before `connect`. */
export function startGrpcLinks(options: LinkOptions & { readonly security: LinkSecurity }): GrpcLinks {
  const { clock, security } = options;
  const hub = new LinkHub(options, (peer, kind, listener) => dialGrpcWire(peer, { kind, clock, security }, listener));
  const serve = (kind: WireKind) => (call: ServerDuplexStream<LinkFrame, LinkFrame>) =>
    acceptGrpcWire(call, { kind, clock, security }, (wire) => hub.accept(wire));
  return {
    addTo: (server) =>
      server.addService(
        { control: methodOf("control"), data: methodOf("data") },
        { control: serve("control"), data: serve("data") },
      ),
    connect: (peers) => hub.connect(peers),
    send: (to, body) => hub.send(to, body),
    isUp: (peer) => hub.isUp(peer),
    hasLeft: (peer) => hub.hasLeft(peer),
    pathOf: (peer) => hub.pathOf(peer),
    roundTripMsOf: (peer) => hub.roundTripMsOf(peer),
    modelHashOf: (peer) => hub.modelHashOf(peer),
    on: (listener) => hub.on(listener),
    close: () => hub.close(),
  };
}
