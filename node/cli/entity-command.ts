import type { Command } from "commander";
import { timeFromMs } from "../../modules/time-text.ts";
import type { EntityPage, EntityRecord } from "../../proto/entities-client.ts";
import { type AddressOptions, withAddress } from "./address.ts";
import { type CommandContext, examples, usage, wholeNumber, withCalls } from "./command-context.ts";
import { addLinks } from "./entity-links.ts";
import { formatCount, formatTime, shorten } from "./output.ts";
import { parseTime } from "./parse-time.ts";
import { parseJson } from "./read-item.ts";
import { printRecord, recordJson, valueText } from "./record-text.ts";

interface NodeOptions extends AddressOptions {
  readonly json?: boolean;
}

const pageMax = 1_000;

/** `starling entity …`: records of entities. */
export function addEntityCommand(program: Command, context: CommandContext): void {
  const entity = program.command("entity").summary("read, list, count, set and delete entities");
  entity.description(
    "Records of entities. `get` asks the owner; `list` and `count` ask PostgreSQL, as of the time they show.",
  );
  addGet(entity, context);
  addList(entity, context);
  addCount(entity, context);
  addLinks(entity, context);
  addSet(entity, context);
  addDelete(entity, context);
}

function addGet(entity: Command, context: CommandContext): void {
  withAddress(entity.command("get").description("Shows the record of one entity.").argument("<type>").argument("<eid>"))
    .option("--history <entries>", "stored history of each attribute, newest first", wholeNumber(0, 100_000), 0)
    .option("--at <time>", "what was current at a time, from the history", usage(parseTime))
    .option("--json", "the record as JSON")
    .addHelpText(
      "after",
      examples("entity get route ATL-SEA", "entity get route ATL-SEA --history 10 --json", getAtExample),
    )
    .action((type: string, eid: string, options: GetOptions) =>
      withCalls(context, options, async ({ entities }) => {
        const at = options.at === undefined ? {} : { at: options.at };
        const record = await entities.get({ type, eid, historyLimit: options.history, ...at });
        if (options.json === true) context.output.json(recordJson(record));
        else printRecord(context.output, record);
      }),
    );
}

const getAtExample = "entity get route ATL-SEA --at 2001-02-12T09:00:00Z";

interface GetOptions extends NodeOptions {
  readonly history: number;
  readonly at?: number;
}

interface ListOptions extends NodeOptions {
  readonly limit: number;
  readonly cursor?: string;
}

function addList(entity: Command, context: CommandContext): void {
  withAddress(entity.command("list").description("Lists the entities of a type.").argument("<type>"))
    .option("-n, --limit <entities>", "at most so many", wholeNumber(1, 1_000_000), 50)
    .option("--cursor <cursor>", "go on where an earlier list ended")
    .option("--json", "one JSON document: records, cursor, asOf")
    .addHelpText("after", examples("entity list airport", "entity list airport --limit 1000 --json"))
    .action((type: string, options: ListOptions) =>
      withCalls(context, options, async ({ entities }) => {
        const list = await readPages(options, (cursor, limit) => entities.list({ type, cursor, limit }));
        if (options.json === true) {
          context.output.json({ ...list, records: list.records.map(recordJson), asOf: timeFromMs(list.asOf) });
          return;
        }
        const rows = list.records.map((record) => [
          shorten(record.eid, 60),
          formatTime(record.createdAt),
          gist(record),
        ]);
        context.output.table(["eid", "since", "attributes"], rows);
        context.output.note(`${formatCount(rows.length)} entities, as of ${formatTime(list.asOf)}`);
        if (list.cursor !== "") context.output.note(`there are more: --cursor ${JSON.stringify(list.cursor)}`);
      }),
    );
}

async function readPages(
  options: ListOptions,
  read: (cursor: string, limit: number) => Promise<EntityPage>,
): Promise<EntityPage> {
  const records: EntityRecord[] = [];
  let cursor = options.cursor ?? "";
  let asOf = Number.POSITIVE_INFINITY;
  do {
    const page = await read(cursor, Math.min(pageMax, options.limit - records.length));
    records.push(...page.records);
    // All that is listed holds at least what the oldest page holds.
    asOf = Math.min(asOf, page.asOf);
    cursor = page.cursor;
  } while (cursor !== "" && records.length < options.limit);
  return { records, cursor, asOf };
}

function gist(record: EntityRecord): string {
  const parts = Object.entries(record.attributes).map(([attr, { v }]) => `${attr}=${valueText(v)}`);
  return shorten(parts.join(" "), 100);
}

function addCount(entity: Command, context: CommandContext): void {
  withAddress(entity.command("count").description("Counts the entities of one type, or of all.").argument("[type]"))
    .option("--json", "the counts as JSON")
    .addHelpText("after", examples("entity count", "entity count airport --json"))
    .action((type: string | undefined, options: NodeOptions) =>
      withCalls(context, options, async ({ entities }) => {
        const { counts, asOf } = await entities.count(type);
        if (options.json === true) {
          context.output.json({ counts, asOf: timeFromMs(asOf) });
          return;
        }
        const rows = Object.entries(counts).map(([name, count]) => [name, formatCount(count)]);
        context.output.table(["type", "entities"], rows);
        context.output.note(`as of ${formatTime(asOf)}`);
      }),
    );
}

interface SetOptions extends NodeOptions {
  readonly text?: boolean;
  readonly t1?: number;
  readonly t2?: number;
  readonly src: string;
}

function addSet(entity: Command, context: CommandContext): void {
  const command = entity.command("set").description("Sets one attribute of an entity, by a datapoint.");
  withAddress(command.argument("<type>").argument("<eid>").argument("<attr>").argument("<value>", "JSON, or else text"))
    .option("--text", "take the value as text, also when it looks like JSON")
    .option("--t1 <time>", "beginning of validity; observations need it", usage(parseTime))
    .option("--t2 <time>", "end of validity", usage(parseTime))
    .option("--src <text>", "source of the datapoint", "starling entity set")
    .option("--json", "the answer as JSON")
    .addHelpText(
      "after",
      examples("entity set airport ORD city Chicago", 'entity set route ATL-SEA origin \'{"eid":"ATL"}\''),
    )
    .action((type: string, eid: string, attr: string, value: string, options: SetOptions) =>
      withCalls(context, options, async ({ entities }) => {
        const v = options.text === true ? value : parseValue(value);
        const times = {
          ...(options.t1 === undefined ? {} : { t1: options.t1 }),
          ...(options.t2 === undefined ? {} : { t2: options.t2 }),
        };
        const { tokens } = await entities.set({ type, eid, attr, v, src: options.src, ...times });
        if (options.json === true) context.output.json({ type, eid, attr, v, tokens });
        else context.output.print(`set ${attr} of ${type} ${shorten(eid, 200)} to ${valueText(v)}`);
      }),
    );
}

function addDelete(entity: Command, context: CommandContext): void {
  const command = entity.command("delete").description("Deletes an entity; later datapoints create it anew.");
  withAddress(command.argument("<type>").argument("<eid>"))
    .option("--json", "the answer as JSON")
    .addHelpText("after", examples("entity delete route ATL-SEA"))
    .action((type: string, eid: string, options: NodeOptions) =>
      withCalls(context, options, async ({ entities }) => {
        const { token } = await entities.delete({ type, eid });
        if (options.json === true) context.output.json({ type, eid, token });
        else context.output.print(`deleted ${type} ${shorten(eid, 200)}`);
      }),
    );
}

function parseValue(text: string): unknown {
  try {
    return parseJson(text);
  } catch {
    // Not JSON: the text itself is meant.
    return text;
  }
}
