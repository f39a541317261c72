import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { StarlingError } from "../../proto/starling-error.ts";
import { type EmbeddedPostgres, type PostgresLog, startEmbeddedPostgres } from "../embedded-postgres.ts";
import { type Child, startChild } from "./child.ts";
import { httpAbove } from "./free-port.ts";
import { findEtcd, type LocalEtcd, startLocalEtcd } from "./local-etcd.ts";

/**
 * A cluster on this machine: PostgreSQL and etcd in a data folder, and nodes in processes of their own.
 *
 * 1. What is opened first is closed last: nodes hand over and end, then etcd, then PostgreSQL. Nodes end together: there is
 *    nobody left to hand over to, so each writes what it has and releases its shards.
 * 2. Children live in sessions of their own. When this process dies without closing, guards end them all.
 * 3. A node that ends by itself is told of, and stays away unless `restart` says otherwise; without PostgreSQL or etcd, or
 *    without any node, the cluster has failed.
 */
export interface LocalCluster {
  readonly nodes: readonly LocalNode[];
  readonly etcd: string;
  readonly databaseUrl: string;
  /** Settles when it cannot go on, with the reason. */
  readonly failed: Promise<StarlingError>;
  /** Ends everything in order. Idempotent. */
  close(): Promise<void>;
}

export interface LocalNode {
  readonly name: string;
  readonly address: string;
  readonly pid: number;
  /** What starts it again by hand. */
  readonly command: readonly string[];
}

export interface LocalClusterOptions {
  readonly configDir: string;
  readonly dataDir: string;
  /** Of the nodes, on loopback. */
  readonly ports: readonly number[];
  readonly etcdBinary?: string | undefined;
  /** Start a node again that ended by itself. */
  readonly restart: boolean;
  /** The program that runs a node, as `starling node`. */
  readonly starling: readonly [program: string, ...args: string[]];
  readonly env: NodeJS.ProcessEnv;
  readonly log: PostgresLog;
  readonly tell: LocalClusterTeller;
  /** Gives the start up. */
  readonly signal: AbortSignal;
}

/** Who is told what happens. */
export interface LocalClusterTeller {
  /** A line that a part wrote. */
  line(part: string, line: string): void;
  started(part: string, tookMs: number): void;
  /** A node ended by itself; `again`: it is started again. */
  ended(node: LocalNode, how: number | string, again: boolean): void;
}

const serveWithinMs = 60_000;
const lookEveryMs = 200;
const askWithinMs = 2_000;
const nodeStopMs = 30_000;
const etcdStopMs = 5_000;
const restartAfterMs = 1_000;

/** Starts everything; resolves when all nodes serve. What was started ends when a part of it fails. */
export async function startLocalCluster(options: LocalClusterOptions): Promise<LocalCluster> {
  const opened: (() => Promise<unknown>)[] = [];
  let closing: Promise<void> | null = null;
  const close = (): Promise<void> => {
    closing ??= (async () => {
      for (const one of opened.splice(0).reverse()) await one();
    })();
    return closing;
  };
  try {
    return await open(options, opened, close);
  } catch (error) {
    await close();
    throw error;
  }
}

async function open(
  options: LocalClusterOptions,
  opened: (() => Promise<unknown>)[],
  close: () => Promise<void>,
): Promise<LocalCluster> {
  const { ports, tell, env } = options;
  const binary = options.etcdBinary ?? findEtcd(env);
  const dataDir = resolve(options.dataDir);
  await mkdir(dataDir, { recursive: true });
  let fail: (error: StarlingError) => void = () => {};
  const failed = new Promise<StarlingError>((settle) => {
    fail = settle;
  });
  const postgres = await timed("PostgreSQL", tell, () => openPostgres(options, dataDir));
  opened.push(() => postgres.close());
  void postgres.ended.then(() => fail(new StarlingError("STORE", "PostgreSQL has ended")));
  checkWanted(options);
  const etcd = await timed("etcd", tell, () =>
    startLocalEtcd({
      ...{ env, binary, dataDir: join(dataDir, "etcd") },
      onLine: (line) => tell.line("etcd", line),
    }),
  );
  opened.push(() => etcd.stop(etcdStopMs));
  void etcd.ended.then((how) => fail(new StarlingError("UNAVAILABLE", `etcd has ended with ${how}`)));
  checkWanted(options);
  const world: NodeWorld = { ...options, dataDir, postgres, etcd };
  const nodes = ports.map((port, index) => createSupervised(world, `node-${index + 1}`, port, fail));
  opened.push(() => Promise.all(nodes.map((node) => node.stop())));
  await Promise.all(nodes.map(({ start }) => start()));
  void Promise.all(nodes.map(({ over }) => over)).then(() => fail(new StarlingError("UNAVAILABLE", "no node is left")));
  return { nodes: nodes.map(({ node }) => node), etcd: etcd.endpoint, databaseUrl: postgres.url, failed, close };
}

