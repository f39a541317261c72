import type { Counters } from "../actors/counters.ts";
import type { Traces } from "../actors/traces.ts";
import type { Clock } from "../proto/clock.ts";
import type { Settings } from "./config/settings.ts";
import type { Log } from "./log.ts";
import { version } from "./version.ts";

/** What follows tasks, and its end, which exports the last of it. */
export interface Tracing {
  readonly traces: Traces | undefined;
  close(): Promise<void>;
}

export interface OpenTracingOptions {
  readonly settings: Settings;
  readonly node: string;
  readonly counters: Counters;
  readonly clock: Clock;
  readonly log: Log;
}

/** Traces if the settings say so; else nothing of it is loaded. Raises CONFIG when the file cannot be opened. */
export async function openTracing({ settings, ...parts }: OpenTracingOptions): Promise<Tracing> {
  const { trace, traceRatio: ratio, name } = settings;
  if (trace === "none") return { traces: undefined, close: async () => {} };
  const { startTracing } = await import("./tracing/start-tracing.ts");
  return await startTracing({ ...parts, trace, ratio, name: name ?? parts.node, version });
}
