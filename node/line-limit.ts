import type { Clock } from "../proto/clock.ts";

/** Holds back log lines that say the same again and again. */
export interface LineLimit {
  /** Whether a line may be written now. One that may not is counted, and told of later. */
  admits(level: string, message: string): boolean;
  /** Tells of what is held back, without waiting for the end of the window. */
  flush(): void;
}

export interface LineLimitOptions {
  readonly clock: Pick<Clock, "now" | "after">;
  /** Told at the end of a window how many lines it held back. */
  readonly tell: (held: HeldLines) => void;
  readonly limits?: Partial<LineLimits>;
}

export interface HeldLines {
  readonly level: string;
  readonly message: string;
  readonly count: number;
}

/** So many lines of one level and message in so long; and how many messages are remembered. */
export interface LineLimits {
  readonly lines: number;
  readonly windowMs: number;
  readonly messages: number;
}

export const defaultLineLimits: LineLimits = { lines: 20, windowMs: 10_000, messages: 1_000 };

interface Window {
  readonly level: string;
  readonly message: string;
  readonly endsMs: number;
  lines: number;
  cancel: () => void;
}

/** A limit that has seen nothing. A window begins with the first line and ends with a word about those held back. */
export function createLineLimit(options: LineLimitOptions): LineLimit {
  const { clock, tell } = options;
  const limits = { ...defaultLineLimits, ...options.limits };
  // By the end of their windows: all are equally long.
  const windows = new Map<string, Window>();
  const end = (key: string, { level, message, lines, cancel }: Window): void => {
    windows.delete(key);
    cancel();
    if (lines > limits.lines) tell({ level, message, count: lines - limits.lines });
  };
  const endOld = (): void => {
    for (const [key, window] of windows) {
      if (window.endsMs > clock.now() && windows.size < limits.messages) return;
      end(key, window);
    }
  };
  return {
    admits: (level, message) => {
      endOld();
      const key = `${level} ${message}`;
      const known = windows.get(key);
      if (known === undefined) {
        const endsMs = clock.now() + limits.windowMs;
        windows.set(key, { level, message, endsMs, lines: 1, cancel: () => {} });
        return true;
      }
      known.lines++;
      if (known.lines <= limits.lines) return true;
      // Only who holds something back needs to wake up for it.
      if (known.lines === limits.lines + 1)
        known.cancel = clock.after(known.endsMs - clock.now(), () => end(key, known));
      return false;
    },
    flush: () => {
      for (const [key, window] of [...windows]) end(key, window);
    },
  };
}
