import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it, onTestFailed, onTestFinished } from "vitest";
import type { ClusterNodeStatus, ClusterStatus, ShardExplanation } from "../../proto/cluster-status.ts";
import { shardId } from "../../proto/ids.ts";
import { shardOf } from "../../proto/shard-of.ts";
import { findUnowned, untilNothing } from "../support/cluster/liveness.ts";
import { startTestCluster, type TestCluster } from "../support/cluster/test-cluster.ts";
import { repository } from "../support/repository.ts";
import { type Ran, run } from "./cli/terminal.ts";

/** The commands of `starling cluster` on three nodes, one after another: what they print as JSON, and when things are away. */
const shards = { entity: 32, system: 4 };
const untilMs = 30_000;
const testMs = 90_000;
let cluster: TestCluster;

beforeAll(async () => {
  const configDir = join(repository, "test/support/retention-config");
  cluster = await startTestCluster({ nodes: 3, shards, configDir, flags: ["--obligation-after-ms", "1000"] });
  expect(await untilNothing(() => findUnowned(cluster), untilMs)).toEqual([]);
}, testMs);

afterAll(async () => {
  await cluster?.close();
});

/** Runs a command of `starling cluster` at the first node. */
async function ask(...args: readonly string[]): Promise<Ran> {
  return await run(["cluster", ...args, "--address", cluster.addresses[0] ?? ""]);
}

async function askJson<T>(...args: readonly string[]): Promise<T> {
  const { code, out, err } = await ask(...args, "--json");
  expect({ args, code, err }).toEqual({ args, code: 0, err: "" });
  return JSON.parse(out) as T;
}

/** Also when something is wrong, which ends with 1. */
async function status(): Promise<ClusterStatus> {
  return JSON.parse((await ask("status", "--json")).out) as ClusterStatus;
}

async function nodeStatus(name: string): Promise<ClusterNodeStatus | undefined> {
  return (await status()).nodes.find((node) => node.name === name);
}

function node(at: number): TestCluster["nodes"][number] {
  const found = cluster.nodes[at];
  if (found === undefined) throw new Error(`there is no node ${at}`);
  return found;
}

async function untilWell(): Promise<void> {
  await expect.poll(async () => (await ask("status")).code, { timeout: untilMs }).toBe(0);
}

describe("status", () => {
  it("shows every node and shard, versions, models and what the nodes need", async () => {
    const { nodes, unowned, versions, models, etcd, database, deadLetters, problems, ...rest } =
      await askJson<ClusterStatus>("status");
    expect({ unowned, etcd, database, deadLetters, problems }).toEqual({
      ...{ unowned: [], deadLetters: 0, problems: [] },
      etcd: { state: "answers", silentMs: 0 },
      database: { state: "answers", silentMs: 0 },
    });
    expect(nodes.map(({ name, state, address }) => ({ name, state, address }))).toEqual(
      cluster.nodes.map(({ name, address }) => ({ name, address, state: "serving" })),
    );
    expect([Object.values(versions), Object.values(models)]).toEqual([[3], [3]]);
    expect(rest.shards).toHaveLength(shards.entity + shards.system);
    expect(rest.shards.every(({ state, epoch }) => state === "owned" && epoch >= 1)).toBe(true);
    const entity = nodes.map((each) => each.shards.entity ?? 0);
    expect(entity.reduce((sum, count) => sum + count, 0)).toBe(shards.entity);
    expect(rest.asked).toBe("node-a");
  });

  it("for people has a line for each node, and with --shards for each shard", async () => {
    const { out, code } = await ask("status", "--shards");
    expect(code).toBe(0);
    for (const { name, address } of cluster.nodes)
      expect(out).toMatch(new RegExp(`^${name} +serving +${address}`, "m"));
    expect(out).toContain("etcd answers, PostgreSQL answers");
    expect(out).toContain("all is well");
    expect(out.match(/ owned /g)).toHaveLength(shards.entity + shards.system);
  });

  it("with --watch comes again and again, and ends well at Ctrl-C", async () => {
    const stop = new AbortController();
    let seen = 0;
    const onOut = (): void => void (++seen >= 2 && stop.abort());
    const args = ["cluster", "status", "--watch", "--json", "--address", cluster.addresses[1] ?? ""];
    const { code, out } = await run(args, { signal: stop.signal, onOut });
    expect(code).toBe(0);
    const told = out
      .trim()
      .split("\n")
      .map((line): ClusterStatus => JSON.parse(line));
    expect(told.length).toBeGreaterThanOrEqual(2);
    // The first answer is of the node that was asked; from then on another one that it told of may be faster.
    expect(told[0]?.asked).toBe("node-b");
    for (const { asked, nodes } of told) expect(nodes.map(({ name }) => name)).toContain(asked);
  });
});

