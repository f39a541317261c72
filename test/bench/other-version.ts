import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { repository } from "../support/repository.ts";

/** A commit of this repository, built in a folder of its own with the packages of this one; closing it removes the folder. */
export interface OtherVersion {
  /** What starts its nodes. */
  readonly program: string;
  close(): Promise<void>;
}

const run = promisify(execFile);
const buildMs = 300_000;

/** Takes the commit's files out of the repository and builds them. */
export async function buildVersion(commit: string, signal: AbortSignal): Promise<OtherVersion> {
  const folder = await mkdtemp(join(tmpdir(), "starling-version-"));
  const close = (): Promise<void> => rm(folder, { recursive: true, force: true });
  try {
    const [archive, tree] = [join(folder, "tree.tar"), join(folder, "tree")];
    await run("git", ["-C", repository, "archive", "--output", archive, `${commit}^{commit}`], { signal });
    await mkdir(tree);
    await run("tar", ["-x", "-f", archive, "-C", tree], { signal });
    await symlink(join(repository, "node_modules"), join(tree, "node_modules"));
    const compiler = join(tree, "node_modules/typescript/bin/tsc");
    // Types of packages that are newer than the commit may not fit; its programs are written all the same.
    const options = { cwd: tree, signal, timeout: buildMs };
    await run(process.execPath, [compiler, "-p", "tsconfig.json"], options).catch(() => undefined);
    signal.throwIfAborted();
    const program = join(tree, "dist/node/cli/main.js");
    if (!existsSync(program)) throw new Error(`commit ${commit} could not be built`);
    return { program, close };
  } catch (error) {
    await close();
    throw error;
  }
}
