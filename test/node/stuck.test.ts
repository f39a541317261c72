import { execFile } from "node:child_process";
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, test } from "vitest";
import { type Client, connect } from "../../proto/client.ts";
import { freePort } from "../support/cluster/free-port.ts";
import { type NodeProcess, startNodeProcess } from "../support/node-process.ts";
import { testDatabases, testPostgres } from "../support/postgres.ts";
import { repository } from "../support/repository.ts";

/** Hooks that never yield: the node ends, and the next one goes on without them (R17). Modules that do not: it ends, too. */
const stuckConfig = join(repository, "test/support/stuck-config");
const nodes: NodeProcess[] = [];
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "starling-stuck-"));
  await testPostgres();
}, 120_000);

afterAll(async () => {
  for (const node of nodes) await node.kill();
  await rm(folder, { recursive: true });
});

/** Databases, and how nodes start on it one after another. */
async function openPlace(name: string, configDir = stuckConfig) {
  const { settings } = await testDatabases();
  const address = `127.0.0.1:${await freePort()}`;
  const start = async (env: Readonly<Record<string, string>> = {}): Promise<NodeProcess> => {
    const node = await startNodeProcess({
      configDir,
      ...settings,
      dataDir: join(folder, name),
      flags: ["--entity-shards", "4", "--system-shards", "1", "--listen", address],
      env,
    });
    nodes.push(node);
    return node;
  };
  return { address, start };
}

const newest = async ({ snapshots }: Client) => (await snapshots.runs({ limit: 1 }))[0];
const named = /module stuck, hook stuck\/on_new_attr\/thing\.turns\/turn, shard (\d+), seq (\d+); at turn /;
const culprit = (node: NodeProcess) => node.log.find((line) => line.includes("did not yield"));

describe.concurrent("a hook that never yields ends its node", () => {
  test("once in a snapshot; then the run goes on without it, and counts it", async ({ expect }) => {
    const { start, address } = await openPlace("snapshot");
    const first = await start();
    const eids = ["a", "b", "c", "d", "endless"];
    {
      await using client = await connect({ address, level: "processed" });
      await client.send(eids.map((eid) => ({ type: "thing", eid, attr: "n", v: 1 })));
      await client.snapshots.run();
    }
    expect(await first.ended).toBe(70);
    expect(culprit(first)).toContain("module stuck, hook stuck/correlation");
    const second = await start();
    await using client = await connect({ address });
    await expect.poll(async () => (await newest(client))?.status, { timeout: 60_000, interval: 100 }).toBe("finished");
    const line = JSON.parse(await second.logged((text) => text.includes("a snapshot hook did not yield"))) as object;
    expect(line).toMatchObject({ type: "thing", eid: "endless", hook: expect.stringContaining("spin") });
    const run = await newest(client);
    const report = Object.entries(run?.hooks ?? {}).find(([hook]) => hook.includes("spin"))?.[1];
    expect(report?.failures).toBeGreaterThanOrEqual(1);
    expect(JSON.stringify(report?.problems)).toContain("thing endless");
    const { snapshots } = await client.snapshots.list({ type: "thing" });
    expect(snapshots).toMatchObject(eids.map((eid) => ({ eid, values: { before: 2, after: 2 } })));
  }, 180_000);

  test("and those after it, until the datapoint is a dead letter; the rest goes on", async ({ expect }) => {
    const { start, address } = await openPlace("ingestion");
    const turns = (eid: string, v: number) => ({ type: "thing", eid, attr: "turns", v });
    const first = await start();
    await using client = await connect({ address, level: "processed", giveUpAfterMs: 150_000 });
    expect((await client.send([turns("calm", 1)])).accepted).toBe(1);
    const rest = ["calm", "late1", "late2"];
    const sent = Promise.all([client.send([turns("whirl", 2)]), client.send(rest.map((eid) => turns(eid, 3)))]);
    expect(await first.ended).toBe(70);
    expect(culprit(first)).toMatch(named);
    const [, shard, seq] = named.exec(culprit(first) ?? "") ?? [];
    let deaths = 1;
    const outlives = async (): Promise<boolean> => {
      const life = start({ WHIRL: "dies" }).then((node) => Promise.race([node.ended, sent.then(() => "lives")]));
      return (await life.catch(() => "died")) === "lives";
    };
    while (!(await outlives())) expect(++deaths).toBeLessThan(12);
    console.log(`stuck test: ${deaths} deaths of one datapoint`);
    expect((await sent).map(({ accepted }) => accepted)).toEqual([1, rest.length]);
    for (const eid of rest) {
      const { turns, before } = (await client.entities.get({ type: "thing", eid })).attributes;
      expect([eid, turns?.v, before?.v]).toEqual([eid, 3, 4]);
    }
    expect((await client.entities.get({ type: "thing", eid: "whirl" })).attributes).toMatchObject({ turns: { v: 2 } });
    const { letters } = await client.admin.deadLetters({ status: "open" });
    expect(letters).toMatchObject([
      {
        kind: "hook",
        type: "thing",
        eid: "whirl",
        hook: "stuck/on_new_attr/thing.turns/turn",
        code: "HOOK_FAILED",
        error: expect.stringContaining("was not run: the process died 3 times there"),
        shard: Number(shard),
        seq: Number(seq),
      },
    ]);
  }, 180_000);
});

