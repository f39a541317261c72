import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import type { ReachOptions } from "../../../proto/client-dialler.ts";
import { openDatabases, settingsOf } from "../databases.ts";
import { startTestEtcd, type TestEtcd } from "../etcd-server.ts";
import { startTestPostgres } from "../postgres-server.ts";
import { repository } from "../repository.ts";
import { type ClusterNode, createClusterNode } from "./cluster-node.ts";
import { freePort } from "./free-port.ts";
import { createNetwork, type Network } from "./network.ts";

/** Real nodes in processes of their own, a real PostgreSQL and a real etcd, and a network between them that can fail. */
export interface TestCluster extends AsyncDisposable {
  /** By name, `node-a` first. */
  readonly nodes: readonly ClusterNode[];
  /** Of the nodes, behind their proxies. */
  readonly addresses: readonly string[];
  /** Parties: the nodes' names, `etcd`, `postgres`. */
  readonly network: Network;
  readonly etcd: TestEtcd;
  /** For a test's own connections, without a proxy; all of them are in one PostgreSQL. */
  readonly databaseUrls: readonly string[];
  /** The first. */
  readonly databaseUrl: string;
  readonly shards: { readonly entity: number; readonly system: number };
  /** How clients reach the nodes. */
  readonly reach: ReachOptions;
  /** Another place for a node. */
  add(name: string, options?: AddedNode): Promise<ClusterNode>;
  /** `fast` ends sessions and writes what is dirty; `immediate` is a crash. */
  restartPostgres(how: "fast" | "immediate", downMs?: number): Promise<void>;
  /** Writes what the nodes logged into the folder, one file each. */
  saveLogs(folder: string): Promise<void>;
  close(): Promise<void>;
}

export interface AddedNode {
  /** More flags, which win over the usual ones. */
  readonly flags?: readonly string[];
  /** What it is called among the others; default: as the place. */
  readonly called?: string;
  /** Without etcd, as a cluster of one. */
  readonly isAlone?: boolean;
  readonly env?: Readonly<Record<string, string>>;
}

export interface TestClusterOptions {
  readonly nodes: number;
  readonly shards?: { readonly entity: number; readonly system: number };
  /** For all nodes. */
  readonly flags?: readonly string[];
  /** For each node its own. */
  readonly flagsOf?: (name: string) => readonly string[];
  /** Default: plain text. */
  readonly reach?: ReachOptions;
  readonly configDir?: string;
}

const names = ["a", "b", "c", "d", "e", "f", "g", "h"].map((letter) => `node-${letter}`);

/** Starts everything; resolves when all nodes serve. What was started ends when a part of it fails. */
export async function startTestCluster(options: TestClusterOptions): Promise<TestCluster> {
  const { shards = { entity: 64, system: 8 }, flags = [], flagsOf = () => [], reach = {} } = options;
  const configDir = options.configDir ?? join(repository, "test/support/cluster-config");
  const folder = await mkdtemp(join(tmpdir(), "starling-cluster-"));
  let [postgres, etcd] = await Promise.all([startTestPostgres(), startTestEtcd()]);
  const { urls, settings } = await openDatabases(postgres.createDatabase);
  const network = createNetwork(names);
  const nodes: ClusterNode[] = [];
  const shardFlags = ["--entity-shards", `${shards.entity}`, "--system-shards", `${shards.system}`];
  const add = async (name: string, added: AddedNode = {}): Promise<ClusterNode> => {
    const port = await freePort();
    const open = (from: string | null, to: string, target: () => { path: string } | { host: string; port: number }) =>
      network.open({ from, to, target });
    const toEtcd = await open(name, "etcd", () => addressOf(etcd.endpoint));
    const toPostgres = await open(name, "postgres", () => ({ path: socketOf(settings.databaseUrl) }));
    const toNode = await open(null, name, () => ({ host: "127.0.0.1", port }));
    const address = `127.0.0.1:${toNode.port}`;
    const coordinator = added.isAlone === true ? [] : ["--etcd", `127.0.0.1:${toEtcd.port}`];
    const own = ["--name", added.called ?? name, "--listen", `127.0.0.1:${port}`, "--advertise", address];
    const node = createClusterNode({
      name,
      address,
      process: {
        configDir,
        dataDir: join(folder, name),
        ...settingsOf(urls.map((url) => `postgres://starling@127.0.0.1:${toPostgres.port}/${databaseOf(url)}`)),
        flags: [...own, ...coordinator, ...shardFlags, ...flags, ...flagsOf(name), ...(added.flags ?? [])],
        ...(added.env && { env: added.env }),
      },
    });
    nodes.push(node);
    return node;
  };
  const close = async (): Promise<void> => {
    await Promise.all(nodes.map((node) => node.close()));
    await network.close();
    await etcd.close();
    await postgres.close();
    await rm(folder, { recursive: true, force: true });
  };
  const cluster: TestCluster = {
    ...{ nodes, network, etcd, shards, reach, databaseUrls: urls, databaseUrl: settings.databaseUrl, add, close },
    get addresses() {
      return nodes.map(({ address }) => address);
    },
    restartPostgres: async (how, downMs = 0) => {
      process.kill(postgres.pid, how === "fast" ? "SIGINT" : "SIGQUIT");
      await setTimeout(downMs);
      postgres = await postgres.restart();
    },
    saveLogs: async (into) => {
      await mkdir(into, { recursive: true });
      for (const node of nodes) await writeFile(join(into, `${node.name}.log`), `${node.log().join("\n")}\n`);
    },
    [Symbol.asyncDispose]: close,
  };
  try {
    for (const name of names.slice(0, options.nodes)) await add(name);
    await Promise.all(nodes.map((node) => node.start()));
  } catch (error) {
    await close();
    throw error;
  }
  return cluster;
}

function addressOf(text: string): { readonly host: string; readonly port: number } {
  const [host = "", port = ""] = text.split(":");
  return { host, port: Number(port) };
}

/** The unix socket of a URL like `postgres://user@localhost/name?host=/folder`. */
function socketOf(url: string): string {
  return join(new URL(url).searchParams.get("host") ?? "", ".s.PGSQL.5432");
}

function databaseOf(url: string): string {
  return new URL(url).pathname.slice(1);
}
