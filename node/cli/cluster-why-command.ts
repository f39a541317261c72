import type { Command } from "commander";
import type { EntityExplanation, ShardExplanation, ShardWait } from "../../proto/cluster-status.ts";
import type { ShardId } from "../../proto/ids.ts";
import { type AddressOptions, withAddress } from "./address.ts";
import { type CommandContext, examples, withCalls } from "./command-context.ts";
import { formatCount, type Output, shorten } from "./output.ts";
import { formatDuration } from "./progress.ts";
import { parseShard, shardText } from "./shard-argument.ts";

interface WhyOptions extends AddressOptions {
  readonly json?: boolean;
}

/** `starling cluster why`: where something is and why, and what it waits for. */
export function addWhyCommand(cluster: Command, context: CommandContext): void {
  const command = cluster
    .command("why")
    .summary("say where a shard or an entity is and why, and what it waits for")
    .description(
      "Says which node has a shard and why: pinned, its share by weight, the only node, being handed over. And what the shard " +
        "waits for, and since when: hooks by name, obligations, derived tasks for other shards, a replay, PostgreSQL. With TYPE " +
        "and EID it finds the entity's shard, and adds what the entity itself waits for.",
    )
    .argument("<shard|type>", "a shard, or an entity type")
    .argument("[eid]", "the entity's id");
  withAddress(command)
    .option("--json", "the explanation as JSON")
    .addHelpText("after", examples("cluster why 17", "cluster why system/3", "cluster why airport SEA"))
    .action((first: string, eid: string | undefined, options: WhyOptions) => {
      const subject = eid === undefined ? shardOr(first, (message) => command.error(message)) : { type: first, eid };
      return withCalls(context, options, async ({ admin }) => {
        const explanation = await admin.why(subject);
        if (options.json === true) context.output.json(explanation);
        else printExplanation(context.output, explanation);
      });
    });
}

/** The first word alone is a shard; whatever else it may be needs an id. */
function shardOr(text: string, complain: (message: string) => never): ShardId {
  try {
    return parseShard(text);
  } catch {
    return complain(
      `error: ${JSON.stringify(text)} is no shard, such as 17 or system/3; an entity needs its id, too: why TYPE EID`,
    );
  }
}

function printExplanation(output: Output, why: ShardExplanation): void {
  const { shard, owner, address, epoch, state, reason, lastSeq, watermark, lag, waits, waitsMore, silence, entity } =
    why;
  const at = owner === "" ? "" : ` at ${output.paint("bold", owner)} (${address})`;
  output.print(`${output.paint("bold", shardText(shard))}  ${state}${at}, epoch ${epoch}`);
  output.print(`why     ${reason}`);
  if (silence !== "") {
    output.print(`log     ${output.paint("red", `${owner} did not answer: ${shorten(silence, 200)}`)}`);
    return;
  }
  const behind = lag > 0 ? ` (${formatCount(lag)} behind)` : "";
  output.print(`log     ${lastSeq === 0 ? "empty" : `up to seq ${lastSeq}, processed up to ${watermark}${behind}`}`);
  if ((why.deadLetters ?? 0) > 0)
    output.print(`letters ${formatCount(why.deadLetters ?? 0)} dead letters wait for a person`);
  printWaits(output, waits, waitsMore);
  if (entity !== undefined) printEntity(output, entity);
}

function printEntity(output: Output, entity: EntityExplanation): void {
  const { type, eid, resident, exists, applied, flushed, mailbox, waits } = entity;
  output.print();
  output.print(output.paint("bold", `${type} ${shorten(eid, 200)}`));
  if (!resident && waits.length === 0) {
    output.print("state   not in memory: nothing of it waits");
    return;
  }
  const stored = flushed ? "all of it is in PostgreSQL" : "its last changes are not in PostgreSQL yet";
  output.print(`state   ${exists ? `changed last by seq ${applied}, ${stored}` : "it does not exist"}`);
  output.print(`mailbox ${formatCount(mailbox)} tasks`);
  printWaits(output, waits, 0);
}

function printWaits(output: Output, waits: readonly ShardWait[], more: number): void {
  if (waits.length === 0) output.print("waits   for nothing");
  for (const { what, forMs, type, eid, seq } of waits) {
    const since = forMs === undefined ? "" : `, for ${formatDuration(forMs)}`;
    const whom = type === "" ? "" : ` (${type} ${shorten(eid, 60)}, seq ${seq})`;
    output.print(`waits   ${shorten(what, 300)}${whom}${since}`);
  }
  if (more > 0) output.print(`waits   and ${formatCount(more)} more`);
}
