import { appendFile, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { keepResult, readResults } from "./result-file.ts";

async function newFile(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "starling-results-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return join(folder, "results.jsonl");
}

test("results come back in order; where there is no file there are none", async () => {
  const file = await newFile();
  expect(await readResults(file)).toEqual([]);
  await keepResult(file, { run: 1, text: "a\nb" });
  await keepResult(file, { run: 2 });
  expect(await readResults(file)).toEqual([{ run: 1, text: "a\nb" }, { run: 2 }]);
});

test("a line that was cut off takes no other one along", async () => {
  const file = await newFile();
  await keepResult(file, { run: 1 });
  await appendFile(file, '\n{"run":2,"vio');
  await keepResult(file, { run: 3 });
  expect(await readResults(file)).toEqual([{ run: 1 }, { run: 3 }]);
});

test("a file that cannot be read is an error, not an empty one", async () => {
  const file = await newFile();
  await expect(readResults(join(file, ".."))).rejects.toThrow("EISDIR");
});
