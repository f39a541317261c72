import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { repository } from "../support/repository.ts";
import { isFailed, type PoolReport, playRuns } from "./pool.ts";

/**
 * Puts known bugs back, one by one, in a copy of what is compiled, and lets the simulation look for each: it has to find it
 * by a checker, within `runsMax` runs, where nothing is found without it. `npm run sim -- --bugs [NAME…]`. A patch stands under the lines `Rule:` and `Bug:`.
 */
export interface BugVerdict {
  readonly name: string;
  readonly rule: string;
  readonly verdict: "found" | "missed" | "does not apply" | "crashed" | "fails anyway";
  /** Which promise was seen broken, and what was seen. */
  readonly checker: string;
  readonly text: string;
  /** Until it was found. */
  readonly runs: number;
}

export interface SearchOptions {
  readonly seed: number;
  readonly runsMax: number;
  readonly workers?: number;
  readonly onReport: (report: PoolReport) => void;
}

const folder = join(repository, "test/bugs/sim");
const dist = join(repository, "dist");
/** What shows only so is not found: a step that throws is a crash. */
const crashes = new Set(["bug"]);

/** The names of all known bugs. */
export function knownBugs(): readonly string[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith(".patch"))
    .map((file) => file.slice(0, -".patch".length))
    .sort();
}

/** Looks for these bugs. */
export async function findBugs(
  names: readonly string[],
  search: SearchOptions,
  onVerdict: (verdict: BugVerdict) => void,
): Promise<readonly BugVerdict[]> {
  const tree = mkdtempSync(join(tmpdir(), "starling-sim-bug-"));
  try {
    cpSync(dist, join(tree, "dist"), { recursive: true });
    for (const file of ["package.json", "package-lock.json"]) cpSync(join(repository, file), join(tree, file));
    symlinkSync(join(repository, "node_modules"), join(tree, "node_modules"));
    const verdicts: BugVerdict[] = [];
    for (const name of names) {
      const verdict = await tryBug(name, tree, search);
      verdicts.push(verdict);
      onVerdict(verdict);
    }
    return verdicts;
  } finally {
    rmSync(tree, { recursive: true, force: true });
  }
}

async function tryBug(name: string, tree: string, { seed, runsMax, ...rest }: SearchOptions): Promise<BugVerdict> {
  const text = readFileSync(join(folder, `${name}.patch`), "utf8");
  const rule = /^Rule: (.+)$/m.exec(text)?.[1] ?? "";
  const none = { name, rule, checker: "", text: "", runs: 0 };
  const files = [...text.matchAll(/^\+\+\+ b\/(.+)$/gm)].map(([, file = ""]) => file);
  for (const file of files) {
    mkdirSync(join(tree, dirname(file)), { recursive: true });
    cpSync(join(repository, file), join(tree, file));
  }
  const args = ["apply", "--recount", join(folder, `${name}.patch`)];
  if (spawnSync("git", args, { cwd: tree }).status !== 0) return { ...none, verdict: "does not apply" };
  compile(tree, files);
  const reports = await playRuns({ seed, runs: runsMax, dist: join(tree, "dist"), first: true, ...rest });
  for (const file of files) cpSync(join(dist, compiled(file)), join(tree, "dist", compiled(file)));
  const failed = reports.find(isFailed);
  if (failed === undefined) return { ...none, verdict: "missed", runs: reports.length };
  const runs = failed.seed - seed + 1;
  if (failed.kind === "broken") return { ...none, verdict: "crashed", text: failed.text, runs };
  const [clean] = await playRuns({ seed: failed.seed, runs: 1, dist, onReport: () => {} });
  if (clean === undefined || isFailed(clean)) return { ...none, verdict: "fails anyway", runs };
  const [violation = { checker: "", text: "" }] = failed.violations;
  return { ...none, ...violation, verdict: crashes.has(violation.checker) ? "crashed" : "found", runs };
}

/** Files as the compiler would have them, without their types being looked at. */
function compile(tree: string, files: readonly string[]): void {
  const compiler = join(repository, "node_modules/typescript/bin/tsc");
  const settings = "--ignoreConfig --noCheck --noResolve --rootDir . --outDir dist --module nodenext --target es2022";
  const syntax = "--verbatimModuleSyntax --rewriteRelativeImportExtensions";
  const args = [compiler, ...settings.split(" "), ...syntax.split(" "), ...files];
  const { status, stdout } = spawnSync(process.execPath, args, { cwd: tree, encoding: "utf8" });
  if (status !== 0) throw new Error(`a patched file does not compile: ${stdout}`);
}

function compiled(file: string): string {
  return file.replace(/\.ts$/, ".js");
}
