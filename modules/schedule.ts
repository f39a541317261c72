import type { ActorAddress, Behaviour, MessageContext } from "./behaviour.ts";
import type { DerivedTask, Eid } from "./datapoint.ts";
import type { HookOptions, ModuleLog, RecordView } from "./hook.ts";

/** A cron dictionary, DP³'s keys; what is left out follows DP³'s rules. */
export type CronFields = Readonly<
  Partial<
    Record<
      "second" | "minute" | "hour" | "day" | "day_of_week" | "week" | "month" | "year" | "timezone",
      string | number
    >
  >
>;

/** When: croner's syntax, five fields or six with seconds first, in UTC; or a dictionary, which may name a time zone. */
export type Cron = string | CronFields;

/** What becomes of deadlines that nobody was there for: none is run, the last one is, or all are. */
export type CatchUp = "skip" | "once" | "all";

export interface ScheduleOptions extends Pick<HookOptions, "name" | "timeoutMs" | "retries"> {
  /**
   * `node` (default): on every node, by a timer, and what is missed is missed; the callback returns nothing. `cluster`: each
   * deadline once in the cluster, over restarts and changes of owners.
   */
  readonly where?: "node" | "cluster";
  /** Only with `cluster`; default `skip`. */
  readonly catchUp?: CatchUp;
}

/** One run of a scheduled callback. */
export interface ScheduleRun {
  /** The deadline, in Unix milliseconds. */
  readonly scheduled: number;
  /** In the cluster: the time of the run's entry in the log, and an id of the run, the same however often it is tried. */
  readonly now: number;
  readonly key: string;
  readonly signal: AbortSignal;
  readonly log: ModuleLog;
  readonly get: (type: string, eid: Eid) => Promise<RecordView | null>;
}

/** In the cluster it may return tasks and messages, which are recorded once with the run. */
export type ScheduleCallback = (run: ScheduleRun) => unknown;

/** A callback that a module asked to have run on a schedule. */
export interface ScheduledCallback {
  readonly module: string;
  readonly name: string;
  readonly cron: Cron;
  readonly where: "node" | "cluster";
  readonly catchUp: CatchUp;
  /** Bounds one run on a node. */
  readonly timeoutMs: number;
  readonly run: ScheduleCallback;
}

/** The name of the singleton that keeps a cluster's schedule: no behaviour of a module can be called so. */
export function scheduleActor(module: string, name: string): string {
  return `schedule/${module}/${name}`;
}

/** What a schedule's actor remembers: every deadline up to `last` was run or passed over. */
export interface ScheduleState {
  readonly last: number;
}

/**
 * What it is told: to begin, if it has not; deadlines that are due; or, by itself, to run one. Who tells it to begin may know less
 * than it does: an earlier telling may be on its way still.
 */
export type ScheduleMessage =
  | { readonly kind: "begin"; readonly deadlines: readonly []; readonly upTo: number }
  | { readonly kind: "due"; readonly deadlines: readonly number[]; readonly upTo: number }
  | { readonly kind: "run"; readonly scheduled: number };

/**
 * The actor of a schedule. Who finds deadlines due may say so twice, and two may say so: a deadline is taken once, since the
 * state says up to where. It is run by a message of its own, so that a run that fails for good is a dead letter that can
 * be replayed, while the schedule goes on.
 */
export function scheduleBehaviour(name: string, callback: ScheduleCallback): Behaviour<ScheduleState | null, unknown> {
  const self: ActorAddress = { singleton: name };
  return {
    singleton: true,
    receive: async function (this: unknown, state, told, ctx) {
      const message = told as ScheduleMessage;
      if (message.kind === "run") return { tasks: await runOnce.call(this, callback, message.scheduled, ctx) };
      if (message.kind === "begin" && state !== null) return {};
      const last = Math.max(message.upTo, state?.last ?? message.upTo);
      const due = state === null ? [] : message.deadlines.filter((deadline) => deadline > state.last);
      return { state: { last }, sends: due.map((scheduled) => ({ to: self, message: { kind: "run", scheduled } })) };
    },
  };
}

async function runOnce(
  this: unknown,
  callback: ScheduleCallback,
  scheduled: number,
  ctx: MessageContext,
): Promise<readonly DerivedTask[]> {
  const { now, key, signal, log, get } = ctx;
  const tasks = await callback.call(this, { scheduled, now, key, signal, log, get });
  // Whatever it returned is checked as what a hook returns is.
  return (tasks ?? []) as readonly DerivedTask[];
}
