import type { Command } from "commander";
import { StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import { type Grant, parseGrant, writeGrant } from "../access/scope.ts";
import { createToken, type KnownToken } from "../access/token.ts";
import { parseTokenEnd, tokenNameForms, tokenNamePattern, writeHash, writeTokenEntry } from "../access/token-entry.ts";
import { type CommandContext, examples, usage } from "./command-context.ts";

interface NewOptions {
  readonly name: string;
  readonly scope: readonly Grant[];
  readonly expires?: number;
  readonly json?: boolean;
}

/** `starling token …`: what clients show to be known. */
export function addTokenCommand(program: Command, context: CommandContext): void {
  program
    .command("token")
    .summary("make tokens for clients")
    .command("new")
    .description(
      "Makes a token. It is shown once, on standard error; standard output gets the entry for tokens.yml of the " +
        "configuration directory, which holds only its hash. Nodes read that file again by themselves.",
    )
    .requiredOption("--name <name>", "whose token it is", usage(parseName))
    .requiredOption(
      "--scope <scope>",
      "what it allows: ingest, read, control, or one of them for one entity type, as ingest:TYPE; repeatable",
      collectGrant,
    )
    .option("--expires <when>", "a time, or how long it lasts, such as 90d; default: for ever", usage(parseEnd))
    .option("--json", "token and entry as JSON")
    .addHelpText(
      "after",
      examples(
        "token new --name sensors --scope ingest:sensor >> /etc/starling/tokens.yml",
        "token new --name grafana --scope read --expires 365d",
        "token new --name admin --scope ingest --scope read --scope control --json",
      ),
    )
    .action((options: NewOptions) => printNew(context, options));
}

function printNew({ output }: CommandContext, options: NewOptions): void {
  const { token, hash } = createToken();
  const known: KnownToken = { name: options.name, hash, grants: options.scope, expiresAt: options.expires ?? null };
  if (options.json === true) {
    const expires = known.expiresAt === null ? null : new Date(known.expiresAt).toISOString();
    output.json({ name: known.name, token, hash: writeHash(hash), scopes: known.grants.map(writeGrant), expires });
    return;
  }
  output.print(writeTokenEntry(known));
  output.note(`token, shown only now: ${token}`);
}

function parseName(text: string): string {
  if (tokenNamePattern.test(text)) return text;
  throw new StarlingError("INVALID_ARGUMENT", `expected ${tokenNameForms}.`);
}

function collectGrant(text: string, grants: readonly Grant[] = []): Grant[] {
  return [...grants, usage(parseGrant)(text)];
}

function parseEnd(text: string): number {
  try {
    return parseTokenEnd(text, Date.now());
  } catch (error) {
    throw new StarlingError("INVALID_ARGUMENT", toStarlingError(error).message, { cause: error });
  }
}
