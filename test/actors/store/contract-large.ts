import { expect, it } from "vitest";
import type { LargeValue } from "../../../actors/store/large-value.ts";
import type { Fence, Queries, Store, StoredEntity } from "../../../actors/store/store.ts";
import { toSeq } from "../../../proto/ids.ts";
import { entityOf, fencesOf, flushOf, nodeA, nodeB, progressOf, shard1, shard2 } from "./samples.ts";

const times = '"t1":5,"t2":5,"c":1,"n":1';

/** An entity with a large value for each name; `bodies` are those that the flush has to write. */
function largeOf(eid: string, applied: number, names: string, bodies: readonly LargeValue[]): StoredEntity {
  const marks = names.split(" ").map((attr) => `"${attr}":{${times}}`);
  const state = `{"#large":{${marks.join(",")}},"flag":{"v":${applied},${times}}}`;
  return entityOf(eid, applied, { state, large: bodies });
}

function wholeOf(applied: number, values: Readonly<Record<string, string>>): string {
  const attributes = Object.entries(values).map(([attr, body]) => `"${attr}":{"v":${body},${times}}`);
  return `{${attributes.join(",")},"flag":{"v":${applied},${times}}}`;
}

const long = (seed: string) => JSON.stringify(seed.repeat(2_000));

/** What every store holds of large values: they change with their entity, and only those that a flush names. */
export function describeLarge(current: () => Store & Queries): void {
  const own = async () => fencesOf(await current().acquire(nodeA, [shard1, shard2]));
  const flush = (fences: readonly Fence[], ...entities: StoredEntity[]) =>
    current().flush(nodeA, flushOf(fences, { entities }));
  const largeIn = async (eid: string) => (await current().load([entityOf(eid, 0)]))[0]?.large;
  const listed = async () => (await current().list({ type: "ip", after: "", limit: 9 })).map(({ state }) => state);

  it("keeps large values beside the record, and shows them in it in a list", async () => {
    const fences = await own();
    const bodies = ["a", "b"].map((attr) => ({ attr, body: long(attr) }));
    const small = entityOf("small", 1, { state: wholeOf(1, { a: '{"#large":{"a":{"t1":2}}}' }) });
    await flush(fences, largeOf("e", 1, "a b", bodies), small);
    expect(await current().load([small, entityOf("e", 0)])).toEqual([small, largeOf("e", 1, "a b", bodies)]);
    expect(await listed()).toEqual([wholeOf(1, { a: long("a"), b: long("b") }), small.state]);
    expect((await current().list({ type: "ip", after: "", limit: 9 })).every(({ large }) => large === undefined)).toBe(
      true,
    );
  });

  it("leaves what a flush does not name as it is", async () => {
    const fences = await own();
    await flush(
      fences,
      largeOf("e", 1, "a b", [
        { attr: "a", body: long("a") },
        { attr: "b", body: long("b") },
      ]),
    );
    await flush(fences, largeOf("e", 2, "a b", [{ attr: "b", body: long("new") }]));
    await flush(fences, largeOf("e", 3, "a b", []));
    expect(await listed()).toEqual([wholeOf(3, { a: long("a"), b: long("new") })]);
  });

  it("deletes a value that became small", async () => {
    const fences = await own();
    await flush(
      fences,
      largeOf("e", 1, "a b", [
        { attr: "a", body: long("a") },
        { attr: "b", body: long("b") },
      ]),
    );
    await flush(fences, largeOf("e", 2, "b", [{ attr: "a", body: null }]));
    expect(await largeIn("e")).toEqual([{ attr: "b", body: long("b") }]);
    await flush(fences, entityOf("e", 3, { large: [{ attr: "b", body: null }] }));
    expect(await largeIn("e")).toBeUndefined();
    await flush(fences, largeOf("e", 4, "b", [{ attr: "b", body: long("late") }]));
    expect(await listed()).toEqual([wholeOf(4, { b: long("late") })]);
  });

  it("goes with the entity, and begins anew with its next life", async () => {
    const fences = await own();
    const bodies = ["a", "b"].map((attr) => ({ attr, body: long(attr) }));
    await flush(fences, largeOf("e", 1, "a b", bodies), largeOf("other", 1, "a b", bodies));
    await flush(fences, entityOf("e", 2, { tombstone: true, state: "{}" }));
    await current().flush(nodeA, flushOf(fences, { progress: [progressOf(1)] }));
    expect(await largeIn("e")).toBeUndefined();
    await flush(fences, largeOf("e", 3, "b", [{ attr: "b", body: long("second") }]));
    expect(await largeIn("e")).toEqual([{ attr: "b", body: long("second") }]);
    expect(await largeIn("other")).toEqual(bodies);
  });

  it("is not put back by a repeat, nor by a late one", async () => {
    const fences = await own();
    const first = largeOf("e", 1, "a b", [
      { attr: "a", body: long("a") },
      { attr: "b", body: long("b") },
    ]);
    const second = largeOf("e", 2, "a", [
      { attr: "a", body: long("new") },
      { attr: "b", body: null },
    ]);
    for (const entity of [first, first, second, second, first]) await flush(fences, entity);
    expect(await largeIn("e")).toEqual([{ attr: "a", body: long("new") }]);
    expect(await listed()).toEqual([wholeOf(2, { a: long("new") })]);
    await flush(fences, entityOf("e", 3, { tombstone: true, state: "{}" }), entityOf("f", 1));
    await flush(fences, second);
    await flush(fences, largeOf("e", 4, "c", [{ attr: "c", body: long("c") }]), entityOf("e2", 4));
    expect(await largeIn("e")).toEqual([{ attr: "c", body: long("c") }]);
    await flush(fences, entityOf("e", 3, { tombstone: true, state: "{}" }));
    expect(await largeIn("e")).toEqual([{ attr: "c", body: long("c") }]);
  });

  it("writes nothing of a flush that has lost a shard, or is refused", async () => {
    const fences = await own();
    const bodies = [{ attr: "a", body: long("a") }];
    await flush(fences, largeOf("e", 1, "a", bodies));
    const refused = flush(fences, largeOf("e", 2, "a", [{ attr: "a", body: '"\0"' }]));
    await expect(refused).rejects.toMatchObject({ code: "STORE_REFUSED" });
    await current().acquire(nodeB, [shard2]);
    const change = largeOf("e", 2, "a", [{ attr: "a", body: long("lost") }]);
    expect((await flush(fences, change)).lost).toEqual([shard2]);
    expect(await current().load([entityOf("e", 0)])).toEqual([largeOf("e", 1, "a", bodies)]);
  });

  it("keeps odd characters, and texts of a mebibyte", async () => {
    const fences = await own();
    const odd = `"tab\\t \x1c\x1d\x1e\x1fe\x1df 'q' $1 {NULL} 😀 é ${"x".repeat(1_100)}"`;
    const eid = "e\x1e\x1f\x1dd";
    const bodies = [
      { attr: "a", body: odd },
      { attr: "b", body: `"${"é".repeat(1 << 20)}"` },
    ];
    await flush(fences, largeOf(eid, 1, "a b", bodies), largeOf("plain", 1, "a", [{ attr: "a", body: long("p") }]));
    expect(await largeIn(eid)).toEqual(bodies);
    expect(await largeIn("plain")).toEqual([{ attr: "a", body: long("p") }]);
    const [record] = await current().list({ type: "ip", after: "", limit: 1 });
    expect(record?.state).toBe(wholeOf(1, { a: odd, b: bodies[1]?.body ?? "" }));
    const both = largeOf("both", 1, "a", [{ attr: "a", body: odd }]);
    const entities = [{ ...both, state: both.state.replace(`{"v":1`, `{"v":"\x1e"`) }, entityOf("last", 1)];
    await flush(fences, ...entities);
    expect(await current().load(entities)).toEqual(entities);
  });

  it("takes many entities with and without large values in one flush", async () => {
    const fences = await own();
    const entities = Array.from({ length: 700 }, (_, i) => {
      const body = long(`${i} `);
      return i % 3 === 0 ? largeOf(`e${i}`, 1, "a", [{ attr: "a", body }]) : entityOf(`e${i}`, 1);
    });
    await flush(fences, ...entities);
    const found = new Map((await current().load(entities)).map((entity) => [entity.eid, entity]));
    for (const entity of entities) expect(found.get(entity.eid)).toEqual(entity);
    const changed = entities.filter(({ large }) => large !== undefined).map(({ eid }) => largeOf(eid, 2, "a", []));
    await flush(fences, ...changed, entityOf("last", toSeq(9)));
    for (const { eid, large } of await current().load(entities)) expect(large).toEqual(found.get(eid)?.large);
  });
}
