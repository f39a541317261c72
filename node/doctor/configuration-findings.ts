import { type ConfigProblem, writeProblem } from "../../modules/config-section.ts";
import { toStarlingError } from "../../proto/starling-error.ts";
import { type LoadedConfig, loadConfig, loadSettings } from "../config/load-config.ts";
import { readSettings, type SettingSources } from "../config/read-settings.ts";
import type { Settings } from "../config/settings.ts";
import { createReport, type Finding } from "./finding.ts";

export interface ConfigurationLook {
  readonly findings: readonly Finding[];
  /** Null: they are wrong, so nothing is known of what the node needs. */
  readonly settings: Settings | null;
}

export interface ConfigurationSources extends Pick<SettingSources, "env" | "flags"> {
  /** Null: settings come from variables and flags alone. */
  readonly dir: string | null;
}

/** Reads the configuration. Settings are used also where the model or a module's configuration is wrong. */
export async function readConfiguration({ dir, env, flags }: ConfigurationSources): Promise<ConfigurationLook> {
  const report = createReport(dir === null ? "configuration" : `configuration ${dir}`);
  if (dir === null) {
    const problems: ConfigProblem[] = [];
    const settings = readSettings({ file: null, env, flags }, problems, []);
    for (const problem of problems) complain(report, writeProblem(problem));
    if (problems.length > 0) return { findings: report.findings, settings: null };
    report.ok("settings", "no directory was named: those of variables and flags, else the defaults");
    return { findings: report.findings, settings };
  }
  try {
    const config = await loadConfig(dir, { env, flags });
    judgeConfiguration(report, config);
    return { findings: report.findings, settings: config.settings };
  } catch (error) {
    const [title = "", ...problems] = toStarlingError(error, "CONFIG").message.split("\n");
    for (const problem of problems.length === 0 ? [title] : problems) complain(report, problem);
    return { findings: report.findings, settings: await loadSettings(dir, { env, flags }) };
  }
}

type Report = ReturnType<typeof createReport>;

function judgeConfiguration(report: Report, { model, enabledModules, ignored, settings }: LoadedConfig): void {
  const names = enabledModules.length === 0 ? "no modules" : `modules ${enabledModules.join(", ")}`;
  report.ok("configuration", `${model.entities.size} entity types, ${names}`);
  for (const found of ignored) report.ok("ignored", found);
  if (settings.etcd !== null && settings.advertise === null && /^(0\.0\.0\.0|\[::\]):/.test(settings.listen)) {
    report.problem("advertise", {
      found: `\`listen\` is ${settings.listen}, and \`advertise\` is not set`,
      expected: "an address at which other nodes reach this one",
      remedy: "set `advertise` to the machine's name or address, with the port",
    });
  }
}

function complain(report: Report, found: string): void {
  const remedy = "mend it there; starling check DIR loads the modules, too";
  report.problem("configuration", { found: found.trim(), expected: "a valid configuration", remedy });
}
