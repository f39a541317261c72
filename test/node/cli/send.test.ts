import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { toClientDatapoint, wireBytesMax } from "../../../node/cli/client-datapoint.ts";
import type { GrpcServer } from "../../../node/grpc/server.ts";
import { encodeBatches } from "../../../proto/client-batch.ts";
import { createFakeEngine, createFakeWorld, type FakeWorld } from "../../support/fake-engine.ts";
import { startEdge } from "../../support/grpc-edge.ts";
import { type RunOptions, run } from "./terminal.ts";

const point = (eid: string, v: unknown = "x", attr = "name") => ({ type: "thing", eid, attr, v });

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "starling-send-"));
});
afterAll(() => rm(folder, { recursive: true }));

let world: FakeWorld;
let server: GrpcServer;
beforeEach(async () => {
  world = createFakeWorld();
  server = await startEdge(createFakeEngine(world));
});
afterEach(() => server.close());

/** Runs a command line against the server of the test. */
function starling(args: readonly string[], options: RunOptions = {}) {
  return run(args, { ...options, env: { STARLING_ADDRESS: server.address, ...options.env } });
}

async function file(name: string, text: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, text);
  return path;
}

const applied = () => world.applied.map(({ eid, attr, v }) => `${eid} ${attr}=${v}`);

