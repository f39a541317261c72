import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { repository } from "../support/repository.ts";

/**
 * Puts known bugs back, one by one, in a copy of the tree, and lets the simulation look for each: it has to find it by a
 * checker, within `runsMax` runs. `npm run sim -- --bugs [NAME…]`. A patch stands under the lines `Rule:` and `Bug:`.
 */
export interface BugVerdict {
  readonly name: string;
  readonly rule: string;
  readonly verdict: "found" | "missed" | "does not apply" | "crashed";
  /** Which promise was seen broken, and in which run. */
  readonly checker: string;
  readonly runs: number;
}

export interface SearchOptions {
  readonly seed: number;
  readonly runsMax: number;
}

const folder = join(repository, "test/bugs/sim");
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
];
/** A bug that shows only so is not found: a step that throws, or a client that is refused. */
const crashes = new Set(["bug"]);

/** Tries all bugs, or those of these names. */
export function findBugs(
  names: readonly string[],
  { seed, runsMax }: SearchOptions,
  onVerdict: (verdict: BugVerdict) => void,
): BugVerdict[] {
  const known = readdirSync(folder)
    .filter((file) => file.endsWith(".patch"))
    .map((file) => file.slice(0, -".patch".length))
    .sort();
  const tree = mkdtempSync(join(tmpdir(), "starling-sim-bug-"));
  try {
    for (const each of copied) cpSync(join(repository, each), join(tree, each), { recursive: true });
    cpSync(join(repository, "dist"), join(tree, "dist"), { recursive: true });
    symlinkSync(join(repository, "node_modules"), join(tree, "node_modules"));
    return (names.length > 0 ? names : known).map((name) => {
      const verdict = tryBug(name, tree, { seed, runsMax });
      onVerdict(verdict);
      return verdict;
    });
  } finally {
    rmSync(tree, { recursive: true, force: true });
  }
}

function tryBug(name: string, tree: string, search: SearchOptions): BugVerdict {
  const text = readFileSync(join(folder, `${name}.patch`), "utf8");
  const rule = /^Rule: (.+)$/m.exec(text)?.[1] ?? "";
  const none = { name, rule, checker: "", runs: 0 };
  if (!applyPatch(name, tree, [])) return { ...none, verdict: "does not apply" };
  const found = runPatched(tree, search);
  if (!applyPatch(name, tree, ["--reverse"])) throw new Error(`${name} could not be taken back`);
  const { runs = 0, failures = [] } = found;
  const checker = failures[0]?.checker ?? "";
  if (checker === "") return { ...none, verdict: runs === 0 ? "crashed" : "missed", runs };
  return { ...none, verdict: crashes.has(checker) ? "crashed" : "found", checker, runs };
}

interface Found {
  readonly runs?: number;
  readonly failures?: readonly { readonly checker: string }[];
}

function runPatched(tree: string, { seed, runsMax }: SearchOptions): Found {
  const compiler = join(repository, "node_modules/typescript/bin/tsc");
  spawnSync(process.execPath, [compiler, "-p", "tsconfig.json"], { cwd: tree });
  const args = ["dist/test/sim/main.js", "--runs", String(runsMax), "--seed", String(seed), "--first", "--json"];
  const limits = { encoding: "utf8", maxBuffer: 1e9, timeout: 3_600_000, killSignal: "SIGKILL" } as const;
  const { stdout } = spawnSync(process.execPath, args, { cwd: tree, ...limits });
  try {
    return JSON.parse(stdout.trim().split("\n").at(-1) ?? "{}") as Found;
  } catch {
    // It ended without a word: that is a crash, and no finding.
    return {};
  }
}

function applyPatch(name: string, tree: string, options: readonly string[]): boolean {
  const args = ["apply", "--recount", ...options, join(folder, `${name}.patch`)];
  return spawnSync("git", args, { cwd: tree }).status === 0;
}
