import { type Command, Option } from "commander";
import { settingHelp } from "../config/settings.ts";

/** Flags by the setting's name, as the configuration wants them. */
export type NodeFlags = Readonly<Record<string, string | undefined>>;

const shownFirst = new Set(["listen", "dataDir", "databaseUrl", "logLevel"]);

/** Adds a flag for every setting; the values are checked with the rest of the configuration. */
export function withNodeFlags(command: Command): Command {
  for (const { name, flag, description, fallback } of settingHelp()) {
    const shown = fallback === null || String(fallback) === "" ? "" : ` (default: ${fallback})`;
    const group = shownFirst.has(name)
      ? "Options:"
      : "Limits and times (each also a key of starling.yml and STARLING_…):";
    command.addOption(new Option(`${flag} <value>`, `${description}${shown}`).helpGroup(group));
  }
  return command;
}

/** Variables that the command line itself reads; a node must not wonder about them. */
const ownVariables = new Set(["STARLING_ADDRESS", "STARLING_DEBUG", "STARLING_TOKEN"]);

/** The environment as the configuration sees it. */
export function nodeEnvironment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !ownVariables.has(name)));
}
