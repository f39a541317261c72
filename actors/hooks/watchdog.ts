import { Worker } from "node:worker_threads";
import { atBeat, type Clock } from "../../proto/clock.ts";
import type { HookMark } from "./hook-mark.ts";
import { type WatchdogNews, watchdogCells, watchdogPlaces, watchdogProgram } from "./watchdog-thread.ts";

/** A thread that ends the process when the event loop does not yield (R17). */
export interface Watchdog {
  /** To be given to the hook runner. */
  readonly mark: HookMark;
  /** Identities of the hooks by the index that {@link mark} is given, those of `allHooks`: before the first of them runs. */
  know(hooks: readonly string[]): void;
  /** Code of a module begins that is no hook: what to call it where it does not yield. Null: it has ended. */
  onCode(code: string | null): void;
  /** Stops watching. */
  close(): Promise<void>;
}

export interface WatchdogOptions {
  /** How long the loop may go without yielding; default 10 s. */
  readonly loopMaxMs?: number;
  readonly clock: Clock;
}

/** The exit code of a process that its watchdog ended. */
export const watchdogExitCode = 70;

const defaultLoopMaxMs = 10_000;
const beatsPerLimit = 20;

/**
 * Starts the thread. The main thread shows that it lives by counting, and which hook it is in by plain stores; when the
 * count stands still for `loopMaxMs` of the thread's own time, the thread writes one line to standard error, with module,
 * hook, shard, seq and the place in the source, and ends the process with {@link watchdogExitCode}. A process that was
 * frozen and goes on is not ended: the thread was frozen with it. What the thread is told reaches it also when the main
 * thread never yields again.
 */
export function startWatchdog(options: WatchdogOptions): Watchdog {
  const { loopMaxMs = defaultLoopMaxMs, clock } = options;
  const shared = new SharedArrayBuffer(8 * (watchdogCells + 3 * watchdogPlaces));
  const cells = new Float64Array(shared);
  const beatMs = Math.max(5, Math.floor(loopMaxMs / beatsPerLimit));
  const worker = new Worker(watchdogProgram(), {
    eval: true,
    workerData: {
      shared,
      loopMaxMs,
      beatMs,
      exitCode: watchdogExitCode,
      cells: watchdogCells,
      places: watchdogPlaces,
    },
  });
  worker.unref();
  let cancel = () => {};
  const beat = () => {
    cells[0] = (cells[0] ?? 0) + 1;
    cancel = atBeat(clock, beatMs, beat);
  };
  beat();
  let news: WatchdogNews = { hooks: [], code: null };
  const tell = (next: Partial<WatchdogNews>): void => {
    news = { ...news, ...next };
    worker.postMessage(news);
  };
  let closing: Promise<void> | null = null;
  return {
    mark: createMark(cells),
    know: (hooks) => tell({ hooks }),
    onCode: (code) => tell({ code }),
    close: () => {
      closing ??= worker.terminate().then(() => cancel());
      return closing;
    },
  };
}

/** Cells: beat, hook + 1, shard, seq; then hook + 1, shard and seq of each asynchronous run. */
function createMark(cells: Float64Array): HookMark {
  const free = Array.from({ length: watchdogPlaces }, (_, place) => watchdogPlaces - 1 - place);
  return {
    enter: (hook, shard, seq) => {
      cells[2] = shard;
      cells[3] = seq;
      cells[1] = hook + 1;
    },
    leave: () => {
      cells[1] = 0;
    },
    hold: (hook, shard, seq) => {
      const place = free.pop() ?? -1;
      if (place < 0) return place;
      const at = watchdogCells + 3 * place;
      cells[at + 1] = shard;
      cells[at + 2] = seq;
      cells[at] = hook + 1;
      return place;
    },
    release: (place) => {
      if (place < 0) return;
      cells[watchdogCells + 3 * place] = 0;
      free.push(place);
    },
  };
}
