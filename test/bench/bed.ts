import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { type Connection, createConnection } from "../../actors/store/connection.ts";
import { embeddedBuffers } from "../../node/embedded-postgres.ts";
import { type NodeProcess, startNodeProcess } from "../support/node-process.ts";
import { startTestPostgres, type TestDatabase, type TestPostgres } from "../support/postgres-server.ts";
import { cpuSeconds, treeCpuSeconds } from "../support/process-usage.ts";
import { repository } from "../support/repository.ts";
import type { SendPlan } from "./plan.ts";
import type { SendReport } from "./sender.ts";

/**
 * What a benchmark runs on: a PostgreSQL of its own with the settings of the embedded one, real nodes and a real client,
 * each a process. Closing it ends them all.
 */
export interface Bed {
  readonly postgres: TestPostgres;
  /** A fresh database; closing it drops it. */
  createDatabase(): Promise<TestDatabase>;
  startNode(options: BedNodeOptions): Promise<NodeProcess>;
  /** Ends a node in order. A node that does not end with 0 is an error. */
  stopNode(node: NodeProcess): Promise<void>;
  /** Runs a client process. Any rejected datapoint is an error. */
  send(node: NodeProcess, plan: SendPlan): Promise<SendReport>;
  /** Runs another client process of this folder; what it prints is JSON. */
  runClient(node: NodeProcess, program: string, args: readonly string[]): Promise<unknown>;
  withConnection<T>(url: string, run: (connection: Connection) => Promise<T>): Promise<T>;
  /** Writes out what earlier parts left, so that the next one does not pay for it. */
  checkpoint(): Promise<void>;
  /** Processor seconds that node and PostgreSQL use during `run`. */
  measureCpu<T>(node: NodeProcess, run: () => Promise<T>): Promise<CpuUse & { readonly result: T }>;
  /** What PostgreSQL says that makes its commits durable. */
  durability(): Promise<Readonly<Record<string, string>>>;
  close(): Promise<void>;
}

export interface CpuUse {
  readonly nodeS: number;
  readonly postgresS: number;
}

export interface BedNodeOptions {
  readonly databaseUrl: string;
  /** Of several nodes each has its own. */
  readonly name?: string;
  /** Default: the configuration with the hook that reads the record. */
  readonly configDir?: string;
  readonly flags?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Of another version; default this one's. */
  readonly program?: string;
}

export interface BedOptions {
  readonly signal: AbortSignal;
  /** Of PostgreSQL. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Of every node. */
  readonly nodeFlags: readonly string[];
}

/** As the embedded PostgreSQL of a node has them; the tests' are smaller. */
const nodeSettings = { shared_buffers: embeddedBuffers(totalmem()), autovacuum_naptime: "20s", max_connections: "100" };
const durabilitySettings = [
  "fsync",
  "synchronous_commit",
  "full_page_writes",
  "wal_sync_method",
  "data_checksums",
  "wal_level",
  "commit_delay",
];
const statementMaxMs = 1_800_000;

/** Starts PostgreSQL. */
export async function startBed(options: BedOptions): Promise<Bed> {
  const postgres = await startTestPostgres({ ...nodeSettings, ...options.settings });
  const folder = await mkdtemp(join(tmpdir(), "starling-bench-"));
  const children = new Set<ChildProcess>();
  const nodes = new Set<Promise<NodeProcess>>();
  const { signal } = options;
  const endChildren = (): void => {
    for (const child of children) child.kill();
  };
  signal.addEventListener("abort", endChildren, { once: true });
  const bed: Bed = {
    postgres,
    createDatabase: () => postgres.createDatabase(),
    startNode: (node) => {
      signal.throwIfAborted();
      const starting = startNode(node, options, folder);
      nodes.add(starting);
      starting.catch(() => nodes.delete(starting));
      return starting;
    },
    stopNode: async (node) => {
      const code = await node.stop();
      if (code !== 0) throw new Error(`the node ended with ${code}:\n${node.log.slice(-30).join("\n")}`);
    },
    send: (node, plan) => Promise.race([send(node.address, plan, children), endOf(node)]),
    runClient: (node, program, args) => Promise.race([runClient(program, args, children), endOf(node)]),
    withConnection,
    checkpoint: () => withConnection(postgres.url, (connection) => connection.script("checkpoint")),
    measureCpu: (node, run) => measureCpu(node.pid, postgres.pid, run),
    durability: () => withConnection(postgres.url, readDurability),
    close: async () => {
      signal.removeEventListener("abort", endChildren);
      endChildren();
      for (const starting of nodes) await starting.then((node) => node.kill()).catch(() => undefined); // never started
      await postgres.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
  return bed;
}

function startNode(node: BedNodeOptions, { nodeFlags }: BedOptions, folder: string): Promise<NodeProcess> {
  return startNodeProcess({
    configDir: node.configDir ?? join(repository, "test/bench/config"),
    databaseUrl: node.databaseUrl,
    dataDir: join(folder, node.name ?? "node"),
    flags: [...(node.flags ?? []), ...nodeFlags],
    ...(node.env && { env: node.env }),
    ...(node.program !== undefined && { program: node.program }),
  });
}

/** Rejects when a node ends while it is needed. */
async function endOf(node: NodeProcess): Promise<never> {
  const code = await node.ended;
  throw new Error(`the node ended with ${code}:\n${node.log.slice(-30).join("\n")}`);
}

async function send(address: string, plan: SendPlan, children: Set<ChildProcess>): Promise<SendReport> {
  const report = (await runClient("sender", [address, JSON.stringify(plan)], children)) as SendReport;
  if (report.rejected > 0) throw new Error(`${report.rejected} datapoints were rejected`);
  return report;
}

async function runClient(name: string, args: readonly string[], children: Set<ChildProcess>): Promise<unknown> {
  const program = join(repository, `dist/test/bench/${name}.js`);
  const child = spawn(process.execPath, [program, ...args], { stdio: ["ignore", "pipe", "inherit"] });
  children.add(child);
  let printed = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    printed += text;
  });
  const [code] = (await once(child, "close")) as [number | null];
  children.delete(child);
  if (code !== 0) throw new Error(`the client ${name} ended with ${code}`);
  return JSON.parse(printed);
}

async function withConnection<T>(url: string, run: (connection: Connection) => Promise<T>): Promise<T> {
  const connection = createConnection({
    url,
    application: "bench",
    statementTimeoutMs: statementMaxMs,
    connectTimeoutMs: 10_000,
  });
  try {
    return await run(connection);
  } finally {
    await connection.close();
  }
}

async function measureCpu<T>(node: number, postgres: number, run: () => Promise<T>) {
  const before = { node: cpuSeconds(node), postgres: treeCpuSeconds(postgres) };
  const result = await run();
  return { result, nodeS: cpuSeconds(node) - before.node, postgresS: treeCpuSeconds(postgres) - before.postgres };
}

async function readDurability(connection: Connection): Promise<Readonly<Record<string, string>>> {
  const found: Record<string, string> = {};
  for (const name of durabilitySettings) {
    const [row] = await connection.query<Record<string, string>>(`show ${name}`);
    found[name] = row?.[name] ?? "?";
  }
  return found;
}
