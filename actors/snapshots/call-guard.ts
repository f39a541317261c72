import { type Context, createContext, Script } from "node:vm";
import { StarlingError } from "../../proto/starling-error.ts";

/** Takes the processor back from code that never yields. */
export interface CallGuard {
  /**
   * What `work` returns or throws. Raises DEADLINE if it does not yield in time: it is ended where it stands, without its
   * `finally`. What it awaits is no part of it. Costs a thread, some tenths of a millisecond.
   */
  run<T>(work: () => T): T;
}

/** A guard that waits for so long. */
export function createCallGuard(limitMs: number): CallGuard {
  const script = new Script("work()");
  const sandbox: { work: (() => unknown) | null } = { work: null };
  let context: Context | null = null;
  return {
    run: <T>(work: () => T): T => {
      let result: { readonly value: T } | null = null;
      sandbox.work = () => {
        result = { value: work() };
      };
      try {
        context ??= createContext(sandbox);
        script.runInContext(context, { timeout: limitMs, displayErrors: false });
      } catch (error) {
        if (!isInterruption(error)) throw error;
        throw new StarlingError("DEADLINE", `it did not yield for ${limitMs} ms`, { cause: error });
      } finally {
        sandbox.work = null;
      }
      return resultOf(result);
    },
  };
}

function resultOf<T>(result: { readonly value: T } | null): T {
  if (result === null) throw new StarlingError("INTERNAL", "guarded work has ended without a result");
  return result.value;
}

function isInterruption(error: unknown): boolean {
  // It may be an error of the context's own world.
  const code = typeof error === "object" && error !== null && "code" in error ? error.code : null;
  return code === "ERR_SCRIPT_EXECUTION_TIMEOUT";
}
