import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { packageRoot } from "./package-root.ts";

/** What the TypeScript compiler says of modules; null when it is not installed. */
export interface TypeCheck {
  /** `file:line: TS2322: text`, of the modules' own files only. */
  readonly problems: readonly string[];
}

const checkMaxMs = 60_000;

/**
 * Checks the types of module files with the compiler that is installed beside Starling: loading a module strips its
 * types without looking at them. `scratchDir` holds the compiler's configuration meanwhile.
 */
export async function checkModuleTypes(files: readonly string[], scratchDir: string): Promise<TypeCheck | null> {
  const compiler = findCompiler();
  const root = packageRoot();
  if (compiler === null || !existsSync(join(root, "modules", "api.ts"))) return null;
  const project = join(scratchDir, "tsconfig.json");
  await writeFile(project, JSON.stringify(projectOf(files, root)));
  const said = await run(compiler, ["-p", project, "--noEmit", "--pretty", "false"], root);
  const folders = new Set(files.map((file) => dirname(file)));
  const problems = said
    .split("\n")
    .map((line) => /^(.+?)\((\d+),\d+\): error (TS\d+: .*)$/.exec(line.trim()))
    .filter((match) => match !== null)
    .map(([, file = "", line, text]) => ({ file: resolve(root, file), line, text }))
    .filter(({ file }) => [...folders].some((folder) => file.startsWith(folder)))
    .map(({ file, line, text }) => `${file}:${line}: ${text}`);
  return { problems };
}

function projectOf(files: readonly string[], root: string): object {
  return {
    compilerOptions: {
      target: "es2022",
      lib: ["es2023", "esnext.disposable"],
      module: "nodenext",
      moduleResolution: "nodenext",
      strict: true,
      skipLibCheck: true,
      allowImportingTsExtensions: true,
      allowJs: true,
      noEmit: true,
      // As the loader has it: a declared field without a value overwrites nothing.
      useDefineForClassFields: false,
      paths: {
        "starling/modules": [join(root, "modules", "api.ts")],
        "starling/client": [join(root, "proto", "client.ts")],
      },
      typeRoots: [join(root, "node_modules", "@types")],
      types: ["node"],
    },
    files,
  };
}

function findCompiler(): string | null {
  try {
    return join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin", "tsc");
  } catch {
    // Not installed: a production install has no compiler.
    return null;
  }
}

/** The compiler ends with an error code when it finds something: its text is what counts. */
function run(compiler: string, args: readonly string[], cwd: string): Promise<string> {
  return new Promise((done) => {
    const options = { cwd, timeout: checkMaxMs, maxBuffer: 16 * 1024 * 1024 };
    execFile(process.execPath, [compiler, ...args], options, (_error, stdout, stderr) => done(stdout + stderr));
  });
}