function openPostgres({ log, ports }: LocalClusterOptions, dataDir: string): Promise<EmbeddedPostgres> {
  return startEmbeddedPostgres({ dataDir, log, settings: { max_connections: String(40 + 20 * ports.length) } });
}

async function timed<T>(part: string, tell: LocalClusterTeller, start: () => Promise<T>): Promise<T> {
  const begun = performance.now();
  const started = await start();
  tell.started(part, performance.now() - begun);
  return started;
}

function checkWanted({ signal }: LocalClusterOptions): void {
  if (signal.aborted) throw new StarlingError("UNAVAILABLE", "the start was given up");
}

interface NodeWorld extends LocalClusterOptions {
  readonly postgres: EmbeddedPostgres;
  readonly etcd: LocalEtcd;
}

/** A node's place, at which one process after another may run. */
interface Supervised {
  readonly node: LocalNode;
  /** Resolves when it serves. */
  start(): Promise<void>;
  stop(): Promise<void>;
  /** Resolves when no process of it runs, nor will. */
  readonly over: Promise<void>;
}

function createSupervised(
  world: NodeWorld,
  name: string,
  port: number,
  fail: (error: StarlingError) => void,
): Supervised {
  const { configDir, dataDir, postgres, etcd, starling, restart, tell } = world;
  const address = `127.0.0.1:${port}`;
  const http = `127.0.0.1:${port + httpAbove}`;
  const flags = ["--name", name, "--listen", address, "--advertise", address, "--http-listen", http];
  const places = ["--data-dir", join(dataDir, name), "--database-url", postgres.url, "--etcd", etcd.endpoint];
  const command = [...starling, "node", configDir, ...flags, ...places];
  let child: Child | null = null;
  let status: "running" | "stopping" = "running";
  const stops = (): boolean => status === "stopping";
  let end = (): void => {};
  const over = new Promise<void>((settle) => {
    end = settle;
  });
  const node: LocalNode = {
    ...{ name, address, command },
    get pid() {
      return child?.pid ?? 0;
    },
  };
  const launch = async (): Promise<Child> => {
    const [program = "", ...args] = command;
    const launched = await startChild({
      command: [program, ...args],
      env: world.env,
      onLine: (line) => tell.line(name, line),
    });
    child = launched;
    return launched;
  };
  const watch = (launched: Child): void => {
    void launched.ended
      .then(async (how) => {
        if (stops()) return end();
        tell.ended(node, how, restart);
        if (!restart) return end();
        await delay(restartAfterMs);
        if (stops()) return end();
        watch(await launch());
      })
      .catch((error: unknown) =>
        fail(new StarlingError("INTERNAL", `${name} was not started again: ${String(error)}`)),
      );
  };
  return {
    node,
    over,
    start: () =>
      timed(name, tell, async () => {
        const launched = await launch();
        await untilServing(world, { address, http }, launched);
        watch(launched);
      }),
    stop: async () => {
      status = "stopping";
      await child?.stop(nodeStopMs);
    },
  };
}

async function untilServing(
  { signal }: NodeWorld,
  { address, http }: { readonly address: string; readonly http: string },
  child: Child,
): Promise<void> {
  const until = performance.now() + serveWithinMs;
  let ended: number | string | null = null;
  void child.ended.then((how) => {
    ended = how;
  });
  for (;;) {
    if (signal.aborted) throw new StarlingError("UNAVAILABLE", "the start was given up");
    if (ended !== null)
      throw new StarlingError("UNAVAILABLE", `the node at ${address} ended with ${ended} before it served`);
    if (performance.now() > until) throw new StarlingError("DEADLINE", `the node at ${address} did not serve in time`);
    if (await serves(http)) return;
    await delay(lookEveryMs);
  }
}

/** Over HTTP, which needs no certificates and no token whatever the configuration says of gRPC. */
async function serves(http: string): Promise<boolean> {
  try {
    return (await fetch(`http://${http}/readyz`, { signal: AbortSignal.timeout(askWithinMs) })).ok;
  } catch {
    return false; // not yet: it is asked again
  }
}
