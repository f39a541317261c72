import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { isMap, isSeq, LineCounter, type Node, type ParsedNode, parseDocument } from "yaml";
import type { ConfigFile, ConfigPath, ConfigProblem } from "../../modules/config-section.ts";
import { StarlingError } from "../../proto/starling-error.ts";

/** The `*.yml` files below a configuration directory, sorted by path; empty files are left out. */
export interface ConfigDirectory {
  readonly path: string;
  readonly files: readonly ConfigFile[];
}

const depthMax = 16;
const filesMax = 10_000;
const fileMaxBytes = 4 * 1024 * 1024;

/**
 * Reads every `*.yml` recursively, positions kept. What is no YAML is added to `problems`. Names that begin with a dot are
 * skipped, so that a mounted Kubernetes ConfigMap is read once. Throws CONFIG if the directory cannot be read.
 */
export async function readConfigDirectory(path: string, problems: ConfigProblem[]): Promise<ConfigDirectory> {
  const names: string[] = [];
  await collect(path, "", names, 0);
  const files: ConfigFile[] = [];
  for (const name of names.sort()) {
    const file = await readConfigFile(path, name, problems);
    if (file !== null) files.push(file);
  }
  return { path, files };
}

/** A YAML text as a configuration file; null if it is empty, or broken and reported. */
export function parseConfigText(file: string, text: string, problems: ConfigProblem[]): ConfigFile | null {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, merge: true, prettyErrors: false });
  for (const error of document.errors) {
    problems.push({
      file,
      line: lines.linePos(error.pos[0]).line,
      key: "",
      found: error.code.toLowerCase().replaceAll("_", " "),
      allowed: "YAML",
      message: error.message,
    });
  }
  if (document.errors.length > 0) return null;
  const root = document.contents;
  try {
    const value: unknown = document.toJS();
    if (value === null || value === undefined) return null;
    return { file, value, lineOf: (at) => lines.linePos(offsetOf(root, at)).line };
  } catch (error) {
    problems.push({ file, line: 1, key: "", found: "aliases", allowed: "fewer of them", message: String(error) });
    return null;
  }
}

async function collect(root: string, below: string, names: string[], depth: number): Promise<void> {
  const entries = await readdir(join(root, below)).catch((error: unknown) => {
    throw new StarlingError("CONFIG", `the configuration directory ${join(root, below)} cannot be read`, {
      cause: error,
    });
  });
  for (const entry of entries) {
    if (entry.startsWith(".")) continue;
    const name = below === "" ? entry : `${below}/${entry}`;
    // A link to nothing is nobody's configuration.
    const found = await stat(join(root, name)).catch(() => null);
    if (found?.isDirectory() && depth < depthMax) await collect(root, name, names, depth + 1);
    else if (found?.isFile() && entry.endsWith(".yml")) names.push(name);
    if (names.length > filesMax) {
      throw new StarlingError("CONFIG", `${root} holds more than ${filesMax} *.yml files: is it the right directory?`);
    }
  }
}

async function readConfigFile(root: string, name: string, problems: ConfigProblem[]): Promise<ConfigFile | null> {
  const path = join(root, name);
  try {
    const { size } = await stat(path);
    if (size <= fileMaxBytes) return parseConfigText(name, await readFile(path, "utf8"), problems);
    problems.push(unread(name, `${size} bytes`, `at most ${fileMaxBytes} bytes`, "the file is too large"));
  } catch (error) {
    problems.push(unread(name, String(error), "a readable file", "the file cannot be read"));
  }
  return null;
}

function unread(file: string, found: string, allowed: string, message: string): ConfigProblem {
  return { file, line: 0, key: "", found, allowed, message };
}

/** Where the key at the path, or its nearest ancestor, begins. */
function offsetOf(root: ParsedNode | Node | null, path: ConfigPath): number {
  let node: unknown = root;
  let offset = root?.range?.[0] ?? 0;
  for (const step of path) {
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => String(key) === String(step));
      if (pair === undefined) return offset;
      offset = (pair.key as Node).range?.[0] ?? offset;
      node = pair.value;
    } else if (isSeq(node)) {
      node = node.items[Number(step)];
      offset = (node as Node | undefined)?.range?.[0] ?? offset;
    } else {
      return offset;
    }
  }
  return offset;
}
