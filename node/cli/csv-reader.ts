import { pipeline, Readable } from "node:stream";
import { type CsvError, type Info, type Parser, parse } from "csv-parse";
import type { LooseDatapoint } from "../../modules/datapoint.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { type ByteSource, itemMaxBytes, parseJson, type ReadItem, toReadItem } from "./read-item.ts";

/** How the columns of a CSV file become datapoints: one for every row and mapped attribute whose cell is not empty. */
export interface CsvMapping {
  readonly type: string;
  /** Column of the entity id. */
  readonly eid: string;
  readonly attrs: readonly CsvAttr[];
  /** Columns of validity and confidence. */
  readonly t1?: string;
  readonly t2?: string;
  readonly c?: string;
  /** The source of all datapoints, as it is. */
  readonly src?: string;
}

export interface CsvAttr {
  readonly attr: string;
  readonly column: string;
  /** text: the cell; json: its content as JSON; link: the id of the entity that the attribute points to. */
  readonly form: "text" | "json" | "link";
}

const rowsPerPiece = 500;

/**
 * Datapoints from CSV with a header line. With a mapping each row describes one entity; without one the columns are
 * a datapoint's own: type, eid (or id), attr, v (as JSON, or else as text), t1, t2, c, src. Raises INVALID_ARGUMENT
 * when a mapped column is not in the header.
 */
export async function* readCsv(source: ByteSource, mapping: CsvMapping | null): AsyncGenerator<ReadItem[]> {
  const skipped: ReadItem[] = [];
  const parser = createParser(skipped, mapping);
  // An error of the source destroys the parser with it, so that the loop below throws it.
  pipeline(Readable.from(source), parser, () => undefined);
  let items: ReadItem[] = [];
  for await (const { record, info } of parser as AsyncIterable<CsvRow>) {
    // The parser runs ahead of this loop: what it skipped is told in its place.
    while ((skipped[0]?.line ?? Number.POSITIVE_INFINITY) < info.lines) items.push(...skipped.splice(0, 1));
    appendRow(record, info.lines, mapping, items);
    if (items.length >= rowsPerPiece) {
      yield items;
      items = [];
    }
  }
  items.push(...skipped.splice(0));
  if (items.length > 0) yield items;
}

/** `name=COLUMN`, `name=COLUMN:json` or `name=COLUMN:link`. Throws INVALID_ARGUMENT. */
export function parseCsvAttr(text: string): CsvAttr {
  const match = /^([^=]+)=(.+?)(?::(json|link))?$/.exec(text);
  const [, attr, column, form] = match ?? [];
  if (attr === undefined || column === undefined) {
    throw new StarlingError("INVALID_ARGUMENT", `${JSON.stringify(text)} is no mapping: expected name=COLUMN`);
  }
  return { attr, column, form: form === "json" || form === "link" ? form : "text" };
}

type Row = Readonly<Record<string, string>>;
interface CsvRow {
  readonly record: Row;
  readonly info: Info;
}

function createParser(skipped: ReadItem[], mapping: CsvMapping | null): Parser {
  return parse({
    bom: true,
    columns: (header: string[]) => {
      checkHeader(header, mapping);
      return header;
    },
    info: true,
    skip_empty_lines: true,
    skip_records_with_error: true,
    max_record_size: itemMaxBytes,
    on_skip: (error: CsvError | undefined) => {
      const lines: unknown = error?.lines;
      const message = error?.message ?? "not CSV";
      skipped.push({ kind: "malformed", line: typeof lines === "number" ? lines : 0, message: `not CSV: ${message}` });
      return undefined;
    },
  });
}

function checkHeader(header: readonly string[], mapping: CsvMapping | null): void {
  const wanted =
    mapping === null
      ? ["type", header.includes("id") ? "id" : "eid", "attr", "v"]
      : [mapping.eid, mapping.t1, mapping.t2, mapping.c, ...mapping.attrs.map((attr) => attr.column)];
  const missing = wanted.filter((column) => column !== undefined && !header.includes(column));
  if (missing.length === 0) return;
  const hint = mapping === null ? "; give --type, --eid and --attr to map other columns" : "";
  throw new StarlingError(
    "INVALID_ARGUMENT",
    `the CSV header has no column ${missing.join(", ")}; it has ${header.join(", ")}${hint}`,
  );
}

function appendRow(row: Row, line: number, mapping: CsvMapping | null, items: ReadItem[]): void {
  if (mapping === null) {
    items.push(toReadItem(directDatapoint(row), line));
    return;
  }
  const shared = {
    type: mapping.type,
    eid: row[mapping.eid],
    t1: cell(row, mapping.t1),
    t2: cell(row, mapping.t2),
    c: cell(row, mapping.c),
    src: mapping.src,
  };
  for (const { attr, column, form } of mapping.attrs) {
    const text = row[column] ?? "";
    if (text === "") continue;
    const value = parseCell(text, form);
    if (value.kind === "malformed")
      items.push({ kind: "malformed", line, message: `column ${column}: ${value.message}` });
    else items.push({ kind: "datapoint", line, datapoint: { ...shared, attr, v: value.v } });
  }
}

function directDatapoint(row: Row): LooseDatapoint {
  const value = parseCell(row.v ?? "", "json");
  return {
    type: row.type,
    eid: row.eid ?? row.id,
    attr: row.attr,
    v: value.kind === "value" ? value.v : row.v,
    t1: cell(row, "t1"),
    t2: cell(row, "t2"),
    c: cell(row, "c"),
    src: cell(row, "src"),
  };
}

function cell(row: Row, column: string | undefined): string | undefined {
  const text = column === undefined ? undefined : row[column];
  return text === "" ? undefined : text;
}

type CellValue = { kind: "value"; v: unknown } | { kind: "malformed"; message: string };

function parseCell(text: string, form: CsvAttr["form"]): CellValue {
  if (form === "text") return { kind: "value", v: text };
  if (form === "link") return { kind: "value", v: { eid: text } };
  try {
    return { kind: "value", v: parseJson(text) };
  } catch (error) {
    return { kind: "malformed", message: `not JSON: ${error instanceof Error ? error.message : String(error)}` };
  }
}
