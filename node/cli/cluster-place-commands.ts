import { type Command, InvalidArgumentError, Option } from "commander";
import type { AdminClient } from "../../proto/admin-client.ts";
import type { ShardId } from "../../proto/ids.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { type AddressOptions, withAddress } from "./address.ts";
import { type CommandContext, examples, wholeNumber, withCalls } from "./command-context.ts";
import { pauseUnlessAborted } from "./pause.ts";
import { parseShard, shardText } from "./shard-argument.ts";

interface MoveOptions extends AddressOptions {
  readonly json?: boolean;
  readonly unpin?: boolean;
  readonly timeout: number;
}

const lookEveryMs = 200;

/** `starling cluster move`: a shard to where a person wants it. */
export function addMoveCommand(cluster: Command, context: CommandContext): void {
  const command = cluster
    .command("move")
    .summary("move a shard to a node, and keep it there")
    .description(
      "Pins a shard to a node and waits until it is there. It stays pinned, over restarts and whatever the weights say, as long " +
        "as that node serves; --unpin gives it back to the weights.",
    )
    .argument("<shard>", "the shard", parseShard)
    .argument("[node]", "the node's name");
  withAddress(command)
    .option("--unpin", "take the pin away instead; the shard stays where it is unless the weights want it elsewhere")
    .option("--timeout <seconds>", "how long to wait until the shard is there", wholeNumber(1, 86_400), 30)
    .option("--json", "the result as JSON: shard, owner, epoch, pinned")
    .addHelpText("after", examples("cluster move 17 bob", "cluster move system/3 bob", "cluster move 17 --unpin"))
    .action((shard: ShardId, node: string | undefined, options: MoveOptions) => {
      if ((node === undefined) !== (options.unpin === true)) command.error("error: give a node, or --unpin");
      return withCalls(context, options, async ({ admin }) => {
        await admin.move(shard, node ?? null);
        const moved = await untilThere(context, admin, shard, {
          node: node ?? null,
          timeoutMs: options.timeout * 1000,
        });
        if (options.json === true) context.output.json({ shard, ...moved, pinned: node !== undefined });
        else {
          const pin = node === undefined ? "not pinned any more" : `pinned to ${node}`;
          context.output.print(`${shardText(shard)} is at ${moved.owner}, epoch ${moved.epoch}, ${pin}`);
        }
      });
    });
}

/** Where the shard is in the end. Raises DEADLINE with what the shard waits for. */
async function untilThere(
  { signal }: CommandContext,
  admin: AdminClient,
  shard: ShardId,
  { node, timeoutMs }: { readonly node: string | null; readonly timeoutMs: number },
): Promise<{ readonly owner: string; readonly epoch: number }> {
  const until = performance.now() + timeoutMs;
  for (;;) {
    const { owner, state, epoch, reason, waits } = await admin.why(shard);
    if (state === "owned" && (node === null || owner === node)) return { owner, epoch };
    if (signal.aborted || performance.now() > until) {
      const waiting = waits.map(({ what }) => what).join("; ");
      const text = `${shardText(shard)} is pinned but not there yet: ${reason}${waiting === "" ? "" : `; ${waiting}`}`;
      throw new StarlingError("DEADLINE", text);
    }
    await pauseUnlessAborted(signal, lookEveryMs);
  }
}

interface WeightOptions extends AddressOptions {
  readonly json?: boolean;
  readonly group?: string;
}

/** `starling cluster weight`: how much of the shards a node is to have. */
export function addWeightCommand(cluster: Command, context: CommandContext): void {
  const command = cluster
    .command("weight")
    .summary("set a node's share of the shards")
    .description(
      "Sets how much of the shards a node is to have, relative to the others, whose weight is 1 unless said otherwise. Shards begin " +
        "to move at once; `cluster status` shows it. The weight belongs to the name: it stays over restarts.",
    )
    .argument("<node>", "the node's name")
    .argument("<weight>", "a number from 0; 0: none but what is pinned to it", parseWeight);
  withAddress(command)
    .addOption(new Option("--group <group>", "of one group of shards only; default all").choices(["entity", "system"]))
    .option("--json", "the result as JSON: node, weight, groups")
    .addHelpText("after", examples("cluster weight bob 2", "cluster weight bob 0.5 --group entity"))
    .action((node: string, weight: number, options: WeightOptions) =>
      withCalls(context, options, async ({ admin }) => {
        const groups = options.group === undefined ? [] : [options.group];
        await admin.weigh(node, weight, groups);
        if (options.json === true) context.output.json({ node, weight, groups });
        else
          context.output.print(
            `${node} has weight ${weight} ${options.group === undefined ? "" : `in the group ${options.group} `}from now on`,
          );
      }),
    );
}

function parseWeight(text: string): number {
  const weight = Number(text);
  if (/^\d+(\.\d+)?$/.test(text) && Number.isFinite(weight)) return weight;
  throw new InvalidArgumentError("expected a number from 0.");
}
