import { type Command, InvalidArgumentError } from "commander";
import { timeFromMs } from "../../modules/time-text.ts";
import type {
  ReadFilter,
  ReadInstant,
  SnapshotList,
  SnapshotsClient,
  SnapshotValues,
} from "../../proto/snapshots-client.ts";
import { type AddressOptions, withAddress } from "./address.ts";
import { type CommandContext, examples, usage, wholeNumber, withCalls } from "./command-context.ts";
import { formatCount, formatTime, shorten } from "./output.ts";
import { parseTime } from "./parse-time.ts";
import { valueText } from "./record-text.ts";

interface ReadOptions extends AddressOptions, ReadInstant, ReadFilter {
  readonly json?: boolean;
}

interface ListOptions extends ReadOptions {
  readonly sort: readonly string[];
  readonly skip: number;
  readonly limit: number;
}

interface DistinctOptions extends ReadOptions {
  readonly limit: number;
}

const pageMax = 1_000;

/** `starling snapshot list TYPE`. */
export function addList(snapshot: Command, context: CommandContext): void {
  const command = snapshot.command("list").description("Lists snapshots of a type, by a filter and in an order.");
  withSelection(command.argument("<type>"))
    .option("-s, --sort <attr>", "by an attribute; ATTR:-1 descends; may be given several times", collect, [])
    .option("--skip <snapshots>", "leave out the first ones", wholeNumber(0, 100_000), 0)
    .option("-n, --limit <snapshots>", "at most so many", wholeNumber(1, 100_000), 20)
    .option("--json", "one JSON document: tick, at, snapshots, nextSkip")
    .addHelpText(
      "after",
      examples(
        "snapshot list airport",
        `snapshot list airport --filter '{"city":"Chicago"}' --json`,
        `snapshot list airport --filter '{"name":{"$regex":"^San "},"latitude":{"$gt":35}}' --sort longitude:-1`,
        `snapshot list airport --fulltext '{"name":"international"}' --at 2026-01-31T12:00:00Z`,
      ),
    )
    .action((type: string, options: ListOptions) =>
      withCalls(context, options, async ({ snapshots }) => {
        const list = await readPages(snapshots, type, options);
        if (options.json === true) return context.output.json({ ...list, at: timeFromMs(list.at) });
        const rows = list.snapshots.map((one) => [shorten(one.eid, 60), gist(one)]);
        context.output.table(["eid", "values"], rows);
        context.output.note(`${formatCount(rows.length)} snapshots of ${runText(list)}`);
        if (list.nextSkip !== null) context.output.note(`there are more: --skip ${list.nextSkip}`);
      }),
    );
}

/** `starling snapshot count TYPE`. */
export function addCount(snapshot: Command, context: CommandContext): void {
  const command = snapshot.command("count").description("Counts the snapshots of a type that fulfil a filter.");
  withSelection(command.argument("<type>"))
    .option("--json", "one JSON document: tick, at, count")
    .addHelpText("after", examples("snapshot count airport", `snapshot count route --filter '{"delay_class":"late"}'`))
    .action((type: string, options: ReadOptions) =>
      withCalls(context, options, async ({ snapshots }) => {
        const { count, ...run } = await snapshots.count({ type, ...selectionOf(options) });
        if (options.json === true) return context.output.json({ ...run, at: timeFromMs(run.at), count });
        context.output.print(formatCount(count));
        context.output.note(`snapshots of ${runText(run)}`);
      }),
    );
}

/** `starling snapshot distinct TYPE ATTR`. */
export function addDistinct(snapshot: Command, context: CommandContext): void {
  const command = snapshot
    .command("distinct")
    .description("Shows the values of an attribute, and how many snapshots have each: lists by their elements.");
  withSelection(command.argument("<type>").argument("<attr>"))
    .option("-n, --limit <values>", "at most so many, the most frequent ones", wholeNumber(1, pageMax), 50)
    .option("--json", "one JSON document: tick, at, values, more")
    .addHelpText(
      "after",
      examples(
        "snapshot distinct airport state",
        `snapshot distinct route delay_class --filter '{"origin":"ATL"}' --json`,
      ),
    )
    .action((type: string, attr: string, options: DistinctOptions) =>
      withCalls(context, options, async ({ snapshots }) => {
        const query = { type, attr, limit: options.limit, ...selectionOf(options) };
        const { values, more, ...run } = await snapshots.distinct(query);
        if (options.json === true) return context.output.json({ ...run, at: timeFromMs(run.at), values, more });
        const rows = values.map(({ value, count }) => [valueText(value), formatCount(count)]);
        context.output.table([attr, "snapshots"], rows);
        context.output.note(`${formatCount(rows.length)} values of ${runText(run)}`);
        if (more) context.output.note("there are more values: --limit");
      }),
    );
}

function withSelection(command: Command): Command {
  return withAddress(command)
    .option("-f, --filter <json>", "DP³'s generic filter: values and operators by attribute", usage(parseObject))
    .option("--fulltext <json>", "regular expressions by attribute, whatever the letters' case", usage(parseObject))
    .option("--tick <number>", "the newest finished run up to this one", wholeNumber(1, Number.MAX_SAFE_INTEGER))
    .option("--at <time>", "the newest finished run at or before a time", usage(parseTime));
}

function selectionOf({ filter, fulltext, tick, at }: ReadOptions): ReadFilter & ReadInstant {
  return {
    ...(filter !== undefined && { filter }),
    ...(fulltext !== undefined && { fulltext }),
    ...(tick !== undefined && { tick }),
    ...(at !== undefined && { at }),
  };
}

/** Pages of one run, though a later one may finish meanwhile. */
async function readPages(snapshots: SnapshotsClient, type: string, options: ListOptions): Promise<SnapshotList> {
  const found: SnapshotValues[] = [];
  const { sort, limit } = options;
  let selection = selectionOf(options);
  let { skip } = options;
  for (;;) {
    const asked = { type, sort, skip, limit: Math.min(pageMax, limit - found.length), ...selection };
    const page = await snapshots.list(asked);
    found.push(...page.snapshots);
    if (page.nextSkip === null || found.length >= limit) return { ...page, snapshots: found };
    skip = page.nextSkip;
    const { at: _, ...rest } = selection;
    selection = { ...rest, tick: page.tick };
  }
}

function gist({ values }: SnapshotValues): string {
  const { eid: _, ...rest } = values;
  return shorten(
    Object.entries(rest)
      .map(([attr, v]) => `${attr}=${valueText(v)}`)
      .join(" "),
    100,
  );
}

function runText({ tick, at }: { readonly tick: number; readonly at: number }): string {
  return `run ${tick}, at ${formatTime(at)}`;
}

function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value];
}

/** The text itself, if it is JSON: numbers beyond 2^53 get to the node as they are written. */
function parseObject(text: string): string {
  try {
    JSON.parse(text);
    return text;
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new InvalidArgumentError(`it is not JSON: ${why}; an example: '{"city":"Chicago"}'.`);
  }
}
