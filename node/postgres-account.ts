import { existsSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { StarlingError } from "../proto/starling-error.ts";
import { runProgram } from "./postgres-binaries.ts";

/** The account that PostgreSQL runs under: it refuses to be root. */
export interface PostgresAccount {
  /** Undefined: this process's own account. */
  readonly uid?: number;
  readonly gid?: number;
  /** The account is changed by the wrapping command, not by the spawn. */
  readonly wrapped: boolean;
  wrap(command: readonly [string, ...string[]]): [string, ...string[]];
}

const setpriv = ["/usr/bin/setpriv", "/bin/setpriv"];

/**
 * For a normal user: that user. For root: the owner of the data folder, else the account `postgres` (made if missing),
 * else `nobody`. Where that account cannot enter the folders on the way to `paths` (a home folder of mode 0700, say),
 * it gets the one capability to do so. Raises CONFIG, which names the folder in the way.
 */
export async function findAccount(pgData: string, paths: readonly string[]): Promise<PostgresAccount> {
  if (process.platform === "win32" || process.getuid?.() !== 0) {
    return { wrapped: false, wrap: ([program, ...args]) => [program, ...args] };
  }
  const { uid, gid } = await chooseAccount(pgData);
  const barred = await firstBarred(paths, uid, gid);
  if (barred === null) return { uid, gid, wrapped: false, wrap: ([program, ...args]) => [program, ...args] };
  const tool = setpriv.find((path) => existsSync(path));
  if (tool === undefined) {
    throw new StarlingError("CONFIG", `PostgreSQL cannot run as root, and account ${uid} cannot enter ${barred}`);
  }
  const identity = [`--reuid=${uid}`, `--regid=${gid}`, "--clear-groups"];
  const capability = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"];
  return { uid, gid, wrapped: true, wrap: (command) => [tool, ...identity, ...capability, "--", ...command] };
}

async function chooseAccount(pgData: string): Promise<{ uid: number; gid: number }> {
  const owner = await stat(pgData).catch(() => null);
  if (owner !== null && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid };
  const found = await lookUp("postgres");
  if (found !== null) return found;
  try {
    await runProgram(["useradd", "--system", "--user-group", "--no-create-home", "postgres"], { deadlineMs: 10_000 });
  } catch {
    // no useradd here, or no right to: `nobody` exists everywhere
  }
  const account = (await lookUp("postgres")) ?? (await lookUp("nobody"));
  if (account === null)
    throw new StarlingError("CONFIG", "PostgreSQL cannot run as root and there is no other account");
  return account;
}

async function lookUp(name: string): Promise<{ uid: number; gid: number } | null> {
  const lines = (await readFile("/etc/passwd", "utf8").catch(() => "")).split("\n");
  const fields = lines.find((line) => line.startsWith(`${name}:`))?.split(":");
  return fields === undefined ? null : { uid: Number(fields[2]), gid: Number(fields[3]) };
}

async function firstBarred(paths: readonly string[], uid: number, gid: number): Promise<string | null> {
  for (const path of paths) {
    for (let folder = dirname(path), last = path; folder !== last; last = folder, folder = dirname(folder)) {
      const { mode, uid: owner, gid: group } = await stat(folder);
      const bit = owner === uid ? 0o100 : group === gid ? 0o010 : 0o001;
      if ((mode & bit) === 0) return folder;
    }
  }
  return null;
}
