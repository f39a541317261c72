import { createHash, randomUUID } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { SourceMap } from "node:module";
import { basename, dirname, isAbsolute, join } from "node:path";
import { pathToFileURL } from "node:url";
import { type BuildFailure, build, type Plugin } from "esbuild";
import { StarlingError } from "../proto/starling-error.ts";

/** A module's source with the files it imports, as one file of JavaScript. */
export interface ModuleBundle {
  /** The file to import. */
  readonly path: string;
  /** Hash of the module's own sources (hex): tells whether two nodes run the same module. */
  readonly hash: string;
  /** ` (file:line)` of the source where an error arose in the module; empty when it arose elsewhere. */
  locate(error: unknown): string;
}

/**
 * Bundles a module file, TypeScript or JavaScript, into `cacheDir`. `starling/modules` and `starling/client` become this
 * program's own files, so that `instanceof BaseModule` holds; packages stay where they are. Raises MODULE with file and line.
 */
export async function bundleModule(file: string, cacheDir: string): Promise<ModuleBundle> {
  const built = await build({
    entryPoints: [file],
    absWorkingDir: dirname(file),
    bundle: true,
    write: false,
    metafile: true,
    format: "esm",
    platform: "node",
    target: "node20",
    keepNames: true,
    sourcemap: "inline",
    // Where the source map's relative paths start from.
    outdir: cacheDir,
    logLevel: "silent",
    // A field without a value must not overwrite what `loadConfig` put there during `super(…)`.
    tsconfigRaw: { compilerOptions: { useDefineForClassFields: false, target: "es2022" } },
    define: placesOf(file),
    plugins: [outside()],
  }).catch((error: BuildFailure) => {
    throw new StarlingError("MODULE", buildMessage(file, error), { cause: error });
  });
  const code = built.outputFiles[0]?.text ?? "";
  const name = `${basename(file).replace(/\.\w+$/, "")}-${hashOf([code]).slice(0, 16)}.mjs`;
  const path = join(cacheDir, name);
  await mkdir(cacheDir, { recursive: true });
  // Written beside and renamed: other nodes of this machine may be importing it.
  const written = `${path}.${randomUUID()}`;
  await writeFile(written, code);
  await rename(written, path);
  const inputs = Object.keys(built.metafile.inputs).sort();
  const files = inputs.map((input) => join(dirname(file), input));
  const sources = await Promise.all(files.map((source) => readFile(source, "utf8")));
  return {
    path,
    hash: hashOf(inputs.flatMap((input, i) => [input, sources[i] ?? ""])),
    locate: createLocate(path, code, files),
  };
}

export interface PruneOptions {
  /** Bundles in use: their paths. */
  readonly keep: readonly string[];
  /** Unix ms. */
  readonly now: number;
  /** Further bundles that stay, the newest ones, for a node that goes back to them; default 20. */
  readonly max?: number;
}

const unusedMax = 20;
/** What is younger may be about to be imported by another process. */
const youngMs = 600_000;
const bundleName = /^[A-Za-z_][A-Za-z0-9_-]*-[0-9a-f]{16}\.mjs(?:\.[0-9a-f-]{36})?$/;

/**
 * Removes the bundles of a cache that nobody uses any more, and what writers that were killed left behind, so that the cache
 * stays bounded however often modules change. Other files are left alone.
 */
export async function pruneBundles(cacheDir: string, { keep, now, max = unusedMax }: PruneOptions): Promise<void> {
  const unused: { readonly path: string; readonly at: number }[] = [];
  for (const name of await readdir(cacheDir).catch(() => [])) {
    const path = join(cacheDir, name);
    if (!bundleName.test(name) || keep.includes(path)) continue;
    // One that is gone was removed by another process.
    const found = await stat(path).catch(() => null);
    if (found !== null) unused.push({ path, at: found.mtimeMs });
  }
  unused.sort((a, b) => b.at - a.at);
  for (const { path, at } of unused.slice(max)) {
    // What cannot be removed now is tried again at the next start.
    if (now - at > youngMs) await rm(path, { force: true }).catch(() => undefined);
  }
}

/** A module's own place, as its file knew it before it was bundled. */
function placesOf(file: string): Record<string, string> {
  return {
    "import.meta.url": JSON.stringify(pathToFileURL(file).href),
    "import.meta.filename": JSON.stringify(file),
    "import.meta.dirname": JSON.stringify(dirname(file)),
  };
}

/** Leaves packages out of the bundle, by their absolute address, since the bundle lies in another folder. */
function outside(): Plugin {
  const ending = import.meta.url.endsWith(".ts") ? ".ts" : ".js";
  const doors: Record<string, string> = {
    "starling/modules": new URL(`../modules/api${ending}`, import.meta.url).href,
    "starling/client": new URL(`../proto/client${ending}`, import.meta.url).href,
  };
  return {
    name: "outside",
    setup: (plugin) => {
      plugin.onResolve({ filter: /^[^./]/ }, async ({ path, resolveDir, kind, pluginData }) => {
        if (pluginData === "inner" || kind === "entry-point" || isAbsolute(path)) return undefined;
        const door = doors[path];
        if (door !== undefined) return { path: door, external: true };
        const found = await plugin.resolve(path, { resolveDir, kind, pluginData: "inner" });
        if (found.errors.length > 0 || found.external) return found;
        return { path: pathToFileURL(found.path).href, external: true };
      });
    },
  };
}

function buildMessage(file: string, failure: BuildFailure): string {
  const [first] = failure.errors ?? [];
  if (first === undefined) return `${file}: ${failure.message}`;
  const { location, text } = first;
  const missing = /^Could not resolve "([^./"][^"]*)"/.exec(text)?.[1];
  const remedy = missing === undefined ? "" : `; install it where the module can find it: npm install ${missing}`;
  if (location === null) return `${file}: ${text}${remedy}`;
  const path = join(dirname(file), location.file);
  return `${path}:${location.line}:${location.column + 1}: ${text}${remedy}\n    ${location.lineText.trim()}`;
}

function hashOf(texts: readonly string[]): string {
  const hash = createHash("sha256");
  for (const text of texts) hash.update(`${text.length}:`).update(text);
  return hash.digest("hex");
}

/** Finds the first stack frame inside the bundle, or inside a source when Node itself has applied the source map. */
function createLocate(bundle: string, code: string, sources: readonly string[]): ModuleBundle["locate"] {
  return (error) => {
    const stack = error instanceof Error ? (error.stack ?? "") : "";
    for (const line of stack.split("\n")) {
      const frame = /(?:file:\/\/)?(\/[^()]*?):(\d+):(\d+)\)?$/.exec(line);
      if (frame === null) continue;
      const [, path = "", row, column] = frame;
      if (sources.includes(path)) return ` (${path}:${row})`;
      if (basename(path) === basename(bundle)) return originOf(bundle, code, Number(row) - 1, Number(column) - 1);
    }
    return "";
  };
}

function originOf(bundle: string, code: string, row: number, column: number): string {
  const encoded = /\/\/# sourceMappingURL=data:application\/json;base64,(\S+)\s*$/.exec(code)?.[1];
  if (encoded === undefined) return "";
  const map = new SourceMap(JSON.parse(Buffer.from(encoded, "base64").toString("utf8")));
  const entry = map.findEntry(row, column);
  if (!("originalSource" in entry)) return "";
  return ` (${join(dirname(bundle), entry.originalSource)}:${entry.originalLine + 1})`;
}
