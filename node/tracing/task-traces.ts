import {
  type Attributes,
  type Context,
  isSpanContextValid,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  type Tracer,
  trace,
} from "@opentelemetry/api";
import type { HookCall } from "../../actors/hooks/hook-call.ts";
import type { HookOutcome } from "../../actors/hooks/hook-outcome.ts";
import type { OpenBatch } from "../../actors/sessions/session.ts";
import type { Traces } from "../../actors/traces.ts";
import type { CheckedTask } from "../../modules/datapoint.ts";
import type { Hook } from "../../modules/hook.ts";

/** Of a batch, and of what one run of a hook returns, so many tasks are followed: a trace is to be looked at. */
const followedMax = 8;

/** A task that is followed. */
interface Followed {
  readonly parent: Context;
  /** Unix ms. */
  readonly sinceMs: number;
  /** While it is processed. */
  span: Span | null;
}

/**
 * Traces by OpenTelemetry: `ingest` is a batch at the edge; below it, for each task, `append` ends when the task is in the log
 * and `process` when its last hook has ended; below that `hook …`, and below a hook what it derived. `wall`: Unix ms.
 */
export function createTaskTraces(tracer: Tracer, wall: () => number): Traces {
  const batches = new Map<OpenBatch, Span>();
  const tasks = new WeakMap<CheckedTask, Followed>();
  const follow = (parent: Context, some: Iterable<CheckedTask>): void => {
    let left = followedMax;
    for (const task of some) {
      if (left-- <= 0) return;
      tasks.set(task, { parent, sinceMs: wall(), span: null });
    }
  };
  return {
    batchOpened: (batch, parent) => {
      const context = parent === null ? ROOT_CONTEXT : readTraceparent(parent);
      const options = { kind: SpanKind.SERVER, startTime: wall(), attributes: attributesOfBatch(batch) };
      const span = tracer.startSpan("ingest", options, context);
      if (!span.isRecording()) return;
      batches.set(batch, span);
      follow(trace.setSpan(ROOT_CONTEXT, span), tasksOf(batch));
    },
    batchAcked: (batch, level) => void batches.get(batch)?.addEvent(level, wall()),
    batchClosed: (batch) => {
      batches.get(batch)?.end(wall());
      batches.delete(batch);
    },
    contextOf: (task) => {
      const followed = tasks.get(task);
      return followed === undefined ? null : writeTraceparent(followed.parent);
    },
    follow: (task, context) => follow(readTraceparent(context), [task]),
    carry: (from, to) => {
      const followed = tasks.get(from);
      if (followed !== undefined) tasks.set(to, followed);
    },
    takenUp: (task, place) => {
      const followed = tasks.get(task);
      if (followed === undefined) return;
      const { parent, sinceMs } = followed;
      const attributes = { ...attributesOfTask(task), "starling.shard": place.shard, "starling.seq": place.seq };
      tracer.startSpan("append", { startTime: sinceMs, attributes }, parent).end(wall());
      followed.span = tracer.startSpan("process", { startTime: wall(), attributes }, parent);
    },
    settled: (task) => {
      tasks.get(task)?.span?.end(wall());
      tasks.delete(task);
    },
    runHook: (hook, call, run) => {
      const followed = tasks.get(call.source);
      if (followed === undefined) return run(hook, call);
      const parent = followed.span === null ? followed.parent : trace.setSpan(ROOT_CONTEXT, followed.span);
      const options = { startTime: wall(), attributes: attributesOfHook(hook, call) };
      const span = tracer.startSpan(`hook ${hook.module}.${hook.name}`, options, parent);
      const end = (outcome: HookOutcome): HookOutcome => {
        if ("tasks" in outcome) follow(trace.setSpan(ROOT_CONTEXT, span), outcome.tasks);
        endHook(span, outcome, wall());
        return outcome;
      };
      const outcome = run(hook, call);
      return outcome instanceof Promise ? outcome.then(end) : end(outcome);
    },
  };
}

function* tasksOf({ columns }: OpenBatch): Generator<CheckedTask> {
  for (const part of columns.parts) yield* part?.tasks ?? [];
}

function endHook(span: Span, outcome: HookOutcome, at: number): void {
  const error = outcome.kind === "failed" ? outcome.error : outcome.kind === "decision" ? outcome.failed : undefined;
  if (error !== undefined) span.setStatus({ code: SpanStatusCode.ERROR, message: error.message });
  if (outcome.kind === "decision") span.setAttribute("starling.allowed", outcome.allowed);
  if ("tasks" in outcome) span.setAttribute("starling.derived_tasks", outcome.tasks.length);
  span.end(at);
}

function attributesOfBatch({ number, items, bytes, columns }: OpenBatch): Attributes {
  return {
    "starling.channel": columns.channel,
    "starling.batch": number,
    "starling.datapoints": items,
    "starling.bytes": bytes,
  };
}

function attributesOfTask({ entity, eid, datapoints }: CheckedTask): Attributes {
  return { "starling.type": entity.id, "starling.eid": eid, "starling.datapoints": datapoints.length };
}

function attributesOfHook({ kind, module, name }: Hook, call: HookCall): Attributes {
  return { "starling.kind": kind, "starling.module": module, "starling.hook": name, "starling.key": call.key };
}

const pattern = /^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-|$)/;

/** The span that a W3C traceparent names, of another process; what is none is ignored, as the standard wants it. */
function readTraceparent(text: string): Context {
  const [, traceId = "", spanId = "", flags = ""] = pattern.exec(text) ?? [];
  const context = { traceId, spanId, traceFlags: Number.parseInt(flags, 16) & 1, isRemote: true };
  return isSpanContextValid(context) ? trace.setSpanContext(ROOT_CONTEXT, context) : ROOT_CONTEXT;
}

function writeTraceparent(context: Context): string | null {
  const span = trace.getSpanContext(context);
  return span === undefined ? null : `00-${span.traceId}-${span.spanId}-0${span.traceFlags & 1}`;
}
