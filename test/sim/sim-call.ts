import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import type { NodeMessageInit } from "../../actors/sessions/stream.ts";
import type { IngestCall } from "../../node/grpc/ingest-session.ts";
import type { Clock } from "../../proto/clock.ts";
import { ClientMessageSchema, type NodeMessage, NodeMessageSchema } from "../../proto/gen/starling_pb.ts";
import { createBatchReader } from "../../proto/read-batch.ts";
import type { SimProcess } from "./sim-process.ts";

/** The client's end of a stream. */
export interface SimStream {
  /** What is encoded already. */
  write(message: Buffer): void;
  say(kind: MessageInitShape<typeof ClientMessageSchema>["kind"]): void;
  halfClose(): void;
  /** The connection is gone; the node hears of it. */
  cancel(): void;
}

export interface SimStreamListener {
  readonly onMessage: (message: NodeMessage) => void;
  readonly onEnd: () => void;
}

export interface SimCallOptions {
  readonly world: Clock;
  readonly process: SimProcess;
  readonly latencyMs: () => number;
  readonly listener: SimStreamListener;
  /** Gives the call to the node's edge. */
  readonly serve: (call: IngestCall) => void;
}

const reader = createBatchReader();

/** A stream between a client and a node, in order both ways; the node's end is what grpc-js would give its services. */
export function openSimStream({ world, process, latencyMs, listener, serve }: SimCallOptions): SimStream {
  const handlers = new Map<string, (value: unknown) => void>();
  let status: "open" | "ended" = "open";
  const paused: { readonly name: string; readonly value: unknown }[] = [];
  let flow: "flowing" | "paused" = "flowing";
  const emit = (name: string, value: unknown): void => {
    if (flow === "paused" && (name === "data" || name === "end")) paused.push({ name, value });
    else handlers.get(name)?.(value);
  };
  const lane = (): ((run: () => void) => void) => {
    let lastMs = 0;
    return (run) => {
      lastMs = Math.max(lastMs, world.now() + latencyMs());
      world.after(lastMs - world.now(), run);
    };
  };
  const [there, back] = [lane(), lane()];
  const end = (): void => {
    if (status === "ended") return;
    status = "ended";
    listener.onEnd();
  };
  const call = {
    metadata: { get: () => [] },
    on: (name: string, handler: (value: unknown) => void) => void handlers.set(name, handler),
    pause: () => {
      flow = "paused";
    },
    resume: () => {
      flow = "flowing";
      for (const { name, value } of paused.splice(0)) emit(name, value);
    },
    write: (init: NodeMessageInit, onSent: () => void) => {
      const message = create(NodeMessageSchema, init);
      back(() => {
        if (status === "open") listener.onMessage(message);
      });
      process.clock.after(0.05, onSent);
      return true;
    },
    end: () => back(end),
  };
  there(() => process.enter(() => serve(call as unknown as IngestCall)));
  const write = (bytes: Uint8Array): void => {
    const plain = new Uint8Array(bytes);
    there(() => process.enter(() => emit("data", { message: reader.read(plain), bytes: plain })));
  };
  return {
    write,
    say: (kind) => write(toBinary(ClientMessageSchema, create(ClientMessageSchema, { kind }))),
    halfClose: () => there(() => process.enter(() => emit("end", undefined))),
    cancel: () => {
      status = "ended";
      there(() => process.enter(() => handlers.get("cancelled")?.(undefined)));
    },
  };
}