const loops = "for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);"; // for ever, and without heat
const inClass = (method: string) =>
  `import { BaseModule } from "starling/modules"; export class Loops extends BaseModule { ${method} }`;
const codes = [
  ["the top level of its file", "load", loops],
  ["its constructor", "load", inClass(`constructor(...args) { super(...args); ${loops} }`)],
  ["loadConfig", "load", inClass(`loadConfig() { ${loops} }`)],
  ["start", "start", inClass(`start() { ${loops} }`)],
] as const;

/** A configuration with that module. */
async function writeModule(name: string, code: string): Promise<{ readonly configDir: string; readonly file: string }> {
  const configDir = join(folder, `config of ${name}`);
  await cp(join(stuckConfig, "db_entities"), join(configDir, "db_entities"), { recursive: true });
  await writeFile(join(configDir, "processing_core.yml"), "modules_dir: .\nenabled_modules: [loops]\n");
  const file = join(configDir, "loops.ts");
  await writeFile(file, code);
  return { configDir, file };
}

const saying = (file: string, where: string) =>
  `starling: the event loop did not yield for 10000 ms: the process ends with code 70; ` +
  `module loops, file ${file}, where: ${where}; at `;

describe.concurrent("a module whose own code never yields is named with its file, and ends", () => {
  test.for(codes)("its node: %s", { timeout: 120_000 }, async ([name, where, code], { expect }) => {
    const { configDir, file } = await writeModule(name, code);
    const { start } = await openPlace(name, configDir);
    const problem = await start().then(
      () => "serves",
      (error: Error) => error.message,
    );
    expect(problem).toContain("the node ended with 70 before it served:");
    expect(problem).toContain(saying(file, where));
  });

  test.for(["check", "hooks"])("starling %s", { timeout: 120_000 }, async (command, { expect }) => {
    const { configDir, file } = await writeModule(command, loops);
    const main = join(repository, "dist/node/cli/main.js");
    const ended = await new Promise<object>((resolve) => {
      // What it leaves behind goes with the folder.
      const env = { ...process.env, TMPDIR: folder };
      const options = { env, timeout: 60_000, killSignal: "SIGKILL" } as const;
      execFile(process.execPath, [main, command, configDir], options, (error, out, err) => {
        resolve({ code: error?.code ?? error?.signal ?? 0, out, err });
      });
    });
    expect(ended).toEqual({ code: 70, out: "", err: expect.stringContaining(saying(file, "load")) });
  });
});
