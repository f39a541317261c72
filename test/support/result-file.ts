import { createHash } from "node:crypto";
import { appendFile, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { repository } from "./repository.ts";

/*
 * A file of results, a line of JSON each: a command that takes hours goes on where it was ended. A result counts for the
 * program that it was had with, and for no other one.
 */

/** What the compiled tree is made of, as a hash. */
export async function readVersion(): Promise<string> {
  const dist = join(repository, "dist");
  const files = (await readdir(dist, { recursive: true })).filter((path) => path.endsWith(".js")).sort();
  const hash = createHash("sha256");
  for (const path of files) hash.update(`${path}\n`).update(await readFile(join(dist, path)));
  return hash.digest("hex").slice(0, 16);
}

/** Adds one. A line that an earlier process left unfinished stays by itself. */
export async function keepResult(file: string, version: string, result: object): Promise<void> {
  await appendFile(file, `\n${JSON.stringify({ version, result })}`);
}

/** All of a version; none when there is no file. A line that was cut off is left out. */
export async function readResults<T extends object>(file: string, version: string): Promise<T[]> {
  const text = await readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "";
    throw error;
  });
  return text.split("\n").flatMap((line): T[] => {
    try {
      const kept = JSON.parse(line) as { readonly version?: string; readonly result: T };
      return kept.version === version ? [kept.result] : [];
    } catch {
      return [];
    }
  });
}
