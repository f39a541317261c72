import { type Command, InvalidArgumentError } from "commander";
import { type Client, type ConnectOptions, connect } from "../../proto/client.ts";
import { type Calls, type CallsOptions, openCalls } from "../../proto/client-calls.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { type AddressOptions, parseReach } from "./address.ts";
import type { Output } from "./output.ts";
import type { ByteSource } from "./read-item.ts";

/** The world of a command. */
export interface CommandContext {
  readonly output: Output;
  readonly env: NodeJS.ProcessEnv;
  readonly stdin: ByteSource;
  /** Aborted by Ctrl-C, SIGTERM, or when the reader of the answer goes away. */
  readonly signal: AbortSignal;
  /** Subscribes to SIGHUP; on a terminal that still ends the process. Returns the unsubscribe. */
  onReload(listener: () => void): () => void;
  /** The command has answered, and the answer is bad news: the process will end with 1. */
  fail(): void;
}

/** Adds one command to the program. */
export type CommandAdder = (program: Command, context: CommandContext) => void;

const connectMs = 3_000;

/** Runs with a session of a node, closed afterwards: for whoever sends. Raises UNAVAILABLE with the addresses. */
export async function withClient<T>(
  context: CommandContext,
  options: AddressOptions & Omit<ConnectOptions, keyof AddressOptions>,
  run: (client: Client) => Promise<T>,
): Promise<T> {
  const { address: _, ...rest } = options;
  const client = await connect({ connectMs, ...rest, ...parseReach(options, context.env) });
  try {
    return await run(client);
  } finally {
    await client.close();
  }
}

export interface CallBounds extends Pick<CallsOptions, "others" | "connectMs" | "callMs"> {}

/** Runs with a connection to a node that opens no session, closed afterwards. Raises UNAVAILABLE with the addresses. */
export async function withCalls<T>(
  context: CommandContext,
  options: AddressOptions & CallBounds,
  run: (calls: Calls) => Promise<T>,
): Promise<T> {
  const { callMs, others } = options;
  const bounds = { connectMs: options.connectMs ?? connectMs, ...(callMs && { callMs }), ...(others && { others }) };
  const calls = await openCalls({ ...parseReach(options, context.env), ...bounds });
  try {
    return await run(calls);
  } finally {
    await calls.close();
  }
}

/** A parser of an option whose complaints count as wrong usage. */
export function usage<T>(parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text);
    } catch (error) {
      if (error instanceof StarlingError) throw new InvalidArgumentError(error.message);
      throw error;
    }
  };
}

/** A parser of whole numbers within bounds. */
export function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const number = Number(text);
    if (/^\d+$/.test(text) && number >= min && number <= max) return number;
    throw new InvalidArgumentError(`expected a whole number from ${min} to ${max}.`);
  };
}

/** Examples below a command's help. */
export function examples(...lines: readonly string[]): string {
  return `\nExamples:\n${lines.map((line) => `  $ starling ${line}`).join("\n")}\n`;
}
