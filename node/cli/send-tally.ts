import type { CommandContext } from "./command-context.ts";
import { formatCount, type Output, shorten } from "./output.ts";
import { formatDuration } from "./progress.ts";
import type { ReadPlace } from "./read-item.ts";

/** A place in the input. */
export interface Place extends ReadPlace {
  readonly file: string;
}

/** As editors know it, `file:line`, and the element of a JSON array. */
export function showPlace({ file, line, element }: Place): string {
  return element === undefined ? `${file}:${line}` : `${file}:${line} (element ${element})`;
}

/** What became of an input: counts, and of each reason to refuse the first examples. */
export interface SendTally {
  accepted(count: number): void;
  /** A datapoint that was refused with a code, by the node or before it was sent. */
  rejected(code: string, message: string, place: Place): void;
  /** A place in the input that holds no datapoint. */
  malformed(message: string, place: Place): void;
  read(): SendCounts;
}

export interface SendCounts {
  /** Datapoints found in the input. */
  readonly sent: number;
  readonly accepted: number;
  readonly rejected: number;
  readonly malformed: number;
  readonly codes: Readonly<Record<string, CodeCount>>;
}

export interface CodeCount {
  readonly count: number;
  readonly examples: readonly (Place & { readonly message: string })[];
}

const examplesPerCode = 3;

/** An empty tally. */
export function createSendTally(): SendTally {
  let accepted = 0;
  let rejected = 0;
  let malformed = 0;
  const codes = new Map<string, { count: number; examples: (Place & { message: string })[] }>();
  const note = (code: string, message: string, place: Place) => {
    const entry = codes.get(code) ?? { count: 0, examples: [] };
    entry.count += 1;
    if (entry.examples.length < examplesPerCode) entry.examples.push({ ...place, message });
    codes.set(code, entry);
  };
  return {
    accepted: (count) => {
      accepted += count;
    },
    rejected: (code, message, place) => {
      rejected += 1;
      note(code, message, place);
    },
    malformed: (message, place) => {
      malformed += 1;
      note("MALFORMED", message, place);
    },
    read: () => ({
      sent: accepted + rejected,
      accepted,
      rejected,
      malformed,
      codes: Object.fromEntries([...codes].sort(([, a], [, b]) => b.count - a.count)),
    }),
  };
}

/** The summary at the end of `send`. */
export function printSendCounts(context: CommandContext, counts: SendCounts, elapsedMs: number, json: boolean): void {
  const { output } = context;
  const perSecond = elapsedMs > 0 ? Math.round((counts.sent * 1000) / elapsedMs) : 0;
  if (json) {
    output.json({ ...counts, seconds: elapsedMs / 1000, perSecond });
    return;
  }
  const rate = output.paint("dim", `in ${formatDuration(elapsedMs)}, ${formatCount(perSecond)}/s`);
  output.print(`sent      ${formatCount(counts.sent)} datapoints ${rate}`);
  output.print(`accepted  ${output.paint("green", formatCount(counts.accepted))}`);
  if (counts.rejected > 0) output.print(`rejected  ${output.paint("red", formatCount(counts.rejected))}`);
  if (counts.malformed > 0) output.print(`malformed ${output.paint("red", formatCount(counts.malformed))}`);
  for (const [code, entry] of Object.entries(counts.codes)) printCode(output, code, entry);
}

function printCode(output: Output, code: string, { count, examples }: CodeCount): void {
  output.print(`  ${output.paint("yellow", code)}  ${formatCount(count)}`);
  for (const { message, ...place } of examples) output.print(`    ${showPlace(place)}: ${shorten(message, 200)}`);
}
