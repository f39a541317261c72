import { callUnary, type Dialled } from "./client-call.ts";
import type { ClientToken } from "./client-session.ts";
import { Actors } from "./gen/starling_pb.ts";

/** Who gets a message: a module's behaviour by name and key, one of which the cluster has only one, or an entity. */
export type ClientActorAddress =
  | { readonly behaviour: string; readonly key: string }
  | { readonly singleton: string }
  | { readonly type: string; readonly eid: string };

export interface ClientMessageOptions {
  /** The same message under the same key is taken once, and asked again gives the first one's reply. */
  readonly idempotencyKey?: string;
  /** Bounds this call; default the client's. */
  readonly deadlineMs?: number;
}

/** Typed calls of the service Actors; each raises the StarlingError that the node sends. Messages and replies are JSON. */
export interface ActorsClient {
  /** Resolves when the message is in the log, with its place there. */
  send(to: ClientActorAddress, message: unknown, options?: ClientMessageOptions): Promise<ClientToken | null>;
  /** Resolves with the reply: of an entity its attributes, null if there is none. */
  ask(to: ClientActorAddress, message: unknown, options?: ClientMessageOptions): Promise<unknown>;
}

/** `connected` gives the connection to call on; `callMs` bounds each call. */
export function createActorsClient(connected: () => Promise<Dialled>, callMs: number): ActorsClient {
  const { method } = Actors;
  const requestOf = (to: ClientActorAddress, message: unknown, { idempotencyKey = "" }: ClientMessageOptions) => ({
    ...{ to: wireAddress(to), messageJson: message === undefined ? "" : JSON.stringify(message), idempotencyKey },
  });
  return {
    send: async (to, message, options = {}) => {
      const request = requestOf(to, message, options);
      const { token } = await callUnary(await connected(), method.send, request, options.deadlineMs ?? callMs);
      if (token === undefined) return null;
      return { shard: token.shard, epoch: Number(token.epoch), seq: Number(token.seq) };
    },
    ask: async (to, message, options = {}) => {
      const request = requestOf(to, message, options);
      const { replyJson } = await callUnary(await connected(), method.ask, request, options.deadlineMs ?? callMs);
      return JSON.parse(replyJson) as unknown;
    },
  };
}

function wireAddress(to: ClientActorAddress) {
  if ("singleton" in to) return { kind: { case: "singleton" as const, value: to.singleton } };
  if ("behaviour" in to) return { kind: { case: "behaviour" as const, value: { name: to.behaviour, key: to.key } } };
  return { kind: { case: "entity" as const, value: to } };
}
