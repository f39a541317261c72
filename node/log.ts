import { type DestinationStream, type Logger, type LoggerOptions, pino } from "pino";
import { PinoPretty, prettyFactory } from "pino-pretty";
import type { Clock } from "../proto/clock.ts";
import { createLineLimit, type HeldLines, type LineLimit } from "./line-limit.ts";

/** The logger of a node; parts get children of it. */
export type Log = Logger;

export const logLevels = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof logLevels)[number];

export interface LogOptions {
  readonly level?: LogLevel;
  /** Lines for people; without it JSON lines. */
  readonly pretty?: boolean;
  readonly colour?: boolean;
  /** Default: standard error. */
  readonly destination?: DestinationStream;
  /** Of repeated lines; default the process's, which does not keep it alive. */
  readonly clock?: Pick<Clock, "now" | "after">;
}

/**
 * The one place where the process's logger is made: for people on a terminal, JSON lines elsewhere, always to standard
 * error. Writes are synchronous, so that what was logged before a process dies is there. Lines of one level and message,
 * whatever their fields, are held back when they are too many; a line with their number follows.
 */
export function createLog(options: LogOptions = {}): Log {
  const destination = options.destination ?? pino.destination({ dest: 2, sync: true });
  let log: Log | null = null;
  const limit = createLineLimit({ clock: options.clock ?? idleClock, tell: (held) => tellHeld(log, held) });
  const settings = { level: options.level ?? "info", base: null, hooks: limitedBy(limit) };
  if (options.pretty === true) {
    const pretty = { colorize: options.colour ?? false, translateTime: "HH:MM:ss.l", sync: true };
    log = pino(settings, PinoPretty({ destination, ...pretty }));
  } else log = pino({ ...settings, timestamp: pino.stdTimeFunctions.isoTime }, destination);
  return log;
}

/** Makes a JSON line of another process's log a line for people; what is no such line stays as it is. */
export function createLinePrinter(colour: boolean): (line: string) => string {
  const print = prettyFactory({ colorize: colour, translateTime: "HH:MM:ss.l", singleLine: true });
  return (line) => (line.startsWith("{") ? print(line).trimEnd() : line);
}

/** What {@link tellHeld} says; it is never held back itself. */
const heldMessage = "repeated lines were held back";

function limitedBy(limit: LineLimit): NonNullable<LoggerOptions["hooks"]> {
  // Held lines are told of even if the process ends first; it listens for that only from the first one on.
  let listening: "no" | "yes" = "no";
  return {
    logMethod(args, method, level) {
      const message = messageOf(args);
      if (message === heldMessage || limit.admits(pino.levels.labels[level] ?? "info", message)) {
        return method.apply(this, args);
      }
      if (listening === "no") process.once("exit", () => limit.flush());
      listening = "yes";
    },
  };
}

function tellHeld(log: Log | null, { level, message, count }: HeldLines): void {
  log?.[level as Exclude<LogLevel, "silent">]({ repeated: message, count }, heldMessage);
}

/** Of `(fields, message)`, of a message alone, and of an error alone. */
function messageOf([first, second]: readonly unknown[]): string {
  if (typeof second === "string") return second;
  return first instanceof Error ? first.message : String(first);
}

const idleClock: Pick<Clock, "now" | "after"> = {
  now: () => performance.now(),
  after: (ms, run) => {
    const timer = setTimeout(run, ms).unref();
    return () => clearTimeout(timer);
  },
};
