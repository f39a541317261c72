import { DiagLogLevel, diag } from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { resourceFromAttributes } from "@opentelemetry/resources";
import {
  BasicTracerProvider,
  BatchSpanProcessor,
  ParentBasedSampler,
  type SpanExporter,
  TraceIdRatioBasedSampler,
} from "@opentelemetry/sdk-trace-base";
import type { Counters } from "../../actors/counters.ts";
import type { Clock } from "../../proto/clock.ts";
import { withDeadline } from "../../proto/deadline.ts";
import type { Log } from "../log.ts";
import type { Tracing } from "../open-tracing.ts";
import { createFileExporter } from "./file-exporter.ts";
import { createTaskTraces } from "./task-traces.ts";

export interface TracingOptions {
  /** `file:PATH` or `otlp:URL`. */
  readonly trace: string;
  /** The share of batches whose sender says nothing of a trace. */
  readonly ratio: number;
  readonly name: string;
  readonly node: string;
  readonly version: string;
  readonly counters: Counters;
  readonly clock: Clock;
  readonly log: Log;
}

/** Spans that wait to be exported, at most; the rest is dropped, which is logged. */
const queue = { maxQueueSize: 4096, maxExportBatchSize: 512, scheduledDelayMillis: 1_000, exportTimeoutMillis: 10_000 };
const closeWithinMs = 5_000;

/** Begins to trace. The packages of OpenTelemetry are loaded with this file, and with none that a node always loads. */
export async function startTracing(options: TracingOptions): Promise<Tracing> {
  const { trace, ratio, name, node, version, counters, clock, log } = options;
  const say = (message: string): void => log.warn({ problem: message }, "spans were lost");
  const ignore = (): void => {};
  const logger = { error: say, warn: say, info: ignore, debug: ignore, verbose: ignore };
  diag.setLogger(logger, { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true });
  const exporter = counted(await createExporter(trace), counters);
  const attributes = { "service.name": "starling", "service.version": version, "service.instance.id": node };
  const provider = new BasicTracerProvider({
    resource: resourceFromAttributes({ ...attributes, "starling.node": name }),
    sampler: new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(ratio) }),
    spanProcessors: [new BatchSpanProcessor(exporter, queue)],
  });
  return {
    traces: createTaskTraces(provider.getTracer("starling", version), () => performance.timeOrigin + clock.now()),
    close: async () => {
      const text = "the last spans were not exported";
      const ended = withDeadline(provider.shutdown(), { clock, deadlineMs: closeWithinMs, text });
      await ended.catch((error: unknown) => say(String(error)));
    },
  };
}

function createExporter(trace: string): Promise<SpanExporter> | SpanExporter {
  const target = trace.slice(trace.indexOf(":") + 1);
  return trace.startsWith("file:") ? createFileExporter(target) : new OTLPTraceExporter({ url: target });
}

/** Counts what was exported, and what was not. */
function counted(exporter: SpanExporter, counters: Counters): SpanExporter {
  return {
    export: (spans, done) =>
      exporter.export(spans, (result) => {
        counters.add(result.code === 0 ? "spans/exported" : "spans/failed", spans.length);
        done(result);
      }),
    shutdown: () => exporter.shutdown(),
  };
}
