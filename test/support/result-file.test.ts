import { appendFile, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { keepResult, readResults, readVersion } from "./result-file.ts";

async function newFile(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "starling-results-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return join(folder, "results.jsonl");
}

test("results come back in order; where there is no file there are none", async () => {
  const file = await newFile();
  expect(await readResults(file, "v1")).toEqual([]);
  await keepResult(file, "v1", { run: 1, text: "a\nb" });
  await keepResult(file, "v1", { run: 2 });
  expect(await readResults(file, "v1")).toEqual([{ run: 1, text: "a\nb" }, { run: 2 }]);
});

test("results of another program do not count", async () => {
  const file = await newFile();
  await keepResult(file, "v0", { run: 1 });
  await keepResult(file, "v1", { run: 2 });
  expect(await readResults(file, "v1")).toEqual([{ run: 2 }]);
  const version = await readVersion();
  expect(version).toMatch(/^[0-9a-f]{16}$/);
  expect(await readVersion()).toBe(version);
});

test("a line that was cut off takes no other one along", async () => {
  const file = await newFile();
  await keepResult(file, "v1", { run: 1 });
  await appendFile(file, '\n{"version":"v1","result":{"run":2,"vio');
  await keepResult(file, "v1", { run: 3 });
  expect(await readResults(file, "v1")).toEqual([{ run: 1 }, { run: 3 }]);
});

test("a file that cannot be read is an error, not an empty one", async () => {
  const file = await newFile();
  await expect(readResults(join(file, ".."), "v1")).rejects.toThrow("EISDIR");
});
