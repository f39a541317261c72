import type { Command } from "commander";
import { timeFromMs } from "../../modules/time-text.ts";
import type { RunStatus, SnapshotsClient } from "../../proto/snapshots-client.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { type AddressOptions, withAddress } from "./address.ts";
import { type CommandContext, examples, wholeNumber, withCalls } from "./command-context.ts";
import { formatCount, formatTime, type Output, shorten } from "./output.ts";
import { pauseUnlessAborted } from "./pause.ts";
import { formatDuration } from "./progress.ts";

interface RunOptions extends AddressOptions {
  readonly full?: boolean;
  readonly wait?: boolean;
  readonly json?: boolean;
}

interface RunsOptions extends AddressOptions {
  readonly limit: number;
  readonly before?: number;
  readonly json?: boolean;
}

const lookEveryMs = 300;
/** Calls end before. */
const longestMs = 120_000;
const tickMax = Number.MAX_SAFE_INTEGER;

/** `starling snapshot run`: asks for a run, and may wait for its end. */
export function addRun(snapshot: Command, context: CommandContext): void {
  const command = snapshot
    .command("run")
    .description("Begins a snapshot run; while one goes on, after that. It goes on by itself, whoever waits for it.");
  withAddress(command)
    .option("--full", "compute every entity anew, not only what may have changed")
    .option("--wait", "wait until the run has ended; Ctrl-C stops the waiting alone")
    .option("--json", "the run as JSON, as `snapshot runs` has it")
    .addHelpText("after", examples("snapshot run", "snapshot run --wait", "snapshot run --full --wait --json"))
    .action((options: RunOptions) =>
      withCalls(context, options, async ({ snapshots }) => {
        const tick = await begin(context, snapshots, options);
        if (tick === null) return;
        if (options.wait === true) return await waitForEnd(context, snapshots, tick, options);
        if (options.json === true) return context.output.json(statusJson(await readStatus(snapshots, tick)));
        context.output.print(`run ${tick} has begun: ${lookAgain}`);
      }),
    );
}

const lookAgain = "`starling snapshot runs` shows how it goes";

/** `starling snapshot runs`. */
export function addRuns(snapshot: Command, context: CommandContext): void {
  const command = snapshot.command("runs").description("Lists snapshot runs with their status, newest first.");
  withAddress(command)
    .option("-n, --limit <runs>", "at most so many", wholeNumber(1, 1_000), 20)
    .option("--before <tick>", "runs before this one", wholeNumber(1, tickMax))
    .option("--json", "one JSON document: runs with counts, and hooks with durations and errors")
    .addHelpText("after", examples("snapshot runs", "snapshot runs --limit 1 --json"))
    .action((options: RunsOptions) =>
      withCalls(context, options, async ({ snapshots }) => {
        const { limit, before } = options;
        const runs = await snapshots.runs({ limit, ...(before !== undefined && { before }) });
        if (options.json === true) return context.output.json({ runs: runs.map(statusJson) });
        printRuns(context.output, runs);
      }),
    );
}

/** `starling snapshot cancel TICK`. */
export function addCancel(snapshot: Command, context: CommandContext): void {
  const command = snapshot.command("cancel").description("Ends a running snapshot run: nobody will see what it wrote.");
  withAddress(command.argument("<tick>", "the run's number", wholeNumber(1, tickMax)))
    .option("--json", "the result as JSON: tick")
    .addHelpText("after", examples("snapshot cancel 17"))
    .action((tick: number, options: AddressOptions & { readonly json?: boolean }) =>
      withCalls(context, options, async ({ snapshots }) => {
        await snapshots.cancel(tick);
        if (options.json === true) context.output.json({ tick });
        else context.output.print(`run ${tick} is being ended`);
      }),
    );
}

/** The run's tick; null: interrupted before it began, which it will all the same. */
async function begin(
  { output, signal }: CommandContext,
  snapshots: SnapshotsClient,
  { full = false }: RunOptions,
): Promise<number | null> {
  const answered = new AbortController();
  const interrupted = pauseUnlessAborted(AbortSignal.any([signal, answered.signal]), longestMs).then(() => null);
  try {
    const tick = await Promise.race([snapshots.run({ full }), interrupted]);
    if (tick === null) output.note(`the run will begin without this command: ${lookAgain}`);
    return tick;
  } finally {
    answered.abort();
  }
}

