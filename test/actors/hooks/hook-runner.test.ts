import { describe, expect, it, vi } from "vitest";
import { createCounters } from "../../../actors/counters.ts";
import { HookCall } from "../../../actors/hooks/hook-call.ts";
import { createHookRunner, hookRunnerLimits } from "../../../actors/hooks/hook-runner.ts";
import type { Hook, HookContext, HookKind } from "../../../modules/hook.ts";
import { createRegistrar } from "../../../modules/registrar.ts";
import { shardId, toSeq } from "../../../proto/ids.ts";
import { createManualClock } from "../../support/manual-clock.ts";
import { testModel } from "../../support/test-model.ts";

const model = testModel({
  route: { delay: { kind: "observations", type: "int" }, note: { kind: "plain", type: "string" } },
});
const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
type AnyHook = (...args: never[]) => unknown;

function setUp(kind: HookKind, run: AnyHook, defaults = { concurrency: 2, timeoutMs: 1000, retries: 2 }) {
  const registrar = createRegistrar(model, defaults);
  const module = registrar.forModule("flights", log, () => ({}));
  const options = { name: "hook" };
  if (kind === "on_task_start") module.registerTaskHook(kind, run as never, options);
  if (kind === "allow_entity_creation") module.registerAllowEntityCreationHook(run as never, "route", options);
  if (kind === "on_entity_creation") module.registerOnEntityCreationHook(run as never, "route", options);
  if (kind === "on_new_attr") module.registerOnNewAttrHook(run as never, "route", "delay", options);
  const hooks = registrar.hookTable();
  const clock = createManualClock();
  const counters = createCounters();
  const limits = { ...hookRunnerLimits, tasksMax: 3, bytesMax: 1000 };
  const getRecord = vi.fn(async () => null);
  const runner = createHookRunner({
    hooks,
    model,
    limits,
    clock,
    random: () => 1,
    counters,
    log: () => log,
    getRecord,
  });
  const hook = [...hooks.onTaskStart, ...[...hooks.allowEntityCreation.values()].flat()]
    .concat([...hooks.onEntityCreation.values()].flat() as never[])
    .concat((hooks.onNewAttr.get("route")?.get("delay") ?? []) as never[])[0] as Hook;
  return { runner, hook, clock, counters, getRecord };
}

function callOf(seq = 5, shard = 0): HookCall {
  const entity = model.entities.get("route");
  const spec = entity?.attributes.get("delay");
  if (entity === undefined || spec === undefined) throw new Error("the model has no route.delay");
  const datapoint = {
    type: "route",
    eid: "A-B",
    attr: "delay",
    v: 7,
    t1: 1,
    t2: 2,
    c: 1,
    src: "x",
    spec,
    json: "7",
    line: null,
  };
  const task = {
    entity,
    eid: "A-B",
    eidValue: "A-B",
    datapoints: [datapoint],
    ttlTokens: null,
    delete: false,
    cause: null,
  };
  const at = { shard: shardId("entity", shard), seq: toSeq(seq), now: 1234 };
  return new HookCall(at, "the-hook", { task, datapoint, record: null });
}

const note = (v: unknown) => ({ type: "route", eid: "A-B", datapoints: [{ attr: "note", v }] });

/** Resolves with the promise's value, or "pending" when it has not settled after all microtasks. */
function peek(promise: unknown): Promise<unknown> {
  return Promise.race([promise, new Promise((resolve) => setImmediate(resolve, "pending"))]);
}

