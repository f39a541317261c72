import type { Command } from "commander";
import type { AdminClient } from "../../proto/admin-client.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { type AddressOptions, withAddress } from "./address.ts";
import { type CommandContext, examples, wholeNumber, withCalls } from "./command-context.ts";
import { formatCount } from "./output.ts";
import { pauseUnlessAborted } from "./pause.ts";
import { formatDuration } from "./progress.ts";

interface DrainOptions extends AddressOptions {
  readonly json?: boolean;
  readonly timeout: number;
}

const lookEveryMs = 300;

/** `starling cluster drain` and `undrain`: a node gives everything up, or takes its share again. */
export function addDrainCommands(cluster: Command, context: CommandContext): void {
  const drain = cluster
    .command("drain")
    .summary("move all shards away from a node")
    .description(
      "Gives a node the weight 0, takes away the pins to it, and waits until it owns nothing: then it can be stopped without a " +
        "pause for anybody. It goes on serving its clients meanwhile, and stays drained over restarts until `cluster undrain`.",
    )
    .argument("<node>", "the node's name");
  withAddress(drain)
    .option("--timeout <seconds>", "how long to wait; the shards go on moving after that", wholeNumber(1, 86_400), 120)
    .option("--json", "the result as JSON: node, moved, unpinned, tookMs")
    .addHelpText("after", examples("cluster drain bob", "cluster drain bob --timeout 600 -a 10.0.0.5:4700"))
    .action((node: string, options: DrainOptions) =>
      withCalls(context, options, ({ admin }) => runDrain(context, admin, node, options)),
    );
  const undrain = cluster
    .command("undrain")
    .summary("let a drained node have its share again")
    .description("Takes back all weights that were set for a node: it has the weight 1 again, in all groups.")
    .argument("<node>", "the node's name");
  withAddress(undrain)
    .option("--json", "the result as JSON: node, weight")
    .addHelpText("after", examples("cluster undrain bob"))
    .action((node: string, options: Omit<DrainOptions, "timeout">) =>
      withCalls(context, options, async ({ admin }) => {
        await admin.weigh(node, null);
        if (options.json === true) context.output.json({ node, weight: 1 });
        else context.output.print(`${node} takes its share of the shards again`);
      }),
    );
}

async function runDrain(
  { output, signal }: CommandContext,
  admin: AdminClient,
  node: string,
  options: DrainOptions,
): Promise<void> {
  const begun = performance.now();
  const first = await countOwned(admin, node);
  const unpinned = await admin.drain(node);
  if (options.json !== true && unpinned.length > 0)
    output.print(`shards that were pinned to ${node} are pinned no longer: ${unpinned.join(", ")}`);
  let shown: number | null = null;
  for (;;) {
    const left = await countOwned(admin, node);
    const tookMs = Math.round(performance.now() - begun);
    if (left === 0) {
      if (output.interactive) output.rawError("\r\u001b[2K");
      if (options.json === true) output.json({ node, moved: first, unpinned, tookMs });
      else
        output.print(
          `${node} owns nothing any more, ${formatCount(first)} shards moved in ${formatDuration(tookMs)}: it can be stopped`,
        );
      return;
    }
    if (output.interactive) output.rawError(`\r\u001b[2K  ${node} has ${left} of ${first} shards left`);
    else if (left !== shown && options.json !== true) output.note(`${node} has ${left} of ${first} shards left`);
    shown = left;
    if (signal.aborted || tookMs > options.timeout * 1000) {
      if (output.interactive) output.rawError("\n");
      const text = `${node} still owns ${left} shards; they go on moving, \`cluster status\` shows it, \`cluster undrain ${node}\` calls it off`;
      throw new StarlingError("DEADLINE", text);
    }
    await pauseUnlessAborted(signal, lookEveryMs);
  }
}

/** One that is gone owns nothing. */
async function countOwned(admin: AdminClient, name: string): Promise<number> {
  const { shards } = await admin.clusterStatus();
  return shards.filter(({ owner }) => owner === name).length;
}
