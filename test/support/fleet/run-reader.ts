import { setTimeout } from "node:timers/promises";
import { type Client, connect } from "../../../proto/client.ts";
import type { ReachOptions } from "../../../proto/client-dialler.ts";
import type { RunStatus } from "../../../proto/snapshots-client.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { createRunBook, type RunBook } from "./run-book.ts";
import type { ToldRun, ToldSnapshot } from "./run-checker.ts";

/**
 * Readers of snapshots while nodes come and go: they list the runs, tell each finished one to its end, and the newest one again
 * and again. What a run tells never changes, whichever node is asked.
 */
export interface RunReader {
  /** Finished runs that were told to their end, by tick. */
  readonly runs: ReadonlyMap<number, ToldRun>;
  /** Runs that failed, by tick: why. */
  readonly failed: ReadonlyMap<number, string>;
  /** What is wrong. */
  readonly problems: readonly string[];
  /** How often a run was told to its end, and how often a question was refused for now or broke off. */
  readonly told: number;
  readonly refused: number;
  /** Reads every finished run once more, and ends. */
  finish(): Promise<void>;
  /** Ends. Idempotent. */
  close(): Promise<void>;
}

export interface RunReaderOptions {
  readonly addresses: readonly string[];
  readonly reach?: ReachOptions;
}

const everyMs = 500;
const readers = 2;
const streamWithinMs = 20_000;
const finishWithinMs = 30_000;
const listMax = 200;

/** Starts the readers. */
export function startRunReader({ addresses, reach = {} }: RunReaderOptions): RunReader {
  const book = createRunBook();
  const stop = new AbortController();
  const running = Array.from({ length: readers }, async (_, at) => {
    const order = [...addresses.slice(at), ...addresses.slice(0, at)];
    await using client = await connect({ ...reach, addresses: order, callMs: 5_000, connectMs: 120_000 });
    while (!stop.signal.aborted) {
      await book.guard(() => readOnce(client, book));
      await setTimeout(everyMs);
    }
  });
  const close = async (): Promise<void> => {
    stop.abort();
    await Promise.all(running);
  };
  return {
    ...{ runs: book.runs, failed: book.failed, problems: book.problems, close },
    get told() {
      return book.told;
    },
    get refused() {
      return book.refused;
    },
    finish: async () => {
      await close();
      await using client = await connect({ ...reach, addresses, callMs: 30_000 });
      const untilMs = performance.now() + finishWithinMs;
      const left = new Set((await client.snapshots.runs({ limit: listMax })).map(({ tick }) => tick));
      while (left.size > 0 && performance.now() < untilMs) {
        await book.guard(async () => {
          for (const run of await client.snapshots.runs({ limit: listMax })) {
            if (!left.has(run.tick)) continue;
            if (run.status === "finished") await tell(client, book, run);
            if (run.status === "failed") book.failed.set(run.tick, run.error);
            if (run.status !== "running") left.delete(run.tick);
          }
        });
        await setTimeout(everyMs);
      }
      if (left.size > 0) book.problems.push(`could not be read within ${finishWithinMs} ms: runs ${[...left]}`);
    },
  };
}

async function readOnce(client: Client, book: RunBook): Promise<void> {
  const runs = await client.snapshots.runs({ limit: 10 });
  for (const run of runs) {
    if (run.status === "failed") book.failed.set(run.tick, run.error);
    if (run.status === "finished" && !book.runs.has(run.tick)) await tell(client, book, run);
  }
  if (!runs.some(({ status }) => status === "finished")) return;
  // The newest, whichever that is by now; and one of its types counted.
  const snapshots = await collect(client, {});
  const tick = snapshots[0]?.tick;
  if (tick === undefined) return;
  book.note(tick, snapshots);
  const { count } = await client.snapshots.count({ type: "lone", tick });
  book.noteCount(tick, { count, told: snapshots.filter(({ type }) => type === "lone").length });
}

async function tell(client: Client, book: RunBook, run: RunStatus): Promise<void> {
  const { tick, at, kind, startedAt, counts, hooks } = run;
  const snapshots = await collect(client, { tick });
  book.note(tick, snapshots);
  const problems = Object.entries(hooks).flatMap(
    ([
      hook,
      {
        failures,
        undeclared,
        refused,
        problems: [first],
      },
    ]) => (failures + undeclared + refused === 0 ? [] : [`hook ${hook}: ${first}`]),
  );
  const { entities: computed = 0, refused = 0 } = counts;
  const times = { at, startedAt, endedAt: run.endedAt ?? Date.now() };
  book.runs.set(tick, { tick, kind, ...times, computed, refused, problems, snapshots });
}

async function collect(client: Client, instant: { readonly tick?: number }) {
  const signal = AbortSignal.timeout(streamWithinMs);
  const snapshots: (ToldSnapshot & { readonly tick: number })[] = [];
  for await (const { type, eid, values, tick } of client.snapshots.stream({ ...instant, signal })) {
    snapshots.push({ type, eid, values, tick });
  }
  // One that its reader gives up ends as if it were whole.
  if (signal.aborted) throw new StarlingError("DEADLINE", `a run was not told within ${streamWithinMs} ms`);
  return snapshots;
}
