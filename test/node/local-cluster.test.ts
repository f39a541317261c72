import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, expect, it } from "vitest";
import { isAlive } from "../../node/data-folder.ts";
import type { ClusterStatus } from "../../proto/cluster-status.ts";
import { findTestEtcd } from "../support/etcd-server.ts";
import { repository } from "../support/repository.ts";
import { run } from "./cli/terminal.ts";

/** `starling cluster start` in a process of its own: what it starts, how that ends, and that data survive it. */
const main = join(repository, "dist/node/cli/main.js");
const testMs = 120_000;
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

/** Starts a cluster of two nodes; resolves when they serve. */
async function start(): Promise<Started> {
  const config = join(repository, "examples/flights/config");
  const args = ["cluster", "start", "-n", "2", "--json", "--data-dir", folder, "--etcd-binary", etcd, config];
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

it("serves, tells of a node that died, stops in order, and finds its data again", { timeout: testMs }, async () => {
  const first = await start();
  const [one, two] = first.nodes;
  const address = one?.address ?? "";
  const line = JSON.stringify({ type: "airport", eid: "XYZ", attr: "city", v: "Nowhere" });
  expect((await run(["send", "-", "--address", address], { stdin: line })).code).toBe(0);
  expect((await statusAt(address)).nodes.map(({ name, state }) => [name, state])).toEqual([
    ["node-1", "serving"],
    ["node-2", "serving"],
  ]);
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
