import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { run } from "./node/cli/terminal.ts";
import { startTestEtcd, type TestEtcd } from "./support/etcd-server.ts";
import { type NodeProcess, startNodeProcess } from "./support/node-process.ts";
import { testDatabase } from "./support/postgres.ts";
import type { TestDatabase } from "./support/postgres-server.ts";
import { repository } from "./support/repository.ts";

/* The commands of the README's "Several nodes", one after another, on ports of their own. */

const readme = await readFile(join(repository, "README.md"), "utf8");
const section = /^## Several nodes\n([\s\S]*?)^## /m.exec(readme)?.[1] ?? "";
const commands = [...section.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].flatMap(([, block = ""]) =>
  block.trim().split("\n"),
);

let database: TestDatabase;
let etcd: TestEtcd;
let dataDir = "";
const nodes = new Map<string, NodeProcess>();
/** Addresses by the ones that the README names. */
const addresses = new Map<string, string>();

beforeAll(async () => {
  database = await testDatabase();
  etcd = await startTestEtcd();
  dataDir = await mkdtemp(join(tmpdir(), "starling-readme-cluster-"));
}, 60_000);

afterAll(async () => {
  for (const node of nodes.values()) await node.kill();
  await etcd.close();
  await database.close();
  await rm(dataDir, { recursive: true, force: true });
});

async function startNode(words: readonly string[]): Promise<void> {
  const [, configDir = "", ...flags] = words;
  const name = flags[flags.indexOf("--name") + 1] ?? "";
  const listen = flags[flags.indexOf("--listen") + 1] ?? "";
  const node = await startNodeProcess({
    configDir: join(repository, configDir),
    databaseUrl: database.url,
    dataDir,
    flags: ["--etcd", etcd.endpoint, "--name", name],
  });
  nodes.set(name, node);
  addresses.set(listen, node.address);
}

async function ask(words: readonly string[]): Promise<string> {
  const args = words.map((word) => addresses.get(word) ?? word);
  const ran = await run(args.map((word) => (word.startsWith("examples/") ? join(repository, word) : word)));
  expect({ words, code: ran.code, err: ran.code === 0 ? "" : ran.err }).toEqual({ words, code: 0, err: "" });
  return ran.out;
}

it("several nodes answer alike, also when one of them was killed", async () => {
  const answers: string[] = [];
  for (const command of commands) {
    const words = command.split(" -- ")[1]?.split(" ") ?? [];
    if (command.startsWith("export ")) expect(command).toMatch(/STARLING_DATABASE_URL=\S+ STARLING_ETCD=\S+$/);
    else if (command.startsWith("pkill")) await nodes.get(/name (\w+)/.exec(command)?.[1] ?? "")?.kill();
    else if (words[0] === "node") await startNode(words);
    else if (words[0] === "entity") answers.push(await ask(words));
    else await ask(words);
  }
  expect(nodes.size).toBe(3);
  expect(answers).toHaveLength(2);
  expect(answers[0]).toContain("Seattle");
  expect(answers[1]).toBe(answers[0]);
}, 120_000);
