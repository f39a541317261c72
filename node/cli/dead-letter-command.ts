import { type Command, Option } from "commander";
import { timeFromMs } from "../../modules/time-text.ts";
import type { DeadLetterEntry } from "../../proto/admin-client.ts";
import { toStarlingError } from "../../proto/starling-error.ts";
import { type AddressOptions, withAddress } from "./address.ts";
import { describeError } from "./cli-error.ts";
import { type CommandContext, examples, wholeNumber, withCalls } from "./command-context.ts";
import { formatCount, formatTime, shorten } from "./output.ts";

interface NodeOptions extends AddressOptions {
  readonly json?: boolean;
}

/** `starling dead-letter …`: what could not be processed. */
export function addDeadLetterCommand(program: Command, context: CommandContext): void {
  const letters = program.command("dead-letter").summary("list, show, replay and discard what could not be processed");
  letters.description(
    "Dead letters: tasks that never changed their entity (unapplied), and hooks that failed for good (hook). Replaying " +
      "appends an unapplied task again, or runs that one hook again.",
  );
  addList(letters, context);
  addShow(letters, context);
  addDecision(letters, context, "replay", "Replays dead letters.");
  addDecision(letters, context, "discard", "Closes dead letters without replaying them.");
}

interface ListOptions extends NodeOptions {
  readonly limit: number;
  readonly status: string;
  readonly cursor?: string;
}

function addList(letters: Command, context: CommandContext): void {
  withAddress(letters.command("list").description("Lists dead letters."))
    .addOption(new Option("--status <status>").choices(["open", "replayed", "discarded", "all"]).default("open"))
    .option("-n, --limit <letters>", "at most so many", wholeNumber(1, 1_000), 50)
    .option("--cursor <cursor>", "go on where an earlier list ended")
    .option("--json", "one JSON document: letters, cursor")
    .addHelpText("after", examples("dead-letter list", "dead-letter list --status all --json"))
    .action((options: ListOptions) =>
      withCalls(context, options, async ({ admin }) => {
        const status = options.status === "all" ? "" : options.status;
        const page = await admin.deadLetters({ status, limit: options.limit, cursor: options.cursor ?? "" });
        if (options.json === true) {
          context.output.json({ letters: page.letters.map(letterJson), cursor: page.cursor });
          return;
        }
        context.output.table(["id", "at", "kind", "status", "entity", "hook", "error"], page.letters.map(letterRow));
        context.output.note(`${formatCount(page.letters.length)} dead letters`);
        if (page.cursor !== "") context.output.note(`there are more: --cursor ${JSON.stringify(page.cursor)}`);
      }),
    );
}

function addShow(letters: Command, context: CommandContext): void {
  withAddress(letters.command("show").description("Shows one dead letter with its task.").argument("<id>"))
    .option("--json", "the letter as JSON")
    .addHelpText("after", examples("dead-letter show 17-4711-0"))
    .action((id: string, options: NodeOptions) =>
      withCalls(context, options, async ({ admin }) => {
        const letter = await admin.deadLetter(id);
        if (options.json === true) context.output.json(letterJson(letter));
        else printLetter(context, letter);
      }),
    );
}

function addDecision(letters: Command, context: CommandContext, verb: "replay" | "discard", description: string): void {
  withAddress(letters.command(verb).description(description).argument("<id...>"))
    .option("--json", "the letters afterwards, as JSON")
    .addHelpText("after", examples(`dead-letter ${verb} 17-4711-0 17-4711-1`))
    .action((ids: string[], options: NodeOptions) =>
      withCalls(context, options, async ({ admin }) => {
        const done: DeadLetterEntry[] = [];
        for (const id of ids) {
          try {
            const letter = await admin[verb](id);
            done.push(letter);
            if (options.json !== true) context.output.print(`${id} is ${letter.status}`);
          } catch (error) {
            // One letter that cannot be had does not keep the others waiting.
            context.output.note(describeError(toStarlingError(error), `${id}: `));
            context.fail();
          }
        }
        if (options.json === true) context.output.json({ letters: done.map(letterJson) });
      }),
    );
}

function letterRow(letter: DeadLetterEntry): string[] {
  const { id, at, kind, status, type, eid, hook, code, error } = letter;
  const entity = `${type} ${shorten(eid, 40)}`;
  return [id, formatTime(at), kind, status, entity, hook === "" ? "-" : hook, shorten(`${code}: ${error}`, 80)];
}

function printLetter(context: CommandContext, letter: DeadLetterEntry): void {
  const { output } = context;
  output.print(`${output.paint("bold", letter.id)}  ${letter.kind}, ${letter.status}, since ${formatTime(letter.at)}`);
  output.print(`entity  ${letter.type} ${shorten(letter.eid, 200)}`);
  output.print(`place   shard ${letter.shard}, seq ${letter.seq}`);
  if (letter.hook !== "") output.print(`hook    ${letter.hook}`);
  output.print(`error   ${letter.code}: ${shorten(letter.error, 2_000)}`);
  output.print(`task    ${JSON.stringify(letter.task, null, 2)}`);
}

function letterJson(letter: DeadLetterEntry): object {
  return { ...letter, at: timeFromMs(letter.at) };
}
