import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { SpanStatusCode } from "@opentelemetry/api";
import type { ReadableSpan, SpanExporter } from "@opentelemetry/sdk-trace-base";
import { StarlingError } from "../../proto/starling-error.ts";

/** What there is to say of one span, a line of JSON each. Times are Unix ms. */
export interface SpanLine {
  readonly traceId: string;
  readonly spanId: string;
  /** Null: the first of its trace. */
  readonly parentSpanId: string | null;
  readonly name: string;
  /** Name and id of the node. */
  readonly node: string;
  readonly nodeId: string;
  readonly start: number;
  readonly durationMs: number;
  readonly error?: string;
  readonly attributes: Readonly<Record<string, unknown>>;
  readonly events?: readonly { readonly name: string; readonly at: number }[];
}

type Done = Parameters<SpanExporter["export"]>[1];

/** Appends spans to a file. Raises CONFIG when it cannot be opened. One batch is written at a time, so that nothing piles up. */
export async function createFileExporter(path: string): Promise<SpanExporter> {
  const file = createWriteStream(path, { flags: "a" });
  await once(file, "open").catch((cause: unknown) => {
    throw new StarlingError("CONFIG", `traces cannot be written to ${path}: ${String(cause)}`, { cause });
  });
  // A write that fails says so to its own callback.
  file.on("error", () => {});
  return {
    export: (spans: ReadableSpan[], done: Done) => {
      const text = spans.map((span) => `${JSON.stringify(lineOf(span))}\n`).join("");
      file.write(text, (error) => done(error ? { code: 1, error } : { code: 0 }));
    },
    shutdown: () => new Promise((resolve) => file.end(() => resolve())),
  };
}

function lineOf(span: ReadableSpan): SpanLine {
  const { traceId, spanId } = span.spanContext();
  const { attributes: resource } = span.resource;
  const { status, events, attributes, name } = span;
  return {
    ...{ traceId, spanId, parentSpanId: span.parentSpanContext?.spanId ?? null, name },
    ...{ node: String(resource["starling.node"]), nodeId: String(resource["service.instance.id"]) },
    ...{ start: millisecondsOf(span.startTime), durationMs: millisecondsOf(span.duration) },
    ...(status.code === SpanStatusCode.ERROR && { error: status.message ?? "" }),
    attributes,
    ...(events.length > 0 && { events: events.map((event) => ({ name: event.name, at: millisecondsOf(event.time) })) }),
  };
}

/** Of seconds and nanoseconds, to the microsecond. */
function millisecondsOf([seconds, nanoseconds]: ReadableSpan["startTime"]): number {
  return seconds * 1000 + Math.round(nanoseconds / 1000) / 1000;
}
