import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { heapFlags } from "../../node/heap-flags.ts";
import { repository } from "../support/repository.ts";

test.each(["package.json", "node/cli/main.ts", "node/deploy/starling.service", "node/deploy/Containerfile"])(
  "%s starts nodes with the same flags",
  async (file) => {
    const text = await readFile(join(repository, file), "utf8");
    const lines = text.split("\n").filter((line) => line.includes("semi-space"));
    expect(lines.length).toBeGreaterThan(0);
    for (const line of lines) expect(line.match(/--[a-z-]+=\d+/g)).toEqual(heapFlags);
  },
);

/** A flag that V8 knows and does not heed says nothing either. */
test("one thread beside a node's own marks its old objects", { timeout: 120_000 }, () => {
  for (let times = 0; times < 3; times++) expect(mark()).toBeLessThan(1.2);
});

/**
 * The most threads that mark at a time, beside the process's own, while a heap of some 200 MB is replaced: on the average of a
 * marking. Without the flag it is 1.3 to 3.
 */
function mark(): number {
  const code = `
    const { setImmediate: turn } = await import("node:timers/promises");
    const held = Array.from({ length: 200 }, () => []);
    for (let round = 0; round < 4 * held.length; round++) {
      held[(round * 97) % held.length] = Array.from({ length: 16_384 }, (_, at) => [round, at, round, at]);
      await turn();
    }`;
  const args = [...heapFlags, "--trace-gc", "--trace-gc-nvp", "--input-type=module", "-e", code];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8", timeout: 30_000 });
  expect(stderr).toBe("");
  expect(status).toBe(0);
  const marked = stdout.split("\n").filter((line) => fieldOf(line, "incremental_walltime_duration") > 20);
  expect(marked.length).toBeGreaterThan(0);
  const threads = (line: string) => fieldOf(line, "background.mark") / fieldOf(line, "incremental_walltime_duration");
  return Math.max(...marked.map(threads));
}

function fieldOf(line: string, key: string): number {
  const field = line.split(" ").find((pair) => pair.startsWith(`${key}=`));
  return Number(field?.slice(key.length + 1));
}
