import type { Command } from "commander";
import type { NodeStatus } from "../../proto/admin-client.ts";
import { type AddressOptions, withAddress } from "./address.ts";
import { type CommandContext, examples, withCalls } from "./command-context.ts";
import { formatCount } from "./output.ts";
import { formatDuration } from "./progress.ts";

interface StatusOptions extends AddressOptions {
  readonly json?: boolean;
  readonly shards?: boolean;
}

/** `starling status`: how a node is. */
export function addStatusCommand(program: Command, context: CommandContext): void {
  const command = program
    .command("status")
    .summary("show how a node is")
    .description("Shows how a node is. Ends with 1 when it does not serve.");
  withAddress(command)
    .option("--shards", "every shard on a line of its own")
    .option("--json", "the status as JSON")
    .addHelpText("after", examples("status", "status -a 10.0.0.5:4700 --shards", "status --json"))
    .action((options: StatusOptions) =>
      withCalls(context, options, async ({ admin }) => {
        const status = await admin.status();
        if (options.json === true) context.output.json(status);
        else printStatus(context, status, options.shards === true);
        if (status.state !== "serving") context.fail();
      }),
    );
}

function printStatus(context: CommandContext, status: NodeStatus, withShards: boolean): void {
  const { output } = context;
  const { node, name, state, version, clusterId, modelHash, uptimeS, shards, problem } = status;
  output.print(`${output.paint("bold", name || node)}  ${output.paint(state === "serving" ? "green" : "red", state)}`);
  if (problem !== "") output.print(`problem     ${output.paint("red", problem)}`);
  output.print(`node        ${node}`);
  output.print(`version     ${version}`);
  output.print(`cluster     ${clusterId}`);
  output.print(`model       ${modelHash.slice(0, 16)}`);
  output.print(`up          ${formatDuration(uptimeS * 1000)}`);
  const sum = (pick: (shard: NodeStatus["shards"][number]) => number) =>
    formatCount(shards.reduce((total, shard) => total + pick(shard), 0));
  output.print(`shards      ${formatCount(shards.length)}`);
  output.print(`resident    ${sum((shard) => shard.residentEntities)} entities`);
  output.print(`unprocessed ${sum((shard) => shard.lag)} log entries`);
  output.print(`undelivered ${sum((shard) => shard.undelivered)} derived tasks`);
  const counters = Object.entries(status.counters).sort(([a], [b]) => a.localeCompare(b, "en"));
  if (counters.length > 0) {
    output.print();
    output.table(
      ["counter", "count"],
      counters.map(([name, count]) => [name, formatCount(count)]),
    );
  }
  if (withShards) {
    output.print();
    const header = ["shard", "epoch", "last seq", "watermark", "resident", "undelivered"];
    output.table(
      header,
      shards.map((shard) => Object.values(shard).map((value) => formatCount(value))),
    );
  }
}
