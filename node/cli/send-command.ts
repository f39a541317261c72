import { type Command, InvalidArgumentError, Option } from "commander";
import type { LooseDatapoint } from "../../modules/datapoint.ts";
import type { ClientDatapoint } from "../../proto/client-batch.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { type AddressOptions, withAddress } from "./address.ts";
import { type BatchSender, createBatchSender } from "./batch-sender.ts";
import { toClientDatapoint } from "./client-datapoint.ts";
import { type CommandContext, examples, usage, wholeNumber, withClient } from "./command-context.ts";
import { type CsvAttr, type CsvMapping, parseCsvAttr } from "./csv-reader.ts";
import { type DatapointReader, type Format, openReader } from "./datapoint-reader.ts";
import { shorten } from "./output.ts";
import { createProgress } from "./progress.ts";
import type { ReadItem } from "./read-item.ts";
import { createSendTally, type Place, printSendCounts, type SendTally, showPlace } from "./send-tally.ts";

interface SendOptions extends AddressOptions {
  readonly format?: Format;
  readonly session?: string;
  readonly batch: number;
  readonly level: "durable" | "processed";
  readonly traceparent?: string;
  readonly json?: boolean;
  readonly type?: string;
  readonly eid?: string;
  readonly attr: readonly CsvAttr[];
  readonly t1?: string;
  readonly t2?: string;
  readonly c?: string;
  readonly src?: string;
}

/** `starling send FILE…`: datapoints from files to a node. */
export function addSendCommand(program: Command, context: CommandContext): void {
  const command = program
    .command("send")
    .summary("send datapoints from files to a node")
    .description(
      "Sends the datapoints of files, or of standard input for -, to a node: a JSON array, JSON lines, or CSV. What is " +
        "malformed is reported with file and line, and the rest is sent.",
    )
    .argument("<file...>", "files to send; - is standard input");
  withAddress(command)
    .addOption(
      new Option("-f, --format <format>", "default: by the file's name or its first character").choices([
        "json",
        "ndjson",
        "csv",
      ]),
    )
    .option("-s, --session <name>", "a durable session: the same command again, after whatever crash, doubles nothing")
    .option(
      "-b, --batch <items>",
      "datapoints in a batch; keep it when a session is repeated",
      wholeNumber(1, 10_000),
      1000,
    )
    .addOption(
      new Option("-l, --level <level>", "wait until datapoints are durable, or processed")
        .choices(["durable", "processed"])
        .default("durable"),
    )
    .option("--traceparent <context>", "the trace (W3C) that the datapoints belong to")
    .option("--json", "the summary as JSON")
    .optionsGroup("CSV columns (without them the columns are type, eid, attr, v, t1, t2, c, src):")
    .option("--type <type>", "entity type of all rows")
    .option("--eid <column>", "column of the entity id")
    .option(
      "--attr <name=column>",
      "attribute and its column; :json or :link after the column says how to read it; repeatable",
      collectAttr,
      [],
    )
    .option("--t1 <column>", "column of the beginning of validity")
    .option("--t2 <column>", "column of the end of validity")
    .option("--c <column>", "column of the confidence")
    .option("--src <text>", "source of all datapoints")
    .addHelpText(
      "after",
      examples(
        "send datapoints.json",
        "send --session monday --level processed flows.ndjson",
        "send --type airport --eid iata --attr name=name --attr city=city airports.csv",
        "raw route ATL-SEA --json | starling send -a other:4700 -",
      ),
    )
    .action((files: string[], options: SendOptions) => send(context, files, options, command));
}

