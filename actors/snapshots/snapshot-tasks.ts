import { createHash } from "node:crypto";
import { setMaxListeners } from "node:events";
import type { CheckedTask } from "../../modules/datapoint.ts";
import type { Model } from "../../modules/model.ts";
import type { Clock } from "../../proto/clock.ts";
import type { ShardId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import type { Counters } from "../counters.ts";
import type { Engine } from "../engine.ts";
import { type Part, type PartTask, taskFrom } from "../lane/part.ts";
import { createLineText, readTask, writeTask } from "../log/line.ts";
import { restMs } from "../sessions/rest.ts";
import { type ShardCounts, shardOfType } from "../shard-of-type.ts";
import type { SnapshotTasks } from "../store/snapshot-store.ts";

/**
 * Tasks of snapshot hooks on their way into the ingestion. A row of them is a batch of a channel of the shard whose hooks
 * returned them; its number grows from page to page and from tick to tick.
 *
 * 1. A row stands until all its parts are durable; who owns the shard then sends the oldest row again and again, alone. So
 *    every part may say that what was before it is unknown (R9).
 * 2. Rows are sent as they are stored: a repeat has the same content under its number (R10).
 */
export interface SnapshotTaskSenderOptions extends ShardCounts {
  readonly engine: Pick<Engine, "offer">;
  readonly model: Model;
  readonly clock: Clock;
  readonly counters: Counters;
  readonly log: { error(fields: object, message: string): void };
}

/** Resolves when all tasks of a row are durable. Raises UNAVAILABLE when it is aborted. */
export type SendSnapshotTasks = (row: SnapshotTasks, signal: AbortSignal) => Promise<void>;

/** Pages of a tick: two to the power of twenty. */
const pagesOfTick = 2 ** 20;

/** Tasks as a row keeps them. */
export function writeSnapshotTasks(tasks: readonly CheckedTask[]): string {
  const text = createLineText();
  for (const task of tasks) writeTask(taskFrom(task, null), text, "\n");
  return text.pieces.join("");
}

/** The opposite of {@link writeSnapshotTasks}; what no longer fits the model comes as an error. */
export function readSnapshotTasks(body: string, model: Model): (PartTask | StarlingError)[] {
  const lines = body.split("\n");
  lines.pop();
  const tasks: (PartTask | StarlingError)[] = [];
  for (let at = 0; at < lines.length; ) {
    const { task, lines: count } = readTask(lines, at, model);
    tasks.push(task);
    at += count;
  }
  return tasks;
}

/** A sender over an engine. */
export function createSnapshotTaskSender(options: SnapshotTaskSenderOptions): SendSnapshotTasks {
  const { counters, log } = options;
  return async (row, signal) => {
    const tasks = readSnapshotTasks(row.body, options.model);
    const wrong = tasks.find((task) => task instanceof StarlingError);
    if (wrong !== undefined) {
      counters.add("snapshot_tasks_lost");
      log.error({ tick: row.tick, problem: wrong.message }, "tasks of snapshot hooks no longer fit the model");
    }
    // Each part on its way listens to it.
    setMaxListeners(0, signal);
    const fitting = tasks.flatMap((task) => (task instanceof StarlingError ? [] : [task]));
    await Promise.all(partsOf(options, row, fitting).map((part) => sendPart(options, part, signal)));
    counters.add("snapshot_tasks_sent", fitting.length);
  };
}

/** Rough size in memory of a task. */
const taskBytes = 350;

function partsOf(counts: ShardCounts, { shard, tick, page, body }: SnapshotTasks, tasks: readonly PartTask[]): Part[] {
  const byShard = new Map<ShardId, PartTask[]>();
  for (const task of tasks) {
    const target = shardOfType(task.entity.id, task.eid, counts);
    const known = byShard.get(target);
    if (known === undefined) byShard.set(target, [task]);
    else known.push(task);
  }
  const hash = createHash("sha256").update(body).digest("hex").slice(0, 16);
  const channel = shard === null ? "h:node" : `h:${shard}`;
  const number = tick * pagesOfTick + page + 1;
  return [...byShard].map(([target, own], position) => {
    const bytes = own.reduce((sum, task) => sum + taskBytes + bytesOf(task), 0);
    const at = { position, shard: target, channel, number, predecessor: null, hash };
    return { kind: "part", ...at, tasks: own, rejections: [], bytes, tick };
  });
}

function bytesOf({ datapoints }: PartTask): number {
  return datapoints.reduce((sum, { json }) => sum + json.length, 0);
}

/** Offers a part until it is durable. */
async function sendPart(options: SnapshotTaskSenderOptions, part: Part, signal: AbortSignal): Promise<void> {
  const { tasks } = part;
  for (let rests = 0; ; rests++) {
    part.tasks = tasks;
    const problem = await offerOnce(options, part, signal);
    if (problem === null) return;
    if (!problem.retryable) {
      options.counters.add("snapshot_tasks_lost");
      options.log.error({ code: problem.code, problem: problem.message }, "tasks of snapshot hooks were refused");
      return;
    }
    const isBusy = problem.code !== "MOVED" && problem.code !== "UNAVAILABLE";
    await new Promise<void>((resolve) => options.clock.after(restMs(rests, isBusy ? "busy" : "away"), resolve));
    if (signal.aborted) throw stopped();
  }
}

/** Null: it is durable. */
function offerOnce({ engine }: SnapshotTaskSenderOptions, part: Part, signal: AbortSignal) {
  return new Promise<StarlingError | null>((resolve, reject) => {
    const onAbort = (): void => reject(stopped());
    if (signal.aborted) return onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    engine.offer([part], (news) => {
      for (const event of news) {
        if (event.kind === "processed") continue;
        signal.removeEventListener("abort", onAbort);
        resolve(event.kind === "durable" ? null : event.error);
      }
    });
  });
}

function stopped(): StarlingError {
  return new StarlingError("UNAVAILABLE", "the node stops, or has lost the shard");
}