describe("starling send", () => {
  it("reports malformed lines with file and line, and sends the rest", async () => {
    const lines = [JSON.stringify(point("a")), '{"type":"thing",', "[]", JSON.stringify(point("b"))];
    const path = await file("broken.ndjson", lines.join("\n"));
    const { code, out, err } = await starling(["send", path]);
    expect(code).toBe(1);
    expect(applied()).toEqual(["a name=x", "b name=x"]);
    expect(err).toContain(`starling: ${path}:2: not JSON: `);
    expect(err).toContain(`starling: ${path}:3: expected a datapoint object, found an array`);
    expect(out).toMatch(/^accepted {2}2$/m);
    expect(out).toMatch(/^malformed 2$/m);
  });

  it("tells what the node refused, with code, first examples and their places", async () => {
    const points = [
      point("a"),
      point("b", "x", "nope"),
      point("c", "no number", "size"),
      { ...point("d"), type: "none" },
    ];
    const path = await file("refused.json", `[\n${points.map((one) => JSON.stringify(one)).join(",\n")}\n]`);
    const { code, out } = await starling(["send", path, "--json"]);
    expect(code).toBe(1);
    const summary = JSON.parse(out) as Record<string, unknown>;
    expect(summary).toMatchObject({
      sent: 4,
      accepted: 1,
      rejected: 3,
      malformed: 0,
      codes: {
        UNKNOWN_ATTRIBUTE: { count: 1, examples: [{ file: path, line: 3 }] },
        INVALID_VALUE: {
          count: 1,
          examples: [{ file: path, line: 4, message: expect.stringContaining("thing.size") }],
        },
        UNKNOWN_TYPE: { count: 1, examples: [{ file: path, line: 5 }] },
      },
    });
  });

  it("tells which element of a JSON array on one line it is", async () => {
    const points = [point("a"), point("b", "x", "nope"), [], point("c", "no number", "size")];
    const path = await file("line.json", JSON.stringify(points));
    const { out, err } = await starling(["send", path]);
    expect(err).toContain(`starling: ${path}:1 (element 3): expected a datapoint object, found an array`);
    expect(out).toContain(`    ${path}:1 (element 2): `);
    const summary = JSON.parse((await starling(["send", path, "--json"])).out) as Record<string, unknown>;
    expect(summary).toMatchObject({ codes: { INVALID_VALUE: { examples: [{ file: path, line: 1, element: 4 }] } } });
  });

  it("refuses what cannot travel with the code that the node would give", async () => {
    const lines = [
      { ...point("a"), t1: "yesterday" },
      { ...point("a"), eid: null },
      { type: "thing", eid: "a", attr: "name" },
      { ...point("a"), c: "high" },
      { ...point("a"), src: 5 },
      { ...point("a"), attr: null },
      point("a\ud800"),
      point("a", "half of a pair: \udfff"),
    ];
    const path = await file("odd.ndjson", lines.map((one) => JSON.stringify(one)).join("\n"));
    const { out } = await starling(["send", "--json", path]);
    const { codes } = JSON.parse(out) as { codes: Record<string, { count: number }> };
    expect(Object.fromEntries(Object.entries(codes).map(([code, { count }]) => [code, count]))).toEqual({
      INVALID_TIME: 1,
      INVALID_EID: 2,
      INVALID_VALUE: 2,
      INVALID_CONFIDENCE: 1,
      INVALID_ARGUMENT: 2,
    });
    expect(applied()).toEqual([]);
  });

  it("reads standard input, several files, and CSV with a mapping", async () => {
    expect((await starling(["send", "-"], { stdin: JSON.stringify([point("stdin")]) })).code).toBe(0);
    const one = await file("one.ndjson", `${JSON.stringify(point("one"))}\n`);
    const two = await file("two.json", JSON.stringify([point("two")]));
    expect((await starling(["send", one, two])).code).toBe(0);
    const csv = await file("things.csv", "id,label,bytes\nx,X,5\ny,Y,\n");
    const mapping = ["--type", "thing", "--eid", "id", "--attr", "name=label", "--attr", "size=bytes"];
    expect((await starling(["send", csv, ...mapping])).code).toBe(0);
    expect(applied().sort()).toEqual(["one name=x", "stdin name=x", "two name=x", "x name=X", "x size=5", "y name=Y"]);
  });

  it("in a named session doubles nothing when the same command runs again", async () => {
    const points = Array.from({ length: 2_500 }, (_, index) => point(`e${index % 7}`, `v${index}`));
    const path = await file("many.json", JSON.stringify(points));
    for (let turn = 0; turn < 2; turn += 1) {
      const { code, out } = await starling([
        "send",
        path,
        "--session",
        "many",
        "--batch",
        "100",
        "--level",
        "processed",
      ]);
      expect(code).toBe(0);
      expect(out).toMatch(/^accepted {2}2,500$/m);
    }
    expect(world.applied).toHaveLength(2_500);
  });

  it("in a named session says so when the input has changed", async () => {
    const path = await file("changing.json", JSON.stringify([point("a", "1")]));
    expect((await starling(["send", path, "-s", "changing"])).code).toBe(0);
    await file("changing.json", JSON.stringify([point("a", "2")]));
    const { code, out, err } = await starling(["send", path, "-s", "changing"]);
    expect(code).toBe(1);
    expect(out + err).toContain("BATCH_CHANGED");
    expect(applied()).toEqual(["a name=1"]);
  });

  it("stops when it is told to, and says how to go on", async () => {
    const stop = new AbortController();
    stop.abort();
    const path = await file("stopped.ndjson", `${JSON.stringify(point("a"))}\n`.repeat(10));
    const { code, err } = await starling(["send", path, "-s", "stopped"], { signal: stop.signal });
    expect(code).toBe(1);
    expect(err).toContain("the same command again sends the rest and doubles nothing");
  });

  it("ends with UNAVAILABLE and a remedy when no node is there", async () => {
    const { code, err } = await run(["send", "-", "--address", "127.0.0.1:1"], { stdin: "[]" });
    expect(code).toBe(1);
    expect(err).toMatch(
      /^starling: UNAVAILABLE: no node answered within 3000 ms at 127\.0\.0\.1:1: .*\n {2}→ is a node running there\?/,
    );
  });
});

