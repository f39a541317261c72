import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { repository } from "./support/repository.ts";

/**
 * The known bugs, without trying them: `npm run bugs` and `npm run sim -- --bugs` show in minutes that each is found; that there
 * is one for every rule, and that all can still be put back, shows at once.
 */
const folders = { "test/bugs": ["Rule", "Bug", "Test"], "test/bugs/sim": ["Rule", "Bug"] };
const rules = Array.from({ length: 25 }, (_, index) => `R${index + 1}`);

interface Patch {
  readonly path: string;
  readonly lines: readonly string[];
  readonly text: string;
}

const patches: readonly Patch[] = Object.entries(folders).flatMap(([folder, lines]) =>
  readdirSync(join(repository, folder))
    .filter((file) => file.endsWith(".patch"))
    .map((file) => ({ path: `${folder}/${file}`, lines, text: readFileSync(join(repository, folder, file), "utf8") })),
);

function lineOf({ text }: Patch, name: string): string | undefined {
  return new RegExp(`^${name}: (.+)$`, "m").exec(text)?.[1];
}

describe("the known bugs", () => {
  test("stand for every rule", () => {
    const met = new Set(patches.map((patch) => lineOf(patch, "Rule")));
    expect(rules.filter((rule) => !met.has(rule))).toEqual([]);
  });

  test.each(patches)("$path says what it breaks, and can be put back", (patch) => {
    for (const name of patch.lines) expect(lineOf(patch, name), name).toBeDefined();
    const file = lineOf(patch, "Test");
    if (file !== undefined) expect(existsSync(join(repository, file)), file).toBe(true);
    const args = ["apply", "--check", "--recount", patch.path];
    const { status, stderr } = spawnSync("git", args, { cwd: repository, encoding: "utf8" });
    expect(status, stderr).toBe(0);
  });
});
