import { describe, expect, it, vi } from "vitest";
import { createRefreshFlag } from "../../modules/base-module.ts";
import type { HookOptions } from "../../modules/hook.ts";
import { createRegistrar } from "../../modules/registrar.ts";
import { testModel } from "../support/test-model.ts";

const model = testModel({
  route: { delay: { kind: "observations", type: "int" }, note: { kind: "plain", type: "string" } },
  airport: { name: { kind: "plain", type: "string" } },
});
const defaults = { concurrency: 8, timeoutMs: 1000, retries: 2 };
const log = { debug: vi.fn(), info: vi.fn(), warn: vi.fn(), error: vi.fn() };

function setUp(owner: object = {}) {
  const registrar = createRegistrar(model, defaults);
  return { registrar, flights: registrar.forModule("flights", log, () => owner) };
}

function onDelay() {
  return null;
}

describe("registrar", () => {
  it("collects hooks in registration order, by kind, type and attribute, under durable identities", () => {
    const { registrar, flights } = setUp();
    const other = registrar.forModule("other", log, () => ({}));
    flights.registerTaskHook("on_task_start", function count() {});
    flights.registerAllowEntityCreationHook(() => true, "route", { name: "allow" });
    flights.registerOnEntityCreationHook(() => null, "route", { name: "create" });
    flights.registerOnNewAttrHook(onDelay, "route", "delay");
    other.registerOnNewAttrHook(onDelay.bind(null), "route", "delay", { retries: 0, timeoutMs: 5 });
    const table = registrar.hookTable();
    expect(table.onTaskStart.map(({ id }) => id)).toEqual(["flights/on_task_start/*/count"]);
    expect(table.allowEntityCreation.get("route")?.[0]?.id).toBe("flights/allow_entity_creation/route/allow");
    expect(table.onEntityCreation.get("route")?.[0]?.id).toBe("flights/on_entity_creation/route/create");
    const [first, second] = table.onNewAttr.get("route")?.get("delay") ?? [];
    expect(first).toMatchObject({ id: "flights/on_new_attr/route.delay/onDelay", ...defaults });
    expect(second).toMatchObject({
      id: "other/on_new_attr/route.delay/onDelay",
      concurrency: 8,
      retries: 0,
      timeoutMs: 5,
    });
  });

  it("runs hooks with their module as `this`", () => {
    const owner = { answer: 42 };
    const { registrar, flights } = setUp(owner);
    flights.registerTaskHook(
      "on_task_start",
      function (this: unknown) {
        return this;
      },
      { name: "self" },
    );
    const [hook] = registrar.hookTable().onTaskStart;
    expect(hook && Reflect.apply(hook.run, undefined, [])).toBe(owner);
  });

  it("names module, place and remedy for unknown types, attributes and points", () => {
    const { flights } = setUp();
    expect(() => flights.registerOnEntityCreationHook(() => null, "rout")).toThrow(
      "module flights: registerOnEntityCreationHook: entity type 'rout' is not in the model: did you mean 'route'?",
    );
    expect(() => flights.registerOnNewAttrHook(onDelay, "route", "delays")).toThrow(
      "entity type 'route' has no attribute 'delays': did you mean 'delay'?",
    );
    expect(() => flights.registerOnNewAttrHook(onDelay, "route", "altitude")).toThrow("; there is delay, note");
    expect(() => flights.registerTaskHook("on_task_stat" as never, () => null)).toThrow(
      "did you mean 'on_task_start'?",
    );
    expect(() => flights.registerTaskHook("on_task_start", undefined as never)).toThrow("is undefined, not a function");
  });

  it("refuses the same function twice at one place, and the same identity twice", () => {
    const { flights } = setUp();
    flights.registerOnNewAttrHook(onDelay, "route", "delay");
    expect(() => flights.registerOnNewAttrHook(onDelay, "route", "delay", { name: "again" })).toThrow(
      "the same function is registered here already, as flights/on_new_attr/route.delay/onDelay",
    );
    expect(() => flights.registerOnNewAttrHook(onDelay.bind(null), "route", "delay")).toThrow("by the option 'name'");
    flights.registerOnNewAttrHook(onDelay, "route", "note");
  });

  it("refuses hooks without a name, and options out of bounds", () => {
    const { flights } = setUp();
    const register = (options: HookOptions) => flights.registerOnEntityCreationHook(() => null, "route", options);
    expect(() => register({})).toThrow("pass one as the option 'name'");
    expect(() => register({ name: "a/b" })).toThrow("holds '/'");
    expect(() => register({ name: "x", retries: -1 })).toThrow(
      "option 'retries' is -1: give a whole number from 0 to 100",
    );
    expect(() => register({ name: "x", timeoutMs: 1.5 })).toThrow("option 'timeoutMs' is 1.5");
  });

  it("keeps refresh flags with the attributes they may change, and checks those", () => {
    const { registrar, flights } = setUp();
    const refresh = createRefreshFlag();
    const register = (mayChange?: string[][]) =>
      flights.registerOnEntityCreationHook(() => null, "route", {
        name: "create",
        refresh,
        ...(mayChange && { mayChange }),
      });
    expect(() => register()).toThrow("'refresh' needs 'mayChange'");
    expect(() => register([["nothing"]])).toThrow("has no attribute 'nothing'");
    expect(() => register([["delay", "name"]])).toThrow("goes on after 'delay' of 'route', which is no link");
    register([["note"]]);
    const [hook] = registrar.hookTable().onEntityCreation.get("route") ?? [];
    expect(hook?.refresh).toEqual({ flag: refresh, mayChange: [["note"]] });
  });

  it("refuses hooks once the table was taken", () => {
    const { registrar, flights } = setUp();
    registrar.hookTable();
    expect(() => flights.registerOnNewAttrHook(onDelay, "route", "delay")).toThrow("in the module's constructor");
  });

  it("keeps scheduled callbacks; those of the cluster have an actor each", () => {
    const { registrar, flights } = setUp();
    flights.schedulerRegister(function tidy() {}, { minute: "*/10" });
    flights.schedulerRegister(() => {}, "0 3 * * *", { name: "nightly", where: "cluster", catchUp: "once" });
    expect(registrar.scheduled).toMatchObject([
      { module: "flights", name: "tidy", cron: { minute: "*/10" }, where: "node" },
      { module: "flights", name: "nightly", cron: "0 3 * * *", where: "cluster", catchUp: "once" },
    ]);
    expect(registrar.behaviours.map(({ type }) => type)).toEqual(["@@schedule/flights/nightly"]);
    expect(() => flights.schedulerRegister(() => {}, {}, { name: "tidy" })).toThrow("is scheduled already");
    expect(() => flights.schedulerRegister(() => {}, {}, { name: "x", catchUp: "all" })).toThrow("needs where");
  });

  it("collects behaviours under names that are one module's, with a durable identity each", () => {
    const { registrar, flights } = setUp();
    flights.behaviour("counter", { receive: () => null });
    flights.behaviour("board", { singleton: true, receive: () => null, timeoutMs: 5 });
    const other = registrar.forModule("other", log, () => ({}));
    expect(() => other.behaviour("counter", { receive: () => null })).toThrow("module flights has a behaviour");
    expect(() => other.behaviour("a/b", { receive: () => null })).toThrow("is not letters");
    expect(() => other.behaviour("c", { receive: 1 as never })).toThrow("'receive' of 'c' is not a function");
    const { onMessage } = registrar.hookTable();
    expect(onMessage?.get("@counter")).toMatchObject([{ id: "flights/on_message/@counter/receive", ...defaults }]);
    expect(onMessage?.get("@@board")).toMatchObject([{ timeoutMs: 5, retries: 2 }]);
  });
});