async function waitForEnd(
  { output, signal, fail }: CommandContext,
  snapshots: SnapshotsClient,
  tick: number,
  { json }: RunOptions,
): Promise<void> {
  const begunMs = performance.now();
  const clear = () => {
    if (output.interactive) output.rawError("\r\u001b[2K");
  };
  for (;;) {
    const run = await readStatus(snapshots, tick);
    if (run.status !== "running") {
      clear();
      if (run.status === "failed") fail();
      if (json === true) return output.json(statusJson(run));
      return printEnd(output, run);
    }
    if (output.interactive) output.rawError(`\r\u001b[2K  ${progressText(run, performance.now() - begunMs)}`);
    if (signal.aborted) {
      clear();
      output.note(`run ${tick} goes on without this command: ${lookAgain}`);
      return;
    }
    await pauseUnlessAborted(signal, lookEveryMs);
  }
}

async function readStatus(snapshots: SnapshotsClient, tick: number): Promise<RunStatus> {
  const [run] = await snapshots.runs({ before: tick + 1, limit: 1 });
  if (run?.tick === tick) return run;
  throw new StarlingError("NOT_FOUND", `there is no snapshot run ${tick} any more`);
}

/** How far a run is: its phase, and what it has done. */
export function progressText({ tick, phase, counts }: RunStatus, elapsedMs: number): string {
  const { entities = 0, kept = 0, components = 0, shards = 0, shardsDone = 0 } = counts;
  const parts = [
    `${formatCount(entities)} entities`,
    ...(kept > 0 ? [`${formatCount(kept)} unchanged`] : []),
    ...(components > 0 ? [`${formatCount(components)} components`] : []),
    ...(shards > 0 ? [`${shardsDone} of ${shards} shards`] : []),
    formatDuration(elapsedMs),
  ];
  return `run ${tick}: ${phase}, ${parts.join(", ")}`;
}

function printEnd(output: Output, run: RunStatus): void {
  const { tick, at, status, counts, error } = run;
  const took = formatDuration((run.endedAt ?? run.startedAt) - run.startedAt);
  if (status === "failed") output.print(`${output.paint("red", `run ${tick} failed`)} after ${took}: ${error}`);
  else {
    const { entities = 0, kept = 0, written = 0 } = counts;
    const computed = `${formatCount(entities)} entities computed, ${formatCount(kept)} unchanged`;
    output.print(`run ${tick} at ${formatTime(at)}: ${computed}, ${formatCount(written)} snapshots written in ${took}`);
  }
  printHooks(output, run);
}

/** Hooks that something was wrong with. */
function printHooks(output: Output, { hooks }: RunStatus): void {
  for (const [name, { calls, failures, refused, undeclared, problems }] of Object.entries(hooks)) {
    if (failures + refused + undeclared === 0) continue;
    const wrong = [
      ...(failures > 0 ? [`${formatCount(failures)} of ${formatCount(calls)} calls failed`] : []),
      ...(refused > 0 ? [`${formatCount(refused)} values and tasks refused`] : []),
      ...(undeclared > 0 ? [`${formatCount(undeclared)} changes that it did not declare were not taken`] : []),
    ];
    output.note(`${name}: ${wrong.join(", ")}`);
    for (const problem of problems) output.note(`  ${shorten(problem, 200)}`);
  }
}

function printRuns(output: Output, runs: readonly RunStatus[]): void {
  const rows = runs.map((run) => {
    const { entities = 0, kept = 0, written = 0 } = run.counts;
    const took = run.endedAt === null ? run.phase : formatDuration(run.endedAt - run.startedAt);
    return [
      ...[String(run.tick), formatTime(run.at), run.kind, run.cause, run.status, took],
      ...[formatCount(entities), formatCount(kept), formatCount(written)],
      String(Object.values(run.hooks).reduce((sum, { failures }) => sum + failures, 0)),
    ];
  });
  const header = ["run", "at", "kind", "cause", "status", "took", "computed", "unchanged", "written", "hook failures"];
  output.table(header, rows);
  for (const { tick, error } of runs) if (error !== "") output.note(`run ${tick}: ${shorten(error, 300)}`);
  if (runs.length === 0) output.note("no run has begun yet: `starling snapshot run` makes one");
}

function statusJson({ at, startedAt, endedAt, ...rest }: RunStatus): object {
  const times = { at: timeFromMs(at), startedAt: timeFromMs(startedAt) };
  return { ...rest, ...times, endedAt: endedAt === null ? null : timeFromMs(endedAt) };
}
