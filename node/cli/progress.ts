import { formatCount, type Output } from "./output.ts";

/** A line on the terminal that tells how far the work is; nothing where there is no terminal. */
export interface Progress {
  /** `done` of `total` units of input, and how many datapoints that is. A total of null is unknown. */
  update(state: ProgressState): void;
  /** Takes the line away, so that other text can be written. */
  clear(): void;
}

export interface ProgressState {
  readonly done: number;
  readonly total: number | null;
  readonly datapoints: number;
}

const redrawMs = 100;

export function createProgress(output: Output, now: () => number = performance.now.bind(performance)): Progress {
  const started = now();
  let drawnAt = Number.NEGATIVE_INFINITY;
  return {
    update: (state) => {
      const at = now();
      if (!output.interactive || at - drawnAt < redrawMs) return;
      drawnAt = at;
      output.rawError(`\r\u001b[2K${formatProgress(state, at - started)}`);
    },
    clear: () => {
      if (!output.interactive || drawnAt === Number.NEGATIVE_INFINITY) return;
      drawnAt = Number.NEGATIVE_INFINITY;
      output.rawError("\r\u001b[2K");
    },
  };
}

/** The text of a progress line after `elapsedMs`. */
export function formatProgress(state: ProgressState, elapsedMs: number): string {
  const rate = elapsedMs > 0 ? (state.datapoints * 1000) / elapsedMs : 0;
  const counts = `${formatCount(state.datapoints)} datapoints, ${formatCount(rate)}/s`;
  if (state.total === null || state.total === 0) return `  ${counts}`;
  const part = Math.min(1, state.done / state.total);
  const bar = "█".repeat(Math.round(part * 24)).padEnd(24, "░");
  const left = part > 0 ? `, ${formatDuration((elapsedMs * (1 - part)) / part)} left` : "";
  return `  ${bar} ${String(Math.floor(part * 100)).padStart(3)} %  ${counts}${left}`;
}

/** A duration for people: 850 ms, 12 s, 3 min 20 s, 2 h 5 min. */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return ms < 10_000 ? `${(ms / 1000).toFixed(1)} s` : `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}
