import type { Command } from "commander";
import type { ClusterStatus } from "../../proto/cluster-status.ts";
import { type StarlingError, toStarlingError } from "../../proto/starling-error.ts";
import { type AddressOptions, withAddress } from "./address.ts";
import { describeError } from "./cli-error.ts";
import { isWell, linesOfStatus } from "./cluster-status-text.ts";
import { type CommandContext, examples, withCalls } from "./command-context.ts";
import { untilAborted } from "./node-command.ts";
import { formatTime, type Output } from "./output.ts";
import { pauseUnlessAborted } from "./pause.ts";
import { openScreen } from "./screen.ts";

interface StatusOptions extends AddressOptions {
  readonly json?: boolean;
  readonly shards?: boolean;
  readonly watch?: boolean;
}

/** A node answers within 1.5 s, whoever else does not; all in all that is less than three. */
const bounds = { connectMs: 2_000, callMs: 2_000 };
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

/**
 * Redraws on a terminal; elsewhere one block follows another. Where the asked node falls silent, another one is asked that
 * the cluster has told of; where nobody answers, that is said, and all are asked again.
 */
async function watch(context: CommandContext, options: StatusOptions): Promise<void> {
  const { output, signal } = context;
  const show = options.json === true ? jsonScreen(output) : textScreen(output, options.shards === true);
  const stopped = untilAborted(signal);
  let others: readonly string[] = [];
  try {
    while (!signal.aborted) {
      const begun = performance.now();
      const asked = ask(context, options, others).catch((error: unknown) => toStarlingError(error));
      const status = await Promise.race([asked, stopped]);
      if (status === null) return;
      show.status(status);
      if ("nodes" in status) others = status.nodes.map(({ address }) => address).filter((address) => address !== "");
      await output.drained();
      await pauseUnlessAborted(signal, Math.max(0, watchEveryMs - (performance.now() - begun)));
    }
  } finally {
    show.close();
  }
}

interface StatusScreen {
  status(status: ClusterStatus | StarlingError): void;
  close(): void;
}

function textScreen(output: Output, withShards: boolean): StatusScreen {
  const screen = openScreen(output);
  return {
    status: (status) => {
      const lines =
        "code" in status ? describeError(status).split("\n") : linesOfStatus(status, output.paint, withShards);
      screen.draw([output.paint("dim", formatTime(Date.now())), ...lines]);
    },
    close: screen.close,
  };
}

function jsonScreen(output: Output): StatusScreen {
  return {
    status: (status) =>
      output.json("code" in status ? { error: { code: status.code, message: status.message } } : status),
    close: () => {},
  };
}

function ask(context: CommandContext, options: StatusOptions, others: readonly string[] = []): Promise<ClusterStatus> {
  return withCalls(context, { ...options, ...bounds, others }, ({ admin }) => admin.clusterStatus());
}
