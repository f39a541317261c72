import { type ChildProcess, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { accessSync, constants, existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rename, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { isAlive } from "../../node/data-folder.ts";
import { runProgram } from "../../node/postgres-binaries.ts";
import { repository } from "./repository.ts";

/** A real etcd of one member on loopback, in a folder that goes when it is closed. It keeps its port over restarts. */
export interface TestEtcd {
  /** `host:port`. */
  readonly endpoint: string;
  /** Of the process that runs, or ran last. */
  readonly pid: number;
  /** Starts it again on its data, after `stop` or `kill`. */
  start(): Promise<void>;
  /** As an operator does: SIGTERM. */
  stop(): Promise<void>;
  kill(): Promise<void>;
  /** Stops it, if it still runs, and starts it on its data. */
  restart(): Promise<void>;
  /** Kills it, if it still runs, and starts it with the same flags on no data. */
  restartEmpty(): Promise<void>;
  /** Returns when all its threads stand still. */
  freeze(): Promise<void>;
  thaw(): void;
  /** Idempotent; ends a frozen one, too. */
  close(): Promise<void>;
}

export interface TestEtcdOptions {
  readonly flags?: readonly string[];
}

const folderName = "starling-test-etcd-";
const host = "127.0.0.1";
const startWithinMs = 20_000;
const remedy = "the tests need etcd 3.4 or newer on the PATH: install it (Debian, Ubuntu: apt-get install etcd-server)";

/** Starts an etcd. Uses the one on the PATH, else Debian's package where that can be had without asking. */
export async function startTestEtcd({ flags = [] }: TestEtcdOptions = {}): Promise<TestEtcd> {
  const program = await findTestEtcd();
  await removeLeftovers();
  const folder = await mkdtemp(join(tmpdir(), `${folderName}${process.pid}-`));
  try {
    for (let attempt = 0; ; attempt++) {
      const place: Place = { program, folder, flags, client: await freePort(), peer: await freePort() };
      const started = await tryStart(place);
      if (typeof started !== "string") return serve(place, started);
      // Between our look and its start another program may have taken a port.
      if (!started.includes("address already in use") || attempt === 5) throw new Error(started);
    }
  } catch (error) {
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
}

interface Place {
  readonly program: string;
  readonly folder: string;
  readonly flags: readonly string[];
  readonly client: number;
  readonly peer: number;
}

interface Running {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly guard: ChildProcess;
  readonly ended: Promise<void>;
}

function serve(place: Place, first: Running): TestEtcd {
  let running = first;
  let closing: Promise<void> | null = null;
  const end = async (signal: "SIGTERM" | "SIGKILL") => {
    running.child.kill(signal);
    await running.ended;
  };
  const start = async () => {
    const started = await tryStart(place);
    if (typeof started === "string") throw new Error(started);
    running = started;
  };
  return {
    endpoint: `${host}:${place.client}`,
    get pid() {
      return running.pid;
    },
    start,
    stop: () => end("SIGTERM"),
    kill: () => end("SIGKILL"),
    restart: () => end("SIGTERM").then(start),
    restartEmpty: async () => {
      await end("SIGKILL");
      await rm(join(place.folder, "data"), { recursive: true, force: true });
      await start();
    },
    freeze: async () => {
      running.child.kill("SIGSTOP");
      await standsStill(running.pid);
    },
    thaw: () => void running.child.kill("SIGCONT"),
    close: () => {
      closing ??= end("SIGKILL").then(() => rm(place.folder, { recursive: true, force: true }));
      return closing;
    },
  };
}

/** A signal returns before it has its effect: on a busy machine calls were answered after it. */
async function standsStill(pid: number): Promise<void> {
  const folder = `/proc/${pid}/task`;
  const deadline = performance.now() + 5_000;
  while (performance.now() < deadline) {
    const threads = await readdir(folder).catch(() => []); // there is no such folder but on Linux
    const stats = await Promise.all(
      // A thread that has ended meanwhile stands still, too.
      threads.map((thread) => readFile(join(folder, thread, "stat"), "utf8").catch(() => ") T")),
    );
    if (stats.every((stat) => stat.slice(stat.lastIndexOf(")")).startsWith(") T"))) return;
    await delay(5);
  }
  throw new Error(`etcd (process ${pid}) does not stand still`);
}

/** The process when it is ready, or what it said before it ended. */
async function tryStart(place: Place): Promise<Running | string> {
  const { program, folder, flags, client, peer } = place;
  const child = spawn(
    program,
    [
      "--name=test",
      `--data-dir=${join(folder, "data")}`,
      `--listen-client-urls=http://${host}:${client}`,
      `--advertise-client-urls=http://${host}:${client}`,
      `--listen-peer-urls=http://${host}:${peer}`,
      `--initial-advertise-peer-urls=http://${host}:${peer}`,
      `--initial-cluster=test=http://${host}:${peer}`,
      // It elects itself, so a short election makes for a quick start.
      "--heartbeat-interval=20",
      "--election-timeout=200",
      "--logger=zap",
      ...flags,
    ],
    { cwd: folder, detached: true, stdio: ["ignore", "ignore", "pipe"], env: { PATH: process.env.PATH } },
  );
  const ended = once(child, "exit").then(
    () => undefined,
    () => undefined, // it could not be started: `error` below says why
  );
  const said = await readiness(child);
  if (said !== null) return `etcd did not start: ${said}`;
  const pid = child.pid ?? 0;
  const guard = startGuard(pid);
  return { child, pid, guard, ended: ended.then(() => void guard.stdin?.end("done\n")) };
}

/** Null when it serves, else its last words. */
function readiness(child: ChildProcess): Promise<string | null> {
  return new Promise((resolve) => {
    const lines: string[] = [];
    const timer = setTimeout(() => {
      lines.push(`it was not ready within ${startWithinMs} ms`);
      child.kill("SIGKILL");
    }, startWithinMs);
    const settle = (result: string | null) => {
      clearTimeout(timer);
      resolve(result);
    };
    if (child.stderr !== null) {
      createInterface({ input: child.stderr }).on("line", (line) => {
        if (lines.push(line) > 10) lines.shift();
        if (line.includes("serving client traffic")) settle(null);
      });
    }
    child.once("error", (error) => settle(error.message));
    child.once("close", () => settle(lines.join("\n") || "it ended without a word"));
  });
}

/** Ends etcd when this process dies without closing it. */
function startGuard(pid: number): ChildProcess {
  const script = 'read -r line || kill -KILL "$0"';
  const guard = spawn("/bin/sh", ["-c", script, String(pid)], { detached: true, stdio: ["pipe", "ignore", "ignore"] });
  guard.once("error", () => undefined); // without a shell it is only not guarded
  guard.stdin?.once("error", () => undefined); // the guard ended first
  guard.unref();
  return guard;
}

/** Below the range from which systems choose ports for outgoing connections: nobody takes it while etcd is stopped. */
async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = randomInt(20_000, 32_000);
    const server = createServer();
    const free = await new Promise<boolean>((resolve) => {
      server.once("error", () => resolve(false));
      server.listen(port, host, () => resolve(true));
    });
    if (!free) continue;
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
  throw new Error("no free port was found");
}

/** The etcd that tests use: on the PATH, or unpacked from Debian's package. */
export async function findTestEtcd(): Promise<string> {
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    const program = join(folder, "etcd");
    if (folder !== "" && isExecutable(program)) return program;
  }
  const root = process.getuid?.() === 0;
  if (!root || !existsSync("/etc/debian_version") || !existsSync("/usr/bin/apt-get")) throw new Error(remedy);
  return await openPackage();
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Debian's package, unpacked beside the npm packages: no service of the system starts, and nothing is installed. */
async function openPackage(): Promise<string> {
  const cache = join(repository, "node_modules/.cache");
  const program = join(cache, "etcd-server/usr/bin/etcd");
  if (isExecutable(program)) return program;
  await mkdir(cache, { recursive: true });
  const draft = await mkdtemp(join(cache, "etcd-server-"));
  try {
    const download = () => runProgram(["apt-get", "download", "etcd-server"], { cwd: draft, deadlineMs: 120_000 });
    await download().catch(async () => {
      await runProgram(["apt-get", "update"], { deadlineMs: 120_000 });
      await download();
    });
    const file = (await readdir(draft)).find((name) => name.endsWith(".deb")) ?? "";
    await runProgram(["dpkg", "-x", join(draft, file), join(draft, "unpacked")], { deadlineMs: 60_000 });
    await rename(join(draft, "unpacked"), join(cache, "etcd-server")).catch(() => undefined); // another was quicker
  } catch (error) {
    throw new Error(remedy, { cause: error });
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
  if (!isExecutable(program)) throw new Error(remedy);
  return program;
}

/** Folders of processes that were killed. Their etcd has been ended by its guard. */
async function removeLeftovers(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const pid = name.startsWith(folderName) ? Number.parseInt(name.slice(folderName.length), 10) : Number.NaN;
    if (Number.isNaN(pid) || isAlive(pid)) continue;
    await rm(join(tmpdir(), name), { recursive: true, force: true }).catch(() => undefined); // being removed by another
  }
}
