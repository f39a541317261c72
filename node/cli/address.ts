import type { Command } from "commander";
import { StarlingError } from "../../proto/starling-error.ts";

/** Where a node listens unless told otherwise. */
export const defaultAddress = "127.0.0.1:4700";

/** The option that every command that talks to a node has. */
export function withAddress(command: Command): Command {
  return command.option(
    "-a, --address <host:port>",
    `the node to talk to (default: $STARLING_ADDRESS, or ${defaultAddress})`,
  );
}

/** The address a command talks to: the flag, `STARLING_ADDRESS`, or the default. Throws INVALID_ARGUMENT. */
export function parseAddress(flag: string | undefined, env: NodeJS.ProcessEnv): string {
  const text = flag ?? env.STARLING_ADDRESS ?? defaultAddress;
  const match = /^(\[[0-9a-fA-F:.%]+\]|[^:\s/[\]]+)(?::(\d{1,5}))?$/.exec(text);
  const port = Number(match?.[2] ?? 4700);
  if (match === null || port < 1 || port > 65_535) {
    throw new StarlingError("INVALID_ARGUMENT", `${JSON.stringify(text)} is not an address: expected host:port`);
  }
  return `${match[1]}:${port}`;
}
