import type { CheckedTask } from "../../modules/datapoint.ts";
import type { Hook, RecordView } from "../../modules/hook.ts";
import type { Model } from "../../modules/model.ts";
import type { Clock } from "../../proto/clock.ts";
import type { Seq, ShardId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Call } from "../hooks/hook-call.ts";
import type { HookOutcome } from "../hooks/hook-outcome.ts";
import type { HookRun } from "../hooks/hook-run.ts";
import type { HookRunner } from "../hooks/hook-runner.ts";
import type { CallGuard } from "./call-guard.ts";
import { givenUp, type HookPatience } from "./hook-patience.ts";
import { type HookReport, noteProblem, reportOf, type SnapshotReport } from "./snapshot-report.ts";

/** What all calls of a page or a component of a tick have in common. */
export interface TickScope {
  readonly model: Model;
  /** Grows by one with every run. */
  readonly tick: number;
  /** The instant of the run, Unix ms. */
  readonly atMs: number;
  /** For whom it is computed: named by the watchdog. */
  readonly shard: ShardId;
  readonly runner: Pick<HookRunner, "run" | "abandonCalls">;
  /** Of this tick. */
  readonly patience: HookPatience;
  /** Over each call, where a node may have died of one; null: nothing speaks for it. */
  readonly guard: SnapshotGuard | null;
  readonly clock: Clock;
  /** Ends the computing. To be aborted when the shard is lost: its hooks are, and do not answer any more. */
  readonly signal: AbortSignal;
}

export interface SnapshotGuard extends CallGuard {
  /** Told of a call that did not yield. */
  onStuck(call: SnapshotCall): void;
}

/** A task that a hook returned, and the entity that it was called for. */
export interface SnapshotTask {
  readonly hook: string;
  readonly type: string;
  readonly eid: string;
  readonly task: CheckedTask;
}

/** What hooks did beside the values. */
export interface HookYield {
  readonly tasks: SnapshotTask[];
  readonly report: SnapshotReport;
}

/** One call of a snapshot hook about one entity. */
export abstract class SnapshotCall implements Call {
  readonly scope: TickScope;
  readonly hook: Hook;
  readonly type: string;
  /** Canonical text. */
  readonly eid: string;

  constructor(scope: TickScope, hook: Hook, { type, eid }: { readonly type: string; readonly eid: string }) {
    this.scope = scope;
    this.hook = hook;
    this.type = type;
    this.eid = eid;
  }

  get shard(): ShardId {
    return this.scope.shard;
  }

  get seq(): Seq {
    return this.scope.tick as Seq;
  }

  get now(): number {
    return this.scope.atMs;
  }

  get key(): string {
    return `${this.scope.tick}-${this.type}-${this.eid}-${this.hook.id}`;
  }

  get self(): string {
    return this.eid;
  }

  get record(): RecordView | null {
    return null;
  }

  get retries(): number {
    return this.scope.patience.retriesOf(this.hook) ?? 0;
  }

  invoke(_by: unknown, run: HookRun): unknown {
    const { guard, patience } = this.scope;
    if (guard === null) return this.attempt(run);
    try {
      return guard.run(() => this.attempt(run));
    } catch (error) {
      if (error instanceof StarlingError && error.code === "DEADLINE") {
        patience.giveUp(this.hook);
        guard.onStuck(this);
      }
      throw error;
    }
  }

  /** Calls the hook, each attempt with arguments of its own. */
  abstract attempt(run: HookRun): unknown;

  /** The hook has answered; calls answer in any order. False: it has changed nothing. */
  abstract answered(): boolean;

  /** Takes over what the hook changed. Called in the order of the calls when all have been answered. */
  abstract apply(tasks: readonly CheckedTask[], own: HookReport): void;
}

/** The loop is given back after so many ms, so that whatever else the node does goes on. */
const turnMs = 5;
const callsPerLook = 16;
const noTasks: readonly CheckedTask[] = [];

/**
 * Calls a hook about many entities: at once where it answers at once, else so many at a time as the hook may. When all have
 * answered or failed, what they changed is taken over, call by call: no call sees what another one has done. Rejects with the
 * signal's reason, and then nothing has changed.
 */
export async function callAll(
  scope: TickScope,
  hook: Hook,
  calls: Iterable<SnapshotCall>,
  { tasks, report }: HookYield,
): Promise<void> {
  const own = reportOf(report, hook.id);
  const begunMs = scope.clock.now();
  const answers = await gather(scope, hook, calls, own).finally(() => {
    own.ms += scope.clock.now() - begunMs;
  });
  for (const { call, outcome } of answers) {
    if (outcome.kind === "failed") {
      noteProblem(own, "failures", `${call.type} ${call.eid}: ${outcome.error.message}`);
      continue;
    }
    const returned = outcome.kind === "answer" ? outcome.tasks : noTasks;
    own.tasks += returned.length;
    for (const task of returned) tasks.push({ hook: hook.id, type: call.type, eid: call.eid, task });
    call.apply(returned, own);
  }
}

interface Answer {
  readonly order: number;
  readonly call: SnapshotCall;
  readonly outcome: HookOutcome;
}

/** The answers that tell something, in the order of the calls. */
async function gather(scope: TickScope, hook: Hook, calls: Iterable<SnapshotCall>, own: HookReport): Promise<Answer[]> {
  const { clock, runner, patience, signal } = scope;
  const answers: Answer[] = [];
  const pending = new Set<Promise<void>>();
  const abort = onAbort(signal, () =>
    runner.abandonCalls((call) => call instanceof SnapshotCall && call.scope === scope),
  );
  const settle = (order: number, call: SnapshotCall, outcome: HookOutcome): void => {
    patience.note(hook, outcome);
    const idle = outcome.kind === "answer" && !call.answered() && outcome.tasks.length === 0;
    if (!idle) answers.push({ order, call, outcome });
  };
  let isLate = false;
  let turnEndsMs = clock.now() + turnMs;
  let order = 0;
  try {
    for (const call of calls) {
      signal.throwIfAborted();
      const outcome = patience.retriesOf(hook) === null ? givenUp(hook) : runner.run(hook, call);
      const place = order++;
      if (outcome instanceof Promise) {
        isLate = true;
        const settled = outcome.then((late) => {
          pending.delete(settled);
          settle(place, call, late);
        });
        pending.add(settled);
        if (pending.size >= hook.concurrency) await Promise.race([abort.promise, ...pending]);
      } else settle(place, call, outcome);
      if (order % callsPerLook === 0 && clock.now() >= turnEndsMs) {
        await new Promise<void>((resolve) => clock.soon(resolve));
        turnEndsMs = clock.now() + turnMs;
      }
    }
    if (pending.size > 0) await Promise.race([abort.promise, Promise.all(pending)]);
    signal.throwIfAborted();
  } finally {
    own.calls += order;
    abort.close();
  }
  return isLate ? answers.sort((a, b) => a.order - b.order) : answers;
}

/** A promise that only ever rejects, with the signal's reason. */
function onAbort(signal: AbortSignal, run: () => void): { readonly promise: Promise<never>; close(): void } {
  let listener = () => {};
  const promise = new Promise<never>((_, reject) => {
    listener = () => {
      run();
      reject(signal.reason);
    };
  });
  // Nobody may be waiting just then: the loop looks at the signal itself.
  promise.catch(() => {});
  signal.addEventListener("abort", listener);
  return { promise, close: () => signal.removeEventListener("abort", listener) };
}
