import { readNumber, timeText } from "../log/number-text.ts";
import { compareRuns, type Gap, type Piece, type Run } from "./history-run.ts";

/*
 * How runs are stored: in pages of one attribute each, a line for every run, fields separated by tabs:
 *
 *   t1 t2 n c gaps json
 *
 * c is empty if every observation was fully confident, else their sum in billionths; gaps are `from,until,n,c` each, separated
 * by semicolons. JSON text never holds a raw tab or newline.
 */

/** A page is split above so many runs, or so many characters. */
const runsMax = 64;
const charsMax = 16_384;
const fullC = 1e9;

/** What a page says of itself, and its text. */
export interface PageText {
  /** The least beginning and the greatest end of its runs. */
  readonly t1: number;
  readonly t2: number;
  readonly body: string;
}

/** Runs as pages of about equal size, as few as there can be. */
export function writePages(runs: readonly Run[]): PageText[] {
  if (runs.length === 0) return [];
  const lines = runs.map(writeRun);
  const chars = lines.reduce((sum, line) => sum + line.length, 0);
  const count = Math.min(runs.length, Math.max(Math.ceil(runs.length / runsMax), Math.ceil(chars / charsMax)));
  return Array.from({ length: count }, (_, i) => {
    const from = Math.floor((i * runs.length) / count);
    const until = Math.floor(((i + 1) * runs.length) / count);
    const own = runs.slice(from, until);
    const t1 = own.reduce((least, run) => Math.min(least, run.t1), Number.POSITIVE_INFINITY);
    const t2 = own.reduce((most, run) => Math.max(most, run.t2), Number.NEGATIVE_INFINITY);
    return { t1, t2, body: lines.slice(from, until).join("\n") };
  });
}

/** The runs of several pages, in the order of histories. */
export function readPages(bodies: readonly string[]): Run[] {
  const runs: Run[] = [];
  for (const body of bodies) for (const line of body.split("\n")) runs.push(readRun(line));
  return runs.sort(compareRuns);
}

/**
 * Of these the ones that end at `from` or later and begin at `until` or earlier, without their gaps: most of the text need not
 * be read for that.
 */
export function readPagesWithin(bodies: readonly string[], { from, until }: { from: number; until: number }): Piece[] {
  const pieces: Piece[] = [];
  for (const body of bodies) {
    for (let start = 0; start < body.length; ) {
      const newline = body.indexOf("\n", start);
      const end = newline < 0 ? body.length : newline;
      const t1End = body.indexOf("\t", start);
      const t2End = body.indexOf("\t", t1End + 1);
      const t2 = readNumber(body, t1End + 1, t2End);
      if (t2 >= from) {
        const t1 = readNumber(body, start, t1End);
        if (t1 <= until) pieces.push(readPiece(body, t1, t2, { from: t2End + 1, until: end }));
      }
      start = end + 1;
    }
  }
  return bodies.length === 1 ? pieces : pieces.sort(compareRuns);
}

/** A line of which the times are read. */
function readPiece(body: string, t1: number, t2: number, rest: { from: number; until: number }): Piece {
  const nEnd = body.indexOf("\t", rest.from);
  const cEnd = body.indexOf("\t", nEnd + 1);
  const gapsEnd = body.indexOf("\t", cEnd + 1);
  const n = readNumber(body, rest.from, nEnd);
  const c = cEnd === nEnd + 1 ? n * fullC : readNumber(body, nEnd + 1, cEnd);
  return { value: body.slice(gapsEnd + 1, rest.until), t1, t2, n, c };
}

function writeRun({ value, t1, t2, n, c, gaps }: Run): string {
  const bridged = gaps.length === 0 ? "" : gaps.map(writeGap).join(";");
  return `${timeText(t1)}\t${timeText(t2)}\t${n}\t${c === n * fullC ? "" : c}\t${bridged}\t${value}`;
}

function writeGap({ from, until, n, c }: Gap): string {
  return `${timeText(from)},${timeText(until)},${n},${c}`;
}

function readRun(line: string): Run {
  const [t1 = "", t2 = "", count = "", c = "", bridged = "", value = "null"] = line.split("\t");
  const n = Number(count);
  const gaps = bridged === "" ? noGaps : bridged.split(";").map(readGap);
  return { value, t1: Number(t1), t2: Number(t2), n, c: c === "" ? n * fullC : Number(c), gaps };
}

const noGaps: readonly Gap[] = [];

function readGap(text: string): Gap {
  const [from = 0, until = 0, n = 0, c = 0] = text.split(",").map(Number);
  return { from, until, n, c };
}
