import { stateAttr } from "../../modules/behaviour.ts";
import type { Eid } from "../../modules/datapoint.ts";
import type {
  AllowEntityCreationHook,
  EntityCreationHook,
  Hook,
  HookTable,
  MessageHook,
  ModuleLog,
  NewAttrHook,
  RecordView,
  TaskHook,
} from "../../modules/hook.ts";
import type { SnapshotHooks } from "../../modules/snapshot-hook.ts";
import { unreachable } from "../../proto/unreachable.ts";
import { copyValue } from "../value-copy.ts";
import type { HookCall } from "./hook-call.ts";
import type { HookCounters } from "./hook-counters.ts";
import type { HookRun } from "./hook-run.ts";

/** What a runner keeps per hook, found once per call. */
export interface HookLane {
  readonly hook: Hook;
  /** Place in {@link allHooks}. */
  readonly index: number;
  readonly counters: HookCounters;
  readonly log: ModuleLog;
  readonly getRecord: (type: string, eid: Eid) => Promise<RecordView | null>;
  /** Calls the hook for a task with the arguments of its kind; those of snapshots are called by what they are about. */
  readonly invoke: (call: HookCall, run: HookRun) => unknown;
  /** Calls so far: says which ones are timed. */
  calls: number;
  /** Asynchronous attempts in flight, at most `hook.concurrency`. */
  running: number;
  /** Runs that wait for one of those to end, in order. */
  readonly waiting: Set<() => void>;
}

/** Every hook in a table once, in an order that depends on the table alone. */
export function allHooks(table: HookTable): Hook[] {
  const { timeseries, correlation, init, finalize } = table.snapshot ?? noSnapshotHooks;
  return [
    ...table.onTaskStart,
    ...[...table.allowEntityCreation.values()].flat(),
    ...[...table.onEntityCreation.values()].flat(),
    ...[...table.onNewAttr.values()].flatMap((ofType) => [...ofType.values()].flat()),
    ...[...(table.onMessage?.values() ?? [])].flat(),
    ...[...timeseries.values()].flatMap((ofType) => [...ofType.values()].flat()),
    // Those with a refresh flag stand above.
    ...correlation.filter(({ refresh }) => refresh === undefined),
    ...init,
    ...finalize,
  ];
}

const noSnapshotHooks: SnapshotHooks = { timeseries: new Map(), correlation: [], init: [], finalize: [] };

/** Of a hook: how to call it. */
export function invokerOf(hook: Hook): HookLane["invoke"] {
  switch (hook.kind) {
    case "on_task_start": {
      const run = hook.run as TaskHook;
      return (call, context) => run(call.task, context);
    }
    case "allow_entity_creation":
    case "on_entity_creation": {
      const run = hook.run as AllowEntityCreationHook | EntityCreationHook;
      return (call, context) => run(call.eid, call.task, context);
    }
    case "on_new_attr": {
      const run = hook.run as NewAttrHook;
      return (call, context) => {
        if (call.datapoint === null) throw new Error("the call of an attribute's hook has no datapoint");
        return run(call.eid, call.datapoint, context);
      };
    }
    case "on_message": {
      const run = hook.run as MessageHook;
      return (call, context) => {
        if (call.datapoint === null) throw new Error("the call of a behaviour has no message");
        return run(call.record?.value(stateAttr), copyValue(call.datapoint.v, false), context);
      };
    }
    case "timeseries":
    case "correlation":
    case "correlation_with_master_record":
    case "snapshot_init":
    case "snapshot_finalize":
      return () => {
        throw new Error(`${hook.id} runs in snapshots, not for a task`);
      };
    default:
      return unreachable(hook.kind);
  }
}

/** Notes how long an attempt took; `weight`: how many it stands for. */
export function countTime({ counters }: HookLane, tookMs: number, weight: number): void {
  counters.durationNs.value += Math.round(tookMs * 1e6 * weight);
  counters.seconds.observe(tookMs / 1000, weight);
}

/** Takes a place for an attempt, or waits for one. Returns the wait's cancelling, null when there was a place. */
export function enter(lane: HookLane, proceed: () => void): (() => void) | null {
  if (lane.running < lane.hook.concurrency) {
    lane.running++;
    return null;
  }
  const turn = () => proceed();
  lane.waiting.add(turn);
  return () => lane.waiting.delete(turn);
}

/** Gives a place back: to who has waited longest. */
export function leave(lane: HookLane): void {
  for (const turn of lane.waiting) {
    lane.waiting.delete(turn);
    turn();
    return;
  }
  lane.running--;
}
