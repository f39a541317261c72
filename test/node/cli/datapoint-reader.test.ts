import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type CsvMapping, parseCsvAttr } from "../../../node/cli/csv-reader.ts";
import { type Format, openReader, readItems } from "../../../node/cli/datapoint-reader.ts";
import { itemMaxBytes, type ReadItem } from "../../../node/cli/read-item.ts";

const a = { type: "airport", eid: "ORD", attr: "city", v: "Chicago" };
const b = { type: "airport", eid: "JFK", attr: "city", v: "New York ✈" };

async function* pieces(text: string | Uint8Array, size: number) {
  const bytes = typeof text === "string" ? new TextEncoder().encode(text) : text;
  for (let start = 0; start < bytes.length; start += size) yield bytes.slice(start, start + size);
}

async function read(
  text: string | Uint8Array,
  format: Format | null,
  mapping: CsvMapping | null = null,
  size = 1 << 16,
): Promise<ReadItem[]> {
  const items: ReadItem[] = [];
  for await (const piece of readItems(pieces(text, size), format, mapping)) items.push(...piece);
  return items;
}

/** `line` of a datapoint with its eid, `line!` of a malformed item. */
function outline(items: readonly ReadItem[]): string[] {
  return items.map((item) => (item.kind === "datapoint" ? `${item.line} ${item.datapoint.eid}` : `${item.line}!`));
}

describe("NDJSON", () => {
  it("gives one datapoint a line, whatever the pieces of input", async () => {
    const text = `${JSON.stringify(a)}\n\n${JSON.stringify(b)}\r\n${JSON.stringify(a)}`;
    for (const size of [1, 7, 100_000]) {
      const items = await read(text, "ndjson", null, size);
      expect(outline(items)).toEqual(["1 ORD", "3 JFK", "4 ORD"]);
      expect(items[1]).toMatchObject({ datapoint: b });
    }
  });

  it("says of a malformed line where it is, and reads on", async () => {
    const text = `${JSON.stringify(a)}\n{"type": \n[1]\nnull\n${JSON.stringify(b)}\n`;
    const items = await read(text, "ndjson");
    expect(outline(items)).toEqual(["1 ORD", "2!", "3!", "4!", "5 JFK"]);
    expect(items[1]).toMatchObject({ message: expect.stringMatching(/^not JSON: /) });
    expect(items[2]).toMatchObject({ message: "expected a datapoint object, found an array" });
  });

  it("never turns bytes that are not UTF-8 into other text", async () => {
    const bytes = Buffer.concat([
      Buffer.from('{"v":"'),
      Buffer.from([0xff]),
      Buffer.from(`"}\n${JSON.stringify(a)}\n`),
    ]);
    const items = await read(bytes, "ndjson");
    expect(outline(items)).toEqual(["1!", "2 ORD"]);
    expect(items[0]).toMatchObject({ message: "not UTF-8" });
  });

  it("does not hold a line without end", async () => {
    const items = await read(`${"x".repeat(itemMaxBytes + 10)}\n${JSON.stringify(a)}`, "ndjson");
    expect(outline(items)).toEqual(["1!", "2 ORD"]);
  });

  it("keeps integers beyond 2^53 exact, and text that looks like them as it is", async () => {
    const items = await read('{"v":[9007199254740993,-9223372036854775808,12,1.5e300,"9007199254740993"]}', "ndjson");
    expect(items[0]).toMatchObject({
      datapoint: { v: [9007199254740993n, -9223372036854775808n, 12, 1.5e300, "9007199254740993"] },
    });
  });

  it("takes the id of a DP³ datapoint", async () => {
    expect(outline(await read('{"type":"ip","id":"1.2.3.4","attr":"x","v":1}', "ndjson"))).toEqual(["1 1.2.3.4"]);
  });
});

describe("a JSON array", () => {
  it("is read element by element, whatever the pieces of input", async () => {
    const tricky = { ...a, eid: 'q"]},[{\\', v: { nested: [[1, 2], { a: "]" }] } };
    const text = `\ufeff [\n${JSON.stringify(a)},\n ${JSON.stringify(tricky, null, 1)}\n, ${JSON.stringify(b)}\n]\n`;
    for (const size of [1, 5, 100_000]) {
      const items = await read(text, "json", null, size);
      expect(items.map((item) => (item.kind === "datapoint" ? item.datapoint.eid : item))).toEqual([
        "ORD",
        tricky.eid,
        "JFK",
      ]);
      expect(items[1]).toMatchObject({ line: 3, datapoint: tricky });
    }
    expect(await read("[]", "json")).toEqual([]);
    expect(await read(" [ \n ] ", "json")).toEqual([]);
  });

  it("costs only the element that is malformed", async () => {
    const text = `[${JSON.stringify(a)},\n{"type": nope},\n,\n7,\n${JSON.stringify(b)},\n]`;
    const items = await read(text, "json");
    expect(outline(items)).toEqual(["1 ORD", "2!", "3!", "4!", "5 JFK", "6!"]);
    expect(items.map(({ element }) => element)).toEqual([1, 2, 3, 4, 5, 6]);
  });

  it("that is cut off, missing or followed by text is said to be so", async () => {
    const cut = await read(`[${JSON.stringify(a)},\n{"type": "air`, "json");
    expect(outline(cut)).toEqual(["1 ORD", "2!"]);
    expect(cut[1]).toMatchObject({ message: "the input ends inside the array" });
    expect(await read("", "json")).toMatchObject([{ kind: "malformed", message: "expected a JSON array" }]);
    expect(await read("{}", "json")).toMatchObject([{ kind: "malformed", message: "expected a JSON array" }]);
    expect(await read("[] x y", "json")).toMatchObject([{ message: "there is text after the array" }]);
  });
});