describe("synchronous hooks", () => {
  it("answer without a promise, with checked tasks", () => {
    const { runner, hook, counters } = setUp("on_new_attr", (eid: string, dp: { v: number }) => [
      note(`${eid} ${dp.v}`),
    ]);
    const outcome = runner.run(hook, callOf());
    expect(outcome).toMatchObject({
      kind: "answer",
      tasks: [{ eid: "A-B", datapoints: [{ attr: "note", v: "A-B 7" }] }],
    });
    expect(counters.read()).toMatchObject({
      "secondary_hooks/on_new_observation/flights.hook/(route,delay)/executions": 1,
      "secondary_hooks/on_new_observation/flights.hook/(route,delay)/created_tasks": 1,
    });
  });

  it("that answer nothing give no tasks", () => {
    for (const nothing of [null, undefined, []]) {
      const { runner, hook } = setUp("on_entity_creation", () => nothing);
      expect(runner.run(hook, callOf())).toEqual({ kind: "answer", tasks: [] });
    }
  });

  it("of a task get the task, and what they return is ignored", () => {
    const seen: unknown[] = [];
    const { runner, hook, counters } = setUp("on_task_start", (task: unknown) => [seen.push(task)]);
    expect(runner.run(hook, callOf())).toEqual({ kind: "answer", tasks: [] });
    expect(seen).toMatchObject([{ type: "route", eid: "A-B", datapoints: [{ attr: "delay" }], delete: false }]);
    expect(counters.read()).toMatchObject({ "secondary_hooks/on_task_start/flights.hook/()/executions": 1 });
  });

  it("that allow decide by a truthy answer, as in DP³", () => {
    for (const [answer, allowed] of [
      [true, true],
      [false, false],
      [undefined, false],
      [1, true],
    ]) {
      const { runner, hook, counters } = setUp("allow_entity_creation", () => answer);
      expect(runner.run(hook, callOf())).toEqual({ kind: "decision", allowed });
      const metric = `secondary_hooks/allow_entity_creation/flights.hook/(route)/decisions_${allowed ? "allowed" : "denied"}`;
      expect(counters.read()[metric]).toBe(1);
    }
  });

  it("see time, key, record and other records through their context", async () => {
    const { runner, hook, getRecord } = setUp("on_new_attr", (_eid: string, _dp: unknown, ctx: HookContext) => {
      const { get, signal } = ctx;
      expect([ctx.now, ctx.record, signal.aborted]).toEqual([1234, null, false]);
      expect(ctx.key).toBe(callOf().key);
      return get("route", "C-D").then(() => []);
    });
    expect(await runner.run(hook, callOf())).toEqual({ kind: "answer", tasks: [] });
    expect(getRecord).toHaveBeenCalledWith("route", "C-D");
  });

  it("that return nonsense fail at once, with the rule", () => {
    const cases: [unknown, string][] = [
      ["text", "returned a string: a hook returns an array of tasks, or nothing"],
      [{ type: "route" }, "returned an object"],
      [[note("ok"), note(5)], "task, number 1:"],
      [[{ ...note("x"), type: "rout" }], "rout"],
      [[note("1"), note("2"), note("3"), note("4")], "returned 4 tasks: at most 3 are allowed"],
      [[note("x".repeat(600)), note("x".repeat(600))], "returned more than 1000 bytes, at task 1"],
    ];
    for (const [answer, message] of cases) {
      const { runner, hook, counters } = setUp("on_new_attr", () => answer);
      const outcome = runner.run(hook, callOf());
      expect(outcome).toMatchObject({ kind: "failed", attempts: 1, error: { code: "HOOK_FAILED" } });
      expect((outcome as { error: Error }).error.message).toContain(message);
      expect(counters.read()["secondary_hooks/on_new_observation/flights.hook/(route,delay)/failures"]).toBe(1);
    }
  });

  it("that throw are tried again after a growing pause, then fail with hook and reason", async () => {
    const run = vi.fn(() => {
      throw new Error("boom");
    });
    const { runner, hook, clock, counters } = setUp("on_new_attr", run);
    const outcome = runner.run(hook, callOf());
    await clock.advance(49);
    expect(run).toHaveBeenCalledTimes(1);
    await clock.advance(1);
    expect(run).toHaveBeenCalledTimes(2);
    await clock.advance(99);
    expect(run).toHaveBeenCalledTimes(2);
    await clock.advance(1);
    expect(await peek(outcome)).toMatchObject({
      kind: "failed",
      attempts: 3,
      error: { message: "hook flights/on_new_attr/route.delay/hook failed after 3 attempts: boom" },
    });
    expect(counters.read()["secondary_hooks/on_new_observation/flights.hook/(route,delay)/failures"]).toBe(3);
    expect([runner.pending, clock.timers]).toEqual([0, 0]);
  });

  it("that throw without a try left fail without a promise", () => {
    const run = () => {
      throw Object.create(null);
    };
    const { runner, hook } = setUp("on_new_attr", run, { concurrency: 1, timeoutMs: 1, retries: 0 });
    expect(runner.run(hook, callOf())).toMatchObject({ kind: "failed", attempts: 1 });
  });

  it("that recover at a later attempt answer", async () => {
    let calls = 0;
    const { runner, hook, clock } = setUp("on_new_attr", () => {
      if (++calls === 1) throw new Error("once");
      return [note("late")];
    });
    const outcome = runner.run(hook, callOf());
    await clock.advance(50);
    expect(await peek(outcome)).toMatchObject({ kind: "answer", tasks: [{ eid: "A-B" }] });
  });
});

