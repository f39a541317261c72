import { spawn } from "node:child_process";

/** Ends a process when this one dies without releasing it. */
export interface ChildGuard {
  /** The process has ended, or may live on. */
  release(): void;
}

/**
 * Guards a child: a shell reads from a pipe to this process; when that closes, however this process died, the shell sends the
 * signal. Where there is no shell nothing is guarded.
 */
export function guardChild(pid: number, signal: "INT" | "KILL"): ChildGuard {
  if (process.platform === "win32") return { release: () => {} };
  const script = `read -r line || kill -${signal} "$0"`;
  const guard = spawn("/bin/sh", ["-c", script, String(pid)], { detached: true, stdio: ["pipe", "ignore", "ignore"] });
  guard.once("error", () => undefined); // without a shell the next start stops what is left
  guard.stdin?.once("error", () => undefined); // the guard ended first
  guard.unref();
  (guard.stdin as { unref?: () => void } | null)?.unref?.();
  return { release: () => void guard.stdin?.end("done\n") };
}
