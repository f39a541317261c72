import { describe, expect, it } from "vitest";
import { applyDatapoint, clearEntity, createEntity, type Entity } from "../../../actors/lane/entity.ts";
import { restoreEntity, writeState } from "../../../actors/lane/entity-state.ts";
import { takeLarge } from "../../../actors/lane/large-rows.ts";
import { smallMaxChars, wholeState } from "../../../actors/store/large-value.ts";
import type { FlushRequest, Store, StoredEntity } from "../../../actors/store/store.ts";
import type { CheckedDatapoint } from "../../../modules/datapoint.ts";
import type { EntitySpec } from "../../../modules/model.ts";
import { shardId, toSeq } from "../../../proto/ids.ts";
import { StarlingError } from "../../../proto/starling-error.ts";
import { createMemoryStore, type MemoryStore } from "../../support/memory-store.ts";
import { type SimulatedNode, startSimulatedNode } from "../../support/simulated-node.ts";
import { fieldsOf } from "../../support/state-fields.ts";
import { testModel } from "../../support/test-model.ts";
import { entityOf } from "../store/samples.ts";

const text = { kind: "plain", type: "json" } as const;
const model = testModel({ thing: { a: text, b: text, flag: { kind: "plain", type: "int" } } });
const narrow = testModel({ thing: { flag: { kind: "plain", type: "int" } } });
const long = (seed: string) => JSON.stringify(seed.repeat(smallMaxChars));

function specOf(of = model): EntitySpec {
  const spec = of.entities.get("thing");
  if (spec === undefined) throw new Error("no such type");
  return spec;
}

function resident(stored: StoredEntity | null = null, of = model): Entity {
  const entity = createEntity(specOf(of), "e", "e");
  restoreEntity(entity, stored);
  return entity;
}

function datapoint(attr: string, json: string, of = model): CheckedDatapoint {
  const spec = specOf(of).attributes.get(attr);
  if (spec === undefined) throw new Error("no such attribute");
  const times = { t1: null, t2: null, c: 1, src: null, line: null };
  return { type: "thing", eid: "e", attr, spec, json, v: JSON.parse(json), ...times };
}

function apply(entity: Entity, attr: string, json: string): void {
  const of = entity.spec === specOf() ? model : narrow;
  applyDatapoint(entity, datapoint(attr, json, of), toSeq(1), 7);
}

const times = '"t1":7,"t2":7,"c":1,"n":1}';

