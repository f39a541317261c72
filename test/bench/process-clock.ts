import { readdirSync, readFileSync } from "node:fs";

/**
 * Processor time to the nanosecond, from the scheduler's own count (/proc/PID/task/TID/schedstat): for parts that are too
 * short for the ticks of 10 ms. Threads and processes that end between two readings are not counted.
 */
export function readProcessClock(pid: number): ProcessClock {
  const threads = new Map<string, number>();
  readTree(pid, threads);
  return threads;
}

/** Nanoseconds by thread. */
export type ProcessClock = ReadonlyMap<string, number>;

/** Seconds between two readings. */
export function secondsBetween(before: ProcessClock, after: ProcessClock): number {
  let sum = 0;
  for (const [thread, at] of after) sum += at - (before.get(thread) ?? 0);
  return sum / 1e9;
}

function readTree(pid: number, threads: Map<string, number>): void {
  try {
    for (const thread of readdirSync(`/proc/${pid}/task`)) {
      const [ran] = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8").split(" ");
      threads.set(`${pid}/${thread}`, Number(ran));
      const children = readFileSync(`/proc/${pid}/task/${thread}/children`, "utf8").trim();
      for (const child of children === "" ? [] : children.split(" ")) readTree(Number(child), threads);
    }
  } catch (error) {
    // It ended while it was read.
    if ((error as NodeJS.ErrnoException).code !== "ENOENT" && (error as NodeJS.ErrnoException).code !== "ESRCH")
      throw error;
  }
}