async function send(context: CommandContext, files: string[], options: SendOptions, command: Command): Promise<void> {
  const mapping = mappingOf(options, command);
  const readers: DatapointReader[] = [];
  for (const file of files) {
    readers.push(await openReader(file, { format: options.format, mapping, stdin: context.stdin }));
  }
  const tally = createSendTally();
  const started = performance.now();
  const { session: name, ...reach } = options;
  const session = name === undefined ? {} : { session: { name } };
  const complete = await withClient(context, { ...reach, ...session }, (client) =>
    sendAll(context, readers, createBatchSender({ client, batchMaxItems: options.batch, tally }), tally),
  );
  const counts = tally.read();
  printSendCounts(context, counts, performance.now() - started, options.json === true);
  if (complete === "interrupted") {
    const again = options.session === undefined ? "" : "; the same command again sends the rest and doubles nothing";
    context.output.note(`starling: interrupted before the end of the input${again}`);
  }
  if (complete === "interrupted" || counts.rejected + counts.malformed > 0) context.fail();
}

async function sendAll(
  context: CommandContext,
  readers: readonly DatapointReader[],
  sender: BatchSender,
  tally: SendTally,
): Promise<"complete" | "interrupted"> {
  const progress = createProgress(context.output);
  const total = readers.reduce<number | null>((sum, { totalBytes }) => addBytes(sum, totalBytes), 0);
  const report = createMalformedReport(context, tally, () => progress.clear());
  try {
    for (const reader of readers) {
      for await (const items of reader.items()) {
        for (const item of items) {
          const place = placeOf(reader, item);
          if (item.kind === "malformed") report(item.message, place);
          else await offer(item.datapoint, place, sender, tally);
        }
        const done = readers.reduce((sum, { readBytes }) => sum + readBytes(), 0);
        progress.update({ done, total, datapoints: tally.read().sent });
        if (context.signal.aborted) return "interrupted";
      }
    }
    return "complete";
  } finally {
    await sender.finish().finally(() => progress.clear());
  }
}

function placeOf({ name: file }: DatapointReader, { line, element }: ReadItem): Place {
  return element === undefined ? { file, line } : { file, line, element };
}

function offer(loose: LooseDatapoint, place: Place, sender: BatchSender, tally: SendTally): Promise<void> | null {
  let datapoint: ClientDatapoint;
  try {
    datapoint = toClientDatapoint(loose);
  } catch (error) {
    if (!(error instanceof StarlingError)) throw error;
    tally.rejected(error.code, error.message, place);
    return null;
  }
  return sender.add(datapoint, place);
}

const reportedMax = 20;

/** Tells malformed places as they are found; past a bound they are only counted. */
function createMalformedReport(context: CommandContext, tally: SendTally, before: () => void) {
  let reported = 0;
  return (message: string, place: Place): void => {
    tally.malformed(message, place);
    reported += 1;
    if (reported > reportedMax + 1) return;
    before();
    const text = reported > reportedMax ? "further malformed places are only counted" : shorten(message, 200);
    context.output.note(`starling: ${showPlace(place)}: ${text}`);
  };
}

function addBytes(sum: number | null, bytes: number | null): number | null {
  return sum === null || bytes === null ? null : sum + bytes;
}

function mappingOf(options: SendOptions, command: Command): CsvMapping | null {
  const { type, eid, attr: attrs, t1, t2, c, src } = options;
  if (type === undefined && eid === undefined && attrs.length === 0) {
    if (t1 ?? t2 ?? c ?? src) command.error("error: --t1, --t2, --c and --src need --type, --eid and --attr");
    return null;
  }
  if (type === undefined || eid === undefined || attrs.length === 0) {
    command.error("error: a CSV mapping needs all of --type, --eid and --attr");
  }
  const columns = { ...(t1 === undefined ? {} : { t1 }), ...(t2 === undefined ? {} : { t2 }) };
  return { type, eid, attrs, ...columns, ...(c === undefined ? {} : { c }), ...(src === undefined ? {} : { src }) };
}

function collectAttr(text: string, attrs: readonly CsvAttr[]): CsvAttr[] {
  const attr = usage(parseCsvAttr)(text);
  if (attrs.some((other) => other.attr === attr.attr)) throw new InvalidArgumentError(`${attr.attr} is mapped twice.`);
  return [...attrs, attr];
}
