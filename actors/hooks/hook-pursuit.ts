import type { Clock } from "../../proto/clock.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { unreachable } from "../../proto/unreachable.ts";
import type { Call } from "./hook-call.ts";
import { countTime, enter, type HookLane, leave } from "./hook-lane.ts";
import type { HookMark } from "./hook-mark.ts";
import type { HookOutcome } from "./hook-outcome.ts";
import { HookRun } from "./hook-run.ts";

/**
 * Runs that did not end at their first, synchronous attempt: they wait for a place among the hook's concurrent runs, for
 * the hook's promise at most `timeoutMs`, and between attempts for the back-off, during which their place is free.
 *
 * 1. A run settles at most once, and never after it was abandoned.
 * 2. A place is given back exactly once for each time it was taken, also when the hook's promise never settles.
 * 3. What a hook answers after its attempt has ended is ignored.
 */
export interface HookPursuits {
  /** A run whose first attempt waits for a place. */
  begin(lane: HookLane, call: Call): Promise<HookOutcome>;
  /** A run whose first attempt gave a promise. */
  follow(lane: HookLane, call: Call, first: Attempt): Promise<HookOutcome>;
  /** A run whose first attempt threw. */
  retry(lane: HookLane, call: Call, error: unknown): Promise<HookOutcome>;
  abandon(match: (call: Call) => boolean): void;
  close(): void;
  readonly closed: boolean;
  readonly pending: number;
}

/** An attempt in flight. */
export interface Attempt {
  readonly context: HookRun;
  readonly answer: unknown;
}

export interface PursuitOptions {
  readonly limits: { readonly backoffMs: number; readonly backoffMaxMs: number };
  readonly clock: Clock;
  readonly random: () => number;
  readonly mark: HookMark;
  readonly judge: (lane: HookLane, returned: unknown, attempts: number) => HookOutcome;
  readonly failed: (lane: HookLane, error: unknown, attempts: number) => HookOutcome;
}

/** A run on its way. `interrupt` ends what it waits for. */
interface Pursuit {
  readonly lane: HookLane;
  readonly call: Call;
  status: "running" | "abandoned";
  interrupt: () => void;
  attempts: number;
}

type AttemptEnd =
  | { readonly kind: "returned"; readonly value: unknown }
  | { readonly kind: "failed"; readonly error: unknown }
  | { readonly kind: "abandoned" };

/** No runs yet. */
export function createHookPursuits(options: PursuitOptions): HookPursuits {
  const pursuits = new Set<Pursuit>();
  let status: "open" | "closed" = "open";

  const pursue = (lane: HookLane, call: Call, first: Attempt | null, error: unknown): Promise<HookOutcome> => {
    if (status === "closed") return never();
    const failedOnce = first === null && error !== undefined;
    const attempts = first === null && !failedOnce ? 0 : 1;
    const pursuit: Pursuit = { lane, call, status: "running", interrupt: () => {}, attempts };
    pursuits.add(pursuit);
    return new Promise((resolve) => {
      const end = (outcome: HookOutcome | null) => {
        pursuits.delete(pursuit);
        if (outcome !== null) resolve(outcome);
      };
      const thrown = failedOnce ? { error } : null;
      void chase(options, pursuit, first, thrown).then(end, (bug: unknown) =>
        end(options.failed(lane, bug, pursuit.attempts)),
      );
    });
  };

  const abandon = (match: (call: Call) => boolean) => abandonMatching(pursuits, match);

  return {
    begin: (lane, call) => pursue(lane, call, null, undefined),
    follow: (lane, call, first) => {
      lane.running++;
      return pursue(lane, call, first, undefined);
    },
    retry: (lane, call, error) => pursue(lane, call, null, error ?? new Error("the hook threw nothing")),
    abandon,
    close: () => {
      status = "closed";
      abandon(() => true);
    },
    get closed() {
      return status === "closed";
    },
    get pending() {
      return pursuits.size;
    },
  };
}

function abandonMatching(pursuits: Set<Pursuit>, match: (call: Call) => boolean): void {
  for (const pursuit of pursuits) {
    if (!match(pursuit.call)) continue;
    pursuit.status = "abandoned";
    pursuits.delete(pursuit);
    pursuit.interrupt();
  }
}

