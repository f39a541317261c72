import { StarlingError } from "../proto/starling-error.ts";
import type { ActorAddress } from "./behaviour.ts";

export interface SendOptions {
  /** Default 10 s. */
  readonly deadlineMs?: number;
  /** The same message under the same key is taken once, however often it is sent; at most 200 characters. */
  readonly idempotencyKey?: string;
}

/**
 * Messages to actors, wherever in the cluster they live, from code that runs outside of hooks; hooks and behaviours return
 * theirs, which is exactly once. Both raise NOT_FOUND for a behaviour that no module registers, INVALID_ARGUMENT and
 * INVALID_VALUE, BUSY when too much waits, DEADLINE and UNAVAILABLE.
 */
export interface ModuleActors {
  /** Resolves when the message is in the log: then it is processed, whatever dies. */
  send(to: ActorAddress, message: unknown, options?: SendOptions): Promise<void>;
  /**
   * Resolves with the reply: of a behaviour what it answered to this message, HOOK_FAILED if it failed for good; of an
   * entity, to which `message` is nothing, its attributes, null if there is none. After DEADLINE and UNAVAILABLE the message
   * may have been taken all the same; with an idempotency key it can be asked again.
   */
  ask(to: ActorAddress, message: unknown, options?: SendOptions): Promise<unknown>;
}

/** The door to a node's actors: closed until the node has them. */
export interface ModuleActorsDoor extends ModuleActors {
  open(actors: ModuleActors): void;
}

/** A door that raises UNAVAILABLE until it is opened. */
export function createModuleActorsDoor(): ModuleActorsDoor {
  let actors: ModuleActors | null = null;
  const here = (): ModuleActors => {
    if (actors === null) throw new StarlingError("UNAVAILABLE", "actors can be reached once the node serves");
    return actors;
  };
  return {
    open: (opened) => {
      actors = opened;
    },
    send: async (to, message, options) => here().send(to, message, options),
    ask: async (to, message, options) => here().ask(to, message, options),
  };
}
