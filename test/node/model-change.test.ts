import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { failPointVariable } from "../../node/armed-fail-point.ts";
import { type Client, connect } from "../../proto/client.ts";
import type { TestDatabases } from "../support/databases.ts";
import { type NodeProcess, startNodeProcess } from "../support/node-process.ts";
import { testDatabases } from "../support/postgres.ts";

/** The model of a node changes between two of its runs. */
interface TypeDraft {
  readonly ids: string;
  readonly attribs: Readonly<Record<string, string>>;
}

const device: TypeDraft = {
  ids: "string",
  attribs: {
    label: "{ name: Label, type: plain, data_type: string }",
    level: "{ name: Level, type: observations, data_type: float }",
    colour: '{ name: Colour, type: plain, data_type: "category<string; red, blue, green>" }',
    near: '{ name: Near, type: plain, data_type: "link<site>" }',
    load: seriesOf("value: { data_type: float }"),
  },
};
const site: TypeDraft = { ids: "int", attribs: { total: "{ name: Total, type: plain, data_type: int }" } };
const flags = ["--entity-shards", "4", "--system-shards", "1", "--lanes", "1"];

let folder: string;
let databases: TestDatabases;
let running: NodeProcess[];

async function open(): Promise<void> {
  folder = await mkdtemp(join(tmpdir(), "starling-model-"));
  databases = await testDatabases();
  running = [];
}

async function close(): Promise<void> {
  for (const node of running) await node.kill();
  await databases.close();
  await rm(folder, { recursive: true });
}

function seriesOf(series: string): string {
  return `{ name: Load, type: timeseries, timeseries_type: irregular, series: { ${series} } }`;
}

/** `device` with other attributes; null takes one away. */
function deviceWith(changes: Readonly<Record<string, string | null>>, ids = device.ids): TypeDraft {
  const changed = { ...device.attribs, ...changes };
  const attribs = Object.entries(changed).filter((entry): entry is [string, string] => entry[1] !== null);
  return { ids, attribs: Object.fromEntries(attribs) };
}

async function start(types: { device?: TypeDraft; site?: TypeDraft }, env = {}): Promise<NodeProcess> {
  await mkdir(join(folder, "db_entities"), { recursive: true });
  for (const [id, { ids, attribs }] of Object.entries({ device, site, ...types })) {
    const lines = Object.entries(attribs).map(([attr, text]) => `  ${attr}: ${text}`);
    const entity = `entity: { id: ${id}, name: ${id}, snapshot: false, id_data_type: ${ids} }`;
    await writeFile(join(folder, "db_entities", `${id}.yml`), [entity, "attribs:", ...lines, ""].join("\n"));
  }
  const node = await startNodeProcess({
    configDir: folder,
    dataDir: join(folder, "data"),
    ...databases.settings,
    flags,
    env,
  });
  running.push(node);
  return node;
}

async function ask<T>(node: NodeProcess, run: (client: Client) => Promise<T>): Promise<T> {
  const client = await connect({ address: node.address, level: "processed" });
  try {
    return await run(client);
  } finally {
    await client.close();
  }
}

/** Runs a node that stores one device with every attribute. */
async function storeOne(): Promise<void> {
  const node = await start({});
  const of = { type: "device", eid: "a" };
  const load = { value: [1.5], time: ["2026-01-01T00:00:00Z"] };
  const { rejections } = await ask(node, (client) =>
    client.send([
      { ...of, attr: "label", v: "first" },
      { ...of, attr: "level", v: 2.5, t1: 1000 },
      { ...of, attr: "colour", v: "red" },
      { ...of, attr: "near", v: { eid: 7 } },
      { ...of, attr: "load", v: load, t1: Date.parse("2026-01-01T00:00:00Z"), t2: Date.parse("2026-01-01T01:00:00Z") },
    ]),
  );
  expect(rejections).toEqual([]);
  expect(await node.stop()).toBe(0);
}

const readOne = (node: NodeProcess) =>
  ask(node, ({ entities }) => entities.get({ type: "device", eid: "a", historyLimit: 10 }));

const level = "{ name: Level, type: observations, data_type: string }";

