import type { CheckedTask } from "../modules/datapoint.ts";
import type { Hook } from "../modules/hook.ts";
import type { Seq, ShardId } from "../proto/ids.ts";
import type { HookCall } from "./hooks/hook-call.ts";
import type { HookOutcome } from "./hooks/hook-outcome.ts";
import type { OpenBatch } from "./sessions/session.ts";

/**
 * Follows some tasks on their way: from the batch that brought them over the log, hooks and what these derive, here and on
 * other nodes, as one trace.
 *
 *  1. The context of a task that is followed stands beside it, in memory: tasks have no field for it, and where nobody
 *     traces there is no `Traces` at all.
 *  2. It travels with its task over the links between nodes, and from a hook to what that returns. The log does not have it:
 *     what a new owner replays is followed no further.
 *  3. Nothing depends on it, and it answers nothing back: a trace may end anywhere.
 */
export interface Traces {
  /** A batch has arrived and is not offered yet; `parent`: its sender's W3C traceparent. If it is sampled, tasks are followed. */
  batchOpened(batch: OpenBatch, parent: string | null): void;
  batchAcked(batch: OpenBatch, level: "durable" | "processed"): void;
  /** Nobody waits for it any more, or its sender was told all. */
  batchClosed(batch: OpenBatch): void;
  /** The context of a task, as a traceparent; null: it is not followed. */
  contextOf(task: CheckedTask): string | null;
  /** Follows a task that came from another node. */
  follow(task: CheckedTask, context: string): void;
  /** Follows `to` as what `from` has become. */
  carry(from: CheckedTask, to: CheckedTask): void;
  /** A task is in the log, and its processing begins. */
  takenUp(task: CheckedTask, place: { readonly shard: ShardId; readonly seq: Seq }): void;
  /** Nothing of a task is open any more. */
  settled(task: CheckedTask): void;
  /** Runs a hook; what it derives from a followed task is followed. */
  runHook(hook: Hook, call: HookCall, run: RunHook): HookOutcome | Promise<HookOutcome>;
}

type RunHook = (hook: Hook, call: HookCall) => HookOutcome | Promise<HookOutcome>;

/** A hook's runner as tracing sees it. */
export function tracedBy(traces: Traces | undefined, run: RunHook): RunHook {
  return traces === undefined ? run : (hook, call) => traces.runHook(hook, call, run);
}
