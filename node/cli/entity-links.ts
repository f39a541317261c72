import type { Command } from "commander";
import { timeFromMs } from "../../modules/time-text.ts";
import type { LinkedEntity, LinksPage } from "../../proto/entities-client.ts";
import { type AddressOptions, withAddress } from "./address.ts";
import { type CommandContext, examples, usage, wholeNumber, withCalls } from "./command-context.ts";
import { formatCount, formatTime, shorten } from "./output.ts";
import { parseTime } from "./parse-time.ts";

interface LinksOptions extends AddressOptions {
  readonly at?: number;
  readonly reverse?: boolean;
  readonly limit: number;
  readonly cursor?: string;
  readonly json?: boolean;
}

const pageMax = 1_000;

/** `starling entity links TYPE EID`: what an entity links to, or who links to it. */
export function addLinks(entity: Command, context: CommandContext): void {
  const command = entity
    .command("links")
    .description("Shows what an entity links to at an instant, or who links to it. Plain links are those of now.");
  withAddress(command.argument("<type>").argument("<eid>"))
    .option("--at <time>", "the instant; default now", usage(parseTime))
    .option("--reverse", "show who links to the entity")
    .option("-n, --limit <links>", "at most so many", wholeNumber(1, 1_000_000), 50)
    .option("--cursor <cursor>", "go on where an earlier answer ended")
    .option("--json", "one JSON document: links, cursor, at, asOf")
    .addHelpText(
      "after",
      examples("entity links route ATL-SEA", "entity links airport SEA --reverse --at 2001-02-12T09:00:00Z --json"),
    )
    .action((type: string, eid: string, options: LinksOptions) =>
      withCalls(context, options, async ({ entities }) => {
        const { at, reverse = false } = options;
        const key = { type, eid, reverse, ...(at === undefined ? {} : { at }) };
        const page = await readPages(options, (cursor, limit) => entities.links({ ...key, cursor, limit }));
        if (options.json === true) {
          const times = { at: timeFromMs(page.at), asOf: timeFromMs(page.asOf) };
          return context.output.json({ links: page.links.map(linkJson), cursor: page.cursor, ...times });
        }
        printLinks(context, page, reverse);
      }),
    );
}

async function readPages(
  options: LinksOptions,
  read: (cursor: string, limit: number) => Promise<LinksPage>,
): Promise<LinksPage> {
  const links: LinkedEntity[] = [];
  let cursor = options.cursor ?? "";
  for (;;) {
    const page = await read(cursor, Math.min(pageMax, options.limit - links.length));
    links.push(...page.links);
    cursor = page.cursor;
    if (cursor === "" || links.length >= options.limit) return { ...page, links };
  }
}

function linkJson({ attr, type, eid, t1, t2 }: LinkedEntity) {
  if (t1 === null || t2 === null) return { attr, type, eid, plain: true };
  return { attr, type, eid, plain: false, t1: timeFromMs(t1), t2: timeFromMs(t2) };
}

function printLinks({ output }: CommandContext, { links, cursor, at, asOf }: LinksPage, reverse: boolean): void {
  const rows = links.map(({ attr, type, eid, t1, t2 }) => {
    const times = t1 === null ? ["now", "-"] : [formatTime(t1), formatTime(t2)];
    return [attr, type, shorten(eid, 60), ...times];
  });
  output.table(["attribute", reverse ? "from" : "to", "eid", "since", "until"], rows);
  output.note(`${formatCount(rows.length)} links at ${formatTime(at)}, as of ${formatTime(asOf)}`);
  if (cursor !== "") output.note(`there are more: --cursor '${cursor}'`);
}
