import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { coordinatorShard } from "../../actors/snapshots/snapshot-coordinator.ts";
import type { Connection } from "../../actors/store/connection.ts";
import { wholeBodyText } from "../../actors/store/snapshot-rows.ts";
import { type Client, connect } from "../../proto/client.ts";
import { findUnowned, untilNothing } from "../support/cluster/liveness.ts";
import { startTestCluster, type TestCluster } from "../support/cluster/test-cluster.ts";
import { type Connections, connectAll } from "../support/databases.ts";
import { repository } from "../support/repository.ts";

/*
 * Snapshot runs on three nodes in processes of their own, some of which die in their middle. What readers see is read from the
 * tables as they do: rows of the newest finished tick.
 */
const shards = { entity: 16, system: 2 };
const lines = 10;
const buses = 40;
const lones = 240;
let cluster: TestCluster;
let admin: Connections;
let client: Client;

beforeAll(async () => {
  const configDir = join(repository, "test/support/snapshot-config");
  const flags = ["--snapshot-page-max", "5"];
  cluster = await startTestCluster({ nodes: 3, configDir, shards, flags });
  const limits = { statementTimeoutMs: 30_000, connectTimeoutMs: 10_000 };
  admin = connectAll(cluster.databaseUrls, { application: "test", ...limits });
  expect(await untilNothing(() => findUnowned(cluster), 20_000)).toEqual([]);
  client = await connect({ address: cluster.addresses[2] ?? "", level: "processed" });
  const all = (count: number) => Array.from({ length: count }, (_, i) => i);
  await client.send([
    ...all(lines).map((i) => ({ type: "line", eid: `l${i}`, attr: "name", v: `Line ${i}` })),
    ...all(buses).flatMap((i) => [
      { type: "bus", eid: `b${i}`, attr: "line", v: { eid: `l${i % lines}` } },
      { type: "bus", eid: `b${i}`, attr: "speed", v: i },
    ]),
    ...all(lones).map((i) => ({ type: "lone", eid: `x${i}`, attr: "n", v: i })),
  ]);
}, 90_000);

afterAll(async () => {
  await client?.close();
  await admin?.close();
  await cluster?.close();
});

interface Run {
  readonly tick: number;
  readonly status: string;
  readonly phase: string;
  readonly error: string | null;
  readonly done: number;
}

/** Where the runs are: the database of their coordinator's shard. */
function home(): Connection {
  return admin.each[coordinatorShard(shards.system) % admin.each.length] ?? admin;
}

/** The newest run, and how many shards are visited. */
async function newest(): Promise<Run | undefined> {
  const text = "select tick::float8 as tick, status, phase, error from starling.snapshot_run order by 1 desc limit 1";
  const [run] = await home().query<Omit<Run, "done">>(text);
  if (run === undefined) return undefined;
  const marks = await admin.query("select from starling.snapshot_mark where tick = $1 and visited", [run.tick]);
  return { ...run, done: marks.length };
}

/** Asks for a run, and returns its tick when it has begun. */
async function begin(): Promise<number> {
  const last = (await newest())?.tick ?? 0;
  const text = "insert into starling.snapshot_request (id, kind, whole) values ($1, 'run', true)";
  await home().query(text, [`test ${last}`]);
  await expect.poll(async () => (await newest())?.tick, { timeout: 30_000 }).toBe(last + 1);
  return last + 1;
}

async function untilEnded(): Promise<Run | undefined> {
  const isOver = async (): Promise<boolean> => (await newest())?.status !== "running";
  await expect.poll(isOver, { timeout: 60_000, interval: 100 }).toBe(true);
  return newest();
}

/** What readers see, by type; throws if an entity is seen twice. */
async function visible(): Promise<Map<string, Record<string, unknown>>> {
  const finished = "select max(tick)::float8 as tick from starling.snapshot_run where status = 'finished'";
  const [current] = await home().query<{ tick: number | null }>(finished);
  const rows = await admin.query<{ type: string; eid: string; body: string }>(
    `select s.type, s.eid, ${wholeBodyText("s")}::text as body from starling.snapshot s
      where s.from_tick <= $1 and (s.to_tick is null or s.to_tick > $1)`,
    [current?.tick ?? null],
  );
  const found = new Map(rows.map(({ type, eid, body }) => [`${type} ${eid}`, JSON.parse(body)]));
  expect(found.size).toBe(rows.length);
  return found;
}

async function expectWhole(): Promise<void> {
  const found = await visible();
  expect(found.size).toBe(lines + buses + lones);
  for (let i = 0; i < lones; i++) expect(found.get(`lone x${i}`)).toMatchObject({ n: i, doubled: 2 * i });
  for (let i = 0; i < lines; i++) expect(found.get(`line l${i}`)).toMatchObject({ fastest: buses - lines + i });
  for (let i = 0; i < buses; i++)
    expect(found.get(`bus b${i}`)).toMatchObject({ behind: buses - lines + (i % lines) - i });
}

/** How often each task of a tick came through. */
async function tasksOf(tick: number): Promise<Map<string, number>> {
  const rows = await admin.query<{ body: string }>("select body from starling.history where type = 'lone'");
  const counts = new Map<string, number>();
  for (const { body } of rows) {
    for (const [, key = ""] of body.matchAll(/^seen\t.*\t"(\d+-.*)"$/gm)) {
      if (key.startsWith(`${tick}-`)) counts.set(key, (counts.get(key) ?? 0) + 1);
    }
  }
  return counts;
}

async function expectTasksOnce(tick: number): Promise<void> {
  await expect.poll(async () => (await tasksOf(tick)).size, { timeout: 30_000 }).toBe(lones);
  expect([...(await tasksOf(tick))].filter(([, count]) => count !== 1)).toEqual([]);
}

async function ownerOf(shard: number): Promise<string> {
  const [row] = await admin.query<{ owner: string }>("select owner from starling.shard where shard = $1", [shard]);
  return row?.owner ?? "";
}

test("a run over all nodes holds each entity once, fused over links, and each task comes through once", async () => {
  const tick = await begin();
  expect(await untilEnded()).toMatchObject({ tick, status: "finished", error: null });
  await expectWhole();
  await expectTasksOnce(tick);
}, 90_000);

test.each(["the coordinator", "another node"])(
  "%s may die at any time: the run finishes once, and no half is seen",
  async (who) => {
    for (const after of [1, 8]) {
      const before = [...(await visible())].length;
      const home = await ownerOf(coordinatorShard(shards.system));
      const tick = await begin();
      await expect
        .poll(async () => (await newest())?.done ?? 0, { timeout: 30_000, interval: 20 })
        .toBeGreaterThanOrEqual(after);
      const isHome = await Promise.all(
        cluster.nodes.map(async (node) => node.log().some((line) => line.includes(home))),
      );
      const index = who === "the coordinator" ? isHome.indexOf(true) : isHome.indexOf(false);
      // The client speaks to the last one: it may be any of them.
      await cluster.nodes[index]?.kill();
      expect([...(await visible())].length).toBe(before);
      expect(await untilEnded()).toMatchObject({ tick, status: "finished", error: null });
      await expectWhole();
      await expectTasksOnce(tick);
      await cluster.nodes[index]?.start();
      expect(await untilNothing(() => findUnowned(cluster), 30_000)).toEqual([]);
    }
  },
  180_000,
);