describe("CSV", () => {
  const mapping: CsvMapping = {
    type: "airport",
    eid: "iata",
    attrs: [parseCsvAttr("city=town"), parseCsvAttr("position=pos:json"), parseCsvAttr("hub=hub:link")],
    t1: "since",
    src: "faa",
  };

  it("becomes a datapoint for every mapped cell that is not empty", async () => {
    const text = 'iata,town,pos,hub,since\nORD,"Chicago, IL",[1],,2020-01-01\nJFK,,,LGA,\n';
    const items = await read(text, "csv", mapping);
    expect(items.map((item) => (item.kind === "datapoint" ? item.datapoint : item))).toEqual([
      { type: "airport", eid: "ORD", attr: "city", v: "Chicago, IL", t1: "2020-01-01", src: "faa" },
      { type: "airport", eid: "ORD", attr: "position", v: [1], t1: "2020-01-01", src: "faa" },
      { type: "airport", eid: "JFK", attr: "hub", v: { eid: "LGA" }, src: "faa" },
    ]);
  });

  it("says of a malformed row where it is, and reads on", async () => {
    const text = "iata,town,pos,hub,since\nORD,Chicago,,,\nBAD,1\nJFK,,nope,,\nLAX,LA,,,\n";
    const items = await read(text, "csv", mapping);
    expect(outline(items)).toEqual(["2 ORD", "3!", "4!", "5 LAX"]);
    expect(items[2]).toMatchObject({ message: expect.stringMatching(/^column pos: not JSON/) });
  });

  it("without a mapping has the columns of a datapoint", async () => {
    const items = await read('type,id,attr,v,t1\nairport,ORD,city,Chicago,\nairport,ORD,n,5,"2020-01-01"\n', "csv");
    expect(items.map((item) => (item.kind === "datapoint" ? item.datapoint : item))).toMatchObject([
      { type: "airport", eid: "ORD", attr: "city", v: "Chicago", t1: undefined },
      { type: "airport", eid: "ORD", attr: "n", v: 5, t1: "2020-01-01" },
    ]);
  });

  it("without a mapped column is refused with the columns it has", async () => {
    await expect(read("a,b\n1,2\n", "csv", mapping)).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      message: "the CSV header has no column iata, since, town, pos, hub; it has a, b",
    });
  });

  it("mappings that say nothing are refused", () => {
    for (const text of ["city", "=town", "city="]) {
      expect(() => parseCsvAttr(text)).toThrow(/is no mapping/);
    }
  });
});

describe("the format", () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "starling-cli-"));
  });
  afterAll(() => rm(folder, { recursive: true }));

  it("is told by the name, or else by the first character", async () => {
    const array = JSON.stringify([a]);
    const lines = `${JSON.stringify(a)}\n`;
    const csv = "type,eid,attr,v\nairport,ORD,city,Chicago\n";
    const files = { "a.json": array, "b.json": lines, "c.jsonl": lines, "d.csv": csv, e: array, f: lines };
    for (const [name, text] of Object.entries(files)) {
      await writeFile(join(folder, name), text);
      const reader = await openReader(join(folder, name), { mapping: null, stdin: pieces("", 1) });
      const items: ReadItem[] = [];
      for await (const piece of reader.items()) items.push(...piece);
      expect(items, name).toMatchObject([{ datapoint: a }]);
      expect(reader.readBytes()).toBe(reader.totalBytes);
    }
    await expect(read("type,eid\n", null)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });

  it("of standard input is told too", async () => {
    const reader = await openReader("-", { mapping: null, stdin: pieces(` \n${JSON.stringify([a])}`, 1) });
    const items: ReadItem[] = [];
    for await (const piece of reader.items()) items.push(...piece);
    expect(items).toMatchObject([{ line: 2, datapoint: a }]);
  });

  it("does not hide a file that is not there", async () => {
    const options = { mapping: null, stdin: pieces("", 1) };
    await expect(openReader(join(folder, "none.json"), options)).rejects.toMatchObject({ code: "NOT_FOUND" });
    await expect(openReader(folder, options)).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });
});
