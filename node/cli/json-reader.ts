import { isUtf8 } from "node:buffer";
import { type ByteSource, itemMaxBytes, parseReadItem, type ReadItem, type ReadPlace } from "./read-item.ts";

/**
 * Datapoints from one JSON array, element by element: the array is never held as a whole. Elements are cut at the
 * brackets and commas outside strings and parsed alone, so that a malformed element costs only itself as long as its
 * brackets pair up.
 */
export async function* readJsonArray(source: ByteSource): AsyncGenerator<ReadItem[]> {
  const cutter = createElementCutter();
  for await (const chunk of source) {
    const items = cutter.push(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength));
    if (items.length > 0) yield items;
    if (cutter.finished()) return;
  }
  const rest = cutter.end();
  if (rest.length > 0) yield rest;
}

const quote = 0x22;
const backslash = 0x5c;
const comma = 0x2c;
const newline = 0x0a;
const open = new Set([0x5b, 0x7b]);
const close = new Set([0x5d, 0x7d]);
const closeArray = 0x5d;

interface CutterState {
  phase: "before" | "inside" | "after" | "broken";
  depth: number;
  inString: boolean;
  escaped: boolean;
  line: number;
  /** Line on which the current element began; null before it. */
  elementLine: number | null;
  /** Elements and gaps up to the current one. */
  element: number;
  /** An element must follow: a comma stood before. */
  expected: boolean;
}

function createElementCutter() {
  const state: CutterState = {
    phase: "before",
    depth: 0,
    inString: false,
    escaped: false,
    line: 1,
    elementLine: null,
    element: 1,
    expected: false,
  };
  const buffer = createElementBuffer();

  const finish = (items: ReadItem[], separator: "comma" | "end") => {
    const text = buffer.take();
    const place = placeOf(state);
    if (text.kind === "malformed") items.push({ ...text, ...place });
    else if (text.text !== "") items.push({ ...parseReadItem(text.text, place.line), ...place });
    else if (separator === "comma" || state.expected) {
      items.push({ kind: "malformed", ...place, message: "an element is missing between commas" });
    }
    state.elementLine = null;
    state.element += 1;
    state.expected = separator === "comma";
  };

  const push = (chunk: Buffer): ReadItem[] => {
    const items: ReadItem[] = [];
    let start = 0;
    for (let index = 0; index < chunk.length; index += 1) {
      const byte = chunk[index] ?? 0;
      if (byte === newline) state.line += 1;
      if (state.phase === "inside") {
        const cut = scan(state, byte);
        if (cut === "no") continue;
        buffer.add(chunk.subarray(start, index));
        finish(items, cut);
        start = index + 1;
      } else {
        scanOutside(state, byte, items);
        start = index + 1;
      }
    }
    if (state.phase === "inside") buffer.add(chunk.subarray(start));
    return items;
  };

  return {
    push,
    finished: () => state.phase === "broken",
    end: (): ReadItem[] => {
      if (state.phase === "inside") {
        return [{ kind: "malformed", ...placeOf(state), message: "the input ends inside the array" }];
      }
      if (state.phase === "before") return [{ kind: "malformed", line: 1, message: "expected a JSON array" }];
      return [];
    },
  };
}

function placeOf({ elementLine, line, element }: CutterState): ReadPlace {
  return { line: elementLine ?? line, element };
}

/** One byte inside the array: does an element start or end here? */
function scan(state: CutterState, byte: number): "no" | "comma" | "end" {
  if (state.escaped) {
    state.escaped = false;
  } else if (state.inString) {
    if (byte === backslash) state.escaped = true;
    else if (byte === quote) state.inString = false;
  } else if (byte === quote) {
    state.inString = true;
    state.elementLine ??= state.line;
  } else if (open.has(byte)) {
    state.elementLine ??= state.line;
    state.depth += 1;
  } else if (state.depth > 0) {
    if (close.has(byte)) state.depth -= 1;
  } else if (byte === comma) {
    return "comma";
  } else if (byte === closeArray) {
    state.phase = "after";
    return "end";
  } else if (!isBlank(byte)) {
    state.elementLine ??= state.line;
  }
  return "no";
}

/** One byte before or after the array. */
function scanOutside(state: CutterState, byte: number, items: ReadItem[]): void {
  const mark = state.phase === "before" && (byte === 0xef || byte === 0xbb || byte === 0xbf);
  if (isBlank(byte) || mark || state.phase === "broken") return;
  if (state.phase === "before" && byte === 0x5b) {
    state.phase = "inside";
    return;
  }
  const message = state.phase === "before" ? "expected a JSON array" : "there is text after the array";
  items.push({ kind: "malformed", line: state.line, message });
  state.phase = "broken";
}

function isBlank(byte: number): boolean {
  return byte === 0x20 || byte === 0x09 || byte === 0x0d || byte === newline;
}

type ElementText = { kind: "text"; text: string } | { kind: "malformed"; message: string };

function createElementBuffer() {
  let pieces: Buffer[] = [];
  let bytes = 0;
  return {
    add: (piece: Buffer) => {
      bytes += piece.length;
      // Of an element above the bound only the length is kept.
      if (bytes > itemMaxBytes) pieces = [];
      else pieces.push(piece);
    },
    take: (): ElementText => {
      const tooLong = bytes > itemMaxBytes;
      const whole = pieces.length === 1 && pieces[0] !== undefined ? pieces[0] : Buffer.concat(pieces);
      pieces = [];
      bytes = 0;
      if (tooLong) return { kind: "malformed", message: `the element is longer than ${itemMaxBytes} bytes` };
      if (!isUtf8(whole)) return { kind: "malformed", message: "not UTF-8" };
      return { kind: "text", text: whole.toString("utf8").trim() };
    },
  };
}
