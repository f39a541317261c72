import type { Command } from "commander";
import type { RawEntry } from "../../proto/entities-client.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { type AddressOptions, withAddress } from "./address.ts";
import { type CommandContext, examples, wholeNumber, withCalls } from "./command-context.ts";
import { formatCount, formatTime, shorten } from "./output.ts";
import { rawJson, valueText } from "./record-text.ts";

interface RawOptions extends AddressOptions {
  readonly attr?: string;
  readonly limit: number;
  readonly follow?: boolean;
  readonly json?: boolean;
}

/** `starling raw TYPE EID`: datapoints as they arrived. */
export function addRawCommand(program: Command, context: CommandContext): void {
  const command = program
    .command("raw")
    .summary("show datapoints as they arrived")
    .description(
      "Shows the datapoints of one entity as they arrived, newest first; with --follow those to come, oldest first.",
    )
    .argument("<type>")
    .argument("[eid]", "may be left out with --follow");
  withAddress(command)
    .option("--attr <attr>", "of one attribute only")
    .option("-n, --limit <datapoints>", "the newest, at most so many", wholeNumber(1, 1_000), 20)
    .option("-F, --follow", "wait for datapoints to come, until Ctrl-C")
    .option("--json", "JSON lines, which `starling send` reads")
    .addHelpText("after", examples("raw route ATL-SEA --attr delay", "raw route --follow", "raw route ATL-SEA --json"))
    .action((type: string, eid: string | undefined, options: RawOptions) => {
      if (eid === undefined && options.follow !== true) command.error("error: name the entity, or use --follow");
      return withCalls(context, options, async ({ entities }) => {
        const follow = options.follow === true;
        const attr = options.attr === undefined ? {} : { attr: options.attr };
        const query = { type, eid: eid ?? "", follow, ...attr, ...(follow ? {} : { limit: options.limit }) };
        await print(context, entities.raw({ ...query, signal: context.signal }), options.json === true);
      });
    });
}

async function print(context: CommandContext, entries: AsyncIterable<RawEntry>, json: boolean): Promise<void> {
  const { output, signal } = context;
  let count = 0;
  let asOf: number | null = null;
  try {
    for await (const entry of entries) {
      count++;
      asOf = entry.asOf;
      if (json) output.json(rawJson(entry));
      else output.print(rawText(entry));
      await output.drained();
      if (signal.aborted) return;
    }
  } catch (error) {
    // Ctrl-C is how following ends.
    if (signal.aborted && error instanceof StarlingError) return;
    throw error;
  }
  if (asOf !== null) output.note(`${formatCount(count)} datapoints, as of ${formatTime(asOf)}`);
}

function rawText({ at, type, eid, attr, v, t1, t2, src }: RawEntry): string {
  const validity = t1 === null ? "" : `  [${formatTime(t1)} … ${formatTime(t2)}]`;
  const from = src === null ? "" : `  from ${shorten(src, 40)}`;
  return `${formatTime(at)}  ${type} ${shorten(eid, 60)}  ${attr} = ${valueText(v)}${validity}${from}`;
}
