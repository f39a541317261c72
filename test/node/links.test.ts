import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { connect } from "../../proto/client.ts";
import { freePort } from "../support/cluster/free-port.ts";
import { connectAll, type TestDatabases } from "../support/databases.ts";
import { openKillDatabase } from "../support/kill-facts.ts";
import { type NodeProcess, startNodeProcess } from "../support/node-process.ts";
import { testDatabases } from "../support/postgres.ts";
import { createRandom, seedOfRun } from "../support/random.ts";
import { repository } from "../support/repository.ts";
import { fieldsOf } from "../support/state-fields.ts";
import { run } from "./cli/terminal.ts";

/** Links on a real PostgreSQL, in nodes that are killed. */
let dataDir = "";
let databases: TestDatabases;
let node: NodeProcess;
let address = "";

const start = () =>
  startNodeProcess({
    configDir: join(repository, "test/support/links-config"),
    ...databases.settings,
    dataDir,
    flags: ["--listen", address, "--entity-shards", "8", "--system-shards", "1", ...shortLives],
  });

// Few entities in a flush, and short lives in memory: much of the work is half done at any moment.
const shortLives = ["--flush-max-entities", "5", "--passivate-after-ms", "200"];

beforeAll(async () => {
  address = `127.0.0.1:${await freePort()}`;
  dataDir = await mkdtemp(join(tmpdir(), "starling-links-"));
  databases = await testDatabases();
  node = await start();
}, 120_000);

afterAll(async () => {
  await node.kill();
  await databases.close();
  await rm(dataDir, { recursive: true });
});

interface Point {
  readonly type: string;
  readonly eid: string | number;
  readonly attr: string;
  readonly v: unknown;
  readonly t1?: number;
  readonly t2?: number;
}

async function send(points: readonly Point[]): Promise<void> {
  await using client = await connect({ address, level: "processed" });
  const outcomes = await Promise.all(points.map((point) => client.send([point as never])));
  expect(outcomes.flatMap(({ rejections }) => rejections)).toEqual([]);
}

async function starling(...args: string[]) {
  const ran = await run(args, { env: { STARLING_ADDRESS: node.address } });
  expect(ran.code, ran.err).toBe(0);
  return ran.out;
}

async function linksOf(type: string, eid: string, ...more: string[]): Promise<string[]> {
  const { links } = JSON.parse(await starling("entity", "links", type, eid, "--json", ...more)) as {
    links: { attr: string; type: string; eid: string }[];
  };
  return links.map((link) => `${link.attr} ${link.type} ${link.eid}`);
}

interface Link {
  readonly eid: string | number;
}

const within = { timeout: 25_000, interval: 100 };

test("links are told in both directions, at any time", async () => {
  const at = (time: string) => `2026-11-21T${time}Z`;
  await send([
    { type: "bus", eid: "b1", attr: "line", v: { eid: 7 } },
    { type: "bus", eid: "b2", attr: "line", v: { eid: "7" } },
    { type: "bus", eid: "b1", attr: "stops", v: [{ eid: "x" }, { eid: "y" }] },
    {
      type: "bus",
      eid: "b1",
      attr: "at",
      v: { eid: "x" },
      t1: Date.parse(at("08:00:00")),
      t2: Date.parse(at("08:10:00")),
    },
    { type: "bus", eid: "b1", attr: "at", v: { eid: "y" }, t1: Date.parse(at("09:00:00")) },
  ]);
  const own = ["line line 7", "stops stop x", "stops stop y"];
  await expect.poll(() => linksOf("bus", "b1"), within).toEqual(own);
  await expect.poll(() => linksOf("line", "7", "--reverse"), within).toEqual(["line bus b1", "line bus b2"]);
  await expect.poll(() => linksOf("bus", "b1", "--at", at("07:59:30")), within).toEqual(["at stop x", ...own]);
  await expect
    .poll(() => linksOf("stop", "x", "--reverse", "--at", at("08:14:59")), within)
    .toEqual(["at bus b1", "stops bus b1"]);
  expect(await linksOf("stop", "x", "--reverse", "--at", at("08:15:00"))).toEqual(["stops bus b1"]);
  expect(await linksOf("stop", "x")).toEqual([]);
  expect((await starling("entity", "links", "bus", "b1", "--at", at("09:04:00"))).split("\n")[1]).toMatch(
    /^at +stop +y +2026-11-21T09:00:00Z +2026-11-21T09:00:00Z/,
  );
});

test("links are answered in pages, and bad questions with what is wrong", async () => {
  const [first, cursor] = await (async () => {
    const page = JSON.parse(await starling("entity", "links", "bus", "b1", "--json", "-n", "2")) as {
      links: { eid: string }[];
      cursor: string;
    };
    return [page.links.map(({ eid }) => eid), page.cursor] as const;
  })();
  expect(first).toEqual(["7", "x"]);
  expect(await linksOf("bus", "b1", "--cursor", cursor)).toEqual(["stops stop y"]);
  const ask = async (...args: string[]) =>
    (await run(["entity", "links", ...args], { env: { STARLING_ADDRESS: node.address } })).err;
  expect(await ask("buss", "b1")).toContain("UNKNOWN_TYPE");
  expect(await ask("line", "seven")).toContain("INVALID_EID");
  expect(await ask("bus", "b1", "--cursor", "x")).toContain("is no cursor");
  expect(await ask("bus", "b1", "--at", "noon")).toContain("is not a time");
});

