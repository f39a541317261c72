import { isUtf8 } from "node:buffer";
import { type ByteSource, itemMaxBytes, parseReadItem, type ReadItem } from "./read-item.ts";

const newline = 0x0a;

/** Datapoints from lines of JSON; blank lines are skipped, a malformed one costs only itself. */
export async function* readNdjson(source: ByteSource): AsyncGenerator<ReadItem[]> {
  const lines = createLineCutter();
  for await (const chunk of source) {
    const items = lines.push(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength));
    if (items.length > 0) yield items;
  }
  const rest = lines.end();
  if (rest.length > 0) yield rest;
}

function createLineCutter() {
  let pending: Buffer[] = [];
  let pendingBytes = 0;
  let line = 1;

  const take = (last: Buffer, items: ReadItem[]) => {
    const bytes = pendingBytes + last.length;
    // Of a line above the bound only the length is kept.
    if (bytes > itemMaxBytes) items.push({ kind: "malformed", line, message: tooLong });
    else parseLine(pending.length === 0 ? last : Buffer.concat([...pending, last]), line, items);
    pending = [];
    pendingBytes = 0;
    line += 1;
  };

  return {
    push: (chunk: Buffer): ReadItem[] => {
      const items: ReadItem[] = [];
      let start = 0;
      for (let end = chunk.indexOf(newline); end >= 0; end = chunk.indexOf(newline, start)) {
        take(chunk.subarray(start, end), items);
        start = end + 1;
      }
      if (start < chunk.length) {
        pendingBytes += chunk.length - start;
        if (pendingBytes <= itemMaxBytes) pending.push(chunk.subarray(start));
        else pending = [];
      }
      return items;
    },
    end: (): ReadItem[] => {
      const items: ReadItem[] = [];
      if (pendingBytes > 0) take(Buffer.alloc(0), items);
      return items;
    },
  };
}

const tooLong = `the line is longer than ${itemMaxBytes} bytes`;

function parseLine(bytes: Buffer, line: number, items: ReadItem[]): void {
  if (!isUtf8(bytes)) {
    items.push({ kind: "malformed", line, message: "not UTF-8" });
    return;
  }
  const text = bytes.toString("utf8").trim();
  if (text !== "") items.push(parseReadItem(text, line));
}
