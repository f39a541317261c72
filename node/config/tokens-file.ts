import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { type ConfigFile, type ConfigProblem, ConfigSection, writeProblem } from "../../modules/config-section.ts";
import { nearestHint } from "../../modules/nearest-name.ts";
import { checkTime, timeForms } from "../../modules/time-text.ts";
import { StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import { type Grant, parseGrant, scopeForms } from "../access/scope.ts";
import type { KnownToken } from "../access/token.ts";
import { hashForms, parseHash, tokenNameForms, tokenNamePattern } from "../access/token-entry.ts";
import { parseConfigText } from "./config-directory.ts";

/** Its name in the configuration directory. */
export const tokensFileName = "tokens.yml";

/** Of one file. */
const tokensMax = 1_000;

/** The tokens of a file; null if there is none. Raises CONFIG with everything that is wrong in it. */
export async function readTokensFile(path: string, types: Iterable<string>): Promise<readonly KnownToken[] | null> {
  const text = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return null;
    throw new StarlingError("CONFIG", `${path} cannot be read: ${error.message}`, { cause: error });
  });
  if (text === null) return null;
  const problems: ConfigProblem[] = [];
  const file = parseConfigText(basename(path), text, problems);
  const tokens = file === null ? [] : parseTokens(file, types, problems);
  if (problems.length === 0) return tokens;
  throw new StarlingError(
    "CONFIG",
    [`${path} has ${problems.length} problem(s):`, ...problems.map(writeProblem)].join("\n"),
  );
}

/** Tokens by name, each with `hash`, `scopes` and perhaps `expires`; adds problems. `types` are those of the model. */
export function parseTokens(file: ConfigFile, types: Iterable<string>, problems: ConfigProblem[]): KnownToken[] {
  const root = ConfigSection.ofFile(file, problems);
  const known = new Set(types);
  const sections = root.sections();
  if (sections.length > tokensMax) root.report(null, "too many tokens", `at most ${tokensMax}`, sections.length);
  return sections.map(([name, section]) => {
    if (!tokenNamePattern.test(name)) root.report(name, "is no name of a token", tokenNameForms, name);
    const token = {
      name,
      hash: readHash(section),
      grants: section.textList("scopes").flatMap((text) => parseOne(section, text, known)),
      expiresAt: parseExpiry(section),
    };
    if (!section.has("scopes")) section.report("scopes", "is missing", scopeForms, undefined);
    section.finish();
    return token;
  });
}

function readHash(section: ConfigSection): Buffer {
  const hash = parseHash(section.text("hash", ""));
  // Not shown: somebody may have written the token itself.
  if (hash === null) section.report("hash", "is not what `starling token new` printed", hashForms, "another text");
  return hash ?? Buffer.alloc(32);
}

function parseOne(section: ConfigSection, text: string, known: ReadonlySet<string>): Grant[] {
  try {
    const grant = parseGrant(text);
    if (grant.type === null || known.has(grant.type)) return [grant];
    section.report("scopes", `unknown entity type${nearestHint(grant.type, known)}`, [...known].join(", "), grant.type);
  } catch {
    section.report("scopes", "is no scope", scopeForms, text);
  }
  return [];
}

function parseExpiry(section: ConfigSection): number | null {
  const value = section.raw("expires");
  if (value === undefined || value === null) return null;
  try {
    return checkTime(value).ms;
  } catch (error) {
    section.report("expires", toStarlingError(error).message, timeForms, value);
    return 0;
  }
}
