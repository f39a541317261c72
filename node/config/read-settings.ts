import type { z } from "zod";
import { type ConfigFile, type ConfigProblem, ConfigSection } from "../../modules/config-section.ts";
import { nearestHint } from "../../modules/nearest-name.ts";
import { showFound } from "../../modules/show-found.ts";
import { type SettingName, type Settings, settingHelp, settingsSchema } from "./settings.ts";
import { planProblems, type SettingsProblem } from "./settings-problem.ts";

/** Where settings come from, the later over the earlier. */
export interface SettingSources {
  /** `starling.yml`, null if there is none. */
  readonly file: ConfigFile | null;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Flags by the setting's name; undefined ones were not given. */
  readonly flags: Readonly<Record<string, unknown>>;
}

/** Merges the sources and checks them; adds problems, and to `ignored` the variables that mean nothing here. */
export function readSettings(sources: SettingSources, problems: ConfigProblem[], ignored: string[]): Settings {
  const given = new Map<SettingName, Given>();
  readFile(sources.file, given, problems);
  readEnvironment(sources.env, given, problems, ignored);
  readFlags(sources.flags, given, problems);
  const input = Object.fromEntries([...given].map(([name, { value }]) => [name, value]));
  const result = settingsSchema.safeParse(input);
  if (result.success) {
    problems.push(...planProblems(result.data).map((problem) => placed(problem, given)));
    return result.data;
  }
  for (const issue of result.error.issues) {
    const source = given.get(issue.path[0] as SettingName);
    if (source !== undefined) problems.push(problemOf(issue, source));
  }
  return settingsSchema.parse({});
}

interface Given {
  readonly value: unknown;
  readonly file: string;
  readonly line: number;
  readonly key: string;
}

type Issue = z.core.$ZodIssue;

/** Variables with our prefix that others read: the command line, tests, or Kubernetes for a service of that name. */
const otherVariable = /^STARLING_(?:CONFIG|SERVER|SERVICE_|PORT|FAIL_POINT)/;

function readFile(file: ConfigFile | null, given: Map<SettingName, Given>, problems: ConfigProblem[]): void {
  if (file === null) return;
  const section = ConfigSection.ofFile(file, problems);
  for (const { name, yamlKey } of settingHelp()) {
    const value = section.raw(yamlKey);
    if (value === undefined) continue;
    given.set(name, { value, file: file.file, line: file.lineOf([yamlKey]), key: yamlKey });
  }
  section.finish();
}

function readEnvironment(
  env: SettingSources["env"],
  given: Map<SettingName, Given>,
  problems: ConfigProblem[],
  ignored: string[],
): void {
  const known = new Map(settingHelp().map(({ name, variable }) => [variable, name]));
  for (const [variable, value] of Object.entries(env)) {
    // An empty variable is how shells and containers unset one.
    if (!variable.startsWith("STARLING_") || value === undefined || value === "") continue;
    const name = known.get(variable);
    const hint = nearestHint(variable, known.keys());
    if (name !== undefined) {
      given.set(name, { value, file: "environment", line: 0, key: variable });
    } else if (hint === "" || otherVariable.test(variable)) {
      if (!otherVariable.test(variable)) ignored.push(`environment: ${variable}: not a setting`);
    } else {
      const found = showFound(value);
      problems.push({
        file: "environment",
        line: 0,
        key: variable,
        found,
        allowed: "a setting",
        message: `unknown${hint}`,
      });
    }
  }
}

function readFlags(flags: SettingSources["flags"], given: Map<SettingName, Given>, problems: ConfigProblem[]): void {
  const known = new Map(settingHelp().map(({ name, flag }) => [name as string, { name, flag }]));
  for (const [name, value] of Object.entries(flags)) {
    if (value === undefined) continue;
    const setting = known.get(name);
    if (setting !== undefined) {
      given.set(setting.name, { value, file: "command line", line: 0, key: setting.flag });
    } else {
      const message = `unknown setting${nearestHint(name, known.keys())}`;
      problems.push({
        file: "command line",
        line: 0,
        key: name,
        found: showFound(value),
        allowed: "a setting",
        message,
      });
    }
  }
}

function problemOf(issue: Issue, { value, file, line, key }: Given): ConfigProblem {
  const allowed = allowedBy(issue);
  return { file, line, key, found: showFound(withoutPassword(value)), allowed, message: "does not fit the setting" };
}

/** A problem of several settings stands where the setting that it names was given. */
function placed({ name, allowed, message }: SettingsProblem, given: Map<SettingName, Given>): ConfigProblem {
  const { value, file, line, key } = given.get(name) ?? { value: undefined, file: "settings", line: 0, key: name };
  return { file, line, key, found: showFound(withoutPassword(value)), allowed, message };
}

function allowedBy(issue: Issue): string {
  switch (issue.code) {
    case "too_small":
      return `at least ${issue.minimum}`;
    case "too_big":
      return `at most ${issue.maximum}`;
    case "invalid_value":
      return issue.values.map(String).join(", ");
    case "invalid_type":
      return issue.expected === "int" ? "a whole number" : `a value of type ${issue.expected}`;
    case "invalid_format":
      return issue.message;
    default:
      return issue.message;
  }
}

/** Problems are logged and shown: a URL's password is not. */
function withoutPassword(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutPassword);
  return typeof value === "string" ? value.replace(/(:\/\/[^:@/]*:).*@/, "$1…@") : value;
}
