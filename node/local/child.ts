import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { StarlingError } from "../../proto/starling-error.ts";
import { guardChild } from "../child-guard.ts";

/** A program that this process has started and will end. */
export interface Child {
  readonly pid: number;
  /** Its exit code, or the signal that ended it. */
  readonly ended: Promise<number | string>;
  /** What it said last, at most ten lines. */
  readonly lastLines: readonly string[];
  /** SIGTERM, and SIGKILL if it has not ended after so long. Idempotent. */
  stop(withinMs: number): Promise<number | string>;
}

export interface ChildOptions {
  readonly command: readonly [program: string, ...args: string[]];
  readonly env: NodeJS.ProcessEnv;
  readonly cwd?: string;
  /** Each line that it writes to standard error. */
  readonly onLine: (line: string) => void;
}

const lastLinesMax = 10;

/**
 * Starts a program in a session of its own, so that Ctrl-C on the terminal reaches this process alone, which then ends its
 * children in order. When this process dies without that, a guard kills the child. Raises CONFIG when it cannot be started.
 */
export async function startChild({ command, env, cwd, onLine }: ChildOptions): Promise<Child> {
  const [program, ...args] = command;
  const child = spawn(program, args, { env, cwd, detached: true, stdio: ["ignore", "ignore", "pipe"] });
  await once(child, "spawn").catch((cause: unknown) => {
    throw new StarlingError("CONFIG", `${program} could not be started: ${String(cause)}`, { cause });
  });
  const lastLines: string[] = [];
  if (child.stderr !== null) {
    createInterface({ input: child.stderr }).on("line", (line) => {
      if (lastLines.push(line) > lastLinesMax) lastLines.shift();
      onLine(line);
    });
  }
  const pid = child.pid ?? 0;
  const guard = guardChild(pid, "KILL");
  const ended = endOf(child).then((how) => {
    guard.release();
    return how;
  });
  return { pid, lastLines, ended, stop: (withinMs) => stopChild(child, ended, withinMs) };
}

async function endOf(child: ChildProcess): Promise<number | string> {
  // `close` comes when its last line was read, too.
  const [code, signal] = (await once(child, "close")) as [number | null, string | null];
  return code ?? signal ?? "an unknown cause";
}

async function stopChild(child: ChildProcess, ended: Promise<number | string>, withinMs: number) {
  child.kill("SIGTERM");
  const late = new AbortController();
  void delay(withinMs, null, { signal: late.signal }).then(
    () => child.kill("SIGKILL"),
    () => undefined, // it ended in time
  );
  const how = await ended;
  late.abort();
  return how;
}
