import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Argument, type Command } from "commander";
import type { Client } from "../../proto/client.ts";
import { createLog, logLevels } from "../log.ts";
import { defaultAddress } from "./address.ts";
import { type CommandContext, examples, withClient } from "./command-context.ts";
import type { FeedResult } from "./demo-feed.ts";
import { unlessAborted, untilAborted } from "./node-command.ts";
import { nodeEnvironment } from "./node-options.ts";
import { formatCount, formatTime, type Output } from "./output.ts";
import { packageRoot } from "./package-root.ts";
import { createProgress, formatDuration } from "./progress.ts";
import { printRecord } from "./record-text.ts";

interface DemoOptions {
  readonly listen?: string;
  readonly dataDir?: string;
  readonly databaseUrl?: string;
}

/** What is remembered of the first start; of another cluster than the present one it says nothing. */
interface FedMark extends FeedResult {
  readonly clusterId: string;
  /** Unix ms. */
  readonly fedAt: number;
}

const markName = "flights-fed.json";
const exampleRoute = "ATL-SEA";
const listWaitMs = 30_000;

/** `starling demo`: an example on one node: flights, fed once, or buses, fed with what they tell until now. */
export function addDemoCommand(program: Command, context: CommandContext): void {
  program
    .command("demo")
    .summary("run an example application: one node, fed with real flights or with the buses of a city")
    .description(
      "Runs an example on one node with an embedded PostgreSQL, feeds it through gRPC, tells what came of it, and serves " +
        "until Ctrl-C. `flights` is fed once, and a second start finds its data; `bus` makes snapshots of a city as it is now.",
    )
    .addArgument(new Argument("[example]", "which one").choices(["flights", "bus"]).default("flights"))
    .option("--listen <host:port>", `address of gRPC (default: $STARLING_LISTEN, or ${defaultAddress})`)
    .option("--data-dir <dir>", "where the data stay (default: .starling, or .starling/bus)")
    .option("--database-url <url>", "another PostgreSQL than the embedded one")
    .addHelpText("after", examples("demo", "demo bus", "demo --data-dir /tmp/flights --listen 127.0.0.1:4800"))
    .action(async (example: string, { listen, databaseUrl, dataDir }: DemoOptions) => {
      if (example === "flights")
        return await runDemo(context, { listen, databaseUrl, dataDir: dataDir ?? ".starling" });
      const { runBusDemo } = await import("./demo-bus.ts");
      return await runBusDemo(context, { listen, databaseUrl, dataDir: dataDir ?? ".starling/bus" });
    });
}

interface FlightsOptions {
  readonly listen: string | undefined;
  readonly dataDir: string;
  readonly databaseUrl: string | undefined;
}

async function runDemo(context: CommandContext, options: FlightsOptions): Promise<void> {
  // Loaded here, so that the other commands start without a node's packages.
  const { startNode } = await import("../node.ts");
  const { output, env, signal } = context;
  const example = join(packageRoot(), "examples", "flights");
  output.print(output.paint("bold", "Starling: the flights example on one node"));
  output.print(`starting a node, data in ${options.dataDir} …`);
  const logLevel = logLevels.find((level) => level === env.STARLING_LOG_LEVEL) ?? "warn";
  const log = createLog({ level: logLevel, pretty: output.interactive, colour: output.interactive });
  const flags = { listen: options.listen, dataDir: options.dataDir, databaseUrl: options.databaseUrl, logLevel };
  const started = startNode({ configDir: join(example, "config"), flags, env: nodeEnvironment(env), log, signal });
  const node = await unlessAborted(started, signal);
  if (node === null) return output.print("stopped before it served");
  try {
    await withDemoClient(context, node.address, async (client) => {
      const { settings } = node.config;
      const storedIn = settings.databaseUrl === null ? join(settings.dataDir, "postgres") : "your database";
      const mark = await feedOnce(context, client, options.dataDir, join(example, "data"));
      if (mark !== null && !signal.aborted)
        await printSummary(context, client, { mark, address: node.address, http: node.httpAddress, storedIn });
    });
    const failure = await Promise.race([untilAborted(signal), node.failed]);
    if (failure !== null) throw failure;
    output.print("\nstopping …");
  } finally {
    await node.close();
  }
  output.print(`stopped; the data stay in ${options.dataDir}`);
}

