import type { Command } from "commander";
import { createLog } from "../log.ts";
import { type CommandContext, examples } from "./command-context.ts";
import { endAnyway } from "./end-anyway.ts";
import { type NodeFlags, nodeEnvironment, withNodeFlags } from "./node-options.ts";

/** `starling node DIR`: one node, until a signal ends it. */
export function addNodeCommand(program: Command, context: CommandContext): void {
  const command = program
    .command("node")
    .summary("run a node on a configuration directory")
    .description(
      "Runs a node until Ctrl-C or SIGTERM, which finish what is in hand; a second one ends at once. Without a database " +
        "URL it brings its own PostgreSQL, in the data folder.",
    )
    .argument("<dir>", "the configuration directory");
  withNodeFlags(command)
    .addHelpText(
      "after",
      examples(
        "node examples/flights/config",
        "node /etc/starling --database-url postgres://starling@db/starling",
        "node /etc/starling --name ada --listen 0.0.0.0:4700 --tls-cert ada.pem --tls-key ada.key --tls-ca ca.pem",
      ),
    )
    .action((dir: string, flags: NodeFlags) => runNode(context, dir, flags));
}

async function runNode(context: CommandContext, configDir: string, flags: NodeFlags): Promise<void> {
  // Loaded here, so that the other commands start without a node's packages.
  const { startNode } = await import("../node.ts");
  const { output, env, signal, onReload } = context;
  const log = createLog({ pretty: output.interactive, colour: output.interactive });
  const started = startNode({ configDir, flags, env: nodeEnvironment(env), log, signal });
  const node = await unlessAborted(started, signal);
  if (node === null) return;
  const stopListening = onReload(() => {
    log.info({}, "reloading certificates and tokens");
    void node.reload();
  });
  try {
    const failure = await Promise.race([untilAborted(signal), node.failed]);
    log.info({}, "stopping");
    if (failure !== null) throw failure;
  } finally {
    stopListening();
    await node.close();
    log.info({}, "stopped");
    endAnyway((left) => log.warn({ left }, "ended although something was left open"));
  }
}

/** Waits for Ctrl-C or SIGTERM. */
export function untilAborted(signal: AbortSignal): Promise<null> {
  if (signal.aborted) return Promise.resolve(null);
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(null), { once: true }));
}

/** A node that was started; null when the person gave the start up, whatever error that made. */
export async function unlessAborted<T>(started: Promise<T>, signal: AbortSignal): Promise<T | null> {
  try {
    return await started;
  } catch (error) {
    if (signal.aborted) return null;
    throw error;
  }
}
