import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, rm, symlink, unlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "esbuild";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createConnection } from "../../actors/store/connection.ts";
import { isAlive } from "../../node/data-folder.ts";
import { startEmbeddedPostgres } from "../../node/embedded-postgres.ts";
import { openPostgresBinaries } from "../../node/postgres-binaries.ts";
import { startNodeProcess } from "../support/node-process.ts";

const root = join(import.meta.dirname, "../..");
const log = { debug: () => undefined, info: () => undefined, warn: () => undefined };

async function answer(url: string): Promise<number> {
  const options = { url, application: "test", statementTimeoutMs: 10_000, connectTimeoutMs: 5_000 };
  const connection = createConnection(options);
  try {
    const [row] = await connection.query<{ n: number }>("select 1 as n");
    return row?.n ?? 0;
  } finally {
    await connection.close();
  }
}

async function waitUntilGone(pid: number): Promise<void> {
  while (isAlive(pid)) await new Promise((fulfil) => setTimeout(fulfil, 10));
}

describe("the embedded PostgreSQL", () => {
  let dataDir: string;
  let children: ChildProcess[];
  beforeEach(async () => {
    dataDir = await mkdtemp(join(tmpdir(), "starling-embedded-"));
    await chmod(dataDir, 0o755);
    children = [];
  });
  afterEach(async () => {
    for (const child of children) child.kill("SIGKILL");
    await rm(dataDir, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  });

  /** A process of its own that starts PostgreSQL and then only waits, deaf to SIGINT. */
  async function startInChild(): Promise<{ child: ChildProcess; pid: number; url: string }> {
    const outfile = join(root, "dist", `embedded-postgres-child-${process.pid}.mjs`);
    const contents = `import { startEmbeddedPostgres } from "./node/embedded-postgres.ts";
      const log = { debug() {}, info() {}, warn() {} };
      process.on("SIGINT", () => {});
      setInterval(() => {}, 1000);
      const { pid, url } = await startEmbeddedPostgres({ dataDir: process.argv[2], log });
      console.log(JSON.stringify({ pid, url }));`;
    await build({
      stdin: { contents, resolveDir: root, loader: "ts" },
      outfile,
      bundle: true,
      platform: "node",
      format: "esm",
      packages: "external",
      logLevel: "silent",
    });
    const child = spawn(process.execPath, [outfile, dataDir], { detached: true, stdio: ["ignore", "pipe", "inherit"] });
    children.push(child);
    const [line] = (await once(child.stdout, "data")) as [Buffer];
    await unlink(outfile);
    return { child, ...(JSON.parse(line.toString()) as { pid: number; url: string }) };
  }

  it("initialises a new folder, keeps it over a restart, and leaves no process behind", async () => {
    const first = await startEmbeddedPostgres({ dataDir, log });
    expect(await answer(first.url)).toBe(1);
    await Promise.all([first.close(), first.close()]);
    await first.ended;
    expect(isAlive(first.pid)).toBe(false);
    const second = await startEmbeddedPostgres({ dataDir, log });
    expect(await answer(second.url)).toBe(1);
    await second.close();
  });

  it("of another node is left alone: who uses the folder is named, and what to do", async () => {
    const first = await startEmbeddedPostgres({ dataDir, log });
    await expect(startEmbeddedPostgres({ dataDir, log })).rejects.toMatchObject({
      code: "DATA_FOLDER_TAKEN",
      message: expect.stringContaining(`process ${process.pid} `),
    });
    const second = startNodeProcess({ configDir: join(root, "test/support/types-config"), dataDir });
    const ended = await second.then(
      () => "it serves",
      (error: Error) => error.message,
    );
    expect(ended).toMatch(/^the node ended with 1 before it served:\n/);
    expect(ended.split("\n").slice(-2)).toEqual([
      `starling: DATA_FOLDER_TAKEN: process ${process.pid} uses the data folder ${dataDir}`,
      "  → end the other node, or give this one another --data-dir",
    ]);
    expect(await answer(first.url)).toBe(1);
    await first.close();
  });

  it("listens on a port, with a password, if it is told to", async () => {
    const server = await startEmbeddedPostgres({ dataDir, log, port: 54_329 });
    expect(await answer(server.url)).toBe(1);
    await expect(answer(server.url.replace(/:[0-9a-f]+@/, ":wrong@"))).rejects.toMatchObject({ code: "STORE_FATAL" });
    await server.close();
  });

  it("stops when its node is killed, and starts again at once", async () => {
    const { child, pid } = await startInChild();
    child.kill("SIGKILL");
    const next = await startEmbeddedPostgres({ dataDir, log });
    // It has ended; who adopted it may still have to take note of that.
    await waitUntilGone(pid);
    expect(await answer(next.url)).toBe(1);
    await next.close();
    const last = await startInChild();
    last.child.kill("SIGKILL");
    await waitUntilGone(last.pid);
  });

  it("does not hear the Ctrl-C that the node hears", async () => {
    const { child, url } = await startInChild();
    process.kill(-(child.pid ?? 0), "SIGINT");
    expect(await answer(url)).toBe(1);
    expect(await answer(url)).toBe(1);
  });

  it("tells when PostgreSQL ends by itself", async () => {
    const server = await startEmbeddedPostgres({ dataDir, log });
    process.kill(server.pid, "SIGINT");
    await server.ended;
    await server.close();
  });

  it("makes the symbolic links that the package could not carry", async () => {
    const { root: packageRoot } = await openPostgresBinaries();
    const link = join(packageRoot, "native/lib/libpgtypes.so");
    await unlink(link);
    await openPostgresBinaries();
    await expect(symlink("libpgtypes.so.3.18", link)).rejects.toMatchObject({ code: "EEXIST" });
  });
});
