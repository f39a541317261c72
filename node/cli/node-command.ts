import type { Command } from "commander";
import { createLog } from "../log.ts";
import { type CommandContext, examples } from "./command-context.ts";
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
        "node /etc/starling --listen 0.0.0.0:4700 --database-url postgres://starling@db/starling",
      ),
    )
    .action((dir: string, flags: NodeFlags) => runNode(context, dir, flags));
}

async function runNode(context: CommandContext, configDir: string, flags: NodeFlags): Promise<void> {
  // Loaded here, so that the other commands start without a node's packages.
  const { startNode } = await import("../node.ts");
  const log = createLog({ pretty: context.output.interactive, colour: context.output.interactive });
  const node = await startNode({ configDir, flags, env: nodeEnvironment(context.env), log });
  log.info({ address: node.address }, "serving");
  try {
    await untilAborted(context.signal);
    log.info({}, "stopping");
  } finally {
    await node.close();
  }
  log.info({}, "stopped");
}

/** Waits for Ctrl-C or SIGTERM. */
export function untilAborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
