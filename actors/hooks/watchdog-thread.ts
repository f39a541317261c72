/** Cells before the places of asynchronous runs. */
export const watchdogCells = 4;
/** Asynchronous runs that the watchdog knows of; more are not named. */
export const watchdogPlaces = 32;

export interface WatchdogData {
  readonly shared: SharedArrayBuffer;
  readonly loopMaxMs: number;
  readonly beatMs: number;
  readonly exitCode: number;
  readonly cells: number;
  readonly places: number;
}

/** What the thread is told once it is known; each message takes the place of the one before. */
export interface WatchdogNews {
  /** Identities by the index that the mark is given. */
  readonly hooks: readonly string[];
  /** Of the module's code that runs outside of hooks, in words; null: none does. */
  readonly code: string | null;
}

/**
 * The program of the watchdog's thread, as text: the thread is started from it, so that the same code runs from the
 * compiled files and, in tests, from the sources. The functions below may therefore use nothing but their arguments,
 * the globals and each other.
 */
export function watchdogProgram(): string {
  const functions = [watchMainThread, endProcess, nameCulprit, nameHook];
  return `${functions.map(String).join("\n")}\nwatchMainThread(require, require("node:worker_threads").workerData);`;
}

function watchMainThread(require: NodeJS.Require, data: WatchdogData): void {
  const { parentPort } = require("node:worker_threads") as typeof import("node:worker_threads");
  const cells = new Float64Array(data.shared);
  let news: WatchdogNews = { hooks: [], code: null };
  parentPort?.on("message", (told: WatchdogNews) => {
    news = told;
  });
  let seen = -1;
  let stalledMs = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    // At most two beats per check: time in which the whole process stood still does not count.
    const passed = Math.min(now - last, 2 * data.beatMs);
    last = now;
    const beat = cells[0] ?? 0;
    stalledMs = beat === seen ? stalledMs + passed : 0;
    seen = beat;
    if (stalledMs < data.loopMaxMs) return;
    clearInterval(timer);
    endProcess(require, data, nameCulprit(cells, data, news));
  }, data.beatMs);
}

/**
 * The main thread cannot be ended from here with an exit code of our choice, for it runs no code of ours any more; but
 * the inspector can interrupt it between two instructions, which also tells where it is. Should that fail, it is killed.
 */
function endProcess(require: NodeJS.Require, data: WatchdogData, culprit: string): void {
  const { writeSync } = require("node:fs") as typeof import("node:fs");
  const { Session } = require("node:inspector") as typeof import("node:inspector");
  const killAfterMs = 2_000;
  const kill = () => process.kill(process.pid, "SIGKILL");
  const report = (where: string) => {
    const what = `the event loop did not yield for ${data.loopMaxMs} ms: the process ends with code ${data.exitCode}`;
    writeSync(2, `starling: ${what}; ${culprit}${where}\n`);
  };
  const silent = setTimeout(() => {
    report("");
    kill();
  }, killAfterMs);
  const session = new Session();
  const scripts = new Map<string, string>();
  session.connectToMainThread();
  session.on("Debugger.scriptParsed", ({ params }) => void scripts.set(params.scriptId, params.url));
  session.on("Debugger.paused", ({ params }) => {
    const [top] = params.callFrames;
    if (top === undefined) return;
    clearTimeout(silent);
    const frames = params.callFrames.slice(0, 3).map(({ functionName, location }) => {
      return `${functionName || "(anonymous)"} ${scripts.get(location.scriptId)}:${location.lineNumber + 1}`;
    });
    report(`; at ${frames.join(" < ")}`);
    setTimeout(kill, killAfterMs);
    const expression = `globalThis.process.exit(${data.exitCode})`;
    session.post("Debugger.evaluateOnCallFrame", { callFrameId: top.callFrameId, expression });
  });
  session.post("Debugger.enable");
  session.post("Debugger.pause");
}

function nameCulprit(cells: Float64Array, data: WatchdogData, { hooks, code }: WatchdogNews): string {
  if (cells[1] !== 0) return nameHook(cells, 1, hooks);
  if (code !== null) return code;
  const known: string[] = [];
  for (let place = 0; place < data.places; place++) {
    const at = data.cells + 3 * place;
    if (cells[at] !== 0 && known.length < 4) known.push(nameHook(cells, at, hooks));
  }
  if (known.length === 0) return "no hook was running";
  return `asynchronous runs in flight: ${known.join(", ")}`;
}

function nameHook(cells: Float64Array, at: number, hooks: readonly string[]): string {
  const hook = hooks[(cells[at] ?? 0) - 1] ?? "unknown";
  const [module] = hook.split("/");
  return `module ${module}, hook ${hook}, shard ${cells[at + 1]}, seq ${cells[at + 2]}`;
}
