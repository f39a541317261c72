import type { Command } from "commander";
import { timeFromMs } from "../../modules/time-text.ts";
import type { SnapshotAt, SnapshotsClient } from "../../proto/snapshots-client.ts";
import { type AddressOptions, withAddress } from "./address.ts";
import { type CommandContext, examples, wholeNumber, withCalls } from "./command-context.ts";
import { formatCount, formatTime, shorten } from "./output.ts";
import { valueText } from "./record-text.ts";

interface HistoryOptions extends AddressOptions {
  readonly limit: number;
  readonly before?: number;
  readonly json?: boolean;
}

/** `starling snapshot history TYPE EID`: one entity through the runs. */
export function addHistory(snapshot: Command, context: CommandContext): void {
  const command = snapshot
    .command("history")
    .description("Shows one entity's snapshots, newest first: of each run what differs from the run before it.");
  withAddress(command.argument("<type>").argument("<eid>"))
    .option("-n, --limit <runs>", "at most so many", wholeNumber(1, 100_000), 20)
    .option("--before <tick>", "runs before this one", wholeNumber(1, Number.MAX_SAFE_INTEGER))
    .option("--json", "one JSON document: moments of tick, at and values; before")
    .addHelpText("after", examples("snapshot history airport SEA", "snapshot history airport SEA --limit 100 --json"))
    .action((type: string, eid: string, options: HistoryOptions) =>
      withCalls(context, options, async ({ snapshots }) => {
        const { moments, before } = await readPages(snapshots, type, eid, options);
        if (options.json === true) {
          return context.output.json({
            moments: moments.map(({ at, ...rest }) => ({ ...rest, at: timeFromMs(at) })),
            before,
          });
        }
        const rows = moments.map((moment, i) => [
          String(moment.tick),
          formatTime(moment.at),
          changesText(moment, moments[i + 1]),
        ]);
        context.output.table(["run", "at", "values"], rows);
        context.output.note(`${formatCount(rows.length)} runs of ${type} ${shorten(eid, 200)}`);
        if (before > 0) context.output.note(`there may be more: --before ${before}`);
      }),
    );
}

async function readPages(
  snapshots: SnapshotsClient,
  type: string,
  eid: string,
  options: HistoryOptions,
): Promise<{ readonly moments: readonly SnapshotAt[]; readonly before: number }> {
  const moments: SnapshotAt[] = [];
  let before = options.before ?? 0;
  for (;;) {
    const limit = Math.min(1_000, options.limit - moments.length);
    const page = await snapshots.history({ type, eid, before, limit });
    moments.push(...page.moments);
    before = page.before;
    if (before === 0 || moments.length >= options.limit) return { moments, before };
  }
}

/** What differs from the moment before; of the oldest one that is shown everything. */
function changesText({ values }: SnapshotAt, earlier: SnapshotAt | undefined): string {
  const { eid: _, ...shown } = values;
  const before = earlier?.values ?? {};
  const gone = Object.keys(before).filter((attr) => !Object.hasOwn(values, attr));
  const changed = Object.entries(shown).filter(([attr, v]) => JSON.stringify(v) !== JSON.stringify(before[attr]));
  const parts = [...changed.map(([attr, v]) => `${attr}=${valueText(v)}`), ...gone.map((attr) => `${attr} gone`)];
  return earlier !== undefined && parts.length === 0 ? "the same" : shorten(parts.join(" "), 100);
}
