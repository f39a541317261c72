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
    for (const line of lines) expect(line.match(/--(?:min|max)-semi-space-size=\d+/g)).toEqual(heapFlags);
  },
);
