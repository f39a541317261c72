import type { Writable } from "node:stream";

export type Colour = "bold" | "dim" | "red" | "green" | "yellow" | "cyan";

/** Where a command writes: answers to `out`, everything about the work itself to `err`. */
export interface Output {
  /** One line of the answer. */
  print(line?: string): void;
  /** One JSON document as one line of the answer. */
  json(value: unknown): void;
  /** Rows under a header, columns aligned. */
  table(header: readonly string[], rows: readonly (readonly string[])[]): void;
  /** One line for the person, not part of the answer. */
  note(line: string): void;
  /** Text as it is to standard error: what progress lines need. */
  rawError(text: string): void;
  /** The text in a colour where answers go to a terminal. */
  paint(colour: Colour, text: string): string;
  /** Standard error is a terminal: progress may be shown. */
  readonly interactive: boolean;
  /** Text as it is to where answers go: what drawing needs. */
  raw(text: string): void;
  /** Lines of the terminal that answers go to; null: none that can be drawn on. */
  readonly rows: number | null;
  /** Waits until a reader slower than the answer has caught up. */
  drained(): Promise<void>;
}

export interface TerminalStream extends Writable {
  readonly isTTY?: boolean;
  readonly rows?: number;
}

const escapes: Record<Colour, readonly [number, number]> = {
  bold: [1, 22],
  dim: [2, 22],
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
  cyan: [36, 39],
};

/**
 * Output over two streams. A reader that goes away (EPIPE) ends nothing by force: what is written afterwards is
 * dropped, and `onClosed` is called once.
 */
export function createOutput(
  out: TerminalStream,
  err: TerminalStream,
  env: NodeJS.ProcessEnv,
  onClosed: () => void = () => undefined,
): Output {
  const colourful = out.isTTY === true && (env.NO_COLOR ?? "") === "" && env.TERM !== "dumb";
  const write = createPipe(out, onClosed);
  const writeError = createPipe(err, () => undefined);
  const print = (line = "") => write(`${line}\n`);
  return {
    print,
    json: (value) => print(toJson(value)),
    table: (header, rows) => {
      for (const [index, line] of formatTable(header, rows).entries())
        print(index === 0 && colourful ? bold(line) : line);
    },
    note: (line) => writeError(`${line}\n`),
    rawError: writeError,
    paint: (colour, text) => (colourful ? paint(colour, text) : text),
    interactive: err.isTTY === true && env.TERM !== "dumb",
    raw: write,
    get rows() {
      return out.isTTY === true && env.TERM !== "dumb" ? (out.rows ?? 24) : null;
    },
    drained: () => drained(out),
  };
}

/** JSON text of a value; integers beyond what JSON readers hold exactly become strings. */
export function toJson(value: unknown): string {
  return JSON.stringify(value, (_key, item: unknown) => (typeof item === "bigint" ? bigintJson(item) : item));
}

/** Lines of a table; columns of numbers are aligned to the right. */
export function formatTable(header: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const widths = header.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => (row[column] ?? "").length)),
  );
  const numeric = header.map((_title, column) => rows.length > 0 && rows.every((row) => isNumeric(row[column] ?? "")));
  return [header, ...rows].map((row) =>
    widths
      .map((width, column) => {
        const cell = row[column] ?? "";
        return numeric[column] === true ? cell.padStart(width) : cell.padEnd(width);
      })
      .join("  ")
      .trimEnd(),
  );
}

/** A count with separators: 1,234,567. */
export function formatCount(count: number): string {
  return Math.round(count).toLocaleString("en-US");
}

/** A Unix time in milliseconds in ISO form; a dash for none. */
export function formatTime(ms: number | null | undefined): string {
  if (ms === null || ms === undefined || !Number.isFinite(ms)) return "-";
  return new Date(ms).toISOString().replace(/\.000Z$/, "Z");
}

/** Text on one line of at most `length` characters, control characters made visible. */
export function shorten(text: string, length: number): string {
  // Control characters from data must not reach a terminal.
  const line = text.replace(/\p{Cc}/gu, (character) => JSON.stringify(character).slice(1, -1));
  return line.length <= length ? line : `${line.slice(0, Math.max(0, length - 1))}…`;
}

function bigintJson(value: bigint): number | string {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value.toString();
}

function isNumeric(cell: string): boolean {
  return /^-?[\d,]+(\.\d+)?$|^[-?]$/.test(cell);
}

function paint(colour: Colour, text: string): string {
  const [on, off] = escapes[colour];
  return `\u001b[${on}m${text}\u001b[${off}m`;
}

function bold(text: string): string {
  return paint("bold", text);
}

function createPipe(stream: TerminalStream, onClosed: () => void): (text: string) => void {
  let state: "open" | "closed" = "open";
  stream.on("error", () => {
    if (state === "closed") return;
    state = "closed";
    onClosed();
  });
  return (text) => {
    if (state === "open") stream.write(text);
  };
}

function drained(stream: TerminalStream): Promise<void> {
  if (!stream.writableNeedDrain || stream.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      stream.off("drain", done).off("close", done).off("error", done);
      resolve();
    };
    stream.once("drain", done).once("close", done).once("error", done);
  });
}
