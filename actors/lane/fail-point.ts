import type { Hook } from "../../modules/hook.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { HookCall } from "../hooks/hook-call.ts";
import type { HookOutcome } from "../hooks/hook-outcome.ts";

/**
 * The places where a test may end the process, each between two effects whose order the protocol relies on:
 *
 * | fail-point                    | hit                                                                             |
 * | ----------------------------- | ------------------------------------------------------------------------------- |
 * | `acquired`                    | the epochs are bumped and the logs are read, nothing is replayed yet            |
 * | `in-recovery`                 | before each effect of a lane that has not processed what it replays             |
 * | `before-append`               | a group is about to go to PostgreSQL                                            |
 * | `committed-not-acknowledged`  | PostgreSQL has committed it, the lane does not know                             |
 * | `before-flush`                | a flush is about to go to PostgreSQL                                            |
 * | `between-flush-and-watermark` | state and progress are stored, the owner's watermark has not moved              |
 * | `outbox-written-not-sent`     | an outbox line is durable, its target has not been offered it                   |
 * | `sent-not-marked`             | it is durable at its target, the source does not know                           |
 * | `in-hook`                     | an asynchronous hook has begun and not ended                                    |
 * | `hook-answered`               | a hook has answered, the lane does not know                                     |
 */
export const failPoints = [
  "acquired",
  "in-recovery",
  "before-append",
  "committed-not-acknowledged",
  "before-flush",
  "between-flush-and-watermark",
  "outbox-written-not-sent",
  "sent-not-marked",
  "in-hook",
  "hook-answered",
] as const;

export type FailPoint = (typeof failPoints)[number];

/** Called wherever a fail-point is passed. */
export type OnFailPoint = (name: FailPoint) => void;

/** What production runs with: nothing happens. */
export const noFailPoint: OnFailPoint = () => {};

/** Calls `die` at the count-th hit of what `text`, `name:count`, names. Raises INVALID_ARGUMENT. */
export function createFailPoint(text: string, die: (name: FailPoint, hits: number) => void): OnFailPoint {
  const [, given, digits] = /^([a-z-]+):([1-9]\d*)$/.exec(text) ?? [];
  const armed = failPoints.find((name) => name === given);
  if (armed === undefined) {
    throw new StarlingError("INVALID_ARGUMENT", `fail-point ${text}: name:count, one of ${failPoints.join(", ")}`);
  }
  const count = Number(digits);
  let hits = 0;
  return (name) => {
    if (name === armed && ++hits === count) die(name, hits);
  };
}

type RunHook = (hook: Hook, call: HookCall) => HookOutcome | Promise<HookOutcome>;

/** A hook runner that passes the fail-points of hooks; `run` itself when none is armed. */
export function withHookFailPoints(run: RunHook, onFailPoint: OnFailPoint): RunHook {
  if (onFailPoint === noFailPoint) return run;
  return (hook, call) => {
    const outcome = run(hook, call);
    if (outcome instanceof Promise) {
      onFailPoint("in-hook");
      return outcome.then(answered);
    }
    return answered(outcome);
  };
  function answered(outcome: HookOutcome): HookOutcome {
    onFailPoint("hook-answered");
    return outcome;
  }
}
