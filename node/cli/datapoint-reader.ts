import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { extname } from "node:path";
import { StarlingError } from "../../proto/starling-error.ts";
import { type CsvMapping, readCsv } from "./csv-reader.ts";
import { readJsonArray } from "./json-reader.ts";
import { readNdjson } from "./ndjson-reader.ts";
import type { ByteSource, ReadItem } from "./read-item.ts";

export type Format = "json" | "ndjson" | "csv";

/** One input that is being read. */
export interface DatapointReader {
  /** As the person named it; `-` for standard input. */
  readonly name: string;
  /** Bytes; null if they cannot be known. */
  readonly totalBytes: number | null;
  readBytes(): number;
  items(): AsyncGenerator<ReadItem[]>;
}

export interface ReaderOptions {
  readonly format?: Format | undefined;
  readonly mapping: CsvMapping | null;
  readonly stdin: ByteSource;
}

const extensions: Readonly<Record<string, Format>> = {
  ".json": "json",
  ".ndjson": "ndjson",
  ".jsonl": "ndjson",
  ".csv": "csv",
};

/** Opens one file, or standard input for `-`. Raises NOT_FOUND or INVALID_ARGUMENT, so that all files are checked first. */
export async function openReader(name: string, options: ReaderOptions): Promise<DatapointReader> {
  const totalBytes = name === "-" ? null : await sizeOf(name);
  let readBytes = 0;
  async function* counted(source: ByteSource): AsyncGenerator<Uint8Array> {
    for await (const chunk of source) {
      readBytes += chunk.length;
      yield chunk;
    }
  }
  const format = options.format ?? formatOf(name, options.mapping);
  return {
    name,
    totalBytes,
    readBytes: () => readBytes,
    items: () => readItems(counted(name === "-" ? options.stdin : createReadStream(name)), format, options.mapping),
  };
}

/** Datapoints from bytes of one format; `null` decides by the first character that is not blank. */
export async function* readItems(
  source: ByteSource,
  format: Format | null,
  mapping: CsvMapping | null,
): AsyncGenerator<ReadItem[]> {
  const { bytes, guess } = format === null ? await guessFormat(source) : { bytes: source, guess: format };
  if (guess === "json") yield* readJsonArray(bytes);
  else if (guess === "ndjson") yield* readNdjson(bytes);
  else yield* readCsv(bytes, mapping);
}

async function sizeOf(name: string): Promise<number | null> {
  try {
    await using handle = await open(name);
    const stat = await handle.stat();
    if (stat.isDirectory()) throw new StarlingError("INVALID_ARGUMENT", `${name} is a directory, not a file`);
    return stat.isFile() ? stat.size : null;
  } catch (error) {
    if (error instanceof StarlingError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new StarlingError("NOT_FOUND", `cannot read ${name}: ${reason}`, { cause: error });
  }
}

/** JSON files are looked into all the same: many of that name hold lines. */
function formatOf(name: string, mapping: CsvMapping | null): Format | null {
  const format = extensions[extname(name).toLowerCase()] ?? null;
  if (format === null && mapping !== null) return "csv";
  return format === "json" ? null : format;
}

async function guessFormat(source: ByteSource): Promise<{ bytes: ByteSource; guess: Format }> {
  const iterator = source[Symbol.asyncIterator]();
  const seen: Uint8Array[] = [];
  let first = "";
  while (first === "") {
    const next = await iterator.next();
    if (next.done === true) break;
    seen.push(next.value);
    first = Buffer.from(next.value)
      .toString("latin1")
      .replace(/^[\sï»¿]+/, "")
      .slice(0, 1);
  }
  async function* all(): AsyncGenerator<Uint8Array> {
    yield* seen;
    for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) yield next.value;
  }
  if (first === "[") return { bytes: all(), guess: "json" };
  if (first === "{" || first === "") return { bytes: all(), guess: "ndjson" };
  throw new StarlingError(
    "INVALID_ARGUMENT",
    "the input is neither a JSON array nor JSON lines; name it with --format",
  );
}
