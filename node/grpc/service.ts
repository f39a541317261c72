import assert from "node:assert";
import {
  create,
  type DescMessage,
  type DescMethod,
  type DescService,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import type {
  Metadata,
  MethodDefinition,
  Server,
  ServerDuplexStream,
  ServerUnaryCall,
  ServerWritableStream,
  sendUnaryData,
  UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { type ClientMessage, ClientMessageSchema } from "../../proto/gen/starling_pb.ts";
import { createBatchReader, type ReadMessage } from "../../proto/read-batch.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Need } from "../access/scope.ts";
import type { Access } from "./access.ts";
import { anyone, type Caller, type Gate, type GatedCall } from "./gate.ts";
import { toStatus } from "./status.ts";

/** A message together with the bytes it came as. */
export interface Received<Message> {
  readonly message: Message;
  readonly bytes: Uint8Array;
}

/** A message that is none of those that the method takes. gRPC itself would call it an error of the node's. */
export class Unreadable {
  readonly error: StarlingError;

  constructor(type: string, cause: unknown) {
    const text = `the message is no ${type}: ${cause instanceof Error ? cause.message : String(cause)}`;
    this.error = new StarlingError("INVALID_ARGUMENT", text, { cause });
  }
}

/** What a handler knows of its call beside the request. */
export interface CallContext {
  /** Aborted when the client is gone or has cancelled. */
  readonly signal: AbortSignal;
  /** What the client's deadline leaves; at most `deadlineMaxMs`. */
  readonly deadlineMs: number;
  readonly caller: Caller;
  /** The client's trace (W3C). */
  readonly traceparent: string | null;
}

type Init<M extends DescMethod> = MessageInitShape<M["output"]>;
type RequestOf<M extends DescMethod> = MessageShape<M["input"]>;
type In<M extends DescMethod> = Received<RequestOf<M> extends ClientMessage ? ReadMessage : RequestOf<M>>;

/** The handler of one method, by its kind. A stream of both directions gets the call itself, and what is {@link Unreadable}. */
export type Handler<M extends DescMethod> = M extends { readonly methodKind: "unary" }
  ? (request: In<M>, context: CallContext) => Promise<Init<M>>
  : M extends { readonly methodKind: "server_streaming" }
    ? (request: In<M>, context: CallContext) => AsyncIterable<Init<M>>
    : (call: ServerDuplexStream<In<M> | Unreadable, Init<M>>, caller: Caller) => void;

/** One handler for every method of a service. */
export type Handlers<S extends DescService> = { readonly [K in keyof S["method"]]: Handler<S["method"][K]> };

const deadlineMaxMs = 30_000;

export interface ServiceOptions<S extends DescService> {
  readonly handlers: Handlers<S>;
  /** Who may call what; "open": everyone. */
  readonly access: { readonly gate: Gate; readonly rules: Access<S> } | "open";
  /** Hears of every call that gets one answer, returns what hears of the answer, and may refuse it by what it raises. */
  readonly onCall?: () => () => void;
  /** Replaces the service's name, for a service known under two names. */
  readonly name?: string;
}

/** Adds a service to a server. */
export function addService<S extends DescService>(server: Server, service: S, options: ServiceOptions<S>): void {
  const definition: Record<string, MethodDefinition<unknown, unknown>> = {};
  const implementation: UntypedServiceImplementation = {};
  for (const method of service.methods) {
    definition[method.localName] = toDefinition(method, options.name ?? service.typeName);
    const handler = (options.handlers as Record<string, unknown>)[method.localName];
    const door = doorOf(options.access, method);
    implementation[method.localName] = toImplementation(method, handler, { door, onCall: options.onCall });
  }
  server.addService(definition, implementation);
}

/** A protobuf-es method as grpc-js wants it. Requests arrive as {@link Received}, or {@link Unreadable}. */
function toDefinition(method: DescMethod, service: string): MethodDefinition<unknown, unknown> {
  const decode = decoderOf(method.input);
  return {
    path: `/${service}/${method.name}`,
    requestStream: method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming",
    responseStream: method.methodKind === "server_streaming" || method.methodKind === "bidi_streaming",
    requestSerialize: (message) => encode(method.input, message),
    requestDeserialize: (buffer) => {
      const bytes = new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength);
      try {
        return { message: decode(bytes), bytes };
      } catch (error) {
        return new Unreadable(method.input.name, error);
      }
    },
    responseSerialize: (message) => encode(method.output, message),
    responseDeserialize: (buffer) => fromBinary(method.output, new Uint8Array(buffer)),
  };
}

/** Batches are what a node decodes most: they have a reader of their own. */
function decoderOf(schema: DescMessage): (bytes: Uint8Array) => unknown {
  return schema === ClientMessageSchema ? createBatchReader().read : (bytes) => fromBinary(schema, bytes);
}

function encode(schema: DescMethod["output"], message: unknown): Buffer {
  const bytes = toBinary(schema, create(schema, message as MessageInitShape<typeof schema>));
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** What stands before a method: who calls, if it may. Raises UNAUTHENTICATED and PERMISSION_DENIED. */
type Door = (call: GatedCall, request: unknown) => { readonly caller: Caller; readonly need: Need | null };

function doorOf<S extends DescService>(access: ServiceOptions<S>["access"], method: DescMethod): Door {
  if (access === "open") return () => ({ caller: anyone, need: null });
  const { gate, rules } = access;
  const rule = (rules as Record<string, (request: unknown) => Need>)[method.localName];
  assert(rule !== undefined, `${method.name} has no rule of access`);
  return (call, request) => {
    const caller = gate.callerOf(call);
    const need = rule(request);
    caller.need(need);
    return { caller, need };
  };
}

function toImplementation(
  method: DescMethod,
  handler: unknown,
  { door, onCall = () => () => {} }: { readonly door: Door; readonly onCall: (() => () => void) | undefined },
): UntypedServiceImplementation[string] {
  switch (method.methodKind) {
    case "unary": {
      const run = handler as (request: unknown, context: CallContext) => Promise<unknown>;
      return (call: ServerUnaryCall<unknown, unknown>, answer: sendUnaryData<unknown>) => {
        const answered = async () => {
          const { caller } = door(call, messageOf(call.request));
          const onAnswer = onCall();
          return await run(call.request, contextOf(call, caller)).finally(onAnswer);
        };
        answered().then(
          (reply) => answer(null, reply),
          (error: unknown) => answer(toStatus(error)),
        );
      };
    }
    case "server_streaming": {
      const run = handler as (request: unknown, context: CallContext) => AsyncIterable<unknown>;
      return (call: ServerWritableStream<unknown, unknown>) => {
        const pumped = async (): Promise<void> => {
          const { caller, need } = door(call, messageOf(call.request));
          const context = contextOf(call, caller);
          // What was allowed at the beginning may be withdrawn while it goes on.
          const check = () => need && caller.need(need);
          await pump(call, run(call.request, context), { signal: context.signal, check });
        };
        pumped().then(
          () => call.end(),
          (error: unknown) => call.emit("error", toStatus(error)),
        );
      };
    }
    default: {
      const run = handler as (call: ServerDuplexStream<unknown, unknown>, caller: Caller) => void;
      return (call: ServerDuplexStream<unknown, unknown>) => {
        try {
          run(call, door(call, null).caller);
        } catch (error) {
          call.emit("error", toStatus(error));
        }
      };
    }
  }
}

/** How long a client may leave what was sent to it unread. */
const stalledMs = 60_000;

/** Writes what an iterable yields, as fast as the client reads. Raises DEADLINE for one that no longer does. */
async function pump(
  call: ServerWritableStream<unknown, unknown>,
  source: AsyncIterable<unknown>,
  { signal, check }: { readonly signal: AbortSignal; readonly check: () => void },
): Promise<void> {
  for await (const item of source) {
    if (signal.aborted) return;
    check();
    if (!call.write(item)) await drained(call, signal);
  }
}

function drained(call: ServerWritableStream<unknown, unknown>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      call.off("drain", done);
      signal.removeEventListener("abort", done);
    };
    const done = () => {
      end();
      resolve();
    };
    const timer = setTimeout(() => {
      end();
      reject(new StarlingError("DEADLINE", `the client has read nothing for ${stalledMs / 1000} s`));
    }, stalledMs);
    call.once("drain", done);
    signal.addEventListener("abort", done, { once: true });
    if (signal.aborted) done();
  });
}

/** Raises INVALID_ARGUMENT. */
function messageOf(request: unknown): unknown {
  if (request instanceof Unreadable) throw request.error;
  return (request as Received<unknown>).message;
}

function contextOf(
  call: ServerUnaryCall<unknown, unknown> | ServerWritableStream<unknown, unknown>,
  caller: Caller,
): CallContext {
  const gone = new AbortController();
  call.on("cancelled", () => gone.abort(new StarlingError("UNAVAILABLE", "the client has cancelled")));
  const deadline = call.getDeadline();
  // grpc-js makes a wall-clock time of what is left on the wire, by Date.now(); without a deadline it says Infinity.
  const leftMs = Number(deadline) - Date.now();
  const deadlineMs = Math.max(0, Math.min(leftMs, deadlineMaxMs));
  return { signal: gone.signal, deadlineMs, caller, traceparent: traceparentOf(call) };
}

/** The trace that a call is a part of, as its client says (W3C). */
export function traceparentOf({ metadata }: { readonly metadata: Metadata }): string | null {
  const [traceparent] = metadata.get("traceparent");
  return traceparent === undefined ? null : String(traceparent);
}