describe("weights, pins and drains", () => {
  it("a weight moves shards of its group alone", { timeout: testMs }, async () => {
    await askJson("weight", "node-a", "2", "--group", "entity");
    await expect
      .poll(async () => (await nodeStatus("node-a"))?.shards.entity, { timeout: untilMs })
      // Its share is 16, and one shard less is close enough to move nothing more.
      .toBeGreaterThanOrEqual(15);
    expect((await nodeStatus("node-a"))?.weights).toEqual({ entity: 2, system: 1 });
    await askJson("undrain", "node-a");
    await expect.poll(async () => (await nodeStatus("node-a"))?.shards.entity, { timeout: untilMs }).toBeLessThan(12);
  });

  it("a shard goes where it is moved, and says why it is there", { timeout: testMs }, async () => {
    for (const name of ["node-b", "node-c"]) {
      const { owner, epoch } = await askJson<{ owner: string; epoch: number }>("move", "system/1", name);
      expect(owner).toBe(name);
      const why = await askJson<ShardExplanation>("why", "system/1");
      expect(why).toMatchObject({ owner, epoch, state: "owned", reason: `it is pinned to ${name}`, silence: "" });
      const found = (await status()).shards.find(({ shard }) => shard === shardId("system", 1));
      expect(found).toMatchObject({ owner: name, pinnedTo: name });
    }
    await askJson("move", "system/1", "--unpin");
    const { reason } = await askJson<ShardExplanation>("why", "system/1");
    expect(reason).toMatch(/node-c has weight 1 of 3 among 3 nodes, so 1\.3 of the 4 shards of the group system/);
  });

  it("a drained node owns nothing until it is undrained; the last one is not drained", {
    timeout: testMs,
  }, async () => {
    await askJson("move", "3", "node-b");
    const drained = await askJson<{ moved: number; unpinned: number[] }>("drain", "node-b");
    expect(drained.moved).toBeGreaterThan(8);
    expect(drained.unpinned).toEqual([3]);
    expect(await nodeStatus("node-b")).toMatchObject({
      state: "drained",
      shards: {},
      weights: { entity: 0, system: 0 },
    });
    await askJson("drain", "node-c");
    const refused = await ask("drain", "node-a");
    expect(refused.code).toBe(1);
    expect(refused.err).toContain("INVALID_ARGUMENT: node-a is the last node that takes shards");
    await askJson("undrain", "node-b");
    await askJson("undrain", "node-c");
    await expect.poll(async () => (await nodeStatus("node-b"))?.shards.entity, { timeout: untilMs }).toBeGreaterThan(9);
    await untilWell();
  });

  it.each([
    [["move", "3", "node-x"], 'NOT_FOUND: there is no node "node-x": the nodes are node-a, node-b, node-c'],
    [
      ["move", "999", "node-a"],
      "NOT_FOUND: there is no shard entity/999: there are entity/0 to entity/31 and system/0 to system/3",
    ],
    [["weight", "node-x", "2"], 'NOT_FOUND: there is no node "node-x"'],
    [["why", "sensor", "x"], "UNKNOWN_TYPE: no entity type sensor in the model"],
  ])("%j is refused and changes nothing", async (args, text) => {
    const { code, err } = await ask(...args);
    expect({ code, err }).toEqual({ code: 1, err: expect.stringContaining(text) });
  });

  it.each([
    [["why", "sensor"], '"sensor" is no shard, such as 17 or system/3; an entity needs its id, too'],
    [["move", "3"], "give a node, or --unpin"],
    [["move", "x", "node-a"], "expected the number of a shard, or its group and number"],
    [["weight", "node-a", "much"], "expected a number from 0"],
    [["weight", "node-a", "1", "--group", "job"], "Allowed choices are entity, system"],
  ])("%j is wrong usage, and says why", async (args, text) => {
    const { code, err } = await ask(...args);
    expect({ code, err }).toEqual({ code: 2, err: expect.stringContaining(text) });
  });
});