/** Attempts until one answers or none is left; null when the run was abandoned. Never rejects. */
async function chase(
  options: PursuitOptions,
  pursuit: Pursuit,
  first: Attempt | null,
  thrown: { readonly error: unknown } | null,
): Promise<HookOutcome | null> {
  const { lane } = pursuit;
  let next = first;
  let failure = thrown;
  for (;;) {
    if (failure !== null) {
      if (pursuit.attempts > (pursuit.call.retries ?? lane.hook.retries))
        return options.failed(lane, failure.error, pursuit.attempts);
      await pause(options, pursuit);
    }
    if (next === null) {
      if (!(await takePlace(pursuit))) return null;
      pursuit.attempts++;
      next = attempt(options, pursuit);
    }
    const end = await endOf(options, pursuit, next);
    next = null;
    switch (end.kind) {
      case "returned":
        return options.judge(lane, end.value, pursuit.attempts);
      case "abandoned":
        return null;
      case "failed":
        lane.counters.failures.value++;
        failure = end;
        break;
      default:
        unreachable(end);
    }
  }
}

/** Calls the hook once more; what it throws becomes a rejected answer. */
function attempt({ mark }: PursuitOptions, { lane, call }: Pursuit): Attempt {
  const context = new HookRun(lane, call);
  lane.counters.executions.value++;
  mark.enter(lane.index, call.shard, call.seq);
  try {
    return { context, answer: call.invoke(lane.invoke, context) };
  } catch (error) {
    return { context, answer: Promise.reject(error) };
  } finally {
    mark.leave();
  }
}

/** Waits for an attempt's answer, its time-out, or the run's abandoning; gives its place back. */
async function endOf(options: PursuitOptions, pursuit: Pursuit, { context, answer }: Attempt): Promise<AttemptEnd> {
  const { clock, mark } = options;
  const { lane, call } = pursuit;
  const { timeoutMs } = lane.hook;
  const place = mark.hold(lane.index, call.shard, call.seq);
  const startedAt = clock.now();
  let cancel = () => {};
  const end = await new Promise<AttemptEnd>((resolve) => {
    cancel = clock.after(timeoutMs, () => {
      const late = new StarlingError("DEADLINE", `there was no answer within ${timeoutMs} ms`);
      context.abort(late);
      resolve({ kind: "failed", error: late });
    });
    pursuit.interrupt = () => {
      context.abort(new StarlingError("UNAVAILABLE", "the shard was given up, or the node stops"));
      resolve({ kind: "abandoned" });
    };
    Promise.resolve(answer).then(
      (value) => resolve({ kind: "returned", value }),
      (error: unknown) => resolve({ kind: "failed", error }),
    );
  });
  cancel();
  mark.release(place);
  leave(lane);
  countTime(lane, clock.now() - startedAt, 1);
  return isAbandoned(pursuit) ? { kind: "abandoned" } : end;
}

/** Whether the run got a place among the concurrent ones; false: it was abandoned, and has none. */
async function takePlace(pursuit: Pursuit): Promise<boolean> {
  const { lane } = pursuit;
  if (pursuit.status === "abandoned") return false;
  const placed = await new Promise<boolean>((resolve) => {
    const cancel = enter(lane, () => resolve(true));
    if (cancel === null) return resolve(true);
    pursuit.interrupt = () => {
      cancel();
      resolve(false);
    };
  });
  if (placed && isAbandoned(pursuit)) leave(lane);
  return placed && !isAbandoned(pursuit);
}

/** The back-off: doubles with each attempt, between half and the whole of it at random. */
function pause({ limits, clock, random }: PursuitOptions, pursuit: Pursuit): Promise<void> {
  const whole = Math.min(limits.backoffMs * 2 ** (pursuit.attempts - 1), limits.backoffMaxMs);
  return new Promise((resolve) => {
    const cancel = clock.after(whole * (0.5 + random() / 2), resolve);
    pursuit.interrupt = () => {
      cancel();
      resolve();
    };
  });
}

function isAbandoned(pursuit: Pursuit): boolean {
  return pursuit.status === "abandoned";
}

function never(): Promise<HookOutcome> {
  return new Promise(() => {});
}
