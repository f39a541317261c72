import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Command } from "commander";
import { StarlingError } from "../../proto/starling-error.ts";
import type { LoadedConfig } from "../config/load-config.ts";
import { type CommandContext, examples } from "./command-context.ts";
import { type NodeFlags, nodeEnvironment } from "./node-options.ts";

/** What is wrong with a configuration directory, and what it holds. */
export interface CheckResult {
  readonly problems: readonly StarlingError[];
  /** What was understood and means nothing to Starling. */
  readonly notes: readonly string[];
  readonly entities: number;
  readonly attributes: number;
  readonly modules: readonly string[];
}

/** `starling check DIR`: everything that is wrong with a configuration, without starting anything. */
export function addCheckCommand(program: Command, context: CommandContext): void {
  program
    .command("check")
    .summary("say everything that is wrong with a configuration directory")
    .description(
      "Loads a configuration directory and its modules as a node would, checks the modules' types, and says everything " +
        "that is wrong. Starts nothing.",
    )
    .argument("<dir>", "the configuration directory")
    .option("--json", "the result as JSON")
    .addHelpText("after", examples("check examples/flights/config", "check /etc/starling --json"))
    .action(async (dir: string, options: { readonly json?: boolean }) => {
      const result = await checkConfiguration(dir, nodeEnvironment(context.env), {});
      printResult(context, dir, result, options.json === true);
      if (result.problems.length > 0) context.fail();
    });
}

/** Loads the configuration, then every module on its own, so that one broken module does not hide another. */
export async function checkConfiguration(dir: string, env: NodeJS.ProcessEnv, flags: NodeFlags): Promise<CheckResult> {
  // Loaded here, so that the other commands start without a node's packages.
  const { loadConfig } = await import("../config/load-config.ts");
  try {
    const config = await loadConfig(dir, { env, flags });
    const problems = await checkModules(config);
    const entities = [...config.model.entities.values()];
    return {
      problems,
      notes: config.ignored,
      entities: entities.length,
      attributes: entities.reduce((sum, { attributes }) => sum + attributes.size, 0),
      modules: config.enabledModules,
    };
  } catch (error) {
    if (!(error instanceof StarlingError)) throw error;
    return { problems: [error], notes: [], entities: 0, attributes: 0, modules: [] };
  }
}

async function checkModules(config: LoadedConfig): Promise<StarlingError[]> {
  const { modulesDir, enabledModules } = config;
  if (enabledModules.length === 0) return [];
  if (modulesDir === null) {
    return [new StarlingError("CONFIG", "processing_core.yml: enabled_modules needs modules_dir")];
  }
  const cacheDir = await mkdtemp(join(tmpdir(), "starling-check-"));
  try {
    const problems: StarlingError[] = [];
    const files: string[] = [];
    for (const name of new Set(enabledModules)) {
      const loaded = await checkModule(config, modulesDir, name, cacheDir);
      if (loaded instanceof StarlingError) problems.push(loaded);
      else files.push(loaded);
    }
    const twice = enabledModules.filter((name, index) => enabledModules.indexOf(name) !== index);
    for (const name of new Set(twice)) {
      problems.push(new StarlingError("MODULE", `module '${name}' is enabled twice: remove one from enabled_modules`));
    }
    return [...problems, ...(await checkTypes(files, cacheDir))];
  } finally {
    await rm(cacheDir, { recursive: true, force: true });
  }
}

/** The file of a module that loads and registers; else what is wrong with it. */
async function checkModule(
  config: LoadedConfig,
  modulesDir: string,
  name: string,
  cacheDir: string,
): Promise<string | StarlingError> {
  const { loadConfigured } = await import("./load-configured.ts");
  try {
    const { modules } = await loadConfigured(config, { modulesDir, enabled: [name], cacheDir });
    return modules[0]?.file ?? "";
  } catch (error) {
    if (error instanceof StarlingError) return error;
    throw error;
  }
}

async function checkTypes(files: readonly string[], scratchDir: string): Promise<StarlingError[]> {
  const sources = files.filter((file) => file.endsWith(".ts"));
  if (sources.length === 0) return [];
  const { checkModuleTypes } = await import("./module-types.ts");
  const checked = await checkModuleTypes(sources, scratchDir);
  return (checked?.problems ?? []).map((problem) => new StarlingError("MODULE", problem));
}

function printResult(context: CommandContext, dir: string, result: CheckResult, json: boolean): void {
  const { output } = context;
  const { problems, notes, entities, attributes, modules } = result;
  if (json) {
    const list = problems.map(({ code, message }) => ({ code, message }));
    output.json({ ok: problems.length === 0, problems: list, notes, entities, attributes, modules });
    return;
  }
  for (const note of notes) output.note(`note: ${note}`);
  for (const { code, message } of problems) output.note(`starling: ${code}: ${message}`);
  if (problems.length > 0) return;
  const names = modules.length === 0 ? "no modules" : `modules ${modules.join(", ")}`;
  output.print(
    `${dir}: ${output.paint("green", "good")}; ${entities} entity types, ${attributes} attributes, ${names}`,
  );
}
