import { url } from "node:inspector";
import { type HookMark, noMark } from "../actors/hooks/hook-mark.ts";
import { startWatchdog, type Watchdog } from "../actors/hooks/watchdog.ts";
import { atBeat, type Clock } from "../proto/clock.ts";
import type { ModuleCode } from "./module-loader.ts";

/** What a process says of its debugger. */
export interface DebuggerSigns {
  /** `inspector.url()`: where a debugger may connect. */
  readonly inspectorUrl: string | undefined;
  readonly execArgv: readonly string[];
}

/** What becomes of a process whose event loop does not yield: it is ended, or the delay is told afterwards. */
export type LoopGuard = "ends" | "warns";

/** A process that a debugger may hold at a breakpoint is not ended for it. */
export function guardOf({ inspectorUrl, execArgv }: DebuggerSigns): LoopGuard {
  if (inspectorUrl !== undefined) return "warns";
  return execArgv.some((flag) => inspectFlag.test(flag)) ? "warns" : "ends";
}

/** Not `--inspect-port` and the like, which only say how, not that. */
const inspectFlag = /^--inspect(?:-brk|-wait)?(?:=|$)/;

/** Watches the event loop for the life of a node, from before it loads its modules. */
export interface LoopWatch {
  /** To be given to the hook runner. */
  readonly mark: HookMark;
  /** To be given to the loader of the modules. */
  onCode(code: ModuleCode | null): void;
  /** Identities of the hooks by their index, before the first of them runs. */
  know(hooks: readonly string[]): void;
  close(): Promise<void>;
}

export interface LoopWatchOptions {
  readonly clock: Clock;
  readonly log: { warn(fields: object, message: string): void };
  /** Default: this process'. */
  readonly signs?: () => DebuggerSigns;
  readonly start?: typeof startWatchdog;
}

const loopMaxMs = 10_000;
const lookEveryMs = 500;

/**
 * Starts the watchdog, unless a debugger may be there, and ends it as soon as one may come, since it cannot be asked while
 * the process stands at a breakpoint. It does not come back: whoever debugs a node starts it again. Instead of it a delay is
 * logged once the loop goes on.
 */
export function startLoopWatch(options: LoopWatchOptions): LoopWatch {
  const { clock, log, signs = signsOfProcess, start = startWatchdog } = options;
  let watchdog: Watchdog | null = guardOf(signs()) === "ends" ? start({ loopMaxMs, clock }) : null;
  const mark = watchdog?.mark ?? noMark;
  let closing: Promise<void> = Promise.resolve();
  let cancel = () => {};
  const endWatchdog = (): void => {
    const ending = watchdog;
    watchdog = null;
    if (ending !== null) closing = ending.close();
  };
  const look = (): void => {
    cancel = atBeat(clock, lookEveryMs, (heldMs) => {
      if (watchdog === null && heldMs > loopMaxMs) {
        log.warn({ heldMs: Math.round(heldMs) }, "the event loop did not yield; the process goes on, for a debugger");
      }
      if (watchdog !== null && guardOf(signs()) === "warns") {
        log.warn({}, "a debugger may hold the process: hooks that never yield no longer end it");
        endWatchdog();
      }
      look();
    });
  };
  look();
  return {
    mark,
    onCode: (code) => watchdog?.onCode(code === null ? null : nameCode(code)),
    know: (hooks) => watchdog?.know(hooks),
    close: async () => {
      cancel();
      endWatchdog();
      await closing;
    },
  };
}

function nameCode({ module, file, where }: ModuleCode): string {
  return `module ${module}, file ${file}, where: ${where}`;
}

function signsOfProcess(): DebuggerSigns {
  return { inspectorUrl: url(), execArgv: process.execArgv };
}