describe("asynchronous hooks", () => {
  it("run at most `concurrency` at once, the others in order", async () => {
    const release: (() => void)[] = [];
    const started: number[] = [];
    const { runner, hook } = setUp("on_new_attr", (_eid: string, _dp: unknown, ctx: HookContext) => {
      started.push(Number(ctx.key.split("-")[1]));
      return new Promise<void>((resolve) => release.push(resolve));
    });
    const outcomes = [1, 2, 3, 4].map((seq) => runner.run(hook, callOf(seq)));
    await peek(null);
    expect(started).toEqual([1, 2]);
    release[1]?.();
    expect(await outcomes[1]).toEqual({ kind: "answer", tasks: [] });
    await peek(null);
    expect([started, runner.pending]).toEqual([[1, 2, 3], 3]);
    release[0]?.();
    release[2]?.();
    await peek(outcomes[2]);
    await peek(null);
    release[3]?.();
    await Promise.all(outcomes);
    expect(started).toEqual([1, 2, 3, 4]);
    expect(runner.pending).toBe(0);
  });

  it("that hang are aborted at the time-out, tried again, and never heard again", async () => {
    const signals: AbortSignal[] = [];
    const answers: ((value: unknown) => void)[] = [];
    const run = (_eid: string, _dp: unknown, ctx: HookContext) => {
      signals.push(ctx.signal);
      return new Promise((resolve) => answers.push(resolve));
    };
    const { runner, hook, clock } = setUp("on_new_attr", run, { concurrency: 1, timeoutMs: 1000, retries: 1 });
    const outcome = runner.run(hook, callOf());
    await clock.advance(1000);
    expect(signals[0]?.aborted).toBe(true);
    answers[0]?.([note("too late")]);
    await clock.advance(50);
    expect([signals.length, signals[1]?.aborted]).toEqual([2, false]);
    await clock.advance(1000);
    const message =
      "hook flights/on_new_attr/route.delay/hook failed after 2 attempts: there was no answer within 1000 ms";
    expect(await peek(outcome)).toMatchObject({ kind: "failed", attempts: 2, error: { message } });
    expect([runner.pending, clock.timers]).toEqual([0, 0]);
  });

  it("leave their place while they pause, and when they hang", async () => {
    const started: number[] = [];
    const run = (_eid: string, _dp: unknown, ctx: HookContext) => {
      started.push(Number(ctx.key.split("-")[1]));
      return started.length === 2 ? Promise.resolve() : new Promise(() => {});
    };
    const { runner, hook, clock } = setUp("on_new_attr", run, { concurrency: 1, timeoutMs: 100, retries: 1 });
    const outcomes = [1, 2].map((seq) => runner.run(hook, callOf(seq)));
    await clock.advance(100);
    expect(started).toEqual([1, 2]);
    expect(await peek(outcomes[1])).toEqual({ kind: "answer", tasks: [] });
    await clock.advance(1000);
    expect(await peek(outcomes[0])).toMatchObject({ kind: "failed", attempts: 2 });
  });

  it("that allow count as allowed when they hang, and say why", async () => {
    const run = () => new Promise(() => {});
    const { runner, hook, clock } = setUp("allow_entity_creation", run, { concurrency: 1, timeoutMs: 100, retries: 0 });
    const outcome = runner.run(hook, callOf());
    await clock.advance(100);
    expect(await peek(outcome)).toMatchObject({ kind: "decision", allowed: true, failed: { code: "HOOK_FAILED" } });
  });

  it("of a shard that was given up are aborted and never answer; others go on", async () => {
    const signals: AbortSignal[] = [];
    const answers: (() => void)[] = [];
    const { runner, hook, clock } = setUp("on_new_attr", (_eid: string, _dp: unknown, ctx: HookContext) => {
      signals.push(ctx.signal);
      return new Promise<void>((resolve) => answers.push(resolve));
    });
    const outcomes = [runner.run(hook, callOf(1, 0)), runner.run(hook, callOf(2, 1)), runner.run(hook, callOf(3, 0))];
    await peek(null);
    runner.abandon(shardId("entity", 0));
    answers[0]?.();
    answers[1]?.();
    expect(await outcomes[1]).toEqual({ kind: "answer", tasks: [] });
    expect([await peek(outcomes[0]), await peek(outcomes[2])]).toEqual(["pending", "pending"]);
    expect(signals.map(({ aborted }) => aborted)).toEqual([true, false]);
    expect([runner.pending, clock.timers]).toEqual([0, 0]);
    const next = [runner.run(hook, callOf(4)), runner.run(hook, callOf(5))];
    for (const answer of answers) answer();
    await Promise.all(next);
  });

  it("end with the runner: it leaves no timer and starts nothing more", async () => {
    const run = vi.fn(() => new Promise(() => {}));
    const { runner, hook, clock } = setUp("on_new_attr", run);
    const outcomes = [1, 2, 3].map((seq) => runner.run(hook, callOf(seq)));
    runner.close();
    runner.close();
    outcomes.push(runner.run(hook, callOf(4)));
    for (const outcome of outcomes) expect(await peek(outcome)).toBe("pending");
    expect([run.mock.calls.length, runner.pending, clock.timers]).toEqual([2, 0, 0]);
  });
});
