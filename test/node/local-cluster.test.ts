import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, expect, it } from "vitest";
import { isAlive } from "../../node/data-folder.ts";
import type { ClusterStatus } from "../../proto/cluster-status.ts";
import { findTestEtcd } from "../support/etcd-server.ts";
import { repository } from "../support/repository.ts";
import { run } from "./cli/terminal.ts";

/** `starling cluster start` in a process of its own, as the README's "Operation" shows it: what it starts, how that ends. */
const main = join(repository, "dist/node/cli/main.js");
const testMs = 120_000;
const readme = await readFile(join(repository, "README.md"), "utf8");
const section = /^## Operation\n([\s\S]*?)^### /m.exec(readme)?.[1] ?? "";
const lines = [...section.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].flatMap(([, block = ""]) => block.trim().split("\n"));
const [startCommand = [], ...commands] = lines
  .filter((line) => !line.startsWith("export "))
  .map((line) => line.split(" -- ")[1]?.split(" ") ?? []);
const untilMs = 30_000;
let folder = "";
let etcd = "";

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "starling-local-cluster-"));
  etcd = await findTestEtcd();
});

afterAll(async () => {
  for (const { child } of started) if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
  await rm(folder, { recursive: true, force: true });
});

interface Shown {
  readonly nodes: readonly { readonly name: string; readonly address: string; readonly pid: number }[];
}

interface Started extends Shown {
  readonly child: ChildProcess;
  readonly ended: Promise<number | string>;
  readonly said: readonly string[];
}

const started: { readonly child: ChildProcess }[] = [];

/** Starts the cluster with the README's words; resolves when it serves. */
async function start(): Promise<Started> {
  const args = [...startCommand, "--json", "--data-dir", folder, "--etcd-binary", etcd];
  const child = spawn(process.execPath, [main, ...args], { stdio: ["ignore", "pipe", "pipe"] });
  started.push({ child });
  const said: string[] = [];
  if (child.stderr) createInterface({ input: child.stderr }).on("line", (line) => said.push(line));
  const ended = once(child, "close").then(([code, signal]) => (code as number | null) ?? (signal as string));
  const shown = new Promise<string>((resolve) => {
    if (child.stdout) createInterface({ input: child.stdout }).once("line", resolve);
  });
  const first = await Promise.race([shown, ended]);
  if (typeof first !== "string" || !first.startsWith("{")) throw new Error(`ended with ${first}:\n${said.join("\n")}`);
  return { ...(JSON.parse(first) as Shown), child, ended, said };
}

async function statusAt(address: string): Promise<ClusterStatus> {
  return JSON.parse((await run(["cluster", "status", "--json", "--address", address])).out) as ClusterStatus;
}

function wordsOf(line: string | undefined): string[] {
  return (line ?? "").split(/ {2,}/);
}

it("serves, tells of a node that died, stops in order, and finds its data again", { timeout: testMs }, async () => {
  const first = await start();
  const [one, two] = first.nodes;
  const address = one?.address ?? "";
  const line = JSON.stringify({ type: "airport", eid: "XYZ", attr: "city", v: "Nowhere" });
  expect((await run(["send", "-", "--address", address], { stdin: line })).code).toBe(0);
  const serving = async () => {
    const { nodes } = await statusAt(address);
    return nodes.filter(({ state }) => state === "serving").map(({ name }) => name);
  };
  expect(await serving()).toEqual(["node-1", "node-2", "node-3"]);
  // Shards may still be on their way to the node that came last.
  const shown = async () => (await run(["cluster", "status", "--address", address])).code;
  await expect.poll(shown, { timeout: untilMs }).toBe(0);
  const answers: string[] = [];
  expect(lines).toContain("export STARLING_ADDRESS=127.0.0.1:4700,127.0.0.1:4701,127.0.0.1:4702");
  const env = { STARLING_ADDRESS: first.nodes.map((node) => node.address).join() };
  for (const command of commands) {
    const { code, out, err } = await run(command, { env });
    expect({ command, code, err: code === 0 ? "" : err }).toEqual({ command, code: 0, err: "" });
    answers.push(out);
  }
  expect(commands).toHaveLength(7);
  const [titles = ""] = /^node +state .*$/m.exec(section) ?? [];
  expect(wordsOf(/^node +state .*$/m.exec(answers[0] ?? "")?.[0])).toEqual(wordsOf(titles));
  expect(answers[0]).toContain("all is well");
  expect(answers[1]).toMatch(/^why +node-\d has weight 1 of 3 among 3 nodes/m);
  expect(answers[5]).toMatch(/^node-3 owns nothing any more, \d+ shards moved in .+: it can be stopped$/m);
  await expect.poll(serving, { timeout: untilMs }).toHaveLength(3);
  process.kill(two?.pid ?? 0, "SIGKILL");
  const told = /node-2 ended with SIGKILL; the others take its shards. Start it again: .*--name node-2/;
  await expect.poll(() => first.said.some((text) => told.test(text)), { timeout: untilMs }).toBe(true);
  await expect.poll(async () => (await statusAt(address)).unowned.length, { timeout: untilMs }).toBe(0);
  first.child.kill("SIGTERM");
  expect(await first.ended).toBe(0);
  expect(first.said.at(-1)).toMatch(/^stopped; the data stay in /);
  expect(first.said.some((text) => text.startsWith("node-1 | ") && text.includes('"msg":"stopped"'))).toBe(true);
  expect(first.nodes.filter(({ pid }) => isAlive(pid))).toEqual([]);

  const second = await start();
  const again = second.nodes[1]?.address ?? "";
  expect((await run(["entity", "get", "airport", "XYZ", "--address", again])).out).toContain("Nowhere");
  // However it dies, nothing of it is left.
  second.child.kill("SIGKILL");
  await second.ended;
  await expect.poll(() => second.nodes.filter(({ pid }) => isAlive(pid)), { timeout: untilMs }).toEqual([]);
});

it("without an etcd says which package brings it, and starts nothing", async () => {
  const { code, err } = await run(["cluster", "start", "--data-dir", join(folder, "none")], {
    env: { PATH: "/nowhere" },
  });
  expect(code).toBe(1);
  expect(err).toMatch(
    /CONFIG: there is no etcd on the PATH: install one \(Debian and Ubuntu: apt-get install etcd-server/,
  );
  expect(err).toContain("--etcd-binary");
});
