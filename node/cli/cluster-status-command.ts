import type { Command } from "commander";
import type { ClusterStatus } from "../../proto/cluster-status.ts";
import { toStarlingError } from "../../proto/starling-error.ts";
import { type AddressOptions, withAddress } from "./address.ts";
import { describeError } from "./cli-error.ts";
import { isWell, linesOfStatus } from "./cluster-status-text.ts";
import { type CommandContext, examples, withCalls } from "./command-context.ts";
import { formatTime, type Output } from "./output.ts";
import { pauseUnlessAborted } from "./pause.ts";

interface StatusOptions extends AddressOptions {
  readonly json?: boolean;
  readonly shards?: boolean;
  readonly watch?: boolean;
}

/** A node answers within two seconds, whoever else does not. */
const callMs = 3_000;
const watchEveryMs = 1_000;

/** `starling cluster status`: every node and shard of a cluster. */
export function addClusterStatusCommand(cluster: Command, context: CommandContext): void {
  const command = cluster
    .command("status")
    .summary("show all nodes and shards")
    .description(
      "Shows all nodes and shards of a cluster, as one of its nodes sees them; it asks the others, and says who did not answer. " +
        "Ends with 1 when a node does not serve or answer, when a shard is nobody's, and when etcd or PostgreSQL is away.",
    );
  withAddress(command)
    .option("--shards", "every shard on a line of its own")
    .option("-w, --watch", "again every second, until Ctrl-C")
    .option("--json", "the status as JSON, one line each time")
    .addHelpText(
      "after",
      examples("cluster status", "cluster status --watch -a 10.0.0.5:4700", "cluster status --json"),
    )
    .action((options: StatusOptions) =>
      options.watch === true ? watch(context, options) : showOnce(context, options),
    );
}

async function showOnce(context: CommandContext, options: StatusOptions): Promise<void> {
  const status = await ask(context, options);
  if (options.json === true) context.output.json(status);
  else
    for (const line of linesOfStatus(status, context.output.paint, options.shards === true)) context.output.print(line);
  if (!isWell(status)) context.fail();
}

/** Redraws on a terminal; elsewhere one block follows another. Who does not answer is told of, and asked again. */
async function watch(context: CommandContext, options: StatusOptions): Promise<void> {
  const { output, signal } = context;
  while (!signal.aborted) {
    const begun = performance.now();
    const status = await ask(context, options).catch((error: unknown) => toStarlingError(error));
    if (signal.aborted) return;
    if ("code" in status) {
      if (options.json === true) output.json({ error: { code: status.code, message: status.message } });
      else draw(output, describeError(status).split("\n"));
    } else if (options.json === true) output.json(status);
    else draw(output, linesOfStatus(status, output.paint, options.shards === true));
    await output.drained();
    await pauseUnlessAborted(signal, Math.max(0, watchEveryMs - (performance.now() - begun)));
  }
}

function ask(context: CommandContext, options: StatusOptions): Promise<ClusterStatus> {
  return withCalls(context, { ...options, callMs }, ({ admin }) => admin.clusterStatus());
}

/** One screen at a time: what was there is overwritten line by line, so that nothing flickers. */
function draw(output: Output, lines: readonly string[]): void {
  const at = output.paint("dim", formatTime(Date.now()));
  if (output.drawable) output.print(`\u001b[H${[at, ...lines].join("\u001b[K\n")}\u001b[K\u001b[J`);
  else for (const line of [at, ...lines, ""]) output.print(line);
}
