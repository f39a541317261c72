import { inspect } from "node:util";
import type { Eid } from "../../modules/datapoint.ts";
import type { Hook, HookTable, ModuleLog, RecordView } from "../../modules/hook.ts";
import type { Model } from "../../modules/model.ts";
import type { Clock } from "../../proto/clock.ts";
import type { ShardId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Counters } from "../counters.ts";
import { type AnswerLimits, checkAnswer, checkMessageAnswer } from "./hook-answer.ts";
import type { Call } from "./hook-call.ts";
import { createHookCounters } from "./hook-counters.ts";
import { allHooks, countTime, type HookLane, invokerOf } from "./hook-lane.ts";
import { type HookMark, noMark } from "./hook-mark.ts";
import type { HookOutcome } from "./hook-outcome.ts";
import { createHookPursuits } from "./hook-pursuit.ts";
import { HookRun } from "./hook-run.ts";

/** Runs hooks: at once when they answer at once, else bounded in number, time and attempts (R15). */
export interface HookRunner {
  /**
   * Runs a hook. The outcome itself when the hook answered at its first, synchronous attempt, or failed for good there;
   * else a promise of it, which never rejects, and never settles once the run was abandoned: such a run has no right to
   * answer, and the log holds its cause. Waiting runs have no bound here: the caller bounds its calls.
   */
  run(hook: Hook, call: Call): HookOutcome | Promise<HookOutcome>;
  /** Aborts the runs of a shard that was given up. */
  abandon(shard: ShardId): void;
  /** Aborts the runs of these calls: what they were for is over. */
  abandonCalls(match: (call: Call) => boolean): void;
  /** Asynchronous runs that have not ended, those that wait for their turn included. */
  readonly pending: number;
  /** Aborts all runs and starts no more. Who wants them finished waits for them first. */
  close(): void;
}

export interface HookRunnerLimits extends AnswerLimits {
  /** Pause before the second attempt; doubles with each further one. */
  readonly backoffMs: number;
  readonly backoffMaxMs: number;
}

export interface HookRunnerOptions {
  readonly hooks: HookTable;
  readonly model: Model;
  readonly limits: HookRunnerLimits;
  readonly clock: Clock;
  /** 0 to below 1. */
  readonly random: () => number;
  readonly counters: Counters;
  /** The log of a hook. */
  readonly log: (hook: Hook) => ModuleLog;
  /** Another entity's record, for `ctx.get`. */
  readonly getRecord: (type: string, eid: Eid) => Promise<RecordView | null>;
  /** Where the watchdog sees which hook runs. */
  readonly mark?: HookMark;
}

/** DESIGN R4, and the back-off. */
export const hookRunnerLimits: HookRunnerLimits = {
  tasksMax: 1000,
  bytesMax: 4 * 1024 * 1024,
  backoffMs: 50,
  backoffMaxMs: 10_000,
};

const noTasks: HookOutcome = Object.freeze({ kind: "answer", tasks: Object.freeze([]) });
const allowed: HookOutcome = Object.freeze({ kind: "decision", allowed: true });
const denied: HookOutcome = Object.freeze({ kind: "decision", allowed: false });

// Reading the clock twice costs more than the rest of a call: all of the first calls are timed, later one of sixteen.
const timedCalls = 16;

/** A runner of the table's hooks. */
export function createHookRunner(options: HookRunnerOptions): HookRunner {
  const { limits, clock, random, mark = noMark } = options;
  const lanes = new Map(allHooks(options.hooks).map((hook, index) => [hook, createLane(options, hook, index)]));
  const judge = (lane: HookLane, returned: unknown, attempts: number) => outcomeOf(options, lane, returned, attempts);
  const pursuits = createHookPursuits({ limits, clock, random, mark, judge, failed });

  function run(hook: Hook, call: Call): HookOutcome | Promise<HookOutcome> {
    const lane = lanes.get(hook);
    if (lane === undefined) throw new StarlingError("INTERNAL", `hook ${hook.id} is not of this runner's table`);
    if (lane.running >= hook.concurrency || pursuits.closed) return pursuits.begin(lane, call);
    const context = new HookRun(lane, call);
    const weight = weightOf(lane);
    lane.counters.executions.value++;
    const startedAt = weight === 0 ? 0 : clock.now();
    mark.enter(lane.index, call.shard, call.seq);
    let returned: unknown;
    try {
      returned = call.invoke(lane.invoke, context);
    } catch (error) {
      mark.leave();
      lane.counters.failures.value++;
      return (call.retries ?? hook.retries) === 0 ? failed(lane, error, 1) : pursuits.retry(lane, call, error);
    }
    mark.leave();
    if (isThenable(returned)) return pursuits.follow(lane, call, { context, answer: returned });
    if (weight !== 0) countTime(lane, clock.now() - startedAt, weight);
    return judge(lane, returned, 1);
  }

  return {
    run,
    abandonCalls: pursuits.abandon,
    abandon: (shard) => pursuits.abandon((call) => call.shard === shard),
    get pending() {
      return pursuits.pending;
    },
    close: () => pursuits.close(),
  };
}

function createLane(options: HookRunnerOptions, hook: Hook, index: number): HookLane {
  return {
    hook,
    index,
    counters: createHookCounters(options.counters, options.model, hook),
    log: options.log(hook),
    getRecord: options.getRecord,
    invoke: invokerOf(hook),
    calls: 0,
    running: 0,
    waiting: new Set(),
  };
}

/** What a hook returned, by its kind. */
function outcomeOf(options: HookRunnerOptions, lane: HookLane, returned: unknown, attempts: number): HookOutcome {
  const { kind } = lane.hook;
  if (kind === "on_task_start") return noTasks;
  if (kind === "allow_entity_creation") {
    (returned ? lane.counters.allowed : lane.counters.denied).value++;
    return returned ? allowed : denied;
  }
  if (kind !== "on_message" && (returned === null || returned === undefined)) return noTasks;
  try {
    if (kind === "on_message") {
      const outcome = checkMessageAnswer(options.model, options.limits, lane.hook.type ?? "", returned);
      lane.counters.createdTasks.value += outcome.tasks.length;
      return outcome;
    }
    const tasks = checkAnswer(options.model, options.limits, returned);
    if (tasks.length === 0) return noTasks;
    lane.counters.createdTasks.value += tasks.length;
    return { kind: "answer", tasks };
  } catch (error) {
    lane.counters.failures.value++;
    return failed(lane, error, attempts);
  }
}

/** How many calls the timing of this one stands for; 0: it is not timed. */
function weightOf(lane: HookLane): number {
  const call = ++lane.calls;
  if (call <= timedCalls) return 1;
  return call % timedCalls === 0 ? timedCalls : 0;
}

/** A hook's failure for good. An allow hook that failed counts as allowed, as in DP³, and says why. */
function failed(lane: HookLane, error: unknown, attempts: number): HookOutcome {
  const message = error instanceof Error ? error.message : typeof error === "string" ? error : inspect(error);
  const tries = attempts === 1 ? "" : ` after ${attempts} attempts`;
  const failure = new StarlingError("HOOK_FAILED", `hook ${lane.hook.id} failed${tries}: ${message}`, { cause: error });
  if (lane.hook.kind !== "allow_entity_creation") return { kind: "failed", error: failure, attempts };
  lane.counters.allowed.value++;
  return { kind: "decision", allowed: true, failed: failure };
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function";
}
