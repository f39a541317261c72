import type { Output } from "./output.ts";

/** Where one answer replaces the one before it. */
export interface Screen {
  draw(lines: readonly string[]): void;
  /** Gives the terminal back as it was, with the last answer below. Idempotent. */
  close(): void;
}

const csi = (code: string): string => `\u001b[${code}`;
/** A page of its own, without the cursor; lines that are too long are cut, not wrapped. */
const enter = [csi("?1049h"), csi("?25l"), csi("?7l")].join("");
const leave = [csi("?7h"), csi("?25h"), csi("?1049l")].join("");

/** Takes the whole terminal; without one, answers follow each other with an empty line between them. */
export function openScreen(output: Output): Screen {
  const { rows } = output;
  if (rows === null) return { draw: (lines) => [...lines, ""].forEach(output.print), close: () => {} };
  let last: readonly string[] | null = [];
  output.raw(enter);
  return {
    draw: (lines) => {
      last = lines;
      // Each line is written over the old one, so that nothing flickers.
      const shown = cut(lines, output.rows ?? rows).map((line) => `${line}${csi("K")}`);
      output.raw(`${csi("H")}${shown.join("\r\n")}${csi("J")}`);
    },
    close: () => {
      if (last === null) return;
      output.raw(leave);
      last.forEach((line) => void output.print(line));
      last = null;
    },
  };
}

function cut(lines: readonly string[], rows: number): readonly string[] {
  if (lines.length <= rows) return lines;
  const room = Math.max(0, rows - 1);
  return [...lines.slice(0, room), `… ${lines.length - room} lines more: make the terminal higher`];
}