describe("an entity's large values", () => {
  it("stand outside its state, from one character above the bound on", () => {
    const entity = resident();
    apply(entity, "flag", "3");
    apply(entity, "a", `"${"x".repeat(smallMaxChars - 2)}"`);
    expect(writeState(entity)).toBe(`{"a":{"v":"${"x".repeat(smallMaxChars - 2)}",${times},"flag":{"v":3,${times}}`);
    expect(takeLarge(entity)).toBeUndefined();
    expect(entity.large).toBeNull();
    const large = `"${"x".repeat(smallMaxChars - 1)}"`;
    apply(entity, "b", large);
    expect(writeState(entity)).toMatch(`{"#large":{"b":{${times}},"a":{"v":"xxx`);
    expect(takeLarge(entity)).toEqual([{ attr: "b", body: large }]);
    expect(takeLarge(entity)).toBeUndefined();
  });

  it("are written when they change, and only then; a repeated value is no change", () => {
    const entity = resident();
    apply(entity, "a", long("a"));
    apply(entity, "b", long("b"));
    expect(takeLarge(entity)?.map(({ attr }) => attr)).toEqual(["a", "b"]);
    apply(entity, "flag", "1");
    apply(entity, "a", long("a"));
    expect(takeLarge(entity)).toBeUndefined();
    apply(entity, "b", long("c"));
    expect(takeLarge(entity)).toEqual([{ attr: "b", body: long("c") }]);
    apply(entity, "b", "1");
    expect(takeLarge(entity)).toEqual([{ attr: "b", body: null }]);
    apply(entity, "b", "2");
    expect(takeLarge(entity)).toBeUndefined();
    clearEntity(entity);
    apply(entity, "a", long("a"));
    expect(takeLarge(entity)).toEqual([{ attr: "a", body: long("a") }]);
  });

  it("come back from rows, and are as they were", () => {
    const entity = resident();
    for (const [attr, json] of [
      ["a", long("a")],
      ["b", long("b")],
      ["flag", "5"],
    ] as const)
      apply(entity, attr, json);
    const [state, large] = [writeState(entity), takeLarge(entity)];
    const again = resident(entityOf("e", 1, { state, large }));
    expect(again.values).toEqual([long("a"), long("b"), "5"]);
    expect(writeState(again)).toBe(state);
    expect(takeLarge(again)).toBeUndefined();
    const whole = wholeState(state, large);
    expect(whole).toBe(`{"a":{"v":${long("a")},${times},"b":{"v":${long("b")},${times},"flag":{"v":5,${times}}`);
    expect(() => resident(entityOf("e", 1, { state }))).toThrow("missing: a");
  });

  it("move into rows of their own when the state still holds them", () => {
    const state = `{"a":{"v":${long("a")},${times}}`;
    const entity = resident(entityOf("e", 1, { state }));
    expect(takeLarge(entity)).toEqual([{ attr: "a", body: long("a") }]);
    expect(writeState(entity)).toBe(`{"#large":{"a":{${times}}}`);
  });

  it("are not imitated by a value that looks like the mark", () => {
    const json = '{"#large":{"a":{"t1":1,"t2":1,"c":1,"n":1}}}';
    const entity = resident();
    apply(entity, "a", json);
    const state = writeState(entity);
    expect(wholeState(state)).toBe(state);
    expect(resident(entityOf("e", 1, { state })).values[0]).toBe(json);
  });

  it("survive a model that does not know them", () => {
    const entity = resident();
    for (const [attr, json] of [
      ["a", long("a")],
      ["b", '"small"'],
      ["flag", "5"],
    ] as const)
      apply(entity, attr, json);
    const [state, large] = [writeState(entity), takeLarge(entity)];
    const meanwhile = resident(entityOf("e", 1, { state, large }), narrow);
    apply(meanwhile, "flag", "6");
    const next = writeState(meanwhile);
    expect(takeLarge(meanwhile)).toBeUndefined();
    expect(fieldsOf(wholeState(next, large))).toMatchObject({ a: { v: "a".repeat(smallMaxChars) }, flag: { v: 6 } });
    const back = resident(entityOf("e", 2, { state: next, large }));
    expect(back.values).toEqual([long("a"), '"small"', "6"]);
    expect(takeLarge(back)).toBeUndefined();
  });
});

