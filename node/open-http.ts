import type { Counters } from "../actors/counters.ts";
import type { Clock } from "../proto/clock.ts";
import { StarlingError } from "../proto/starling-error.ts";
import type { TlsFiles } from "../proto/tls-files.ts";
import type { Settings } from "./config/settings.ts";
import { type HttpServer, type HttpServerOptions, startHttpServer } from "./http/http-server.ts";
import { createReadiness, type NodePhase, type ReadyParts } from "./http/readiness.ts";
import type { Log } from "./log.ts";
import { watchLoopDelay } from "./loop-delay.ts";
import { exposeMetrics, metricsMediaType } from "./metrics/exposition.ts";
import { createLetterCount } from "./metrics/letter-count.ts";
import type { MetricWorld, NodeParts, ProcessUsage } from "./metrics/metric.ts";
import { metricTable } from "./metrics/metric-table.ts";
import { version } from "./version.ts";

/** What a node tells of itself over HTTP, from before it serves until after it has left. */
export interface HttpFace {
  /** `host:port`; null: it is turned off. */
  readonly address: string | null;
  /** The node serves from now on. */
  serve(parts: NodeParts & ReadyParts): void;
  /** The node is no longer ready from now on. */
  leave(): void;
  close(): Promise<void>;
}

export interface HttpFaceOptions {
  readonly settings: Settings;
  readonly counters: Counters;
  /** The node's certificates; null: it has none. */
  readonly tls: TlsFiles | null;
  readonly clock: Clock;
  readonly log: Log;
}

/** Raises ADDRESS_IN_USE and CONFIG where the address was chosen by a person. */
export async function openHttp({ settings, counters, tls, clock, log }: HttpFaceOptions): Promise<HttpFace> {
  const delay = watchLoopDelay(clock, settings.httpListen !== "none");
  let serving: (NodeParts & ReadyParts) | null = null;
  let phase: NodePhase = { kind: "starting" };
  const letters = createLetterCount(clock);
  const openLetters: MetricWorld["openLetters"] = ({ queries }) => letters.read(queries);
  const world = { counters, settings, loopDelay: delay.seconds, usage: readUsage, version, openLetters };
  const findProblem = createReadiness(() => phase, clock);
  const pages = {
    "/metrics": async () => ({
      status: 200,
      mediaType: metricsMediaType,
      body: await exposeMetrics(metricTable, { ...world, node: serving }),
    }),
    // A loop that is stuck answers nothing: that it answers is all there is to say.
    "/healthz": () => ({ status: 200, body: "alive\n" }),
    "/readyz": async () => {
      const problem = await findProblem();
      return problem === null ? { status: 200, body: "ready\n" } : { status: 503, body: `not ready: ${problem}\n` };
    },
  };
  const server = await listen(settings, { pages, tls: settings.httpTls ? tls : null, log }).catch((error: unknown) => {
    delay.close();
    throw error;
  });
  return {
    address: server?.address ?? null,
    serve: (parts) => {
      serving = parts;
      phase = { kind: "serving", parts };
    },
    leave: () => {
      phase = { kind: "leaving" };
    },
    close: async () => {
      delay.close();
      await server?.close();
    },
  };
}

async function listen(
  { listen, httpListen }: Settings,
  options: Pick<HttpServerOptions, "pages" | "tls"> & { readonly log: Log },
): Promise<HttpServer | null> {
  if (httpListen === "none") return null;
  if (httpListen !== "auto") return await startHttpServer({ ...splitAddress(httpListen), ...options });
  try {
    return await startHttpServer({ host: "127.0.0.1", port: planHttpPort(splitAddress(listen).port), ...options });
  } catch (error) {
    // Nobody chose this port: a node is worth more than its metrics.
    if (!(error instanceof StarlingError)) throw error;
    options.log.warn({ problem: error.message }, "metrics and health are not served over HTTP");
    return null;
  }
}

/** The port of HTTP where only gRPC's was chosen: a free one beside a free one. */
export function planHttpPort(grpcPort: number): number {
  return grpcPort === 0 || grpcPort + 80 > 65_535 ? 0 : grpcPort + 80;
}

function splitAddress(address: string): { readonly host: string; readonly port: number } {
  const colon = address.lastIndexOf(":");
  return { host: address.slice(0, colon), port: Number(address.slice(colon + 1)) };
}

function readUsage(): ProcessUsage {
  const { user, system } = process.cpuUsage();
  const { rss, heapUsed, heapTotal, external } = process.memoryUsage();
  const startedAt = performance.timeOrigin / 1000;
  const heap = { heapUsedBytes: heapUsed, heapTotalBytes: heapTotal, externalBytes: external };
  return { cpuSeconds: (user + system) / 1e6, rssBytes: rss, ...heap, startedAt };
}
