import { expect, test } from "vitest";
import { applyTtl, createEntity, type Entity } from "../../../actors/lane/entity.ts";
import { longState, restoreEntity, writeState } from "../../../actors/lane/entity-state.ts";
import { toSeq, toShardId } from "../../../proto/ids.ts";
import { configModel } from "../../support/config-model.ts";
import { fieldsOf } from "../../support/state-fields.ts";

const texts = Array.from({ length: 400 }, (_, i) => `text${i}`);
const model = configModel({ thing: Object.fromEntries(texts.map((id) => [id, "plain string"])) });
const spec = model.entities.get("thing");
if (spec === undefined) throw new Error("no type thing");

/** An entity with these JSON texts, the first ones of its attributes. */
function entityWith(values: readonly string[]): Entity {
  const entity = createEntity(spec as NonNullable<typeof spec>, "t-1", "t-1");
  for (const [index, value] of values.entries()) {
    entity.values[index] = value;
    entity.numbers.splice(
      4 * index,
      4,
      1_700_000_000_123 + index,
      1_700_000_000_456,
      index % 2 === 0 ? 1 : 0.25,
      index,
    );
  }
  return entity;
}

function restored(state: string): Entity {
  const entity = entityWith([]);
  const stored = { shard: toShardId(0), type: "thing", eid: "t-1", created: toSeq(1), createdAt: 1, applied: toSeq(1) };
  restoreEntity(entity, { ...stored, state, tombstone: false });
  return entity;
}

test("a state is JSON, and reads back as it was: narrow, wide, and longer than a page", () => {
  const cases = {
    narrow: ['"a"', '"é"', "1"],
    wide: ['"漢字"', '"a"', '"🐦"'],
    long: texts.map((_, i) => JSON.stringify(`${i} ${"x".repeat(i)}`)),
    wideAndLong: texts.map((_, i) => JSON.stringify(i % 7 === 0 ? "Ω".repeat(i) : "y".repeat(300))),
  };
  for (const values of Object.values(cases)) {
    const entity = entityWith(values);
    const state = writeState(entity);
    const parsed = JSON.parse(state) as Record<string, object>;
    expect(Object.keys(parsed)).toEqual(texts.slice(0, values.length));
    expect(parsed[texts[1] ?? ""]).toEqual({
      v: JSON.parse(values[1] ?? ""),
      t1: 1_700_000_000_124,
      t2: 1_700_000_000_456,
      c: 0.25,
      n: 1,
    });
    const again = restored(state);
    expect(again.values.slice(0, values.length)).toEqual(values);
    expect(again.numbers).toEqual(entity.numbers);
    expect(writeState(again)).toBe(state);
  }
});

test("a short state reads back as it was, and leaves out what says nothing", () => {
  const values = ['"a"', '[1,"]"]', '{"x":"]}"}', "4", '"5"', "6"];
  const numbers: readonly (readonly [t1: number, t2: number, c: number, n: number])[] = [
    [1_700_000_000_123, 1_700_000_000_123, 1, 1],
    [1_700_000_000_123, 1_700_000_000_123, 1, 7],
    [1_700_000_000_123, 1_700_000_000_456, 1, 1],
    [1_700_000_000_123, 1_700_000_000_123, 0.25, 1],
    [-5.5, 1e15, 0.5, 0],
    [0, 0, 1, 1],
  ];
  const entity = entityWith(values);
  for (const [index, four] of numbers.entries()) entity.numbers.splice(4 * index, 4, ...four);
  applyTtl(entity, { base: 1_700_000_000_000 });
  const state = writeState(entity, "row", "short");
  expect(JSON.parse(state)).toEqual({
    text0: ["a", 1_700_000_000_123],
    text1: [[1, "]"], 1_700_000_000_123, 7],
    text2: [{ x: "]}" }, 1_700_000_000_123, 1, 1_700_000_000_456],
    text3: [4, 1_700_000_000_123, 1, 1_700_000_000_123, 0.25],
    text4: ["5", -5.5, 0, 1e15, 0.5],
    text5: [6, 0],
    "#ttl": { base: 1_700_000_000_000 },
  });
  const again = restored(state);
  expect(again.values.slice(0, values.length)).toEqual(values);
  expect(again.numbers).toEqual(entity.numbers);
  expect(writeState(again, "row", "short")).toBe(state);
  expect(longState(state)).toBe(writeState(again));
  expect(longState(writeState(again))).toBe(writeState(again));
  expect(fieldsOf(state)).toEqual(fieldsOf(writeState(again)));
});

test("members of both forms stand side by side, as do attributes that the model has no more", () => {
  const gone = '"gone":[[1,"]"],5,2],"older":{"v":"}","t1":1,"t2":1,"c":1,"n":1}';
  const entity = restored(`{"text0":["a",5],${gone},"text1":{"v":"b","t1":6,"t2":7,"c":1,"n":3}}`);
  expect(entity.values.slice(0, 2)).toEqual(['"a"', '"b"']);
  expect(entity.numbers.slice(0, 8)).toEqual([5, 5, 1, 1, 6, 7, 1, 3]);
  const state = writeState(entity, "row", "short");
  expect(state).toBe(`{"text0":["a",5],"text1":["b",6,3,7],${gone}}`);
  expect(JSON.parse(longState(state))).toEqual(fieldsOf(state));
  expect(longState("{}")).toBe("{}");
  const tokens = '"#ttl":{"v":5}}';
  expect(longState(`{"text0":["a",5],${tokens}`)).toBe(`{"text0":{"v":"a","t1":5,"t2":5,"c":1,"n":1},${tokens}`);
});

test("nothing, tokens alone, and attributes that the model has no more", () => {
  expect(writeState(entityWith([]))).toBe("{}");
  const tokens = entityWith([]);
  applyTtl(tokens, { base: 1_700_000_000_000 });
  expect(writeState(tokens)).toBe('{"#ttl":{"base":1700000000000}}');
  const gone = '{"gone":{"v":[1,"}"],"t1":1,"t2":1,"c":1,"n":1}}';
  expect(writeState(restored(gone))).toBe(gone);
  const state = `{"text0":{"v":"a","t1":1,"t2":2,"c":1,"n":1},${gone.slice(1, -1)},"#ttl":{"base":5}}`;
  expect(writeState(restored(state))).toBe(state);
});
