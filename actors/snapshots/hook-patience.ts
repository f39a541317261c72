import type { Hook } from "../../modules/hook.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { HookOutcome } from "../hooks/hook-outcome.ts";

/**
 * How long a tick puts up with a hook that fails: a tick calls it for every entity, and must end. A hook that fails over and over
 * is not tried again; one that hangs over and over, or that did not yield, is not called any more in this tick.
 */
export interface HookPatience {
  /** Attempts after the first one that a call has now; null: the hook is given up. */
  retriesOf(hook: Hook): number | null;
  /** Tells how a call ended. */
  note(hook: Hook, outcome: HookOutcome): void;
  /** A call did not yield: there is no other one in this tick. */
  giveUp(hook: Hook): void;
}

/** In a row. */
const failuresMax = 10;
const hangsMax = 4;

/** The patience of a tick on this node; another one for each. */
export function createHookPatience(): HookPatience {
  const failing = new Map<Hook, { failures: number; hangs: number }>();
  return {
    retriesOf: (hook) => {
      const own = failing.get(hook);
      if (own === undefined) return hook.retries;
      if (own.hangs >= hangsMax) return null;
      return own.failures >= failuresMax ? 0 : hook.retries;
    },
    giveUp: (hook) => void failing.set(hook, { failures: failuresMax, hangs: hangsMax }),
    note: (hook, outcome) => {
      const known = failing.get(hook);
      if (known === undefined && outcome.kind !== "failed") return;
      const own = known ?? { failures: 0, hangs: 0 };
      // Once given up, for the whole tick.
      if (own.hangs >= hangsMax) return;
      if (outcome.kind !== "failed") {
        failing.delete(hook);
        return;
      }
      failing.set(hook, own);
      own.failures++;
      own.hangs = isHang(outcome.error) ? own.hangs + 1 : 0;
    },
  };
}

/** What is told of an entity for which a hook was not called any more. */
export function givenUp({ id }: Hook): HookOutcome {
  const error = new StarlingError(
    "HOOK_FAILED",
    `hook ${id} was given up for this run: it did not answer, or did not yield`,
  );
  return { kind: "failed", error, attempts: 0 };
}

function isHang({ cause }: StarlingError): boolean {
  return cause instanceof StarlingError && cause.code === "DEADLINE";
}