describe("a datapoint of a file", () => {
  it("has times as DP³ has them: text, or numbers that are seconds when small", () => {
    const t1 = (value: unknown) => toClientDatapoint({ ...point("a"), t1: value }).t1;
    expect(t1("2020-01-01T00:00:00")).toBe(1_577_836_800_000);
    expect(t1(1_577_836_800)).toBe(1_577_836_800_000);
    expect(t1(1_577_836_800_000)).toBe(1_577_836_800_000);
    expect(t1(null)).toBeNull();
  });

  it("never takes more bytes on the wire than is reckoned", () => {
    const values = ["", "ü✈😀".repeat(50), 1, -5, 1.5e300, true, { a: ["✈", 1e300] }, null, 2n ** 62n];
    for (const v of values) {
      const one = toClientDatapoint({ ...point("é".repeat(20)), v, t1: 1e12, t2: 1e12, c: 0.5, src: "✈" });
      expect(encodeBatches([one], false)[0]?.content.length).toBeLessThanOrEqual(wireBytesMax(one));
    }
  });
});

describe("reading commands", () => {
  it("show records, counts and raw datapoints, and their JSON", async () => {
    await starling(["send", "-"], { stdin: JSON.stringify([point("a"), point("b"), point("a", "y")]) });
    expect((await starling(["entity", "get", "thing", "a"])).out).toMatch(/thing a.*\n.*attribute/);
    const record = JSON.parse((await starling(["entity", "get", "thing", "a", "--json"])).out) as object;
    expect(record).toMatchObject({ type: "thing", eid: "a", createdAt: expect.stringMatching(/Z$/) });
    expect(JSON.parse((await starling(["entity", "count", "--json"])).out)).toMatchObject({ counts: { thing: 2 } });
    expect((await starling(["entity", "count"])).out).toMatch(/thing\s+2/);
    const listed = await starling(["raw", "thing", "a", "--json"]);
    expect(listed.err).toMatch(/^2 datapoints, as of \d{4}-/);
    const raw = listed.out.trim().split("\n");
    expect(raw.map((line) => (JSON.parse(line) as { v: unknown }).v)).toEqual(["y", "x"]);
    expect(JSON.parse((await starling(["status", "--json"])).out)).toMatchObject({ node: "n1", state: "serving" });
    expect((await starling(["status"])).out).toMatch(/^n1 {2}serving/);
    expect((await starling(["modules"])).out).toBe("no module is enabled\n");
    expect(JSON.parse((await starling(["dead-letter", "list", "--json"])).out)).toEqual({ letters: [], cursor: "" });
  });

  it("what raw prints as JSON can be sent again", async () => {
    await starling(["send", "-"], { stdin: JSON.stringify([{ ...point("a"), src: "s" }]) });
    const { out } = await starling(["raw", "thing", "a", "--json"]);
    expect((await starling(["send", "-"], { stdin: out })).code).toBe(0);
    expect(applied()).toEqual(["a name=x", "a name=x"]);
  });

  it("follow until they are told to stop, and then end well", async () => {
    const stop = new AbortController();
    const following = starling(["raw", "thing", "--follow"], { signal: stop.signal, onOut: () => stop.abort() });
    await starling(["entity", "set", "thing", "a", "name", "followed"]);
    const { code, out } = await following;
    expect(code).toBe(0);
    expect(out).toContain("name = followed");
  });

  it("set takes JSON, or else text, and delete deletes", async () => {
    expect((await starling(["entity", "set", "thing", "a", "size", "5"])).code).toBe(0);
    expect((await starling(["entity", "set", "thing", "a", "name", "5", "--text"])).code).toBe(0);
    expect(applied()).toEqual(["a size=5", "a name=5"]);
    const wrong = await starling(["entity", "set", "thing", "a", "name", "5"]);
    expect(wrong.code).toBe(1);
    expect(wrong.err).toMatch(/^starling: INVALID_VALUE: /);
    expect((await starling(["entity", "delete", "thing", "a"])).out).toBe("deleted thing a\n");
    expect(world.deleted).toEqual(["thing/a"]);
  });

  it("say of what is not there that it is not there", async () => {
    const none = await starling(["entity", "get", "thing", "none"]);
    expect(none.code).toBe(1);
    expect(none.err).toMatch(/^starling: NOT_FOUND: /);
    const letter = await starling(["dead-letter", "show", "1-2-3"]);
    expect(letter.code).toBe(1);
    expect(letter.err).toMatch(/^starling: NOT_FOUND: /);
  });
});
