import { type DestinationStream, type Logger, pino } from "pino";
import { PinoPretty } from "pino-pretty";

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
}

/**
 * The one place where the process's logger is made: for people on a terminal, JSON lines elsewhere, always to standard
 * error. Writes are synchronous, so that what was logged before a process dies is there.
 */
export function createLog(options: LogOptions = {}): Log {
  const destination = options.destination ?? pino.destination({ dest: 2, sync: true });
  const settings = { level: options.level ?? "info", base: null };
  if (options.pretty !== true) return pino({ ...settings, timestamp: pino.stdTimeFunctions.isoTime }, destination);
  return pino(
    settings,
    PinoPretty({ destination, colorize: options.colour ?? false, translateTime: "HH:MM:ss.l", sync: true }),
  );
}
