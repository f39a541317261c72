import type { Hook } from "../../modules/hook.ts";
import type { Seq } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { HookOutcome } from "../hooks/hook-outcome.ts";
import type { AttemptMark } from "../store/store.ts";
import type { Entity } from "./entity.ts";
import type { Entry } from "./entry.ts";
import type { Shard } from "./shard.ts";
import { deathsMax } from "./suspect.ts";

/** What holds the hooks of shards that were taken over from a dead process back, but for a window of them (`poison.ts`). */
export interface Gate {
  /**
   * queued: another lane's gate is open; marking: the window's mark is on its way into the store; open: the window's hooks run;
   * closing: the last mark is on its way out.
   */
  status: "queued" | "marking" | "open" | "closing";
  /** The window at hand, by shard; and what of it is not known to be through, in reverse. */
  windows: ReadonlyMap<Shard, AttemptMark>;
  waiting: Waiting[];
  /** What the next flush is to make of the marks in the store; null: it removes one. */
  marks: ReadonlyMap<Shard, AttemptMark | null>;
  /** Whether the window at hand is one datapoint that is not to be run. */
  poisoned: boolean;
  /** Entities whose next hook is behind the window. */
  readonly parked: Map<Entity, Shard>;
}

/** Hooks of the entry may run up to this seq. */
export interface Waiting {
  readonly shard: Shard;
  readonly entry: Entry;
  readonly to: Seq;
}

export function createGate(): Gate {
  const none = { windows: new Map(), waiting: [], marks: new Map(), parked: new Map() };
  return { status: "queued", poisoned: false, ...none };
}

/** What stands for a hook that is not run, because the process died of its datapoint again and again. */
export function giveUp(hook: Hook): HookOutcome {
  const what = `hook ${hook.id} was not run: the process died ${deathsMax} times there`;
  const error = new StarlingError("HOOK_FAILED", what);
  if (hook.kind === "allow_entity_creation") return { kind: "decision", allowed: true, failed: error };
  return { kind: "failed", error, attempts: deathsMax };
}

/** Whether the hooks of a datapoint are not to be run. */
export function isPoisoned(gate: Gate | null, shard: Shard, seq: number): boolean {
  return gate?.poisoned === true && gate.windows.get(shard)?.from === seq;
}