test("a deleted target is forgotten by those that link to it, and a deleted source is found from nowhere", async () => {
  await starling("entity", "delete", "stop", "x"); // does not exist: nothing changes
  expect(await linksOf("bus", "b1")).toContain("stops stop x");
  await send([
    { type: "stop", eid: "x", attr: "name", v: "X" },
    { type: "line", eid: 7, attr: "name", v: "Seven" },
  ]);
  await starling("entity", "delete", "stop", "x");
  await starling("entity", "delete", "line", "7");
  await expect.poll(() => linksOf("bus", "b1", "--at", "2026-11-21T08:05:00Z"), within).toEqual(["stops stop y"]);
  await expect
    .poll(async () => JSON.parse(await starling("entity", "get", "bus", "b1", "--json")).attributes, within)
    .toMatchObject({ stops: { v: [{ eid: "y" }] } });
  await expect
    .poll(async () => JSON.parse(await starling("entity", "get", "bus", "b2", "--json")).attributes, within)
    .toEqual({});
  await starling("entity", "delete", "bus", "b1");
  await expect.poll(() => linksOf("stop", "y", "--reverse", "--at", "2026-11-21T09:01:00Z"), within).toEqual([]);
});

test("whatever dies, links are what the records tell, and none to what was deleted before is left", async ({
  onTestFailed,
}) => {
  const seed = seedOfRun();
  onTestFailed(() => console.error(`repeat with STARLING_SEED=${seed}`));
  const random = createRandom(seed);
  const change = (): Point => {
    const eid = `k${random.between(1, 12)}`;
    const stop = () => ({ eid: `s${random.between(1, 6)}` });
    const kind = random.between(1, 3);
    if (kind === 1) return { type: "bus", eid, attr: "line", v: { eid: random.between(1, 4) } };
    if (kind === 2) return { type: "bus", eid, attr: "stops", v: Array.from({ length: random.between(0, 3) }, stop) };
    const minute = random.between(0, 59);
    const t1 = Date.UTC(2026, 10, 20, 10, minute);
    return { type: "bus", eid, attr: "at", v: stop(), t1 };
  };
  const sending = (async () => {
    for (let batch = 0; batch < 12; batch++) {
      await send(Array.from({ length: 40 }, change));
      const eid = `s${random.between(1, 6)}`;
      await send([{ type: "stop", eid, attr: "name", v: "S" }]);
      // Whether it comes to that or dies with the node: links and records agree.
      await run(["entity", "delete", "stop", eid], { env: { STARLING_ADDRESS: address } });
    }
  })();
  for (let round = 0; round < 4; round++) {
    await Promise.race([sending, new Promise((resolve) => setTimeout(resolve, random.between(100, 600)))]);
    await node.kill();
    node = await start();
  }
  await sending;
  await using look = openKillDatabase(databases.urls);
  const limits = { statementTimeoutMs: 30_000, connectTimeoutMs: 5_000 };
  const connection = connectAll(databases.urls, { application: "test", ...limits });
  const rows = async (text: string) => (await connection.query<{ row: string }>(text)).map(({ row }) => row).sort();
  const open = () => look.openLogs();
  await expect.poll(open, within).toEqual([]);
  const links = () =>
    rows(`select type || ' ' || eid || ' ' || attr || ' ' || target_type || ' ' || target || ' ' ||
        case when spans is null then 'plain' else 'observed' end as row from starling.reference`);
  const records = async () => {
    const text = "select eid, state from starling.entity where type = 'bus' and not tombstone";
    const buses = await connection.query<{ eid: string; state: string }>(text);
    return buses.flatMap(({ eid, state }) => linksIn(eid, state)).sort();
  };
  const buried = () => rows("select dead as row from starling.obituary");
  await expect.poll(buried, within).toEqual([]);
  await expect.poll(open, within).toEqual([]);
  const found = await links();
  expect(found.filter((row) => row.endsWith(" plain"))).toEqual(await records());
  expect(found.length).toBeGreaterThan(20);
  const stops = Array.from({ length: 6 }, (_, index) => `s${index + 1}`);
  await send(stops.map((eid) => ({ type: "stop", eid, attr: "name", v: "S" })));
  for (const eid of stops) await starling("entity", "delete", "stop", eid);
  const toStops = async () => [...(await links()), ...(await records())].filter((row) => row.includes(" stop "));
  await expect.poll(toStops, within).toEqual([]);
  await expect.poll(buried, within).toEqual([]);
  await connection.close();
}, 240_000);

/** The links that a bus's record tells. */
function linksIn(eid: string, state: string): string[] {
  const fields = fieldsOf<{ readonly v: Link | readonly Link[] }>(state);
  return (["line", "stops"] as const).flatMap((attr) => {
    const links = [fields[attr]?.v ?? []].flat();
    return links.map((link) => `bus ${eid} ${attr} ${attr === "line" ? "line" : "stop"} ${link.eid} plain`);
  });
}
