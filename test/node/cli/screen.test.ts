import { expect, it } from "vitest";
import { createOutput } from "../../../node/cli/output.ts";
import { openScreen } from "../../../node/cli/screen.ts";
import { createSink } from "./terminal.ts";

function screenOf(isTTY: boolean, rows = 4) {
  const sink = createSink(isTTY);
  const output = createOutput(Object.assign(sink.stream, { rows }), createSink(false).stream, {});
  return { screen: openScreen(output), text: sink.text };
}

it("a terminal is taken and given back as it was, with the last answer below", () => {
  const { screen, text } = screenOf(true);
  screen.draw(["old"]);
  screen.draw(["new", "lines"]);
  screen.close();
  screen.close();
  const esc = "\u001b[";
  expect(text()).toBe(
    [
      `${esc}?1049h${esc}?25l${esc}?7l`,
      `${esc}Hold${esc}K${esc}J`,
      `${esc}Hnew${esc}K\r\nlines${esc}K${esc}J`,
      `${esc}?7h${esc}?25h${esc}?1049l`,
      "new\nlines\n",
    ].join(""),
  );
});

it("what does not fit is counted, not scrolled", () => {
  const { screen, text } = screenOf(true);
  screen.draw(["1", "2", "3", "4", "5"]);
  expect(text()).toContain("3\u001b[K\r\n… 2 lines more: make the terminal higher");
  expect(text()).not.toContain("4\u001b[K");
});

it("without a terminal answers follow each other", () => {
  const { screen, text } = screenOf(false);
  screen.draw(["a"]);
  screen.draw(["b"]);
  screen.close();
  expect(text()).toBe("a\n\nb\n\n");
});