describe("a model that stored records do not fit is refused at start", () => {
  beforeAll(async () => {
    await open();
    await storeOne();
  });
  afterAll(close);

  test.each([
    [
      "data type",
      { device: deviceWith({ level }) },
      "device.level: stored as observations float",
      "observations string",
    ],
    [
      "kind",
      { device: deviceWith({ label: "{ name: Label, type: observations, data_type: string }" }) },
      "device.label: stored as plain string",
      "observations string",
    ],
    [
      "series",
      { device: deviceWith({ load: seriesOf("value: { data_type: time }") }) },
      "device.load: stored as timeseries irregular<time: time, value: float>",
      "timeseries irregular<time: time, value: time>",
    ],
    ["type of ids", { device: deviceWith({}, "int") }, "device: ids are stored as string", "int"],
    [
      "type of the ids that a link holds",
      { site: { ...site, ids: "string" } },
      "device.near: stored as plain link<site: int,None>",
      "plain link<site: string,None>",
    ],
  ])("%s", async (_, changed, stored, now) => {
    const refused = start(changed);
    await expect(refused).rejects.toThrow("the node ended with 1 before it served");
    await expect(refused).rejects.toThrow("MODEL_CHANGED: the model changed what stored records hold:");
    await expect(refused).rejects.toThrow(`${stored}, the model says ${now}`);
    await expect(refused).rejects.toThrow("→ undo the change in db_entities, or give the attribute another name");
  });

  test("every such change in one message, also of an attribute that was away for a while", async () => {
    await (await start({ device: deviceWith({ colour: null }) })).stop();
    const refused = start({
      device: deviceWith({ level, colour: "{ name: Colour, type: plain, data_type: int }" }),
      site: { ...site, attribs: { total: "{ name: Total, type: plain, data_type: string }" } },
    });
    await expect(refused).rejects.toThrow("device.level: stored as observations float");
    await expect(refused).rejects.toThrow("device.colour: stored as plain category<string; red, blue, green>");
    // There is no site: its attributes may change.
    await expect(refused).rejects.toThrow(/^(?!.*site\.)/s);
  });

  test("which changes nothing", async () => {
    expect((await readOne(await start({}))).attributes).toMatchObject({ label: { v: "first" }, level: { v: 2.5 } });
  });
});

describe("a model that stored records fit is taken", () => {
  beforeEach(open);
  afterEach(close);

  test("another type counts from then on, if there were no entities", async () => {
    await (await start({})).stop();
    const changed = deviceWith({ level }, "int");
    const node = await start({ device: changed });
    await ask(node, (client) => client.send([{ type: "device", eid: "5", attr: "level", v: "high", t1: 1000 }]));
    await node.stop();
    await expect(start({})).rejects.toThrow("device.level: stored as observations string, the model says");
  });

  test("an attribute is added, another goes and comes back with its value", async () => {
    await storeOne();
    const node = await start({
      device: deviceWith({ label: null, owner: "{ name: Owner, type: plain, data_type: string }" }),
    });
    const before = await readOne(node);
    expect(before.attributes).not.toHaveProperty("label");
    expect(before.attributes).toMatchObject({ level: { v: 2.5 }, colour: { v: "red" }, near: { v: { eid: 7 } } });
    // The record is written anew meanwhile, without a word of what the model does not know.
    const owner = { type: "device", eid: "a", attr: "owner", v: "me" };
    expect((await ask(node, (client) => client.send([owner]))).rejections).toEqual([]);
    await node.stop();
    const again = await readOne(await start({}));
    expect(again.attributes).toMatchObject({ label: { v: "first" }, level: { v: 2.5 } });
    expect(again.history.level).toMatchObject([{ v: 2.5 }]);
  });

  test("int becomes int64, and a category gets further values", async () => {
    const total = (type: string) => ({ ...site, attribs: { total: `{ name: T, type: plain, data_type: ${type} }` } });
    const node = await start({ site: total("int") });
    await ask(node, (client) => client.send([{ type: "site", eid: 1, attr: "total", v: 3 }]));
    await node.stop();
    const colour = '{ name: Colour, type: plain, data_type: "category<string; red, blue, green, black>" }';
    const next = await start({ site: total("int64"), device: deviceWith({ colour }) });
    expect((await ask(next, ({ entities }) => entities.get({ type: "site", eid: "1" }))).attributes.total?.v).toBe(3);
  });

  test("what is logged and not yet processed becomes a dead letter when it no longer fits", async () => {
    await storeOne();
    const node = await start({}, { [failPointVariable]: "before-flush:1" });
    const client = await connect({ address: node.address, giveUpAfterMs: 100 });
    const sent = client.send([
      { type: "device", eid: "a", attr: "colour", v: "green" },
      { type: "device", eid: "c", attr: "label", v: "gone" },
      { type: "device", eid: "d", attr: "level", v: 4, t1: 2000 },
    ]);
    expect(await node.ended).toBe("SIGKILL");
    // Whether the acknowledgement came through is chance.
    await Promise.allSettled([sent, client.close()]);
    const colour = '{ name: Colour, type: plain, data_type: "category<string; red, blue>" }';
    const next = await start({ device: deviceWith({ colour, label: null }) });
    expect((await readOne(next)).attributes.colour?.v).toBe("red");
    await ask(next, async ({ admin, entities }) => {
      const letters = async () => (await admin.deadLetters({ status: "open" })).letters;
      await expect.poll(async () => (await letters()).map(({ eid }) => eid).sort()).toEqual(["a", "c"]);
      for (const { kind, code, type } of await letters()) {
        expect({ kind, code, type }).toEqual({ kind: "unapplied", code: "MODEL_CHANGED", type: "device" });
      }
      expect((await entities.get({ type: "device", eid: "d" })).attributes.level?.v).toBe(4);
      await expect(entities.get({ type: "device", eid: "c" })).rejects.toMatchObject({ code: "NOT_FOUND" });
    });
  });

  test("a stored value that a narrower category leaves out does not hide the rest of its record", async () => {
    await storeOne();
    const colour = '{ name: Colour, type: plain, data_type: "category<string; blue, green>" }';
    expect((await readOne(await start({ device: deviceWith({ colour }) }))).attributes.label?.v).toBe("first");
  });
});