it("why of an entity names the hook that runs, and since when; then the obligation that it becomes", {
  timeout: testMs,
}, async () => {
  const line = JSON.stringify({ type: "device", eid: "slow", attr: "level", v: 1, t1: "2026-01-01T00:00:00Z" });
  const address = cluster.addresses[0] ?? "";
  for (let count = 0; count < 2; count++)
    expect((await run(["send", "-", "--address", address], { stdin: line })).code).toBe(0);
  const shard = shardOf("entity", "device", "slow", shards.entity);
  const why = () => askJson<ShardExplanation>("why", "device", "slow");
  await expect.poll(async () => (await why()).waits[0]?.kind, { timeout: untilMs }).toBe("obligation");
  const { waits, entity, ...rest } = await why();
  expect(rest).toMatchObject({ shard, state: "owned" });
  expect(waits[0]).toMatchObject({
    kind: "obligation",
    type: "device",
    eid: "slow",
    hook: expect.stringContaining("echo"),
  });
  expect(waits[0]?.forMs).toBeGreaterThan(900);
  expect(entity).toMatchObject({ type: "device", eid: "slow", resident: true, exists: true, mailbox: 2 });
  expect(entity?.waits[0]?.what).toMatch(/the hook .*echo.* takes long, 1 tasks wait behind it/);
  const { out } = await ask("why", "device", "slow");
  expect(out).toMatch(/^waits +an obligation: .*echo.*, for \d/m);
  const owner = rest.owner;
  expect((await nodeStatus(owner))?.obligations).toBe(1);
});