function withDemoClient(
  context: CommandContext,
  address: string,
  run: (client: Client) => Promise<void>,
): Promise<void> {
  return withClient(context, { address, session: { name: "flights-example" }, level: "processed" }, run);
}

/** Feeds the example unless the mark of an earlier start says that this very cluster has it. */
async function feedOnce(
  context: CommandContext,
  client: Client,
  dataDir: string,
  source: string,
): Promise<FedMark | null> {
  const { output } = context;
  const { clusterId } = await client.admin.status();
  const path = join(dataDir, markName);
  const earlier = await readMark(path);
  if (earlier !== null && earlier.clusterId === clusterId) {
    output.print(`found the data of an earlier start: fed on ${formatTime(earlier.fedAt)}, nothing is sent again`);
    return earlier;
  }
  const { feedFlights } = await import("./demo-feed.ts");
  output.print("sending airports and flights through gRPC …");
  const result = await feedFlights(client, source, { progress: createProgress(output), signal: context.signal });
  if (result === null) return null;
  const mark = { clusterId, fedAt: Date.now(), ...result };
  await mkdir(dataDir, { recursive: true });
  await writeFile(path, JSON.stringify(mark));
  return mark;
}

async function readMark(path: string): Promise<FedMark | null> {
  try {
    return JSON.parse(await readFile(path, "utf8")) as FedMark;
  } catch {
    // No mark, or half of one: feeding again in the named session is harmless.
    return null;
  }
}

interface Summary {
  readonly mark: FedMark;
  readonly address: string;
  readonly http: string | null;
  readonly storedIn: string;
}

async function printSummary(context: CommandContext, client: Client, summary: Summary): Promise<void> {
  const { output } = context;
  const { mark, address, http, storedIn } = summary;
  const heading = (text: string) => output.print(`\n${output.paint("bold", text)}`);
  heading("What went in");
  printFeed(output, mark);
  heading("What is there now");
  const counts = await countAfter(client, mark.fedAt);
  output.table(
    ["type", "entities"],
    Object.entries(counts).map(([type, count]) => [type, formatCount(count)]),
  );
  heading("One of them");
  printRecord(output, await client.entities.get({ type: "route", eid: exampleRoute }));
  heading("What serves where");
  output.print(`gRPC        ${output.paint("cyan", address)}  Ingest, Entities, Admin, health, reflection`);
  if (http !== null) output.print(`HTTP        ${output.paint("cyan", http)}  /metrics, /healthz, /readyz`);
  output.print(`PostgreSQL  ${storedIn}  the log, the records, dead letters`);
  heading("What to try next");
  const at = address === defaultAddress ? "" : ` -a ${address}`;
  for (const command of [
    `entity get airport SEA${at}`,
    `raw route ${exampleRoute} --attr delay --limit 5${at}`,
    `modules${at}`,
  ]) {
    output.print(`  ${output.paint("cyan", `npm run --silent starling -- ${command}`)}`);
  }
  output.print(`\nserving until Ctrl-C`);
}

function printFeed(output: Output, mark: FedMark): void {
  const { sent, accepted, rejected, codes, elapsedMs, refusedRoutes, refusedDatapoints } = mark;
  const perSecond = formatCount((sent * 1000) / Math.max(1, elapsedMs));
  const rate = `${perSecond}/s from the first sent to the last processed, hooks included`;
  output.print(`${formatCount(sent)} datapoints in ${formatDuration(elapsedMs)}: ${rate}`);
  output.print(`${formatCount(accepted)} accepted and durable, ${formatCount(rejected)} rejected`);
  for (const [
    code,
    {
      count,
      examples: [first],
    },
  ] of Object.entries(codes)) {
    output.print(`  ${code}: ${formatCount(count)}, such as: ${first?.message ?? ""}`);
  }
  if (refusedRoutes.length === 0) return;
  output.print(
    `${refusedRoutes.length} routes with ${refusedDatapoints} datapoints refused by the module flights: ` +
      `unknown airports, such as ${refusedRoutes[0]}`,
  );
}

/** Counts as of a time after `since`; older ones after a bounded wait. */
async function countAfter(client: Client, since: number): Promise<Readonly<Record<string, number>>> {
  const deadline = performance.now() + listWaitMs;
  for (;;) {
    const { counts, asOf } = await client.entities.count();
    if (asOf >= since || performance.now() > deadline) return counts;
    await delay(100);
  }
}
