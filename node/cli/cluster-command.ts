import type { Command } from "commander";
import { addDrainCommands } from "./cluster-drain-command.ts";
import { addMoveCommand, addWeightCommand } from "./cluster-place-commands.ts";
import { addClusterStartCommand } from "./cluster-start-command.ts";
import { addClusterStatusCommand } from "./cluster-status-command.ts";
import { addWhyCommand } from "./cluster-why-command.ts";
import { type CommandContext, examples } from "./command-context.ts";
import { type NodeFlags, nodeEnvironment, withNodeFlags } from "./node-options.ts";

/** `starling cluster …`: what concerns a cluster as a whole. */
export function addClusterCommand(program: Command, context: CommandContext): void {
  const cluster = program.command("cluster").summary("tend a cluster as a whole");
  cluster.description(
    "Shows and tends a cluster as a whole, by way of any of its nodes. NODE is a node's name, as `cluster status` shows it; SHARD " +
      "is a number, or group/number as in system/3.",
  );
  addClusterStartCommand(cluster, context);
  addClusterStatusCommand(cluster, context);
  addWhyCommand(cluster, context);
  addMoveCommand(cluster, context);
  addWeightCommand(cluster, context);
  addDrainCommands(cluster, context);
  const adopt = cluster
    .command("adopt")
    .summary("let the cluster's nodes meet at another etcd")
    .description(
      "Nodes refuse an etcd that lost its data, and any other than the one that their cluster was created with: it could make " +
        "a second cluster of one database. This says that the etcd of the configuration is the one from now on. No node of " +
        "the cluster may run.",
    )
    .argument("<dir>", "the configuration directory")
    .option("--json", "the result as JSON");
  withNodeFlags(adopt)
    .addHelpText("after", examples("cluster adopt /etc/starling", "cluster adopt /etc/starling --etcd 10.0.0.1:2379"))
    .action((dir: string, flags: NodeFlags & { readonly json?: boolean }) => runAdopt(context, dir, flags));
}

async function runAdopt(
  { output, env }: CommandContext,
  dir: string,
  { json, ...flags }: NodeFlags & { readonly json?: boolean },
): Promise<void> {
  // Loaded here, so that the other commands start without a node's packages.
  const { loadConfig } = await import("../config/load-config.ts");
  const { adoptEtcd } = await import("../adopt-etcd.ts");
  const { settings } = await loadConfig(dir, { env: nodeEnvironment(env), flags: flags as NodeFlags });
  const adopted = await adoptEtcd(settings);
  if (json === true) output.json(adopted);
  else output.print(`cluster ${adopted.clusterId} meets at etcd ${adopted.etcd.join(", ")} from now on`);
}
