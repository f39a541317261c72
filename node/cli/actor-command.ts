import type { Command } from "commander";
import type { ActorsClient, ClientActorAddress } from "../../proto/actors-client.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { type AddressOptions, withAddress } from "./address.ts";
import { type CommandContext, examples, wholeNumber, withCalls } from "./command-context.ts";

interface ActorOptions extends AddressOptions {
  readonly json?: boolean;
  readonly key?: string;
  readonly timeout: number;
}

/** `starling actor …`: messages to behaviours of modules, and to singletons. */
export function addActorCommand(program: Command, context: CommandContext): void {
  const actor = program.command("actor").summary("send messages to the behaviours of modules, and ask them");
  actor.description("Messages to actors by name: a module's behaviour and a key, or a singleton without one.");
  const ask = addMessage(actor, "ask", "Sends a message and shows the reply.").option(
    "--json",
    "the reply as one line",
  );
  ask.addHelpText("after", examples("actor ask counter alice '{\"add\":1}'", "actor ask leaderboard '{}' --json"));
  ask.action((name: string, keyOrMessage: string, message: string | undefined, options: ActorOptions) =>
    withCalls(context, options, async ({ actors }) => {
      const reply = await call(actors.ask, { name, keyOrMessage, message }, options);
      if (options.json === true) context.output.json(reply);
      else context.output.print(JSON.stringify(reply, null, 2));
    }),
  );
  const send = addMessage(actor, "send", "Sends a message; done when it is in the log.").option("--json", "its place");
  send.addHelpText("after", examples("actor send counter alice '{\"add\":1}' --key order-17"));
  send.action((name: string, keyOrMessage: string, message: string | undefined, options: ActorOptions) =>
    withCalls(context, options, async ({ actors }) => {
      const token = await call(actors.send, { name, keyOrMessage, message }, options);
      if (options.json === true) context.output.json({ token });
      else context.output.print(`accepted: shard ${token?.shard}, seq ${token?.seq}`);
    }),
  );
}

function addMessage(actor: Command, verb: string, description: string): Command {
  return withAddress(actor.command(verb).description(description))
    .argument("<name>", "of the behaviour or singleton")
    .argument("<key>", "of the behaviour; nothing for a singleton")
    .argument("[message]", "JSON")
    .option("--key <text>", "idempotency key: the same message under it is taken once")
    .option("--timeout <seconds>", "how long to wait", wholeNumber(1, 30), 10);
}

async function call<T>(
  run: ActorsClient["ask"] | ((...args: Parameters<ActorsClient["ask"]>) => Promise<T>),
  of: { readonly name: string; readonly keyOrMessage: string; readonly message: string | undefined },
  { key, timeout }: ActorOptions,
): Promise<T> {
  const { name, keyOrMessage, message } = of;
  const to: ClientActorAddress = message === undefined ? { singleton: name } : { behaviour: name, key: keyOrMessage };
  const options = { deadlineMs: timeout * 1_000, ...(key !== undefined && { idempotencyKey: key }) };
  return run(to, parseMessage(message ?? keyOrMessage), options) as Promise<T>;
}

function parseMessage(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new StarlingError("INVALID_ARGUMENT", `the message is not JSON: ${why}; a text needs quotes of its own`);
  }
}
