import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { expect, test } from "vitest";
import { heapGrowth } from "../../node/tune-collector.ts";
import { repository } from "../support/repository.ts";

const tuned = pathToFileURL(join(repository, "dist/node/tune-collector.js")).href;

/** V8 says of a flag that it does not know no more than a line, and goes on. */
test("V8 knows the flags that are set while a node starts", () => {
  expect(say(`(await import(${JSON.stringify(tuned)})).tuneCollector();`)).toBe("");
  expect(say('(await import("node:v8")).setFlagsFromString("--no-such-flag-of-v8");')).toMatch(/no-such-flag-of-v8/);
});

test("what little there is may grow to four times, what is much by a few hundred megabytes", () => {
  expect(heapGrowth(0)).toBe(300);
  expect(heapGrowth(100 * mb)).toBe(300);
  expect(heapGrowth(450 * mb)).toBe(100);
  expect(heapGrowth(900 * mb)).toBe(50);
  expect(heapGrowth(100_000 * mb)).toBe(1);
});

/** It comes to some 800 MB, and to 1,400 where the heap may grow to four times what is left from beginning to end. */
test("a heap of 350 MB whose objects are replaced again and again stays below 1,000", () => {
  const peak = say(`
    (await import(${JSON.stringify(tuned)})).tuneCollector();
    const { getHeapStatistics } = await import("node:v8");
    const { setImmediate: turn } = await import("node:timers/promises");
    const held = Array.from({ length: 250 }, () => []);
    let peak = 0;
    for (let round = 0; round < 4 * held.length; round++) {
      const place = (round * 97) % held.length;
      held[place] = Array.from({ length: 16_384 }, (_, at) => [round, at, round, at]);
      peak = Math.max(peak, getHeapStatistics().used_heap_size);
      await turn();
    }
    process.stdout.write(String(Math.round(peak / 2 ** 20)));`);
  expect(Number(peak)).toBeGreaterThan(350);
  expect(Number(peak)).toBeLessThan(1000);
});

const mb = 2 ** 20;

function say(code: string): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", code], {
    encoding: "utf8",
  });
  expect(status).toBe(0);
  return stdout + stderr;
}
