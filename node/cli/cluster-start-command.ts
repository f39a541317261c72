import { join, resolve } from "node:path";
import type { Command } from "commander";
import { heapFlags } from "../heap-flags.ts";
import type { LocalCluster, LocalClusterTeller, LocalNode } from "../local/local-cluster.ts";
import { createLinePrinter, createLog } from "../log.ts";
import { type CommandContext, examples, wholeNumber } from "./command-context.ts";
import { unlessAborted, untilAborted } from "./node-command.ts";
import { nodeEnvironment } from "./node-options.ts";
import type { Colour, Output } from "./output.ts";
import { packageRoot } from "./package-root.ts";
import { formatDuration } from "./progress.ts";

interface StartOptions {
  readonly nodes: number;
  readonly port?: number;
  readonly dataDir: string;
  readonly etcdBinary?: string;
  readonly restart?: boolean;
  readonly json?: boolean;
}

const firstPort = 4700;

/** `starling cluster start`: a cluster on this machine. */
export function addClusterStartCommand(cluster: Command, context: CommandContext): void {
  cluster
    .command("start")
    .summary("run a local cluster: PostgreSQL, etcd and some nodes")
    .description(
      "Runs a cluster on this machine until Ctrl-C or SIGTERM, which stop it in order: nodes, etcd, PostgreSQL; a second one ends " +
        "all at once, which loses nothing. Brings its own PostgreSQL; etcd has to be installed. The data stay in the data folder, " +
        "and another start finds them. A node that ends by itself is told of and stays away, so that you can see what the others " +
        "do, unless --restart says otherwise. To try things, not to serve others: everything is on loopback and on one disk.",
    )
    .argument("[dir]", "the configuration directory; default: the flights example")
    .option("-n, --nodes <nodes>", "how many nodes", wholeNumber(1, 16), 3)
    .option(
      "--port <port>",
      `port of the first node, the others follow (default: free ones from ${firstPort} on)`,
      wholeNumber(1, 65_000),
    )
    .option("--data-dir <dir>", "where the data stay", ".starling/cluster")
    .option("--etcd-binary <path>", "the etcd to run (default: the one on the PATH)")
    .option("--restart", "start a node again that ended by itself")
    .option("--json", "when all nodes serve, one line of JSON: nodes, etcd, databaseUrl, dataDir")
    .addHelpText(
      "after",
      examples("cluster start", "cluster start -n 5 --port 4800 /etc/starling", "cluster start --restart"),
    )
    .action((dir: string | undefined, options: StartOptions) => runCluster(context, dir, options));
}

async function runCluster(context: CommandContext, dir: string | undefined, options: StartOptions): Promise<void> {
  // Loaded here, so that the other commands start without a node's packages.
  const { startLocalCluster } = await import("../local/local-cluster.ts");
  const { exactPorts, freePortsFrom } = await import("../local/free-port.ts");
  const { output, env, signal } = context;
  const { nodes, port, dataDir, etcdBinary, restart = false } = options;
  const configDir = resolve(dir ?? join(packageRoot(), "examples", "flights", "config"));
  const ports = port === undefined ? await freePortsFrom(firstPort, nodes) : await exactPorts(port, nodes);
  output.note(`starting ${nodes} nodes on ${configDir}, data in ${dataDir}`);
  const starting = startLocalCluster({
    ...{ configDir, dataDir, ports, etcdBinary, restart, signal, env: nodeEnvironment(env) },
    starling: [process.execPath, ...heapFlags, join(packageRoot(), "dist/node/cli/main.js")],
    log: createLog({ level: "warn", pretty: output.interactive, colour: output.interactive }),
    tell: createTeller(output),
  });
  const cluster = await unlessAborted(starting, signal);
  if (cluster === null) return output.note("stopped before all nodes served");
  try {
    if (options.json === true) output.json(describe(cluster, dataDir));
    else printCluster(output, cluster, dataDir);
    const failure = await Promise.race([untilAborted(signal), cluster.failed]);
    if (failure !== null) throw failure;
    output.note("stopping: nodes, then etcd, then PostgreSQL; again Ctrl-C ends them at once");
  } finally {
    await cluster.close();
  }
  output.note(`stopped; the data stay in ${dataDir}`);
}

const colours: readonly Colour[] = ["cyan", "green", "yellow"];

/** Lines of the parts, each behind the part's name; etcd's only when they complain. */
function createTeller(output: Output): LocalClusterTeller {
  const print = output.interactive ? createLinePrinter(true) : (line: string) => line;
  const places = new Map<string, number>();
  return {
    line: (part, line) => {
      if (part === "etcd" && !/"level":"(error|fatal|panic)"/.test(line)) return;
      const place = places.get(part) ?? places.size;
      places.set(part, place);
      const name = output.interactive ? output.paint(colours[place % colours.length] ?? "cyan", part) : part;
      output.note(`${name} | ${print(line)}`);
    },
    started: (part, tookMs) => output.note(`${part} is ready after ${formatDuration(tookMs)}`),
    ended: (node, how, again) => {
      const next = again ? "it is started again" : `the others take its shards. Start it again: ${commandText(node)}`;
      output.note(output.paint("red", `${node.name} ended with ${how}; ${next}`));
    },
  };
}

/** As a shell takes it. */
function commandText({ command }: LocalNode): string {
  return command.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(" ");
}

function describe({ nodes, etcd, databaseUrl }: LocalCluster, dataDir: string): object {
  const shown = nodes.map(({ name, address, pid }) => ({ name, address, pid }));
  return { nodes: shown, etcd, databaseUrl, dataDir };
}

function printCluster(output: Output, { nodes, etcd, databaseUrl }: LocalCluster, dataDir: string): void {
  output.print();
  output.table(
    ["node", "address", "pid"],
    nodes.map(({ name, address, pid }) => [name, address, String(pid)]),
  );
  output.print(`etcd        ${etcd}`);
  output.print(`PostgreSQL  ${databaseUrl}`);
  output.print(`data        ${dataDir}`);
  output.print("\nWhat to try, in another terminal:");
  const [last] = nodes.slice(-1);
  output.print(`  ${output.paint("cyan", `export STARLING_ADDRESS=${nodes.map(({ address }) => address).join(",")}`)}`);
  for (const command of ["status --watch", `drain ${last?.name}`, `undrain ${last?.name}`, "why 0"]) {
    output.print(`  ${output.paint("cyan", `npm run --silent starling -- cluster ${command}`)}`);
  }
  output.print(`  ${output.paint("cyan", `kill -9 ${last?.pid}`)}`);
  output.print("\nserving until Ctrl-C");
}
