import { actorType, singletonKey, stateAttr } from "../../modules/behaviour.ts";
import type { ModuleLog } from "../../modules/hook.ts";
import {
  type CatchUp,
  type ScheduledCallback,
  type ScheduleMessage,
  type ScheduleState,
  scheduleActor,
} from "../../modules/schedule.ts";
import type { Clock } from "../../proto/clock.ts";
import { withDeadline } from "../../proto/deadline.ts";
import type { ShardId } from "../../proto/ids.ts";
import { StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import type { Counters } from "../counters.ts";
import type { Engine } from "../engine.ts";
import type { Messenger } from "../messenger.ts";
import { shardOfType } from "../shard-of-type.ts";
import { createNextDeadline, type NextDeadline } from "./schedule-cron.ts";

export interface ScheduleDriverOptions {
  readonly scheduled: readonly ScheduledCallback[];
  readonly engine: Pick<Engine, "entityShards" | "systemShards" | "get">;
  readonly messenger: Messenger;
  /** Whether a shard is here, and this node has read lately that it is (R24). */
  readonly owns: (shard: ShardId) => boolean;
  readonly clock: Clock;
  /** Unix ms. */
  readonly wall: () => number;
  readonly counters: Counters;
  readonly log: (module: string) => ModuleLog;
}

/** Runs schedules until it is closed. */
export interface ScheduleDriver {
  /** Starts no more runs, aborts those of this node, and waits a little for what is on its way. Idempotent. */
  close(): Promise<void>;
}

/**
 * Runs what modules have scheduled. A schedule of the node is a timer. One of the cluster is an actor that remembers how far
 * it has come (`modules/schedule.ts`); whoever owns its shard looks when the next deadline is, and tells the actor when it is
 * due, by a message, so that the deadline stands in the log before anything runs (R21). Two nodes may say so at once: the
 * actor takes each deadline once.
 *
 * So nothing here has to survive. A shard that comes is found within a second, as is a wall clock that was set.
 */
export function startScheduleDriver(options: ScheduleDriverOptions): ScheduleDriver {
  const stop = new AbortController();
  const open = new Set<Promise<void>>();
  const timers = options.scheduled.map((scheduled) => {
    const next = nextOf(scheduled);
    return scheduled.where === "node"
      ? createNodeTimer(options, scheduled, next, stop.signal)
      : createClusterTimer(options, scheduled, next, stop.signal);
  });
  let cancels: (() => void)[] = timers.map(() => () => {});
  for (const [index, look] of timers.entries()) {
    const loop = async (): Promise<void> => {
      const afterMs = await look();
      if (stop.signal.aborted) return;
      cancels[index] = options.clock.after(Math.min(afterMs, lookEveryMs), run);
    };
    const run = (): void => {
      const work = loop().finally(() => open.delete(work));
      open.add(work);
    };
    run();
  }
  return {
    close: async () => {
      if (stop.signal.aborted) return;
      stop.abort(new StarlingError("UNAVAILABLE", "the node stops"));
      for (const cancel of cancels) cancel();
      cancels = [];
      const rest = { clock: options.clock, deadlineMs: closeWithinMs, text: "schedules did not end" };
      // What is on its way is recognised when it comes again.
      await withDeadline(Promise.allSettled(open), rest).catch(() => {});
    },
  };
}

/** Raises MODULE for the first schedule that cannot be read. */
export function checkSchedules(scheduled: readonly ScheduledCallback[]): void {
  for (const one of scheduled) nextOf(one);
}

function nextOf({ module, name, cron }: ScheduledCallback): NextDeadline {
  return createNextDeadline(cron, `module ${module}: schedule '${name}'`);
}

const lookEveryMs = 1_000;
const closeWithinMs = 1_000;
const readWithinMs = 5_000;
/** How late a deadline of a cluster's schedule still is on time: owners change, and nodes are busy. */
const graceMs = 10_000;
/** How late one of a node's is. */
const nodeGraceMs = 1_000;
/** Deadlines that one message names; the rest come with the next one. */
const deadlinesMax = 100;

/** Does what is due, and says when to look again. Never rejects. */
type Look = () => Promise<number>;

function createNodeTimer(
  { clock, wall, counters, log }: ScheduleDriverOptions,
  { module, name, run, timeoutMs }: ScheduledCallback,
  next: NextDeadline,
  stop: AbortSignal,
): Look {
  let deadline = next(wall());
  let running: "no" | "yes" = "no";
  const runOnce = async (scheduled: number): Promise<void> => {
    running = "yes";
    const late = new AbortController();
    const signal = AbortSignal.any([stop, late.signal]);
    const one = { scheduled, now: wall(), key: `${module}/${name}/${scheduled}`, signal, log: log(module) };
    try {
      const get = () => Promise.reject(new StarlingError("UNAVAILABLE", "use this.actors.ask in a schedule of a node"));
      const work = Promise.resolve().then(() => run({ ...one, get }));
      await withDeadline(work, { clock, deadlineMs: timeoutMs, text: "the callback did not end", signal: stop });
      counters.add("schedule_runs");
    } catch (error) {
      late.abort(error);
      if (stop.aborted) return;
      counters.add("schedule_failures");
      log(module).error({ err: error, schedule: name, scheduled }, "scheduled callback failed");
    } finally {
      running = "no";
    }
  };
  return async () => {
    const now = wall();
    if (deadline !== null && deadline <= now) {
      const due = deadline;
      deadline = next(now);
      // One run at a time, and none that comes too late: as in DP³.
      if (running === "yes" || now - due > nodeGraceMs) counters.add("schedule_missed");
      else void runOnce(due);
    } else if (deadline !== null) {
      // The wall clock may have been set back.
      deadline = Math.min(deadline, next(now) ?? deadline);
    }
    return deadline === null ? lookEveryMs : Math.max(1, deadline - wall());
  };
}

function createClusterTimer(
  options: ScheduleDriverOptions,
  { module, name, catchUp }: ScheduledCallback,
  next: NextDeadline,
  stop: AbortSignal,
): Look {
  const { engine, messenger, owns, wall, log, clock } = options;
  const singleton = scheduleActor(module, name);
  const type = actorType(singleton, true);
  const shard = shardOfType(type, singletonKey, engine);
  let last: number | null = null;
  let status: "away" | "here" = "away";
  let stall: "none" | "said" = "none";
  const read = async (): Promise<number | null> => {
    const text = `the state of schedule ${name} was not read`;
    const work = engine.get(type, singletonKey, null);
    const record = await withDeadline(work, { clock, deadlineMs: readWithinMs, text, signal: stop });
    const state = record?.view.value(stateAttr) as ScheduleState | null | undefined;
    return state?.last ?? null;
  };
  const tell = async (message: ScheduleMessage): Promise<void> => {
    const call = { deadlineMs: readWithinMs, signal: stop, idempotencyKey: "" };
    await messenger.send({ singleton }, message, call);
    last = message.kind === "due" ? message.upTo : last;
  };
  /** What a clock that was ahead has settled is not due again: nothing runs until this one is there, too. */
  const noteStall = (aheadMs: number): void => {
    if (aheadMs <= graceMs) {
      stall = "none";
    } else if (stall === "none") {
      stall = "said";
      options.counters.add("schedule_stalls");
      log(module).warn({ schedule: name, aheadMs }, "schedule waits: it is settled up to a time that is yet to come");
    }
  };
  const look = async (): Promise<void> => {
    if (!owns(shard)) {
      status = "away";
      return;
    }
    // Of a shard that has just come the state says how far the schedule is; afterwards nobody else moves it.
    if (status === "away") last = await read();
    status = "here";
    const now = wall();
    if (last === null) {
      // From where it began the state says, when that is there.
      status = "away";
      if (owns(shard)) await tell({ kind: "begin", deadlines: [], upTo: now });
      return;
    }
    noteStall(last - now);
    const due = planDue(next, last, now, catchUp);
    if (due === null || !owns(shard)) return;
    await tell({ kind: "due", ...due });
    options.counters.add("schedule_deadlines", due.deadlines.length);
  };
  return async () => {
    try {
      await look();
    } catch (error) {
      // What was told may have come through: the state says.
      status = "away";
      const { code, message } = toStarlingError(error);
      if (!stop.aborted) log(module).warn({ schedule: name, code, problem: message }, "schedule has to wait");
      return lookEveryMs;
    }
    const deadline = status === "here" && last !== null ? next(last) : null;
    return deadline === null ? lookEveryMs : Math.max(1, deadline - wall());
  };
}

/** The deadlines above `last` that are to be run now, and up to where they are settled; null: none is due. Pure. */
export function planDue(
  next: NextDeadline,
  last: number,
  now: number,
  catchUp: CatchUp,
): { readonly deadlines: readonly number[]; readonly upTo: number } | null {
  const first = next(last);
  if (first === null || first > now) return null;
  if (catchUp !== "all") {
    const newest = newestBefore(next, first, now);
    return { deadlines: catchUp === "once" || now - newest <= graceMs ? [newest] : [], upTo: now };
  }
  const deadlines: number[] = [];
  for (let at: number | null = first; at !== null && at <= now && deadlines.length < deadlinesMax; at = next(at)) {
    deadlines.push(at);
  }
  // Not further than the last one: there may be more of them.
  return { deadlines, upTo: deadlines.at(-1) ?? now };
}

/** The newest deadline up to `now`, which is not before `first`: by halves, since there may be very many. */
function newestBefore(next: NextDeadline, first: number, now: number): number {
  let newest = first;
  for (let low = first, high = now; high - low > 1; ) {
    const middle = Math.floor((low + high) / 2);
    const found = next(middle);
    if (found === null || found > now) high = middle;
    else {
      newest = found;
      low = Math.max(middle, found);
    }
  }
  const after = next(newest);
  return after !== null && after <= now ? after : newest;
}
