import { mkdtemp, readdir, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { bundleModule, pruneBundles } from "../../node/module-bundle.ts";

let folder: string;
let cacheDir: string;
const now = Date.now();
const hourMs = 3_600_000;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "starling-bundle-"));
  cacheDir = join(folder, "cache");
});
afterEach(() => rm(folder, { recursive: true }));

/** Bundles the version of a module that was used so many hours ago. */
async function bundleOf(hours: number, name = "one"): Promise<string> {
  const file = join(folder, `${name}.ts`);
  await writeFile(file, `export const hours = ${hours};`);
  const { path } = await bundleModule(file, cacheDir);
  await age(path, hours);
  return path;
}

async function age(path: string, hours: number): Promise<void> {
  const at = new Date(now - hours * hourMs);
  await utimes(path, at, at);
}

const left = async () => (await readdir(cacheDir)).map((name) => join(cacheDir, name)).sort();

it("the newest unused bundles stay, and whatever is in use", async () => {
  const [oldest, , , fourth, third] = [
    await bundleOf(9),
    await bundleOf(8),
    await bundleOf(7),
    await bundleOf(6, "two"),
    await bundleOf(5),
  ];
  await pruneBundles(cacheDir, { keep: [oldest], now, max: 2 });
  expect(await left()).toEqual([oldest, fourth, third].sort());
  await pruneBundles(cacheDir, { keep: [], now, max: 0 });
  expect(await left()).toEqual([]);
});

it("a bundle that another process may be about to import stays, and so does what is no bundle", async () => {
  const young = await bundleOf(0.1);
  const draft = `${await bundleOf(3)}.0b0e7a3c-5d7e-4b52-9a1e-5f0e7f6a4c11`;
  const foreign = join(cacheDir, "notes.mjs");
  for (const path of [draft, foreign]) {
    await writeFile(path, "");
    await age(path, 3);
  }
  await pruneBundles(cacheDir, { keep: [], now, max: 0 });
  expect(await left()).toEqual([young, foreign].sort());
});

it("a cache that is not there is empty", async () => {
  await pruneBundles(cacheDir, { keep: [], now });
});
