import { readdirSync, readFileSync } from "node:fs";

/** Linux counts processor time in ticks of 10 ms. */
const ticksPerSecond = 100;

/** Processor seconds that a process has used, its ended children included when `children` is set. */
export function cpuSeconds(pid: number, children = false): number {
  const fields = statOf(pid);
  if (fields === null) return 0;
  const own = Number(fields[11]) + Number(fields[12]);
  const ended = children ? Number(fields[13]) + Number(fields[14]) : 0;
  return (own + ended) / ticksPerSecond;
}

/** The same for a process and all that live below it, with what has ended. */
export function treeCpuSeconds(pid: number): number {
  let sum = cpuSeconds(pid, true);
  for (const child of childrenOf(pid)) sum += treeCpuSeconds(child);
  return sum;
}

/** Peak resident memory of a process in MB. */
export function rssPeakMb(pid: number): number {
  return readStatusMb(pid, "VmHWM");
}

/** Resident memory of a process now in MB. */
export function rssMb(pid: number): number {
  return readStatusMb(pid, "VmRSS");
}

function readStatusMb(pid: number, field: string): number {
  const match = new RegExp(`${field}:\\s+(\\d+) kB`).exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Number(match?.[1] ?? 0) / 1024;
}

function childrenOf(pid: number): number[] {
  const children: number[] = [];
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const fields = statOf(Number(name));
    if (fields !== null && Number(fields[1]) === pid) children.push(Number(name));
  }
  return children;
}

/** Fields of /proc/PID/stat from the third on (state, ppid, …): the second, the name, may hold anything. */
function statOf(pid: number): string[] | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    return text.slice(text.lastIndexOf(")") + 2).split(" ");
  } catch {
    return null;
  }
}
