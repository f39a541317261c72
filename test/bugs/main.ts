import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { repository } from "../support/repository.ts";

/**
 * Puts known bugs back, one by one, in a copy of the tree, and checks that the test named in each patch fails for it,
 * and passes without it. A patch that no longer applies, and a bug that its test does not see, are failures.
 * A patch is a small diff under the lines `Rule:`, `Bug:`, `Test:` (a file) and,
 * where one test of the file is enough, `Title:` (how vitest's -t knows it).
 */
interface Bug {
  readonly name: string;
  readonly rule: string;
  readonly bug: string;
  readonly test: string;
  /** Of the test that is to fail; "": any of the file. */
  readonly title: string;
}

interface Verdict extends Bug {
  readonly verdict: "found" | "missed" | "fails anyway" | "does not apply";
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
  "package-lock.json",
  "tsconfig.json",
  "vitest.config.ts",
];

function readBug(name: string): Bug {
  const text = readFileSync(join(folder, `${name}.patch`), "utf8");
  const find = (key: string): string | undefined => new RegExp(`^${key}: (.+)$`, "m").exec(text)?.[1];
  const field = (key: string): string => {
    const value = find(key);
    if (value === undefined) throw new Error(`test/bugs/${name}.patch has no line '${key}: …'`);
    return value;
  };
  return { name, rule: field("Rule"), bug: field("Bug"), test: field("Test"), title: find("Title") ?? "" };
}

/** A copy of the tree, in which each bug lives for a while. */
function copyTree(): string {
  const tree = mkdtempSync(join(tmpdir(), "starling-bug-"));
  for (const each of copied) cpSync(join(repository, each), join(tree, each), { recursive: true });
  symlinkSync(join(repository, "node_modules"), join(tree, "node_modules"));
  return tree;
}

function tryBug(bug: Bug, tree: string, clean: Map<string, boolean>): Verdict {
  const startedAt = performance.now();
  const end = (verdict: Verdict["verdict"]): Verdict => {
    return { ...bug, verdict, seconds: Math.round((performance.now() - startedAt) / 100) / 10 };
  };
  if (!applyPatch(bug, tree, [])) return end("does not apply");
  const outcome = runTest(bug, tree);
  if (!applyPatch(bug, tree, ["--reverse"])) throw new Error(`${bug.name} could not be taken back`);
  if (outcome !== "failed") return end("missed");
  const key = `${bug.test}\t${bug.title}`;
  const passes = clean.get(key) ?? runTest(bug, tree) === "passed";
  clean.set(key, passes);
  return end(passes ? "found" : "fails anyway");
}

function applyPatch({ name }: Bug, tree: string, options: readonly string[]): boolean {
  const args = ["apply", "--recount", ...options, join(folder, `${name}.patch`)];
  return spawnSync("git", args, { cwd: tree }).status === 0;
}

function runTest({ test, title }: Bug, tree: string): "passed" | "failed" | "did not run" {
  const vitest = join(repository, "node_modules/vitest/vitest.mjs");
  // Threads: a bug that loops for ever ends with its process, where a process of its own would be left behind.
  const args = [vitest, "run", "--pool", "threads", test, ...(title === "" ? [] : ["-t", title])];
  const limits = { timeout: 120_000, killSignal: "SIGKILL" } as const;
  const { status, stdout } = spawnSync(process.execPath, args, { cwd: tree, encoding: "utf8", ...limits });
  // A test that could not run at all proves nothing.
  if (status !== 0) return /Tests .*\d+ failed/.test(stdout) ? "failed" : "did not run";
  return /Tests .*\d+ passed/.test(stdout) ? "passed" : "did not run";
}

const help = `Puts known bugs back, one by one, and shows that the test named beside each fails for it, and passes without it.

  npm run bugs [-- NAME…] [--json]

  --json  one line of JSON beneath the rows

Each bug is a patch in test/bugs; without names all are put back, which takes ten minutes. The simulation has its own:
npm run sim -- --bugs. Exit code 1: a bug was not found, or its patch no longer applies.

Examples:
  npm run bugs
  npm run bugs -- watermark-before-flush packed-outlives-loss
`;

function main(): void {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { json: { type: "boolean", default: false }, help: { type: "boolean", default: false } },
  });
  if (values.help) return void process.stdout.write(help);
  const known = readdirSync(folder)
    .filter((file) => file.endsWith(".patch"))
    .map((file) => file.slice(0, -".patch".length))
    .sort();
  for (const name of positionals) if (!known.includes(name)) throw new Error(`there is no test/bugs/${name}.patch`);
  const names = positionals.length > 0 ? positionals : known;
  const verdicts: Verdict[] = [];
  const clean = new Map<string, boolean>();
  const tree = copyTree();
  try {
    for (const name of names) {
      const verdict = tryBug(readBug(name), tree, clean);
      verdicts.push(verdict);
      const { rule, seconds, test } = verdict;
      process.stdout.write(
        `${rule.padEnd(5)} ${name.padEnd(32)} ${verdict.verdict.padEnd(15)} ${seconds} s  ${test}\n`,
      );
    }
  } finally {
    rmSync(tree, { recursive: true, force: true });
  }
  const failed = verdicts.filter(({ verdict }) => verdict !== "found").length;
  if (values.json) process.stdout.write(`${JSON.stringify({ bugs: verdicts, failed })}\n`);
  else process.stdout.write(`${verdicts.length - failed} of ${verdicts.length} known bugs found\n`);
  process.exitCode = failed === 0 ? 0 : 1;
}

try {
  main();
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}; --help says more\n`);
  process.exitCode = 2;
}
