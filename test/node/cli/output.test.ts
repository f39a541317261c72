import { Writable } from "node:stream";
import { describe, expect, it } from "vitest";
import { parseAddresses } from "../../../node/cli/address.ts";
import { createOutput, formatTable, formatTime, shorten, toJson } from "../../../node/cli/output.ts";
import { createProgress, formatDuration, formatProgress } from "../../../node/cli/progress.ts";
import { createSink } from "./terminal.ts";

describe("output", () => {
  it("has colours only on a terminal, and none when NO_COLOR is set", () => {
    const paint = (isTTY: boolean, env: NodeJS.ProcessEnv) =>
      createOutput(createSink(isTTY).stream, createSink(isTTY).stream, env).paint("red", "x");
    expect(paint(true, {})).toBe("\u001b[31mx\u001b[39m");
    expect(paint(true, { NO_COLOR: "1" })).toBe("x");
    expect(paint(true, { TERM: "dumb" })).toBe("x");
    expect(paint(false, {})).toBe("x");
  });

  it("aligns columns, numbers to the right", () => {
    expect(
      formatTable(
        ["type", "entities"],
        [
          ["airport", "3,376"],
          ["route", "12"],
        ],
      ),
    ).toEqual(["type     entities", "airport     3,376", "route          12"]);
    expect(formatTable(["a"], [])).toEqual(["a"]);
  });

  it("lets no control character of the data reach the terminal", () => {
    expect(shorten("a\u001b[31mb\nc", 100)).toBe("a\\u001b[31mb\\nc");
    expect(shorten("abcdef", 4)).toBe("abc…");
  });

  it("writes integers beyond 2^53 without loss", () => {
    expect(toJson({ a: 9007199254740993n, b: 5n })).toBe('{"a":"9007199254740993","b":5}');
  });

  it("writes times in short ISO form, and a dash for none", () => {
    expect(formatTime(0)).toBe("1970-01-01T00:00:00Z");
    expect(formatTime(1.5)).toBe("1970-01-01T00:00:00.001Z");
    expect(formatTime(null)).toBe("-");
  });

  it("survives a reader that goes away, says so once, and writes nothing more", async () => {
    let writes = 0;
    let closed = 0;
    const broken = new Writable({
      write: (_chunk, _encoding, done) => {
        writes += 1;
        done(Object.assign(new Error("write EPIPE"), { code: "EPIPE" }));
      },
    });
    const output = createOutput(broken, createSink(false).stream, {}, () => {
      closed += 1;
    });
    output.print("one");
    await new Promise((resolve) => setImmediate(resolve));
    output.print("two");
    await output.drained();
    expect({ writes, closed }).toEqual({ writes: 1, closed: 1 });
  });
});

describe("progress", () => {
  it("shows rate and time left", () => {
    const line = formatProgress({ done: 50, total: 100, datapoints: 20_000 }, 2_000);
    expect(line).toBe("  ████████████░░░░░░░░░░░░  50 %  20,000 datapoints, 10,000/s, 2.0 s left");
    expect(formatProgress({ done: 50, total: null, datapoints: 300 }, 1_000)).toBe("  300 datapoints, 300/s");
  });

  it("appears on a terminal only, redrawn at most ten times a second", () => {
    for (const isTTY of [true, false]) {
      const err = createSink(isTTY);
      let now = 0;
      const progress = createProgress(createOutput(createSink(isTTY).stream, err.stream, {}), () => now);
      for (now = 1; now < 400; now += 1) progress.update({ done: now, total: 400, datapoints: now });
      progress.clear();
      expect(err.text().split("\r").length - 1).toBe(isTTY ? 5 : 0);
    }
  });

  it("writes durations for people", () => {
    expect([850, 1_234, 12_300, 200_000, 7_500_000].map(formatDuration)).toEqual([
      "850 ms",
      "1.2 s",
      "12 s",
      "3 min 20 s",
      "2 h 5 min",
    ]);
  });
});

describe("the address", () => {
  it("comes from the flag, or STARLING_ADDRESS, or is the default", () => {
    expect(parseAddresses("a:1", { STARLING_ADDRESS: "b:2" })).toEqual(["a:1"]);
    expect(parseAddresses(undefined, { STARLING_ADDRESS: "b:2" })).toEqual(["b:2"]);
    expect(parseAddresses(undefined, {})).toEqual(["127.0.0.1:4700"]);
    expect(parseAddresses("node-1", {})).toEqual(["node-1:4700"]);
    expect(parseAddresses("[::1]:5", {})).toEqual(["[::1]:5"]);
    expect(parseAddresses("a:1, b, a:1", {})).toEqual(["a:1", "b:4700"]);
    for (const wrong of ["http://a:1", "a:0", "a:70000", "a b", "", "a,"]) {
      expect(() => parseAddresses(wrong, {})).toThrow(/is not an address/);
    }
  });
});
