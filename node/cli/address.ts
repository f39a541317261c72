import { type Command, Option } from "commander";
import type { ClientTls, ReachOptions } from "../../proto/client-dialler.ts";
import { StarlingError } from "../../proto/starling-error.ts";

/** Where a node listens unless told otherwise. */
export const defaultAddress = "127.0.0.1:4700";

/** What every command that talks to a node may be told. */
export interface AddressOptions {
  readonly address?: string | undefined;
  readonly tlsCa?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly allowPlaintext?: boolean;
  readonly token?: string;
}

/** Adds the options of {@link AddressOptions}. */
export function withAddress(command: Command): Command {
  const group = "Connection (each also a variable STARLING_…):";
  const add = (flags: string, description: string): void =>
    void command.addOption(new Option(flags, description).helpGroup(group));
  add(
    "-a, --address <host:port>",
    `the node to talk to, or several with commas: the first that answers (default: $STARLING_ADDRESS, or ${defaultAddress})`,
  );
  add("--tls-ca <file>", "talk TLS, and trust nodes of these authorities (PEM)");
  add("--tls-cert <file>", "certificate to show, where nodes ask for one (PEM)");
  add("--tls-key <file>", "its key (PEM)");
  add("--allow-plaintext", "talk plain text beyond loopback, too");
  add("--token <token>", "who asks; better in STARLING_TOKEN, as others see command lines");
  return command;
}

/** Where nodes are and how they are reached: flags, then variables, then the default. Throws INVALID_ARGUMENT. */
export function parseReach(
  options: AddressOptions,
  env: NodeJS.ProcessEnv,
): ReachOptions & { readonly addresses: readonly string[] } {
  return { addresses: parseAddresses(options.address, env), ...reachOf(options, env) };
}

/** How nodes are reached, wherever they are. */
export function reachOf(options: Omit<AddressOptions, "address">, env: NodeJS.ProcessEnv): ReachOptions {
  const token = options.token ?? textOf(env.STARLING_TOKEN);
  const tls = tlsOf(options, env);
  const allowPlaintext = options.allowPlaintext ?? env.STARLING_ALLOW_PLAINTEXT === "true";
  return { allowPlaintext, ...(token !== undefined && { token }), ...(tls !== null && { tls }) };
}

function tlsOf(options: Omit<AddressOptions, "address">, env: NodeJS.ProcessEnv): ClientTls | null {
  const ca = options.tlsCa ?? textOf(env.STARLING_TLS_CA);
  const cert = options.tlsCert ?? textOf(env.STARLING_TLS_CERT);
  const key = options.tlsKey ?? textOf(env.STARLING_TLS_KEY);
  if (ca === undefined && cert === undefined && key === undefined) return null;
  return { ...(ca !== undefined && { ca }), ...(cert !== undefined && { cert }), ...(key !== undefined && { key }) };
}

/** An empty variable is how shells unset one. */
function textOf(variable: string | undefined): string | undefined {
  return variable === "" ? undefined : variable;
}

/** The addresses a command talks to: the flag, `STARLING_ADDRESS`, or the default. Throws INVALID_ARGUMENT. */
export function parseAddresses(flag: string | undefined, env: NodeJS.ProcessEnv): readonly string[] {
  const texts = (flag ?? env.STARLING_ADDRESS ?? defaultAddress).split(",");
  return [...new Set(texts.map((text) => parseAddress(text.trim())))];
}

function parseAddress(text: string): string {
  const match = /^(\[[0-9a-fA-F:.%]+\]|[^:\s/[\]]+)(?::(\d{1,5}))?$/.exec(text);
  const port = Number(match?.[2] ?? 4700);
  if (match === null || port < 1 || port > 65_535) {
    throw new StarlingError("INVALID_ARGUMENT", `${JSON.stringify(text)} is not an address: expected host:port`);
  }
  return `${match[1]}:${port}`;
}