describe("bad luck", () => {
  it("etcd away: status says so and since when, and what it needs etcd for is refused", {
    timeout: testMs,
  }, async () => {
    await cluster.etcd.stop();
    onTestFailed(() => cluster.etcd.restart());
    const first = await status();
    expect(first.etcd?.state).toBe("away");
    expect(first.problems.join()).toMatch(/etcd does not answer node-a/);
    expect(first.nodes.map(({ state }) => state)).toEqual(["serving", "serving", "serving"]);
    const refused = await ask("move", "3", "node-b");
    expect(refused.code).toBe(1);
    expect(refused.err).toMatch(/UNAVAILABLE: etcd does not answer, so nothing was changed/);
    await expect
      .poll(async () => (await status()).problems.join(), { timeout: untilMs })
      .toMatch(/node-a, since \d+ s/);
    await cluster.etcd.start();
    await untilWell();
  });

  it("PostgreSQL away: status says so and since when", { timeout: testMs }, async () => {
    const restarted = cluster.restartPostgres("fast", 8_000);
    onTestFinished(() => restarted);
    await setTimeout(500);
    const { database, problems, nodes, deadLetters } = await status();
    expect([database.state, deadLetters]).toEqual(["away", undefined]);
    expect(problems.join()).toMatch(/PostgreSQL does not answer node-a/);
    expect(nodes).toHaveLength(3);
    await expect.poll(async () => (await status()).problems.join(), { timeout: 7_000 }).toMatch(/node-a, since \d+ s/);
    await restarted;
    await untilWell();
  });

  it.each([0, 1, 2])(
    "whichever node is frozen, as node %d, status names it within three seconds",
    {
      timeout: testMs,
    },
    async (at) => {
      const { name, address } = node(at);
      node(at).freeze();
      onTestFinished(() => node(at).thaw());
      const args = ["cluster", "status", "--address", [address, ...cluster.addresses].join()];
      let tookMs = Number.POSITIVE_INFINITY;
      // A busy machine may be slow, though not each time.
      for (let tries = 0; tries < 5 && tookMs > 3_000; tries++) {
        const begun = performance.now();
        const { out, err } = await run(args);
        tookMs = performance.now() - begun;
        expect({ err, out }).toEqual({
          err: "",
          out: expect.stringMatching(new RegExp(`^${name} +(silent|gone) `, "m")),
        });
        expect(out).toMatch(new RegExp(`${name} \\(${address}\\) did not answer: |${name} is gone: `));
      }
      expect(tookMs).toBeLessThan(3_000);
      const alone = await run(["cluster", "status", "--address", address]);
      expect(alone.err).toMatch(
        new RegExp(`UNAVAILABLE: no node answered: ${address}: it did not answer within [\\d.]+ s`),
      );
      expect(alone.err).toContain("--address may name several nodes");
      node(at).thaw();
      await expect.poll(async () => (await nodeStatus(name))?.state, { timeout: untilMs }).toBe("serving");
      await untilWell();
    },
  );

  it("a frozen node is gone with its reason after a while, and comes back", { timeout: testMs }, async () => {
    node(2).freeze();
    onTestFinished(() => node(2).thaw());
    await expect.poll(async () => (await nodeStatus("node-c"))?.state, { timeout: untilMs }).toBe("gone");
    expect((await nodeStatus("node-c"))?.problem).not.toBe("");
    node(2).thaw();
    await expect.poll(async () => (await nodeStatus("node-c"))?.state, { timeout: untilMs }).toBe("serving");
    await untilWell();
  });

  it("--watch goes on with another node when the one that it was told of freezes", { timeout: testMs }, async () => {
    const stop = new AbortController();
    const asked = new Set<string>();
    const onOut = (text: string): void => {
      const { asked: by } = JSON.parse(text) as Partial<ClusterStatus>;
      if (by !== undefined && asked.size === 0) node(0).freeze();
      if (by !== undefined) asked.add(by);
      if (asked.size > 1) stop.abort();
    };
    onTestFinished(() => node(0).thaw());
    const args = ["cluster", "status", "--watch", "--json", "--address", node(0).address];
    expect((await run(args, { signal: stop.signal, onOut })).code).toBe(0);
    expect([...asked][0]).toBe("node-a");
    node(0).thaw();
    await expect.poll(async () => (await nodeStatus("node-a"))?.state, { timeout: untilMs }).toBe("serving");
    await untilWell();
  });
});

describe("SIGTERM", () => {
  it("hands all shards over, reports it, and ends with 0", { timeout: testMs }, async () => {
    const log = node(1).process?.log ?? [];
    expect(await node(1).stop()).toBe(0);
    expect(log.some((line) => line.includes('"msg":"shards handed over"'))).toBe(true);
    expect(await nodeStatus("node-b")).toMatchObject({ state: "gone", problem: "it left" });
    await node(1).start();
    await untilWell();
  });

  it("a second one ends it at once", { timeout: testMs }, async () => {
    await cluster.etcd.stop();
    const { process } = node(2);
    const stopped = node(2).stop();
    await process?.logged((line) => line.includes('"msg":"stopping"'));
    await setTimeout(600); // so soon after the first one it would be the same
    if (process) globalThis.process.kill(process.pid, "SIGTERM");
    expect(await stopped).toBe(1);
    await cluster.etcd.start();
  });
});
