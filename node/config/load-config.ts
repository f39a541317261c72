import { stat } from "node:fs/promises";
import type { ConfigFile, ConfigProblem } from "../../modules/config-section.ts";
import { writeProblem } from "../../modules/config-section.ts";
import type { Model } from "../../modules/model.ts";
import { parseModel } from "../../modules/parse-model.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { readConfigDirectory } from "./config-directory.ts";
import { type PlatformConfig, parsePlatform } from "./platform-config.ts";
import { readSettings, type SettingSources } from "./read-settings.ts";
import type { Settings } from "./settings.ts";
import { parseTokens, tokensFileName } from "./tokens-file.ts";

/** Everything that a configuration directory, the environment and the flags say. */
export interface LoadedConfig {
  readonly settings: Settings;
  readonly model: Model;
  readonly platform: PlatformConfig;
  /** Absolute; null if there are only built-in modules. */
  readonly modulesDir: string | null;
  readonly enabledModules: readonly string[];
  readonly moduleConfigs: ReadonlyMap<string, unknown>;
  /** What was understood and means nothing to Starling, one sentence each: to be said once. */
  readonly ignored: readonly string[];
}

/** Loads and checks a configuration directory. Throws CONFIG whose message lists every problem, one a line. */
export async function loadConfig(
  directory: string,
  { env, flags }: Pick<SettingSources, "env" | "flags">,
): Promise<LoadedConfig> {
  const problems: ConfigProblem[] = [];
  const ignored: string[] = [];
  const { path, files } = await readConfigDirectory(directory, problems);
  const starling = files.find(({ file }) => file === "starling.yml") ?? null;
  const entities = files.filter(({ file }) => /^db_entities\/[^/]+$/.test(file));
  if (starling === null && entities.length === 0 && problems.length === 0)
    problems.push(notAConfiguration(path, files));
  const settings = readSettings({ file: starling, env, flags }, problems, ignored);
  const model = parseModel(entities, problems);
  const platform = parsePlatform({ path, files }, problems, ignored);
  await checkModulesDir(platform, files, problems);
  const tokens = files.find(({ file }) => file === tokensFileName);
  if (tokens !== undefined) parseTokens(tokens, model.entities.keys(), problems);
  if (problems.length > 0) throw new StarlingError("CONFIG", listProblems(path, problems));
  const { modulesDir, enabledModules, moduleConfigs } = platform;
  return { settings, model, platform, modulesDir, enabledModules, moduleConfigs, ignored };
}

/** The settings alone, where the rest of a directory may be wrong; null: they are wrong, too, or cannot be read. */
export async function loadSettings(
  directory: string,
  { env, flags }: Pick<SettingSources, "env" | "flags">,
): Promise<Settings | null> {
  const problems: ConfigProblem[] = [];
  try {
    const { files } = await readConfigDirectory(directory, []);
    const settings = readSettings(
      { file: files.find(({ file }) => file === "starling.yml") ?? null, env, flags },
      problems,
      [],
    );
    return problems.length === 0 ? settings : null;
  } catch {
    return null; // the directory cannot be read, which `loadConfig` has said
  }
}

function listProblems(path: string, problems: readonly ConfigProblem[]): string {
  const sorted = [...problems].sort((a, b) => (a.file === b.file ? a.line - b.line : a.file < b.file ? -1 : 1));
  return [`the configuration in ${path} has ${problems.length} problem(s):`, ...sorted.map(writeProblem)].join("\n");
}

function notAConfiguration(path: string, files: readonly ConfigFile[]): ConfigProblem {
  const found = files.length === 0 ? "no *.yml file" : `${files.length} other *.yml file(s)`;
  return {
    file: path,
    line: 0,
    key: "",
    found,
    allowed: "db_entities/*.yml or starling.yml",
    message: "no configuration",
  };
}

async function checkModulesDir(
  platform: PlatformConfig,
  files: readonly ConfigFile[],
  problems: ConfigProblem[],
): Promise<void> {
  if (platform.modulesDir === null) return;
  // A directory that cannot be looked at is as good as none.
  const found = await stat(platform.modulesDir).catch(() => null);
  if (found?.isDirectory()) return;
  const file = files.find((one) => one.file === "processing_core.yml");
  problems.push({
    file: "processing_core.yml",
    line: file?.lineOf(["modules_dir"]) ?? 0,
    key: "modules_dir",
    found: platform.modulesDir,
    allowed: "a directory, relative to the configuration",
    message: "there is no such directory",
  });
}
