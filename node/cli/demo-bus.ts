import { join } from "node:path";
import type { Client } from "../../proto/client.ts";
import type { RunStatus, SnapshotValues } from "../../proto/snapshots-client.ts";
import { StarlingError } from "../../proto/starling-error.ts";
import { createLog, logLevels } from "../log.ts";
import { createBatchSender } from "./batch-sender.ts";
import { toClientDatapoint } from "./client-datapoint.ts";
import { type CommandContext, withClient } from "./command-context.ts";
import { unlessAborted, untilAborted } from "./node-command.ts";
import { nodeEnvironment } from "./node-options.ts";
import { formatCount, formatTime, type Output } from "./output.ts";
import { packageRoot } from "./package-root.ts";
import { pauseUnlessAborted } from "./pause.ts";
import { formatDuration } from "./progress.ts";
import { createSendTally } from "./send-tally.ts";

export interface BusDemoOptions {
  readonly listen: string | undefined;
  readonly dataDir: string;
  readonly databaseUrl: string | undefined;
}

/** The bus example on one node: sends what the buses told until now, makes a snapshot of the city, and serves. */
export async function runBusDemo(context: CommandContext, options: BusDemoOptions): Promise<void> {
  // Loaded here, so that the other commands start without a node's packages.
  const { startNode } = await import("../node.ts");
  const { output, env, signal } = context;
  output.print(output.paint("bold", "Starling: the bus example on one node"));
  output.print(`starting a node, data in ${options.dataDir} …`);
  const logLevel = logLevels.find((level) => level === env.STARLING_LOG_LEVEL) ?? "warn";
  const log = createLog({ level: logLevel, pretty: output.interactive, colour: output.interactive });
  const configDir = join(packageRoot(), "examples", "bus", "config");
  const flags = { ...options, logLevel };
  const node = await unlessAborted(startNode({ configDir, flags, env: nodeEnvironment(env), log, signal }), signal);
  if (node === null) return;
  try {
    await withClient(context, { address: node.address, level: "processed" }, async (client) => {
      await feed(client, output);
      const run = await takeSnapshot(client, signal);
      if (run !== null) await show(client, output, { run, address: node.address });
    });
    const failure = await Promise.race([untilAborted(signal), node.failed]);
    if (failure !== null) throw failure;
    output.print("\nstopping …");
  } finally {
    await node.close();
  }
  output.print(`stopped; the data stay in ${options.dataDir}`);
}

async function feed(client: Client, output: Output): Promise<void> {
  const { busDatapoints } = await import("../demo/bus-data.ts");
  const tally = createSendTally();
  const sender = createBatchSender({ client, batchMaxItems: 500, tally });
  const started = performance.now();
  let line = 0;
  for (const loose of [...busDatapoints(Date.now())].flat()) {
    line += 1;
    await sender.add(toClientDatapoint(loose), { file: "bus", line });
  }
  await sender.finish();
  const { accepted, rejected } = tally.read();
  const took = formatDuration(performance.now() - started);
  output.print(`${formatCount(accepted)} datapoints of buses, lines and stops in ${took}, ${rejected} rejected`);
}

const lookEveryMs = 100;

/** The run as it ended; null: interrupted. */
async function takeSnapshot({ snapshots }: Client, signal: AbortSignal): Promise<RunStatus | null> {
  const tick = await snapshots.run({ full: true });
  while (!signal.aborted) {
    const [run] = await snapshots.runs({ before: tick + 1, limit: 1 });
    if (run?.status === "finished") return run;
    if (run?.status === "failed") throw new StarlingError("INTERNAL", `snapshot run ${tick} failed: ${run.error}`);
    await pauseUnlessAborted(signal, lookEveryMs);
  }
  return null;
}

async function show(
  { snapshots }: Client,
  output: Output,
  { run, address }: { readonly run: RunStatus; readonly address: string },
): Promise<void> {
  const heading = (text: string) => output.print(`\n${output.paint("bold", text)}`);
  const tell = async (type: string, attrs: readonly string[], sort: string, filter: object = {}) => {
    const found = await snapshots.list({ type, filter, sort: [sort] });
    output.table(
      [type, ...attrs],
      found.snapshots.map((one) => [one.eid, ...attrs.map((attr) => textOf(one, attr))]),
    );
  };
  heading(`The city at ${formatTime(run.at)}, snapshot ${run.tick}`);
  await tell("line", ["state", "buses_running", "passengers", "mean_speed"], "eid");
  heading("Its buses, by when they will be at their next stop");
  await tell("bus", ["line", "speed", "on_board", "near_stop", "near_stop_km", "arrival_min"], "arrival_min");
  heading("The boards at the stops where buses come");
  await tell("stop", ["name", "board"], "eid", { board: { $not: { $size: 0 } } });
  heading("What to try next");
  for (const command of [
    `snapshot list bus --filter '{"speed":{"$lt":10}}' --sort speed -a ${address}`,
    `snapshot distinct bus line -a ${address}`,
    `snapshot run --wait -a ${address}`,
    `snapshot history line 7 -a ${address}`,
    "hooks examples/bus/config",
  ]) {
    output.print(`  ${output.paint("cyan", `npm run --silent starling -- ${command}`)}`);
  }
  output.print("\nserving until Ctrl-C");
}

function textOf({ values }: SnapshotValues, attr: string): string {
  const value = values[attr];
  if (value === undefined || value === null) return "-";
  if (Array.isArray(value)) return value.length === 0 ? "-" : value.join(", ");
  return typeof value === "object" ? String((value as { eid?: unknown }).eid) : String(value);
}
