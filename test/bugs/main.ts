import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { repository } from "../support/repository.ts";

/**
 * Puts known bugs back, one by one, in a copy of the tree, and checks that the test named in each patch fails for it.
 * A patch that no longer applies, and a bug that its test does not see, are failures. `npm run bugs [-- NAME…] [--json]`.
 */
interface Bug {
  readonly name: string;
  readonly rule: string;
  readonly bug: string;
  readonly test: string;
}

interface Verdict extends Bug {
  readonly verdict: "found" | "missed" | "does not apply";
  readonly seconds: number;
}

const folder = join(repository, "test/bugs");
const copied = [
  "actors",
  "cluster",
  "modules",
  "node",
  "proto",
  "test",
  "package.json",
  "tsconfig.json",
  "vitest.config.ts",
];

function readBug(name: string): Bug {
  const text = readFileSync(join(folder, `${name}.patch`), "utf8");
  const field = (key: string): string => {
    const value = new RegExp(`^${key}: (.+)$`, "m").exec(text)?.[1];
    if (value === undefined) throw new Error(`test/bugs/${name}.patch has no line '${key}: …'`);
    return value;
  };
  return { name, rule: field("Rule"), bug: field("Bug"), test: field("Test") };
}

function tryBug(bug: Bug): Verdict {
  const startedAt = performance.now();
  const tree = mkdtempSync(join(tmpdir(), "starling-bug-"));
  const end = (verdict: Verdict["verdict"]): Verdict => {
    return { ...bug, verdict, seconds: Math.round((performance.now() - startedAt) / 100) / 10 };
  };
  try {
    for (const each of copied) cpSync(join(repository, each), join(tree, each), { recursive: true });
    symlinkSync(join(repository, "node_modules"), join(tree, "node_modules"));
    const patch = join(folder, `${bug.name}.patch`);
    const applied = spawnSync("git", ["apply", "--recount", patch], { cwd: tree, encoding: "utf8" });
    if (applied.status !== 0) return end("does not apply");
    const vitest = join(repository, "node_modules/vitest/vitest.mjs");
    const run = spawnSync(process.execPath, [vitest, "run", bug.test], {
      cwd: tree,
      encoding: "utf8",
      timeout: 300_000,
    });
    // A test that could not run at all proves nothing.
    const ran = /Tests .*\d+ failed/.test(run.stdout);
    return end(run.status !== 0 && ran ? "found" : "missed");
  } finally {
    rmSync(tree, { recursive: true, force: true });
  }
}

function main(args: readonly string[]): void {
  const wanted = args.filter((arg) => !arg.startsWith("-"));
  const known = readdirSync(folder)
    .filter((file) => file.endsWith(".patch"))
    .map((file) => file.slice(0, -".patch".length))
    .sort();
  const names = wanted.length > 0 ? wanted : known;
  const verdicts: Verdict[] = [];
  for (const name of names) {
    const verdict = tryBug(readBug(name));
    verdicts.push(verdict);
    const { rule, seconds, test } = verdict;
    process.stdout.write(`${rule.padEnd(5)} ${name.padEnd(28)} ${verdict.verdict.padEnd(15)} ${seconds} s  ${test}\n`);
  }
  const failed = verdicts.filter(({ verdict }) => verdict !== "found").length;
  if (args.includes("--json")) process.stdout.write(`${JSON.stringify({ bugs: verdicts, failed })}\n`);
  else process.stdout.write(`${verdicts.length - failed} of ${verdicts.length} known bugs found\n`);
  process.exitCode = failed === 0 ? 0 : 1;
}

main(process.argv.slice(2));
