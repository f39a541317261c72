import { existsSync } from "node:fs";
import { chmod, mkdtemp, readdir, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createConnection } from "../../actors/store/connection.ts";
import { isAlive } from "../../node/data-folder.ts";
import { type EmbeddedPostgres, type PostgresLog, startEmbeddedPostgres } from "../../node/embedded-postgres.ts";
import { openPostgresBinaries, runProgram } from "../../node/postgres-binaries.ts";

/** A PostgreSQL of its own, in a folder that goes when it is closed. */
export interface TestPostgres {
  readonly url: string;
  readonly pid: number;
  /** A fresh, empty database. */
  createDatabase(): Promise<TestDatabase>;
  /** Stops it, if it still runs, and starts it on the same data. */
  restart(): Promise<TestPostgres>;
  close(): Promise<void>;
}

export interface TestDatabase {
  readonly url: string;
  close(): Promise<void>;
}

const silent: PostgresLog = { debug: () => undefined, info: () => undefined, warn: () => undefined };
const folderName = "starling-test-";

/** Starts a PostgreSQL from a template of an initialised data folder, which is kept between runs. */
export async function startTestPostgres(settings: Readonly<Record<string, string>> = {}): Promise<TestPostgres> {
  await removeLeftovers();
  const dataDir = await mkdtemp(join(tmpdir(), `${folderName}${process.pid}-`));
  // `-a` keeps the owner, which is not root.
  await runProgram(["cp", "-a", await openTemplate(), join(dataDir, "postgres")], { deadlineMs: 30_000 });
  await chmod(dataDir, 0o755);
  return await serve(dataDir, settings);
}

async function serve(dataDir: string, settings: Readonly<Record<string, string>>): Promise<TestPostgres> {
  const defaults = { shared_buffers: "64MB", autovacuum_naptime: "5s", max_connections: "200" };
  const server = await startEmbeddedPostgres({ dataDir, log: silent, settings: { ...defaults, ...settings } });
  let next = 0;
  let closing: Promise<void> | null = null;
  return {
    url: server.url,
    pid: server.pid,
    createDatabase: () => createDatabase(server, `test_${process.pid}_${next++}`),
    restart: async () => {
      await server.close();
      return await serve(dataDir, settings);
    },
    close: () => {
      closing ??= server.close().then(() => rm(dataDir, { recursive: true, force: true }));
      return closing;
    },
  };
}

async function createDatabase(server: EmbeddedPostgres, name: string): Promise<TestDatabase> {
  const run = async (text: string) => {
    const admin = createConnection({
      url: server.url,
      application: "test",
      statementTimeoutMs: 30_000,
      connectTimeoutMs: 10_000,
    });
    try {
      await admin.script(text);
    } finally {
      await admin.close();
    }
  };
  await run(`create database ${name}`);
  const url = server.url.replace("/postgres?", `/${name}?`);
  return { url, close: () => run(`drop database if exists ${name} with (force)`) };
}

/** A data folder as `initdb` leaves it, made once per version of PostgreSQL. */
async function openTemplate(): Promise<string> {
  const { version } = await openPostgresBinaries();
  const template = join(tmpdir(), `starling-template-${version}-${process.getuid?.() ?? 0}`);
  if (existsSync(join(template, "PG_VERSION"))) return template;
  const draft = await mkdtemp(join(tmpdir(), `${folderName}${process.pid}-`));
  await chmod(draft, 0o755);
  const server = await startEmbeddedPostgres({ dataDir: draft, log: silent });
  await server.close();
  await rename(join(draft, "postgres"), template).catch(() => undefined); // another worker was quicker
  await rm(draft, { recursive: true, force: true });
  return template;
}

/** Folders of processes that were killed. Their PostgreSQL has been stopped by its guard. */
async function removeLeftovers(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    if (!name.startsWith(folderName)) continue;
    const pid = Number.parseInt(name.slice(folderName.length), 10);
    if (Number.isNaN(pid) || isAlive(pid)) continue;
    await rm(join(tmpdir(), name), { recursive: true, force: true }).catch(() => undefined); // being removed by another
  }
}
