import { mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { systemClock } from "../../proto/clock.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { type WatchedFiles, watchFiles } from "../../proto/watched-files.ts";

let folder = "";
let file = "";
let problems: string[] = [];
let reads = 0;
let watched: WatchedFiles<number>;

/** A file that holds a number. */
async function read(): Promise<number> {
  reads += 1;
  const text = await readFile(file, "utf8");
  if (/^\d+$/.test(text)) return Number(text);
  throw new StarlingError("CONFIG", `${text} is no number`);
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "starling-watched-"));
  file = join(folder, "number");
  problems = [];
  reads = 0;
  await writeFile(file, "1");
  const onProblem = ({ message }: StarlingError) => void problems.push(message);
  watched = await watchFiles({ paths: [file], read, clock: systemClock, everyMs: 5, onProblem });
});

afterEach(async () => {
  watched.close();
  await rm(folder, { recursive: true });
});

const within = { timeout: 30_000, interval: 2 };

it("a file that changes is read again, and its listeners hear of it", async () => {
  const heard: number[] = [];
  watched.onChange((value) => void heard.push(value));
  await writeFile(join(folder, "next"), "2");
  await rename(join(folder, "next"), file);
  await expect.poll(() => heard.at(-1), within).toBe(2);
  expect(watched.value).toBe(2);
});

it("a broken file keeps what was read, is told once, and is read as soon as it is whole", async () => {
  await writeFile(file, "nonsense");
  await expect.poll(() => problems, within).toEqual(["nonsense is no number"]);
  const from = reads;
  await expect.poll(() => reads, within).toBeGreaterThan(from + 3);
  expect({ value: watched.value, problems }).toEqual({ value: 1, problems: ["nonsense is no number"] });
  await writeFile(file, "3");
  await expect.poll(() => watched.value, within).toBe(3);
});

it("a file that is gone keeps what was read", async () => {
  await rm(file);
  await expect.poll(() => problems.length, within).toBe(1);
  expect(watched.value).toBe(1);
});

it("a reload reads what is there by then, also while another one runs", async () => {
  watched.close();
  watched = await watchFiles({ paths: [file], read, clock: systemClock, everyMs: 1e6 });
  await Promise.all([watched.reload(), writeFile(file, "4").then(() => watched.reload())]);
  expect(watched.value).toBe(4);
});

it("after its end nothing is read", async () => {
  watched.close();
  const from = reads;
  await writeFile(file, "5");
  await new Promise((resolve) => setTimeout(resolve, 30));
  expect(reads).toBeLessThanOrEqual(from + 1);
  expect(watched.value).toBe(1);
});

it("what cannot be read at the beginning is raised", async () => {
  await writeFile(file, "x");
  await expect(watchFiles({ paths: [file], read, clock: systemClock })).rejects.toThrow("x is no number");
});
