import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";
import { beforeEach, expect, test } from "vitest";
import { HookCall } from "../../../actors/hooks/hook-call.ts";
import type { HookOutcome } from "../../../actors/hooks/hook-outcome.ts";
import { type PartTask, taskFrom } from "../../../actors/lane/part.ts";
import type { Hook } from "../../../modules/hook.ts";
import { createTaskTraces } from "../../../node/tracing/task-traces.ts";
import { shardId, toSeq } from "../../../proto/ids.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { testModel } from "../../support/test-model.ts";

const thing = testModel({ thing: { name: { kind: "plain", type: "string" } } }).entities.get("thing");
const context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const hook = { id: "m.f", module: "m", name: "f", kind: "on_new_attr" } as Hook;
const place = { shard: shardId("entity", 1), seq: toSeq(7) };
const exporter = new InMemorySpanExporter();
const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
let now = 1_000;
const traces = createTaskTraces(provider.getTracer("test"), () => now++);

beforeEach(() => exporter.reset());

function task(eid = "a"): PartTask {
  if (thing === undefined) throw new Error("no such type");
  return { entity: thing, eid, eidValue: eid, datapoints: [], ttlTokens: null, delete: false, cause: null };
}

function run(of: PartTask, outcome: HookOutcome | Promise<HookOutcome>) {
  const call = new HookCall({ ...place, now: 1 }, hook.id, { task: of, datapoint: null, record: null });
  return traces.runHook(hook, call, () => outcome);
}

const ended = () => exporter.getFinishedSpans();

test("a task that nobody follows leaves no span, and no context", async () => {
  const one = task();
  traces.takenUp(one, place);
  await run(one, Promise.resolve({ kind: "answer", tasks: [task("b")] }));
  traces.settled(one);
  expect(traces.contextOf(one)).toBeNull();
  expect(ended()).toEqual([]);
});

test("what a hook derives is followed below it, also as the task that it becomes and on another node", () => {
  const [cause, derived] = [task(), task("b")];
  traces.follow(cause, context);
  traces.takenUp(cause, place);
  run(cause, { kind: "answer", tasks: [derived] });
  const sent = taskFrom(derived, null);
  traces.carry(derived, sent);
  const arrived = task("b");
  traces.follow(arrived, traces.contextOf(sent) ?? "");
  traces.takenUp(arrived, place);
  traces.settled(arrived);
  traces.settled(cause);
  const [append, hooked, appended, processed, first] = ended();
  expect(ended().map(({ name }) => name)).toEqual(["append", "hook m.f", "append", "process", "process"]);
  expect(new Set(ended().map((span) => span.spanContext().traceId))).toEqual(new Set([context.slice(3, 35)]));
  expect(append?.parentSpanContext?.spanId).toBe(context.slice(36, 52));
  expect(hooked?.parentSpanContext?.spanId).toBe(first?.spanContext().spanId);
  for (const span of [appended, processed]) expect(span?.parentSpanContext?.spanId).toBe(hooked?.spanContext().spanId);
});

test("of what one run returns a few are followed, and a failure stands in its span", async () => {
  const cause = task();
  traces.follow(cause, context);
  const derived = Array.from({ length: 100 }, (_, index) => task(`d${index}`));
  run(cause, { kind: "answer", tasks: derived });
  expect(derived.filter((one) => traces.contextOf(one) !== null)).toHaveLength(8);
  const error = new StarlingError("HOOK_FAILED", "it broke");
  await run(cause, Promise.resolve({ kind: "failed", error, attempts: 1 }));
  expect(ended()[1]?.status).toMatchObject({ code: 2, message: "it broke" });
});

test("a context that is none is ignored: a trace of its own begins", () => {
  for (const bad of ["", "00-0-0-01", `00-${"0".repeat(32)}-b7ad6b7169203331-01`, `${context}x`]) {
    exporter.reset();
    const one = task();
    traces.follow(one, bad);
    traces.takenUp(one, place);
    expect(ended()[0]?.parentSpanContext, bad).toBeUndefined();
  }
});
