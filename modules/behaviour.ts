import { StarlingError } from "../proto/starling-error.ts";
import type { DerivedTask, Eid } from "./datapoint.ts";
import type { Awaitable, HookOptions, ModuleLog, RecordView } from "./hook.ts";
import { idPattern } from "./parse-attribute.ts";

/**
 * Who gets a message: a module's behaviour by name and key, a behaviour of which the cluster has one, or an entity. An
 * entity's message is a task without its address: `{ datapoints?, ttlTokens?, delete? }`.
 */
export type ActorAddress =
  | { readonly behaviour: string; readonly key: string }
  | { readonly singleton: string }
  | { readonly type: string; readonly eid: Eid };

/** A message on its way: what hooks and behaviours may return among their tasks. */
export interface Send {
  readonly to: ActorAddress;
  /** Any JSON value; 1 MiB at most. */
  readonly message: unknown;
}

/** What `receive` gets beside state and message. */
export interface MessageContext {
  /** The arrival time of the message in Unix milliseconds: the same in every run. */
  readonly now: number;
  /** Stable over repetitions of this run: makes side effects outside Starling idempotent. */
  readonly key: string;
  /** Aborted when the run has lost its right to answer: time-out, hand-off, stop. */
  readonly signal: AbortSignal;
  readonly log: ModuleLog;
  /** The behaviour's own key; of a singleton always the same. */
  readonly self: string;
  /** An entity's record as of its last flush or newer; null if there is none. */
  readonly get: (type: string, eid: Eid) => Promise<RecordView | null>;
}

/** What a message comes to. All of it is recorded as one, once, though `receive` may run more than once. */
export interface MessageAnswer<State> {
  /** The new state; left out: it stays. */
  readonly state?: State;
  /** For who asked; left out: null. */
  readonly reply?: unknown;
  /** Tasks for entities. */
  readonly tasks?: readonly DerivedTask[];
  /** Messages to others, each delivered exactly once and in this order. */
  readonly sends?: readonly Send[];
}

/**
 * A module's behaviour: for every key an actor with a state of its own, any JSON value of at most 1 MiB. It takes one
 * message at a time, in the order of the log; its state changes exactly once for each. A message whose `receive` fails for
 * good becomes a dead letter and changes nothing.
 */
export interface Behaviour<State = unknown, Message = unknown> extends Omit<HookOptions, "name"> {
  /** The state before the first message; default null. */
  readonly initial?: (key: string) => State;
  readonly receive: (
    state: State,
    message: Message,
    ctx: MessageContext,
  ) => Awaitable<MessageAnswer<State> | null | undefined>;
  /** The cluster has one of it, without a key. */
  readonly singleton?: boolean;
}

/** A behaviour as it was registered. */
export interface BehaviourSpec {
  readonly module: string;
  readonly name: string;
  /** The entity type that stands for it in the log: see {@link actorType}. */
  readonly type: string;
  readonly singleton: boolean;
}

/** What stands in the log as a message's and a state's attribute. */
export const messageAttr = "message";
export const stateAttr = "state";
/** The key of every singleton. */
export const singletonKey = "only";

/** The entity type of a behaviour's actors: no type of a model is called so. */
export function actorType(name: string, singleton: boolean): string {
  return `${singleton ? "@@" : "@"}${name}`;
}

/** Whether a type is that of actors, and of singletons. */
export function isActorType(type: string): boolean {
  return type.startsWith("@");
}
export function isSingletonType(type: string): boolean {
  return type.startsWith("@@");
}

/** Raises MODULE unless the name can be part of an address. */
export function checkBehaviourName(where: string, name: unknown): asserts name is string {
  if (typeof name === "string" && name.length <= nameMaxLength && idPattern.test(name)) return;
  const found = JSON.stringify(name);
  throw new StarlingError(
    "MODULE",
    `${where}: the name ${found} is not letters, digits, '_' and '-', ${nameMaxLength} at most`,
  );
}

const nameMaxLength = 100;
