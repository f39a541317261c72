import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { expect, test } from "vitest";
import { repository } from "../support/repository.ts";

const tuned = pathToFileURL(join(repository, "dist/node/tune-collector.js")).href;

/** V8 says of a flag that it does not know no more than a line, and goes on. */
test("V8 knows the flags that are set while a node starts", () => {
  expect(say(`(await import(${JSON.stringify(tuned)})).tuneCollector();`)).toBe("");
  expect(say('(await import("node:v8")).setFlagsFromString("--no-such-flag-of-v8");')).toMatch(/no-such-flag-of-v8/);
});

function say(code: string): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", code], {
    encoding: "utf8",
  });
  expect(status).toBe(0);
  return stdout + stderr;
}
