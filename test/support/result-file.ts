import { appendFile, readFile } from "node:fs/promises";

/*
 * A file of results, a line of JSON each: a command that takes hours goes on where it was ended.
 */

/** Adds one. A line that an earlier process left unfinished stays by itself. */
export async function keepResult(file: string, result: object): Promise<void> {
  await appendFile(file, `\n${JSON.stringify(result)}`);
}

/** All of them; none when there is no file. A line that was cut off is left out. */
export async function readResults<T extends object>(file: string): Promise<T[]> {
  const text = await readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "";
    throw error;
  });
  return text.split("\n").flatMap((line): T[] => {
    try {
      return [JSON.parse(line) as T];
    } catch {
      return [];
    }
  });
}
