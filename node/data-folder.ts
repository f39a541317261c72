import { execFile } from "node:child_process";
import { link, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { StarlingError } from "../proto/starling-error.ts";

/** A data folder that this process alone uses. */
export interface DataFolder {
  readonly path: string;
  close(): Promise<void>;
}

interface LockHolder {
  readonly pid: number;
  readonly started: string;
}

const lockName = "node.lock";
/** A process that was killed just now may take a moment to be gone. */
const patienceMs = 1_000;

/**
 * Takes a data folder for this process, by a lock file that names the process and its start. A lock whose process is
 * gone is replaced. Raises DATA_FOLDER_TAKEN, which names the other process.
 */
export async function openDataFolder(path: string): Promise<DataFolder> {
  await mkdir(path, { recursive: true });
  const lock = join(path, lockName);
  const mine: LockHolder = { pid: process.pid, started: (await startOf(process.pid)) ?? "" };
  const draft = join(path, `${lockName}.${process.pid}.${process.hrtime.bigint()}`);
  await writeFile(draft, JSON.stringify(mine), { flag: "wx" });
  try {
    await take(lock, draft, path);
  } finally {
    await rm(draft, { force: true });
  }
  let closed: Promise<void> | null = null;
  return {
    path,
    close: () => {
      closed ??= rm(lock, { force: true });
      return closed;
    },
  };
}

/** A hard link either takes the lock with its content or fails: no other process ever sees half a lock. */
async function take(lock: string, draft: string, path: string): Promise<void> {
  const deadline = performance.now() + patienceMs;
  for (;;) {
    try {
      await link(draft, lock);
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
    const holder = await readHolder(lock);
    if (performance.now() > deadline) {
      throw new StarlingError("DATA_FOLDER_TAKEN", `process ${holder?.pid} uses the data folder ${path}`);
    }
    if (holder !== null && (await isRunning(holder))) await delay(20);
    else await removeStale(lock, `${draft}.stale`);
  }
}

/** Moves the lock aside, looks again, and puts it back if a live process took it meanwhile. */
async function removeStale(lock: string, aside: string): Promise<void> {
  await rename(lock, aside).catch(() => undefined); // gone already: somebody else removed it
  const holder = await readHolder(aside);
  if (holder !== null && (await isRunning(holder))) await link(aside, lock).catch(() => undefined); // taken again
  await rm(aside, { force: true });
}

/** The process that uses a data folder now; null: none does. */
export async function userOf(path: string): Promise<number | null> {
  const holder = await readHolder(join(path, lockName));
  return holder !== null && (await isRunning(holder)) ? holder.pid : null;
}

async function readHolder(file: string): Promise<LockHolder | null> {
  try {
    const holder = JSON.parse(await readFile(file, "utf8")) as Partial<LockHolder>;
    return typeof holder.pid === "number" ? { pid: holder.pid, started: holder.started ?? "" } : null;
  } catch {
    return null; // missing or not ours: treated as no holder
  }
}

async function isRunning(holder: LockHolder): Promise<boolean> {
  if (!isAlive(holder.pid)) return false;
  const started = await startOf(holder.pid);
  return started === null || holder.started === "" || started === holder.started;
}

/** Whether a process of that number exists, whoever owns it. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** Something that tells two processes of the same number apart; null where the system does not say. */
async function startOf(pid: number): Promise<string | null> {
  try {
    if (process.platform === "linux") {
      const stat = await readFile(`/proc/${pid}/stat`, "utf8");
      const boot = await readFile("/proc/sys/kernel/random/boot_id", "utf8");
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      // A zombie is dead: it has no start that a lock could name.
      return fields[0] === "Z" ? "" : `${boot.trim()}/${fields[19]}`;
    }
    if (process.platform === "win32") return null;
    const { stdout } = await promisify(execFile)("ps", ["-o", "lstart=", "-p", String(pid)]);
    return stdout.trim();
  } catch {
    return null; // the process ended meanwhile, or the system hides it
  }
}

/** The command line of a process, or "" where it cannot be read. */
export async function commandOf(pid: number): Promise<string> {
  try {
    if (process.platform === "linux") return (await readFile(`/proc/${pid}/cmdline`, "utf8")).replaceAll("\0", " ");
    const { stdout } = await promisify(execFile)("ps", ["-o", "command=", "-p", String(pid)]);
    return stdout.trim();
  } catch {
    return ""; // ended meanwhile
  }
}
