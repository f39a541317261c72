import type { MessageContext } from "../../modules/behaviour.ts";
import type { Eid } from "../../modules/datapoint.ts";
import type { HookContext, ModuleLog, RecordView } from "../../modules/hook.ts";
import type { Call } from "./hook-call.ts";
import type { HookLane } from "./hook-lane.ts";

/**
 * One attempt at a hook, as the hook sees it. One is made for every attempt, so whatever few hooks read (the signal, the
 * bound `get`) is made when it is read.
 */
export class HookRun implements HookContext, MessageContext {
  readonly #lane: HookLane;
  readonly #call: Call;
  #aborts: AbortController | null = null;
  #reason: Error | null = null;

  constructor(lane: HookLane, call: Call) {
    this.#lane = lane;
    this.#call = call;
  }

  get now(): number {
    return this.#call.now;
  }

  get key(): string {
    return this.#call.key;
  }

  get self(): string {
    return this.#call.self;
  }

  get log(): ModuleLog {
    return this.#lane.log;
  }

  get record(): RecordView | null {
    return this.#call.record;
  }

  get signal(): AbortSignal {
    if (this.#aborts === null) {
      this.#aborts = new AbortController();
      if (this.#reason !== null) this.#aborts.abort(this.#reason);
    }
    return this.#aborts.signal;
  }

  get get(): (type: string, eid: Eid) => Promise<RecordView | null> {
    return async (type, eid) => {
      if (this.#reason !== null) throw this.#reason;
      return this.#lane.getRecord(type, eid);
    };
  }

  /** The attempt has lost its right to answer. */
  abort(reason: Error): void {
    this.#reason ??= reason;
    this.#aborts?.abort(this.#reason);
  }
}
