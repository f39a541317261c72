import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { NodeStatus } from "../../proto/admin-client.ts";
import { freePort } from "../support/cluster/free-port.ts";
import { testDatabase } from "../support/postgres.ts";
import type { TestDatabase } from "../support/postgres-server.ts";
import { repository } from "../support/repository.ts";
import { run } from "./cli/terminal.ts";

/* `npm start` in a process of its own, interrupted by Ctrl-C wherever it stands. */
const within = { timeout: 60_000, interval: 50 };
let folder = "";
let database: TestDatabase;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "starling-demo-"));
  database = await testDatabase();
});

afterEach(async () => {
  await database.close();
  await rm(folder, { recursive: true, force: true });
});

interface Ended {
  readonly code: number | null;
  readonly out: string;
}

const program = [process.execPath, join(repository, "dist/node/cli/main.js"), "demo"];
/** What it builds first is built already, and in use. */
const npmStart = ["npm", "start", "--ignore-scripts", "--"];

/** Runs the example; Ctrl-C, or what else is to end it, comes when the condition holds. */
async function demo(
  isTime: (address: string, out: string) => Promise<boolean>,
  [command = "", ...rest]: readonly string[] = program,
  settings: readonly string[] = ["--database-url", database.url],
  ending: NodeJS.Signals = "SIGINT",
): Promise<Ended> {
  const address = `127.0.0.1:${await freePort()}`;
  const args = ["--listen", address, "--data-dir", folder, ...settings];
  const child = spawn(command, [...rest, ...args], {
    cwd: repository,
    env: { ...process.env, STARLING_HTTP_LISTEN: "none" },
    stdio: ["ignore", "pipe", "pipe"],
    // A terminal sends Ctrl-C to all that runs in it.
    detached: true,
  });
  const signal = (name: NodeJS.Signals): void => {
    const isOver = child.exitCode !== null || child.signalCode !== null;
    if (child.pid !== undefined && !isOver) process.kill(-child.pid, name);
  };
  let out = "";
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (text: string) => {
      out += text;
    });
  const closed = once(child, "close");
  try {
    await expect.poll(() => child.exitCode !== null || isTime(address, out), within).toBe(true);
    signal(ending);
    const [code] = (await closed) as [number | null];
    return { code, out };
  } finally {
    signal("SIGKILL");
  }
}

/** How many datapoints the logs hold. */
async function loggedAt(address: string): Promise<number> {
  const { out } = await run(["status", "--json", "--address", address]);
  if (out === "") return 0;
  return (JSON.parse(out) as NodeStatus).shards.reduce((sum, { lastSeq }) => sum + lastSeq, 0);
}

it("Ctrl-C while it feeds ends it in order, and another start goes on where it was", async () => {
  for (const logged of [1_000, 12_000, 30_000]) {
    const { code, out } = await demo(async (address) => (await loggedAt(address)) > logged);
    expect({ code, out }).toEqual({
      code: 0,
      out: expect.stringMatching(/stopping …\nstopped; the data stay in .*\n$/),
    });
    expect(out).not.toMatch(/starling:|What went in/);
  }
  let counted = "";
  const { code, out } = await demo(async (address, said) => {
    if (!said.includes("serving until Ctrl-C")) return false;
    counted = (await run(["entity", "count", "--json", "--address", address])).out;
    return counted.includes('"airport":3376') && counted.includes('"route":2977');
  }).catch((error: unknown) => {
    throw new Error(`the entities are ${counted}`, { cause: error });
  });
  expect(code).toBe(0);
  expect(out).toContain("56,112 accepted and durable, 0 rejected");
  const again = await demo(async (_, said) => said.includes("serving until Ctrl-C"), npmStart);
  expect(again.out).toMatch(/stopped; the data stay in .*\n$/);
  expect(again.out).toMatch(/found the data of an earlier start: fed on .*, nothing is sent again/);
}, 240_000);

it("shows within a minute what it has fed, with nothing there before and a PostgreSQL of its own", async () => {
  const beganAt = performance.now();
  let summaryMs = 0;
  const isTime = async (_: string, said: string): Promise<boolean> => {
    if (!said.includes("serving until Ctrl-C")) return false;
    summaryMs = performance.now() - beganAt;
    return true;
  };
  const { out } = await demo(isTime, npmStart, []);
  expect(out).toMatch(/What went in\n56,112 datapoints in /);
  expect(out).toMatch(/stopped; the data stay in .*\n$/);
  expect(summaryMs).toBeLessThan(60_000);
}, 120_000);

it("killed while it feeds, with a PostgreSQL of its own, it goes on where it was and loses nothing", async () => {
  const killed = await demo(async (address) => (await loggedAt(address)) > 12_000, npmStart, [], "SIGKILL");
  expect(killed.out).not.toContain("What went in");
  let counted = "";
  const { code, out } = await demo(
    async (address, said) => {
      if (!said.includes("serving until Ctrl-C")) return false;
      counted = (await run(["entity", "count", "--json", "--address", address])).out;
      return counted.includes('"airport":3376') && counted.includes('"route":2977');
    },
    program,
    [],
  ).catch((error: unknown) => {
    throw new Error(`the entities are ${counted}`, { cause: error });
  });
  expect(code).toBe(0);
  expect(out).toMatch(/What went in\n56,112 datapoints in /);
  expect(out).toContain("56,112 accepted and durable, 0 rejected");
}, 180_000);

it("Ctrl-C while it starts ends it in order", async () => {
  const { code, out } = await demo(async (_, said) => said.includes("starting a node"));
  // It may have begun to feed by the time that it hears of it.
  const last = expect.stringMatching(/(stopped before it served|stopped; the data stay in .*)\n$/);
  expect({ code, out }).toEqual({ code: 0, out: last });
}, 120_000);
