import { isFailed, type PoolReport } from "./pool.ts";

export interface Progress {
  add(report: PoolReport): void;
  /** A line that stays. */
  say(text: string): void;
  /** Nothing is left of it on the terminal. */
  end(): void;
}

/** How far runs have come, on the error stream, if that is a terminal. */
export function startProgress(what: string, runs: number): Progress {
  const { stderr } = process;
  const startedMs = performance.now();
  let done = 0;
  let failed = 0;
  const draw = (): void => {
    if (!stderr.isTTY) return;
    const seconds = (performance.now() - startedMs) / 1000;
    const leftMin = ((seconds / Math.max(1, done)) * (runs - done)) / 60;
    const rate = `${((60 * done) / seconds).toFixed(0)} a minute, ${leftMin.toFixed(1)} min left`;
    stderr.write(`\r\u001b[K${what === "" ? "" : `${what}: `}${done} of ${runs} runs, ${failed} failed, ${rate}`);
  };
  const clear = (): void => void (stderr.isTTY && stderr.write("\r\u001b[K"));
  return {
    add: (report) => {
      done++;
      if (isFailed(report)) failed++;
      draw();
    },
    say: (text) => {
      clear();
      stderr.write(`${text}\n`);
      draw();
    },
    end: clear,
  };
}