describe("a flush", () => {
  const hooks = {
    onTaskStart: [],
    allowEntityCreation: new Map(),
    onEntityCreation: new Map(),
    onNewAttr: new Map(),
  };

  /** Every start has an id of its own. */
  let started = 0;

  /** A node whose flushes are seen, of which the first `failing` commit and are answered with an error. */
  async function startWorld(store: MemoryStore, { failing = 0, of = model } = {}) {
    const requests: FlushRequest[] = [];
    let left = failing;
    const flush: Store["flush"] = async (node, request) => {
      requests.push(request);
      const result = await store.flush(node, request);
      if (left-- > 0) throw new StarlingError("STORE", "the answer was lost");
      return result;
    };
    const node = await startSimulatedNode({
      ...{ store: { ...store, flush }, model: of, hooks, shards: 1, name: `node-${++started}` },
      runHook: () => ({ kind: "answer", tasks: [] }),
      dies: () => false,
    });
    await node.run();
    return { node, changed: () => requests.splice(0).flatMap(({ entities }) => entities.map(({ large }) => large)) };
  }

  async function send(node: SimulatedNode, number: number, datapoints: readonly CheckedDatapoint[]): Promise<void> {
    const task = {
      entity: specOf(node.lane.world.model),
      eid: "e",
      eidValue: "e",
      datapoints,
      ttlTokens: null,
      cause: null,
    };
    const part = {
      kind: "part" as const,
      ...{ position: 0, shard: shardId("entity", 0), channel: "c:s", number, predecessor: number - 1 },
      ...{ hash: `h${number}`, tasks: [{ ...task, delete: datapoints.length === 0 }], rejections: [], bytes: 100 },
    };
    node.offer([part], () => undefined);
    await node.run();
  }

  it("carries only large values that changed, also of an activation that was loaded", async () => {
    const store = createMemoryStore();
    const first = await startWorld(store);
    await send(first.node, 1, [datapoint("a", long("a")), datapoint("b", long("b"))]);
    expect(first.changed()).toEqual([
      [
        { attr: "a", body: long("a") },
        { attr: "b", body: long("b") },
      ],
    ]);
    await send(first.node, 2, [datapoint("flag", "1")]);
    await send(first.node, 3, [datapoint("b", long("c"))]);
    expect(first.changed()).toEqual([undefined, [{ attr: "b", body: long("c") }]]);
    first.node.kill();
    const second = await startWorld(store);
    await send(second.node, 4, [datapoint("flag", "2")]);
    await send(second.node, 5, [datapoint("a", "1")]);
    await send(second.node, 6, []);
    await send(second.node, 7, [datapoint("b", long("d"))]);
    expect(second.changed()).toEqual([
      undefined,
      [{ attr: "a", body: null }],
      undefined,
      [{ attr: "b", body: long("d") }],
    ]);
    const [record] = await store.list({ type: "thing", after: "", limit: 1 });
    expect(fieldsOf(record?.state ?? "{}")).toMatchObject({ b: { v: "d".repeat(smallMaxChars), n: 1 } });
  });

  it("leaves the rows of attributes alone that its model does not know, until the entity is deleted", async () => {
    const store = createMemoryStore();
    const listed = async () => (await store.list({ type: "thing", after: "", limit: 1 }))[0]?.state;
    const first = await startWorld(store);
    await send(first.node, 1, [datapoint("a", long("a")), datapoint("b", "1")]);
    const second = await startWorld(store, { of: narrow });
    await send(second.node, 2, [datapoint("flag", "2", narrow)]);
    expect(second.changed()).toEqual([undefined]);
    const wanted = { a: { v: "a".repeat(smallMaxChars), n: 1 }, b: { v: 1, n: 1 }, flag: { v: 2, n: 1 } };
    expect(fieldsOf((await listed()) ?? "{}")).toMatchObject(wanted);
    const third = await startWorld(store);
    await send(third.node, 3, [datapoint("flag", "3")]);
    expect(third.changed()).toEqual([undefined]);
    expect(fieldsOf((await listed()) ?? "{}")).toMatchObject({ ...wanted, flag: { v: 3, n: 2 } });
    const fourth = await startWorld(store, { of: narrow });
    await send(fourth.node, 4, []);
    await send(fourth.node, 5, [datapoint("flag", "4", narrow)]);
    expect(fieldsOf((await listed()) ?? "{}")).toMatchObject({ flag: { v: 4, n: 1 } });
    expect(await listed()).not.toContain('"a"');
    const { node } = await startWorld(store);
    await send(node, 6, [datapoint("b", "5")]);
    expect(Object.keys(fieldsOf((await listed()) ?? "{}"))).toEqual(["b", "flag"]);
  });

  it("carries them again when its answer was lost", async () => {
    const store = createMemoryStore();
    const { node, changed } = await startWorld(store, { failing: 2 });
    await send(node, 1, [datapoint("a", long("a"))]);
    expect(changed()).toEqual(Array(3).fill([{ attr: "a", body: long("a") }]));
    await send(node, 2, [datapoint("flag", "1")]);
    expect(changed()).toEqual([undefined]);
  });
});
