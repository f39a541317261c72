import type { Seq } from "../../proto/ids.ts";
import type { Lane } from "./lane.ts";
import type { PartTask } from "./part.ts";
import type { Shard } from "./shard.ts";

/**
 * What a shard has yet to process (R7): tasks on their way into the log, tasks above the watermark, and what entities owe below
 * it. Admission stops at its bounds; what is in the log is counted by segment, so that no task needs to be remembered for it.
 */
export interface Backlog {
  tasks: number;
  bytes: number;
  /** Segments above the watermark; those before `first` are passed. */
  segments: BacklogSegment[];
  first: number;
}

export interface BacklogSegment {
  readonly lastSeq: Seq;
  readonly tasks: number;
  readonly bytes: number;
}

/** Nothing to process. */
export function createBacklog(): Backlog {
  return { tasks: 0, bytes: 0, segments: [], first: 0 };
}

/** Counts tasks in, or (negative) out. */
export function countBacklog(lane: Lane, { backlog, keptBack }: Shard, tasks: number, bytes: number): void {
  backlog.tasks += tasks;
  backlog.bytes += bytes;
  if (keptBack === null) lane.backlogBytes += bytes;
}

/** What a shard holds no longer keeps out what comes for the others of its lane: it leaves, or nothing of it gets less. */
export function leaveBacklog(lane: Lane, { backlog, keptBack }: Shard): void {
  if (keptBack === null) lane.backlogBytes -= backlog.bytes;
}

/**
 * Counts a segment that is durable and taken up, and of which `open` tasks have not yet ended. Of the others only their
 * history and the answers for their parts are still in memory.
 */
export function takeIntoBacklog(
  lane: Lane,
  shard: Shard,
  { lastSeq, tasks, bytes }: BacklogSegment,
  open: number,
): void {
  const freed = Math.min(bytes, (tasks - open) * endedTaskBytes);
  countBacklog(lane, shard, 0, -freed);
  shard.backlog.segments.push({ lastSeq, tasks, bytes: bytes - freed });
}

/** Rough size of the objects that a task takes until it has ended. */
const endedTaskBytes = 200;

/** Rough size in memory of derived tasks. */
export function bytesOfTasks(tasks: readonly PartTask[]): number {
  let bytes = 0;
  for (const { datapoints } of tasks) {
    bytes += perThing;
    for (const { json } of datapoints) bytes += perThing + json.length;
  }
  return bytes;
}

const perThing = 200;

/** Counts out what the watermark has passed. */
export function passBacklog(lane: Lane, shard: Shard): void {
  const { backlog } = shard;
  for (let next = backlog.segments[backlog.first]; next !== undefined; next = backlog.segments[backlog.first]) {
    if (next.lastSeq > shard.watermark) break;
    countBacklog(lane, shard, -next.tasks, -next.bytes);
    backlog.first++;
  }
  if (backlog.first <= 256 && backlog.first < backlog.segments.length) return;
  backlog.segments = backlog.segments.slice(backlog.first);
  backlog.first = 0;
}
